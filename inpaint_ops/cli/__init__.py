"""The program ``inpaint-ops``: `entry` starts it, `commands` is what it can do."""

from inpaint_ops.cli.entry import main

__all__ = ["main"]
