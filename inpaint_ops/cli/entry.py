"""Entry point of ``inpaint-ops``; the commands are in `inpaint_ops.cli.commands`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from inpaint_ops import program


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: arguments without the program's name; ``sys.argv[1:]`` if None.

    Returns:
        Exit code: 0 done, 1 something failed, 2 wrong usage, 130 interrupted.
    """
    program.tolerant_streams()
    interrupts = program.Interrupts()
    try:
        with program.watch_interrupts(interrupts):
            code = _run(argv)
    except KeyboardInterrupt:
        return program.report_interrupt()
    except Exception:
        # Compiled modules turn an interrupt into errors of their own.
        if interrupts.seen:
            return program.report_interrupt()
        raise
    if interrupts.seen:
        return program.report_interrupt()
    if not program.flush_output() and code == 0:
        return 1
    return code


def _run(argv: Sequence[str] | None) -> int:
    try:
        import click
        import rich  # noqa: F401
    except ImportError as exc:
        print(
            f"inpaint-ops: {exc.name} is not installed: pip install 'inpaint-ops[cli]'",
            file=sys.stderr,
        )
        return 1
    from inpaint_ops.cli.commands import cli

    try:
        code = cli.main(args=argv, prog_name="inpaint-ops", standalone_mode=False)
    except click.ClickException as exc:
        exc.show()
        return exc.exit_code
    except click.Abort as exc:
        raise KeyboardInterrupt from exc
    except SystemExit as exc:  # the reader of a pipe has gone
        code = exc.code
    except OSError as exc:  # standard output cannot be written
        print(f"inpaint-ops: {program.reason(exc)}", file=sys.stderr)
        return 1
    return code if isinstance(code, int) else 0
