"""The last argument of the convolution operators: which algorithms may sum them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from inpaint_ops import checks
from inpaint_ops.backends import backend

ALGORITHMS = ("auto", "direct")
SCHEMA = "str algorithm"


def check(op: str, algorithm: Any) -> None:
    """One of `ALGORITHMS`."""
    checks.check_choice(op, "algorithm", algorithm, ALGORITHMS)


def honoured(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """A CPU kernel, with the algorithm as one more argument at the end."""

    def call(*args: Any) -> Any:
        if args[-1] == "auto":
            return kernel(*args[:-1])
        # For this call what the context manager is for all calls.
        with backend("direct"):
            return kernel(*args[:-1])

    return call


def ignored(function: Callable[..., Any]) -> Callable[..., Any]:
    """What never uses a Winograd core, with the algorithm as one more argument at the end."""
    return lambda *args: function(*args[:-1])
