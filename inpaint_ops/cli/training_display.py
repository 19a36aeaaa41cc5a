"""What ``train`` shows: a bar with losses on a terminal, else a line now and then."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from inpaint_ops.training import Progress

Display = tuple["Callable[[Progress], None]", Callable[[str], None]]


@contextmanager
def display(every: int) -> Iterator[Display]:
    """Yield what shows a step, and what shows a message.

    Args:
        every: steps between lines, where standard error is no terminal.
    """
    if sys.stderr is None or not sys.stderr.isatty():

        def line(progress: Progress) -> None:
            if progress.step % every == 0 or progress.step == progress.steps:
                click.echo(_text(progress), err=True)

        yield line, lambda text: click.echo(text, err=True)
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar
    from rich.table import Column

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        # In as many lines as the terminal needs for every loss.
        TextColumn("{task.fields[losses]}", table_column=Column(ratio=1, overflow="fold")),
    )
    with Bar(*columns, console=Console(stderr=True), expand=True) as bar:
        task = bar.add_task("", total=None, losses="")

        def move(progress: Progress) -> None:
            bar.update(
                task,
                description=escape(progress.phase),
                total=progress.steps,
                completed=progress.step,
                losses=escape(_figures(progress)),
            )

        def message(text: str) -> None:
            bar.console.print(text, markup=False, highlight=False, soft_wrap=True)

        yield move, message


def _text(progress: Progress) -> str:
    where = f"step {progress.step} of {progress.steps}, {progress.phase}"
    return f"{where}: {_figures(progress)}"


def _figures(progress: Progress) -> str:
    figures = [f"{name} {value:.4g}" for name, value in progress.losses.items()]
    figures.append(f"{progress.rate:.3g} pictures/s")
    if progress.skipped:
        figures.append(f"{progress.skipped} files skipped")
    return ", ".join(figures)
