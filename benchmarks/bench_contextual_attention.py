"""Contextual attention against the public PyTorch layer.

Two kinds of features. "sharp": of size one: with the fuse step scores are in the hundreds, and all
but a few weights of the softmax are exactly zero in float32. "soft": so small that every weight
counts; the floor then holds the whole paste.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import inpaint_ops
from inpaint_ops.benchmarks.case import Case, Missing, Problem, Target, Work

_AMPLITUDE = {"sharp": 1.0, "soft": 0.003}
_MOST_BYTES = 8 << 30


def _case(
    grid: int,
    channels: int = 96,
    kind: str = "sharp",
    *,
    fuse: bool = True,
    backward: bool = False,
    **rest: Any,
) -> Case:
    sizes = {"grid": grid, "channels": channels, "kind": kind, "fuse": fuse, "backward": backward}
    pass_ = "forward-backward" if backward else "forward"
    case_id = f"{pass_}-{kind}-c{channels}-{grid}x{grid}{'' if fuse else '-nofuse'}"
    return Case("contextual_attention", case_id, sizes, **rest)


def _curve(grid: int, **rest: Any) -> Case:
    return _case(grid, curve="forward, C = 96, fuse, sharp features", x=grid, **rest)


CASES = (
    _curve(32, target=Target(must=8, aim=13), quick=True),
    _curve(64, target=Target(must=11, aim=16), quick=True),
    _case(32, kind="soft", target=Target(must=8, aim=13), quick=True),
    _case(64, kind="soft", target=Target(must=11, aim=16)),
    _case(64, backward=True, target=Target(must=5, aim=9)),
    _case(64, kind="soft", backward=True, target=Target(must=5, aim=9)),
    _case(32, kind="soft", backward=True, quick=True),
    _curve(16),
    _curve(48),
    _curve(96, compile=False),
    _curve(128, compile=False),
    _curve(256, compile=False),
    _curve(512, compile=False),
    _case(32, 64),
    _case(32, 128, kind="soft"),
    _case(32, 256, kind="soft"),
    _case(32, kind="soft", fuse=False),
    _case(64, kind="soft", fuse=False),
)


def public_attention(f: Tensor, b: Tensor, hole: Tensor, fuse: bool) -> Tensor:
    """The public formula.

    Source of the steps: nipponjo/deepfillv2-pytorch, commit 4899fd3, model/networks.py.
    """
    n, c, height, width = b.shape
    h, w = height // 2, width // 2
    raw = F.unfold(b, 4, stride=2, padding=1).view(n, c, 4, 4, -1).permute(0, 4, 1, 2, 3)
    small_f, small_b = f[:, :, ::2, ::2], b[:, :, ::2, ::2]
    keys = F.unfold(small_b, 3, padding=1).view(n, c, 3, 3, -1).permute(0, 4, 1, 2, 3)
    holes = F.unfold(hole.to(f.dtype), 3, padding=1)
    known = (holes.mean(1) == 0).to(f.dtype)[0].view(1, -1, 1, 1)
    eye = torch.eye(3, dtype=f.dtype).view(1, 1, 3, 3)
    results = []
    for i in range(n):
        norm = keys[i].square().sum((1, 2, 3), keepdim=True).sqrt().clamp_min(1e-4)
        y = F.conv2d(small_f[i : i + 1], keys[i] / norm, padding=1)
        if fuse:
            y = F.conv2d(y.view(1, 1, h * w, h * w), eye, padding=1)
            y = y.view(1, h, w, h, w).permute(0, 2, 1, 4, 3).reshape(1, 1, h * w, h * w)
            y = F.conv2d(y, eye, padding=1)
            y = y.view(1, w, h, w, h).permute(0, 2, 1, 4, 3).reshape(1, h * w, h, w)
        attention = F.softmax(y * known * 10.0, 1) * known
        results.append(F.conv_transpose2d(attention, raw[i], stride=2, padding=1) / 4)
    return torch.cat(results)


def setup(case: Case) -> Problem:
    """Self-attention of a feature map around a square hole of a quarter of its width."""
    grid, channels = case.sizes["grid"], case.sizes["channels"]
    fuse, backward, kind = case.sizes["fuse"], case.sizes["backward"], case.sizes["kind"]
    generator = torch.Generator().manual_seed(grid + channels)
    x = torch.randn(1, channels, 2 * grid, 2 * grid, generator=generator) * _AMPLITUDE[kind]
    hole = torch.zeros(1, 1, grid, grid)
    hole[:, :, grid // 4 : grid // 2, grid // 4 : grid // 2] = 1
    gradient = None
    if backward:
        x.requires_grad_()
        gradient = torch.randn(x.shape, generator=generator)

    def ours(x: Tensor, hole: Tensor) -> Tensor:
        result = inpaint_ops.contextual_attention(x, x, hole, fuse=fuse)
        assert isinstance(result, Tensor)
        return result

    def eager(x: Tensor, hole: Tensor) -> Tensor:
        return public_attention(x, x, hole, fuse)

    pairs = float(grid) ** 4
    # Scores by keys: the convolution's result, its copies in the fuse step, the softmax's.
    needed = pairs * 4 * (12 if backward else 5)
    too_large = needed > _MOST_BYTES
    missing = Missing(f"would need about {needed / 2**30:.0f} GB, stopped above 8 GB")
    forward_flops = 2 * channels * pairs * (5 if kind == "soft" else 1)
    # The gradient forms the scores again; of the rest sharp weights leave next to nothing.
    flops = forward_flops * (16 / 5 if kind == "soft" else 2) if backward else forward_flops
    return Problem(
        inputs=(x, hole),
        implementations={"ours": ours, "eager": missing if too_large else eager},
        check=_judge(x.detach(), hole, fuse, gradient, grid),
        work=Work(flops, float(x.numel() * 4 * (4 if backward else 2))),
        gradient=gradient,
    )


def _judge(x: Tensor, hole: Tensor, fuse: bool, gradient: Tensor | None, grid: int) -> Any:
    """Up to grids of 64 against the public formula, in float64 where that is quick."""

    @cache
    def expected() -> tuple[Tensor, ...]:
        wide = x.double() if grid <= 32 else x
        f, b = wide.clone().requires_grad_(), wide.clone().requires_grad_()
        with torch.set_grad_enabled(gradient is not None):
            y = public_attention(f, b, hole, fuse)
        if gradient is None:
            return (y,)
        grads = torch.autograd.grad(y, (f, b), gradient.to(y.dtype))
        return y.detach(), grads[0] + grads[1]

    def check(outcome: Any) -> str | None:
        y, grads = (outcome, ()) if gradient is None else outcome
        if y.shape != x.shape:
            return f"result has shape {tuple(y.shape)}, expected {tuple(x.shape)}"
        if not bool(y.isfinite().all()):
            return "result is not finite"
        if grid > 64:
            return None
        for name, got, wanted in zip(("result", "gradient"), (y, *grads), expected()):
            # An error of a score of several hundred is an error of its weight: the public code in
            # float32 is off by as much.
            error = (got.detach().double() - wanted.double()).abs().max().item()
            allowed = (1e-4 if name == "result" else 5e-3) * wanted.abs().max().item()
            if not error <= allowed:
                return f"{name} is off by {error:.2g}, allowed {allowed:.2g}"
        return None

    return check
