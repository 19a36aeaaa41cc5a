"""Entry point of ``inpaint-ops``; the commands are in `inpaint_ops.commands`."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: arguments without the program's name; ``sys.argv[1:]`` if None.

    Returns:
        Exit code: 0 done, 1 something failed, 2 wrong usage, 130 interrupted.
    """
    try:
        import click
        import rich  # noqa: F401
    except ImportError as exc:
        print(
            f"inpaint-ops: {exc.name} is not installed: pip install 'inpaint-ops[cli]'",
            file=sys.stderr,
        )
        return 1
    from inpaint_ops.commands import cli

    try:
        code = cli.main(args=argv, prog_name="inpaint-ops", standalone_mode=False)
    except click.ClickException as exc:
        exc.show()
        return exc.exit_code
    except (click.Abort, KeyboardInterrupt):
        # What a shell reports for a program that SIGINT ended.
        click.echo("inpaint-ops: interrupted", err=True)
        return 130
    return code if isinstance(code, int) else 0


if __name__ == "__main__":
    sys.exit(main())
