"""Contextual attention against the public PyTorch layer.

There are two kinds of features. "sharp" ones are of size one: with the fuse step scores are in the
hundreds, and all but a few weights of the softmax are exactly zero in float32. "soft" ones are so
small that every weight counts, and the floor holds the whole paste.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import inpaint_ops
from inpaint_ops.benchmarks.harness.case import Case, Missing, Problem, Target, Work

_AMPLITUDE = {"sharp": 1.0, "soft": 0.003}
_MOST_BYTES = 8 << 30
# Peak memory of the public formula in matrices of queries by keys, by (fuse, backward), measured at
# 64 x 64. The fuse step costs so much because its convolutions pad one channel to blocks of 16.
_MATRICES = {(True, False): 19, (True, True): 37, (False, False): 5, (False, True): 7}


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
    """Return a case of the curve over photos of 8 grid x 8 grid pixels."""
    return _case(grid, curve="forward, C = 96, fuse, by the image's side", x=8 * grid, **rest)


def _backward_curve(grid: int, **rest: Any) -> Case:
    curve = "forward and backward, C = 96, fuse, by the image's side"
    return _case(grid, backward=True, curve=curve, x=8 * grid, **rest)


# Seconds to minutes for a single call, of ours or of the public formula.
_LONG: dict[str, Any] = {"compile": False, "once": True}
_COMPILED: dict[str, Any] = {"compiled_memory": True}
CASES = (
    _curve(32, target=Target(must=8, aim=13), quick=True, **_COMPILED),
    _curve(64, target=Target(must=11, aim=16), quick=True, **_COMPILED),
    _case(32, kind="soft", target=Target(must=8, aim=13), quick=True),
    _case(64, kind="soft", target=Target(must=11, aim=16), compile=False),
    _backward_curve(64, target=Target(must=5, aim=9), **_COMPILED),
    _case(64, kind="soft", backward=True, target=Target(must=5, aim=9), compile=False),
    _case(32, kind="soft", backward=True, quick=True),
    _curve(16, **_COMPILED),
    _curve(48, **_COMPILED),
    _curve(96, **_LONG),
    _curve(128, **_LONG),
    _curve(256, **_LONG),
    _curve(512, **_LONG),
    _backward_curve(16, **_COMPILED),
    _backward_curve(32, **_COMPILED),
    _backward_curve(96, **_LONG),
    _backward_curve(128, **_LONG),
    _backward_curve(256, **_LONG),
    *(_case(grid, c, kind="soft", compile=grid < 64) for grid in (32, 64) for c in (64, 128, 256)),
    *(_case(grid, c, kind="soft", **_LONG) for grid in (128, 256) for c in (64, 256)),
    *(_case(16, c, kind="soft") for c in (64, 256)),
    *(_case(32, c, kind="soft", backward=True, compile=False) for c in (64, 256)),
    *(_case(128, c, kind="soft", backward=True, **_LONG) for c in (64, 256)),
    *(
        _case(grid, kind="soft", fuse=False, backward=backward, compile=grid < 64)
        for grid in (32, 64)
        for backward in (False, True)
    ),
    *(_case(grid, kind="soft", fuse=False, **_LONG) for grid in (128, 256)),
    _case(128, kind="soft", fuse=False, backward=True, **_LONG),
)


def public_attention(f: Tensor, b: Tensor, hole: Tensor, fuse: bool) -> Tensor:
    """Return the result of the public formula.

    Source of the steps: nipponjo/deepfillv2-pytorch, commit 4899fd3, model/networks.py.
    """
    n, c, height, width = b.shape
    h, w = height // 2, width // 2
    raw = F.unfold(b, 4, stride=2, padding=1).view(n, c, 4, 4, -1).permute(0, 4, 1, 2, 3)
    small_f, small_b = f[:, :, ::2, ::2], b[:, :, ::2, ::2]
    keys = F.unfold(small_b, 3, padding=1).view(n, c, 3, 3, -1).permute(0, 4, 1, 2, 3)
    holes = F.unfold(hole.to(f.dtype), 3, padding=1)
    known = (holes.mean(1) == 0).to(f.dtype)[0].view(1, -1, 1, 1)
    eye = torch.eye(3, dtype=f.dtype, device=f.device).view(1, 1, 3, 3)
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
    """Return the problem: self-attention around a square hole of a quarter of the width."""
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
    needed = pairs * 4 * _MATRICES[fuse, backward]
    too_large = needed > _MOST_BYTES
    missing = Missing(f"would need about {needed / 2**30:.0f} GB, stopped above 8 GB")
    forward_flops = 2 * channels * pairs * (5 if kind == "soft" else 1)
    # The gradient forms the scores again. With sharp weights little is left of its other products.
    flops = forward_flops * (16 / 5 if kind == "soft" else 2) if backward else forward_flops
    return Problem(
        inputs=(x, hole),
        implementations={"ours": ours, "eager": missing if too_large else eager},
        check=_judge(x.detach(), hole, fuse, gradient, grid),
        work=Work(flops, float(x.numel() * 4 * (4 if backward else 2))),
        gradient=gradient,
    )


def exact_block(x: Tensor, hole: Tensor, fuse: bool, row: int, column: int) -> Tensor:
    """Return a block of the result in float64, (C, 2, 2).

    It holds rows 2 row - 1 and 2 row, columns 2 column - 1 and 2 column. Four cells, at least three
    cells off the border of the queries, have patches that hold them. The public formula is applied
    to these cells, and only the scores that they need are formed.
    """
    _, c, height, width = x.shape
    h, w = height // 2, width // 2
    features = x[0].double()
    small = features[:, ::2, ::2]
    near = small[:, row - 4 : row + 4, column - 4 : column + 4].reshape(c, -1)
    products = (near.T @ small.reshape(c, -1)).view(8, 8, h, w)
    square = F.pad(small.square().sum(0), (1, 1, 1, 1))
    norm = F.avg_pool2d(square[None], 3, 1, divisor_override=1)[0].sqrt().clamp_min(1e-4)
    scores = products.new_zeros(6, 6, h, w)
    padded = F.pad(products, (1, 1, 1, 1))
    for dy in range(3):
        for dx in range(3):
            scores += padded[dy : dy + 6, dx : dx + 6, dy : dy + h, dx : dx + w]
    scores /= norm
    if fuse:
        rows = F.pad(scores.flatten(2), (1, 1))
        parts = [rows[:, s : s + 4, s : s + h * w] for s in range(3)]
        scores = (parts[0] + parts[1] + parts[2]).view(6, 4, h, w)
        columns = F.pad(scores.transpose(2, 3).flatten(2), (1, 1))
        parts = [columns[t : t + 4, :, t : t + h * w] for t in range(3)]
        scores = (parts[0] + parts[1] + parts[2]).view(4, 4, w, h).transpose(2, 3)
    else:
        scores = scores[1:5, 1:5]
    known = 1 - F.max_pool2d(hole.double(), 3, 1, 1)[0, 0]
    attention = (scores * known * 10.0).flatten(2).softmax(2).view(4, 4, h, w) * known
    values = F.pad(features, (1, 3, 1, 3)).unfold(1, 4, 2).unfold(2, 4, 2)[:, :h, :w]
    result = features.new_zeros(c, 2, 2)
    for i in range(2):
        for j in range(2):
            # The patch of cell (row - 1 + i, column - 1 + j) begins two pixels further each.
            part = values[..., 2 - 2 * i : 4 - 2 * i, 2 - 2 * j : 4 - 2 * j]
            result += torch.einsum("vu,cvuab->cab", attention[1 + i, 1 + j], part)
    return result / 4


def _judge(x: Tensor, hole: Tensor, fuse: bool, gradient: Tensor | None, grid: int) -> Any:
    """Return a judge of the whole result up to grids of 64, of three blocks beyond.

    The whole result is judged in float64 where that is quick.
    """

    @cache
    def expected() -> tuple[Tensor, ...]:
        features = x.double() if grid <= 32 else x
        f, b = features.clone().requires_grad_(), features.clone().requires_grad_()
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
        if not all(bool(t.isfinite().all()) for t in (y, *grads)):
            return "result is not finite"
        if grid > 64:
            return _compare_blocks(y.detach(), x, hole, fuse)
        for name, got, wanted in zip(("result", "gradient"), (y, *grads), expected()):
            # An error of a score of several hundred is an error of its weight: the public code in
            # float32 is off by as much.
            error = (got.detach().double() - wanted.double()).abs().max().item()
            allowed = (1e-4 if name == "result" else 5e-3) * wanted.abs().max().item()
            if not error <= allowed:
                return f"{name} is off by {error:.2g}, allowed {allowed:.2g}"
        return None

    return check


def _compare_blocks(y: Tensor, x: Tensor, hole: Tensor, fuse: bool) -> str | None:
    grid = hole.shape[2]
    for row, column in ((grid // 3, grid // 3), (grid - 5, grid // 2), (5, grid - 6)):
        wanted = exact_block(x, hole, fuse, row, column)
        got = y[0, :, 2 * row - 1 : 2 * row + 1, 2 * column - 1 : 2 * column + 1]
        error = (got.double() - wanted).abs().max().item()
        allowed = 1e-4 * wanted.abs().max().item()
        if not error <= allowed:
            return f"block ({row}, {column}) is off by {error:.2g}, allowed {allowed:.2g}"
    return None
