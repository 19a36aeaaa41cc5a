"""Layers in a row: the tables of the DeepFill networks."""

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor, nn


def add(module: nn.Module, rows: Iterable[tuple[Any, ...]], make: Callable[..., nn.Module]) -> None:
    """Add ``make(*arguments)`` under its name for each row (name, *arguments)."""
    for name, *arguments in rows:
        module.add_module(name, make(*arguments))


def run(module: nn.Module, names: str, x: Tensor) -> Tensor:
    """Run x through the layers of these names; one with a + is called with ``upsample=2``."""
    for name in names.split():
        layer = module.get_submodule(name.removesuffix("+"))
        x = layer(x, upsample=2) if name.endswith("+") else layer(x)
    return x
