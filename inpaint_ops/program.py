"""Ctrl-C and standard streams of the program ``inpaint-ops``. Standard library only.

The package imports this module first, so that an interrupt ends the program quietly while torch is
still loading. In any other program nothing happens on import.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

# Exit code that a shell reports for a program that SIGINT ended.
INTERRUPTED = 130
_MESSAGE = "inpaint-ops: interrupted\n"
# Seconds after which an interrupt that did not end the command is sent again.
_AGAIN = 1.0


def is_program() -> bool:
    """Return whether this process is ``inpaint-ops`` or ``python -m inpaint_ops.cli``."""
    if Path(sys.argv[0] if sys.argv else "").stem in ("inpaint-ops", "inpaint-ops-script"):
        return True
    return ("-m", "inpaint_ops.cli") in zip(sys.orig_argv, sys.orig_argv[1:])


def _quiet_imports() -> None:
    """End this process without a traceback if it is interrupted before a command runs.

    A signal handler that raised would not do: compiled modules turn exceptions into errors of their
    own.
    """
    in_main = threading.current_thread() is threading.main_thread()
    if in_main and is_program() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)


def _end(_number: int, _frame: FrameType | None) -> None:
    # Nothing has been written yet, and nothing is to be cleaned up.
    with suppress(OSError):
        os.write(2, _MESSAGE.encode())
    os._exit(INTERRUPTED)


class Interrupts:
    """Handler of SIGINT that remembers whether the user has interrupted the command."""

    def __init__(self) -> None:
        self.seen = False
        self._timer: threading.Timer | None = None

    def handle(self, _number: int, _frame: FrameType | None) -> None:
        """Raise KeyboardInterrupt, and again later if something swallows it.

        Finalisers swallow it, and compiled modules that load turn it into errors of their own.
        """
        self.seen = True
        self.stop()
        self._timer = threading.Timer(_AGAIN, signal.raise_signal, (signal.SIGINT,))
        self._timer.daemon = True
        self._timer.start()
        raise KeyboardInterrupt

    def stop(self) -> None:
        """Do not raise again."""
        if self._timer is not None:
            self._timer.cancel()


def _unraisable(report: Any) -> None:
    if not isinstance(report.exc_value, KeyboardInterrupt):
        sys.__unraisablehook__(report)


@contextmanager
def watch_interrupts(interrupts: Interrupts) -> Iterator[None]:
    """Let `interrupts` handle SIGINT in this block.

    After the block the program ignores the signal: only the interpreter's clean-up is left, which
    would answer it with a traceback. A process that merely calls the command line gets its handler
    back. If the process ignored the signal before, as background jobs of a shell do, it still does.
    """
    before = signal.getsignal(signal.SIGINT)
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or before not in (signal.default_int_handler, _end):
        yield
        return
    hook = sys.unraisablehook
    sys.unraisablehook = _unraisable
    signal.signal(signal.SIGINT, interrupts.handle)
    try:
        yield
    finally:
        interrupts.stop()
        signal.signal(signal.SIGINT, signal.SIG_IGN if is_program() else before)
        sys.unraisablehook = hook


def reason(exc: BaseException) -> str:
    """Return one plain sentence for an exception: the system's errors without their numbers."""
    if isinstance(exc, OSError) and exc.strerror and exc.args and exc.args[0] == exc.errno:
        what = exc.strerror[:1].lower() + exc.strerror[1:]
        # Of a renaming, the name that was to appear.
        name = exc.filename if exc.filename2 is None else exc.filename2
        return what if name is None else f"{os.fsdecode(name)}: {what}"
    return str(exc) or type(exc).__name__


def report_interrupt() -> int:
    """Say that the command was interrupted; returns the exit code."""
    with suppress(OSError, ValueError):
        if sys.stderr is not None:
            print(_MESSAGE, end="", file=sys.stderr, flush=True)
    return INTERRUPTED


def tolerant_streams() -> None:
    """Let standard output and error escape what their encoding lacks, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def flush_output() -> bool:
    """Write out what standard output holds; False if its reader has gone or the disk is full."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except (OSError, ValueError):
        # The interpreter would try again at exit and complain.
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return False
    return True


_quiet_imports()
