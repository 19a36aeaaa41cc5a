"""The option ``--device``: where a command computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from inpaint_ops.program import reason

if TYPE_CHECKING:
    import torch

Command = TypeVar("Command", bound=Callable[..., Any])


def device_option(command: Command) -> Command:
    """Add ``--device`` to a command; `find_device` makes a device of its text."""
    return click.option(
        "--device",
        metavar="cpu|cuda|cuda:N|...",
        default="cpu",
        show_default=True,
        help="Device of torch on which pictures are filled.",
    )(command)


def find_device(text: str) -> torch.device:
    """Return a device of torch that is there.

    Raises:
        click.UsageError: the text names none, or one that is not on this machine.
    """
    import torch

    try:
        device = torch.device(text)
        # What only has a name, as "meta", keeps no values.
        torch.ones(1, device=device).cpu()
    except (RuntimeError, AssertionError, ImportError) as exc:
        why = reason(exc).partition("\n")[0].partition(". ")[0]
        # Of a word that is no device torch lists all that it could be anywhere.
        cause = "" if why.startswith("Expected one of") else f" ({why})"
        raise click.UsageError(
            f"--device: {text!r} is not there; here are {', '.join(_devices())}{cause}"
        ) from exc
    return device


def _devices() -> list[str]:
    """Return the names of the devices of this machine, the CPU first."""
    import torch

    found = ["cpu"]
    if torch.accelerator.is_available():
        kind = torch.accelerator.current_accelerator()
        if kind is not None:
            found += [f"{kind.type}:{n}" for n in range(torch.accelerator.device_count())]
    return found
