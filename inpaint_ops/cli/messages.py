"""Messages on standard error: expected failures, notes about weights."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from inpaint_ops.program import reason


@contextmanager
def failures() -> Iterator[None]:
    """Show expected failures as one line, exit code 1; anything else keeps its traceback."""
    try:
        yield
    except (OSError, ValueError, ImportError, MemoryError, RuntimeError) as exc:
        raise click.ClickException(reason(exc)) from exc


def _print(note: str) -> None:
    click.echo(f"note: {note}", err=True)


@contextmanager
def notes(tell: Callable[[str], object] = _print) -> Iterator[None]:
    """Print what is noted about weights and holes, or tell it; other warnings are as usual."""
    from inpaint_ops.checks import Note

    with warnings.catch_warnings():
        warnings.simplefilter("always", Note)
        usual = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *where: Any) -> None:
            if issubclass(category, Note):
                tell(str(message))
            else:
                usual(message, category, *where)

        warnings.showwarning = show  # type: ignore[assignment]
        yield
