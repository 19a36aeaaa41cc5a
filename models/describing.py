"""What the methods print: name, training size and options before the networks."""

from __future__ import annotations

import inspect
from typing import Any

from torch import nn


def options_of(model: nn.Module) -> dict[str, Any]:
    """Return the options of a method's constructor, which it keeps under their names."""
    names = inspect.signature(type(model).__init__).parameters
    return {name: getattr(model, name) for name in names if name != "self" and hasattr(model, name)}


def described(model: nn.Module, name: str, trained_size: int, plain: str) -> str:
    """Return the text of a method.

    Args:
        model: the method.
        name: that it is registered under.
        trained_size: side of the pictures that it was trained on.
        plain: what nn.Module prints: the class with a bracket, then a line for each module.
    """
    options = ", ".join(f"{key}={value!r}" for key, value in options_of(model).items())
    first = f"name={name!r}, trained_size={trained_size}, {options}"
    head, _, networks = plain.partition("\n")
    return f"{head}{first}\n{networks}" if networks else f"{head.removesuffix(')')}{first})"
