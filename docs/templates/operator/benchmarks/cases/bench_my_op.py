"""my_op against the public formula."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from inpaint_ops import ops, reference
from inpaint_ops.benchmarks.harness.case import Case, Problem, Work, difference


def _case(channels: int, size: int, **rest: Any) -> Case:
    sizes = {"channels": channels, "size": size}
    return Case("my_op", f"c{channels}-{size}x{size}", sizes, **rest)


# Sizes that networks have: name the layer. One is `quick`, for the short report.
CASES = (_case(64, 128, quick=True), _case(256, 64))


def setup(case: Case) -> Problem:
    """Inputs, contestants, judge and floor of a case."""
    channels, size = case.sizes["channels"], case.sizes["size"]
    generator = torch.Generator().manual_seed(size)
    x = torch.randn(1, channels, size, size, generator=generator)
    weight = torch.randn(channels, generator=generator)

    @cache
    def expected() -> Tensor:
        return reference.my_op(x.double(), weight.double())

    def check(outcome: Any) -> str | None:
        return difference("output", outcome, expected())

    return Problem(
        inputs=(x, weight),
        # "eager" is the public formula, which the runner compiles as well.
        implementations={"ours": ops.my_op, "eager": reference.my_op},
        check=check,
        # The least there is to do: operations, and bytes read and written once.
        work=Work(1.0 * x.numel(), 8.0 * x.numel()),
    )
