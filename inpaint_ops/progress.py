"""How far long work is: a function of the done fraction, or a bar on standard error.

Who begins work opens `following`. What it calls says how far it is by `tell`, in terms of its own
part of the whole, which its caller opens by `Part`. So nothing is handed from call to call, and
work that nobody follows only looks a variable up. Standard library only.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, Token
from types import TracebackType
from typing import TextIO, TypeAlias

Progress: TypeAlias = "Callable[[float], object] | bool | None"
_Told: TypeAlias = "Callable[[float], None] | None"

_told: ContextVar[_Told] = ContextVar("told", default=None)
# Seconds of work before a bar appears, and between its changes.
_PATIENCE, _PACE = 0.5, 0.1
_WIDTH = 24


def check_progress(op: str, progress: Progress) -> None:
    """Check the argument `progress` of an operation.

    Raises:
        TypeError: it is neither a function, nor True or False, nor None.
    """
    if progress is not None and not isinstance(progress, bool) and not callable(progress):
        raise TypeError(
            f"{op}: progress must be callable (it gets the done fraction), True for a bar, or "
            f"None, got {type(progress).__name__}"
        )


@contextmanager
def following(progress: Progress, what: str) -> Iterator[None]:
    """Follow the work in this block.

    Args:
        progress: called with the done fraction, which rises from 0 to 1. True: a bar on standard
            error, if that is a terminal or a notebook. None, False: whoever follows the work
            around this block still does.
        what: the bar's text.
    """
    if progress is None or progress is False:
        yield
        return
    if progress is True:
        with bar(what) as move:
            if move is None:
                yield
            else:
                with following(move, what):
                    yield
        return
    last = -1.0

    def told(fraction: float) -> None:
        nonlocal last
        if fraction > last:
            last = min(1.0, fraction)
            # The function may do work of its own.
            token = _told.set(None)
            try:
                progress(last)
            finally:
                _told.reset(token)

    outer = _told.set(told)
    try:
        told(0.0)
        yield
        told(1.0)
    finally:
        _told.reset(outer)


class Part:
    """A part of the work: what is told in the block counts from `first` to `last`.

    Args:
        first: done fraction of the whole at its begin.
        last: at its end.
    """

    __slots__ = ("_first", "_last", "_outer", "_token")

    def __init__(self, first: float, last: float) -> None:
        self._first, self._last = first, last
        self._outer: _Told = None
        self._token: Token[_Told] | None = None

    def __enter__(self) -> None:
        self._outer = _told.get()
        if self._outer is not None:
            self._token = _told.set(self._tell)

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        if self._token is not None:
            _told.reset(self._token)
        if self._outer is not None and kind is None:
            self._outer(self._last)

    def _tell(self, fraction: float) -> None:
        assert self._outer is not None
        self._outer(self._first + (self._last - self._first) * fraction)


def tell(fraction: float) -> None:
    """Say which fraction of the innermost part is done."""
    told = _told.get()
    if told is not None:
        told(fraction)


@contextmanager
def bar(what: str) -> Iterator[_Told]:
    """Yield a function of the done fraction that moves a bar; None where nobody would see it."""
    stream = sys.stderr
    if stream is None or not (stream.isatty() or _in_notebook(stream)):
        yield None
        return
    line = _Bar(stream, what)
    try:
        yield line.move
    finally:
        line.clear()


def _in_notebook(stream: TextIO) -> bool:
    return type(stream).__module__.startswith("ipykernel.")


class _Bar:
    """A line on a terminal: text, bar, percent, seconds that are left."""

    def __init__(self, stream: TextIO, what: str) -> None:
        self._stream = stream
        self._what = "".join(c if c.isprintable() else "?" for c in what)
        self._begun = self._next = time.monotonic()
        self._next += _PATIENCE
        self._length = 0

    def move(self, fraction: float) -> None:
        """Show a fraction, if the last change is not too near."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + _PACE
        left = (now - self._begun) * (1 - fraction) / fraction if fraction > 0 else None
        self._show(line_of(self._what, fraction, left))

    def _show(self, text: str) -> None:
        text = text[: max(1, shutil.get_terminal_size().columns - 1)]
        self._stream.write(f"\r{text:<{self._length}}")
        self._stream.flush()
        self._length = len(text)

    def clear(self) -> None:
        """Take the line away."""
        if self._length:
            self._stream.write(f"\r{'':<{self._length}}\r")
            self._stream.flush()
            self._length = 0


def line_of(what: str, fraction: float, left: float | None) -> str:
    """Return the text of a bar; `left` are seconds."""
    full = round(_WIDTH * fraction)
    text = f"{what} [{'#' * full}{'.' * (_WIDTH - full)}] {100 * fraction:3.0f} %"
    if left is None:
        return text
    minutes, seconds = divmod(round(left), 60)
    return f"{text}, {minutes}:{seconds:02d} left"
