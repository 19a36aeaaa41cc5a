"""Calls of our registered operators, kept as they are reached, and held to torch's opcheck."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

Call = tuple[Any, tuple[Any, ...]]


class Recorder(TorchDispatchMode):
    """Keeps each call of our registered operators, with the arguments as they lie."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == "inpaint_ops":
            self.calls.append((func, args))
        return func(*args, **(kwargs or {}))


def is_backward(call: Call) -> bool:
    name: str = call[0]._opname
    return name.endswith("_backward")


def _held(value: Any, leaf: bool) -> Any:
    """An argument to call again with: a leaf, if wanted, where autograd watched it."""
    if isinstance(value, Tensor):
        return value.detach().requires_grad_(leaf and value.requires_grad)
    return [_held(one, leaf) for one in value] if isinstance(value, (list, tuple)) else value


def check_operators(calls: Iterable[Call]) -> None:
    """Schema, fake kernel, autograd and tracing of each operator, for these arguments."""
    for call in calls:
        func, args = call
        torch.library.opcheck(func, _held(args, leaf=not is_backward(call)))
