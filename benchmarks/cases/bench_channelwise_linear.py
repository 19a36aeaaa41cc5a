"""Channel-wise fully connected layer against the einsum a user would write."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

import inpaint_ops
from inpaint_ops.benchmarks.harness.case import Case, Problem, Work, difference


def _case(n: int, channels: int, size: int, **rest: Any) -> Case:
    sizes = {"batch": n, "channels": channels, "map": size}
    return Case("channelwise_linear", f"n{n}-c{channels}-{size}x{size}", sizes, **rest)


CASES = (
    _case(1, 256, 6, quick=True),
    _case(16, 256, 6),
    _case(64, 256, 6),
    _case(16, 512, 8),
)


def setup(case: Case) -> Problem:
    """Return the problem, forward and backward."""
    n, channels, size = case.sizes["batch"], case.sizes["channels"], case.sizes["map"]
    generator = torch.Generator().manual_seed(size + channels)
    places = size * size
    x = torch.randn(n, channels, size, size, generator=generator).requires_grad_()
    weight = torch.randn(channels, places, places, generator=generator).requires_grad_()
    bias = torch.randn(channels, places, generator=generator).requires_grad_()
    gradient = torch.randn(x.shape, generator=generator)

    @cache
    def expected() -> tuple[Tensor, ...]:
        leaves = [t.detach().double().requires_grad_() for t in (x, weight, bias)]
        y = inpaint_ops.reference.channelwise_linear(*leaves)
        return y.detach(), *torch.autograd.grad(y, leaves, gradient.double())

    def check(outcome: Any) -> str | None:
        y, grads = outcome
        for i, (got, wanted) in enumerate(zip((y, *grads), expected())):
            wrong = difference(f"output {i}", got, wanted, terms=max(places, n))
            if wrong is not None:
                return wrong
        return None

    products = 2.0 * n * channels * places * places
    # Weights twice, their gradient once.
    moved = 4.0 * (3 * weight.numel() + 4 * x.numel())
    return Problem(
        inputs=(x, weight, bias),
        implementations={
            "ours": inpaint_ops.channelwise_linear,
            "eager": inpaint_ops.reference.channelwise_linear,
        },
        check=check,
        work=Work(3 * products, moved),
        gradient=gradient,
    )
