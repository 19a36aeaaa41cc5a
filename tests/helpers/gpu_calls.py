"""Calls of every operator that has GPU kernels, and what reaches its implementations."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import pytest
import torch
from operators import OPERATORS, options_of, run
from torch import Tensor

from inpaint_ops.benchmarks.gpu.stand_in import stand_in_device
from inpaint_ops.ops import dispatch

ON_GPUS = [op for op in OPERATORS if op in dispatch.OPERATORS and dispatch.OPERATORS[op].cuda]
# Operators and, of convolutions, who multiplies.
WAYS = [
    (op, choice)
    for op in ON_GPUS
    for choice in (("fused", "library") if "conv" in op else ("auto",))
]
# An implementation and its arguments.
Step = tuple[dispatch.Registered, Sequence[Any]]


def call(
    op: str,
    options: Mapping[str, Any],
    dtype: torch.dtype = torch.float16,
    *,
    batch: int | None = None,
    masks: torch.dtype = torch.bool,
) -> Tensor:
    """Call an operator with gradients, and its backward pass."""
    entry = OPERATORS[op]
    tensors = entry.tensors()
    for name, x in tensors.items():
        if batch is not None and name not in entry.shared and x.shape[0] != 1:
            x = x[:batch]
        if name in entry.masks:
            tensors[name] = x.to(masks)
        else:
            tensors[name] = x.to(dtype).detach().requires_grad_(name in entry.leaves)
    y = run(op, tensors, options)[0]
    if entry.leaves:
        y.backward(torch.ones_like(y))
    return y


@cache
def registered() -> list[dispatch.Registered]:
    """Every registered operator, those of backward passes too."""
    found = [one for one in gc.get_objects() if type(one) is dispatch.Registered]
    assert len(found) > len(ON_GPUS)
    return found


@contextmanager
def implementations(
    around: Callable[[dispatch.Registered, Callable[..., Any]], Callable[..., Any]],
) -> Iterator[None]:
    """Put something around the implementations, below autograd and the dispatcher."""
    with pytest.MonkeyPatch.context() as patch:
        for one in registered():
            patch.setattr(one, "_cpu", around(one, one._cpu))
        yield


def steps(op: str) -> list[Step]:
    """The implementations that calls of an operator come to, forward and backward."""
    found: list[Step] = []

    def kept(one: dispatch.Registered, implementation: Callable[..., Any]) -> Callable[..., Any]:
        def inner(*args: Any) -> Any:
            found.append((one, args))
            return implementation(*args)

        return inner

    with stand_in_device(library=False), implementations(kept):
        for options in options_of(op):
            call(op, options)
    return found
