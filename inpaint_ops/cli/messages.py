"""Messages on standard error: expected failures, notes about weights, the bar of progress."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from inpaint_ops.program import reason

if TYPE_CHECKING:
    from inpaint_ops.cli.fillers import Progress


@contextmanager
def failures() -> Iterator[None]:
    """Show expected failures as one line, exit code 1; anything else keeps its traceback."""
    try:
        yield
    except (OSError, ValueError, ImportError, MemoryError, RuntimeError) as exc:
        raise click.ClickException(reason(exc)) from exc


@contextmanager
def weights_notes() -> Iterator[None]:
    """Print what was assumed about weights as notes; other warnings are shown as usual."""
    from inpaint_ops.checkpoints import WeightsNote

    with warnings.catch_warnings():
        warnings.simplefilter("always", WeightsNote)
        usual = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *where: Any) -> None:
            if issubclass(category, WeightsNote):
                click.echo(f"note: {message}", err=True)
            else:
                usual(message, category, *where)

        warnings.showwarning = show  # type: ignore[assignment]
        yield


@contextmanager
def progress_bar(name: str) -> Iterator[Progress]:
    """Yield a function of the done fraction that moves a bar; None where nobody would see it."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import Progress as Bar

    with Bar(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(escape(name), total=1.0)
        yield lambda fraction: bar.update(task, completed=fraction)
