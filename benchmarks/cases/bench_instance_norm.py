"""Instance norm and ReLU against nn.InstanceNorm2d and ReLU."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

import inpaint_ops
from inpaint_ops.benchmarks.harness.case import Case, Problem, Work, difference
from inpaint_ops.ops import instance_norm


def _case(channels: int, size: int, **rest: Any) -> Case:
    sizes = {"channels": channels, "size": size}
    return Case("instance_norm", f"c{channels}-{size}x{size}", sizes, **rest)


# EdgeConnect's layers at 256 x 256, and one of Shift-Net's.
CASES = (
    _case(64, 256),
    _case(128, 128),
    _case(256, 64, quick=True),
    _case(512, 16),
)


def setup(case: Case) -> Problem:
    """Return the problem; eager runs in contiguous images, ours in channels_last."""
    channels, size = case.sizes["channels"], case.sizes["size"]
    generator = torch.Generator().manual_seed(size + channels)
    contiguous = torch.randn(1, channels, size, size, generator=generator)
    pixels = contiguous.contiguous(memory_format=torch.channels_last)

    def eager(contiguous: Tensor, _: Tensor) -> Tensor:
        return inpaint_ops.reference.instance_norm(contiguous, activation="relu")

    def ours(_: Tensor, pixels: Tensor) -> Tensor:
        return instance_norm(pixels, activation="relu")

    @cache
    def expected() -> Tensor:
        return inpaint_ops.reference.instance_norm(contiguous.double(), activation="relu")

    def check(outcome: Any) -> str | None:
        return difference("output", outcome, expected(), terms=size * size)

    return Problem(
        inputs=(contiguous, pixels),
        implementations={"ours": ours, "eager": eager},
        check=check,
        # Sum, difference, square, sum, scale and shift of each value.
        work=Work(6.0 * contiguous.numel(), 8.0 * contiguous.numel()),
    )
