"""Calls of every operator that take the different ways through its GPU kernels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Problem:
    """One call of an operator, float32 on the CPU.

    Args:
        op: name of the operator.
        id: which call of that operator.
        tensors: arguments by name.
        options: the other arguments.
        leaves: names of the arguments that have a gradient, which is that of the first result.
        terms: length of the sums behind a value, with which float32's tolerance grows.
    """

    op: str
    id: str
    tensors: Mapping[str, Tensor]
    options: Mapping[str, Any] = field(default_factory=dict)
    leaves: Sequence[str] = ()
    terms: int = 64


CONVOLUTIONS = ("gated_conv2d", "fused_conv2d", "fused_conv_transpose2d", "partial_conv2d")


class _Draw:
    """Random tensors, the same in every process."""

    def __init__(self, small: bool) -> None:
        self.small = small
        self._generator = torch.Generator().manual_seed(15)

    def normal(self, *size: int) -> Tensor:
        return torch.randn(size, generator=self._generator)

    def bits(self, *size: int) -> Tensor:
        return (torch.rand(size, generator=self._generator) > 0.5).float()

    def weight(self, *size: int) -> Tensor:
        return self.normal(*size) / math.sqrt(math.prod(size[1:]))


# Several blocks along every axis; odd counts of channels and pixels, which no vector divides.
_CONVOLVED: tuple[tuple[str, tuple[int, int, int, int, int], dict[str, Any]], ...] = (
    # (images, channels, outputs, side, kernel)
    ("3x3", (2, 48, 96, 33, 3), {"padding": 1, "activation": "elu"}),
    ("odd-5x5", (2, 5, 13, 37, 5), {"padding": 2, "activation": "leaky_relu"}),
    ("stride-2", (2, 24, 48, 35, 3), {"padding": 1, "stride": 2}),
    ("dilated", (1, 32, 32, 40, 3), {"padding": 16, "dilation": 16, "activation": "silu"}),
    ("doubled", (2, 48, 24, 19, 3), {"padding": 1, "upsample": 2, "activation": "elu"}),
    ("reflect-7x7", (1, 4, 32, 40, 7), {"padding": 3, "padding_mode": "reflect"}),
    ("few-filters", (2, 12, 3, 40, 3), {"padding": 1, "activation": "tanh"}),
    ("deep", (1, 256, 64, 16, 3), {"padding": 1}),
)


def _convolutions(draw: _Draw) -> list[Problem]:
    found = []
    for name, (n, channels, outputs, side, kernel), options in _CONVOLVED:
        for op in ("gated_conv2d", "fused_conv2d"):
            c, out, pixels = (4, 3, 6) if draw.small else (channels, outputs, side)
            if draw.small and options["padding"] >= pixels:
                continue
            filters = 2 * out if op == "gated_conv2d" else out
            tensors = {
                "x": draw.normal(n, c, pixels, pixels),
                "weight": draw.weight(filters, c, kernel, kernel),
                "bias": draw.normal(filters),
            }
            # The gradients of weights are sums over all pixels.
            terms = max(c * kernel**2, n * pixels**2)
            found.append(Problem(op, name, tensors, options, ("x", "weight", "bias"), terms))
    return found


def _transposed(draw: _Draw) -> list[Problem]:
    c, out, side = (3, 4, 4) if draw.small else (48, 40, 21)
    tensors = {
        "x": draw.normal(2, c, side, side),
        "weight": draw.weight(c, out, 4, 4),
        "bias": draw.normal(out),
    }
    options = {"stride": 2, "padding": 1, "activation": "elu"}
    terms = max(4 * c, 2 * side**2)
    return [
        Problem("fused_conv_transpose2d", "4x4", tensors, options, ("x", "weight", "bias"), terms)
    ]


def _partial(draw: _Draw) -> list[Problem]:
    found = []
    # The fused kernel reads bool masks alone.
    for name, channels, kernel, mask, options in (
        ("3x3", 64, 3, torch.bool, {"padding": 1}),
        ("7x7-stride-2", 3, 7, torch.bool, {"padding": 3, "stride": 2}),
        ("float-mask", 40, 3, torch.float32, {"padding": 1}),
    ):
        c, out, side = (3, 4, 6) if draw.small else (channels, 40, 37)
        tensors = {
            "x": draw.normal(2, c, side, side),
            "valid": draw.bits(2, 1, side, side).to(mask),
            "weight": draw.weight(out, c, kernel, kernel),
            "bias": draw.normal(out),
        }
        terms = max(c * kernel**2, 2 * side**2)
        leaves = ("x", "weight", "bias")
        found.append(Problem("partial_conv2d", name, tensors, options, leaves, terms))
    return found


def _attention(draw: _Draw) -> list[Problem]:
    c, side = (4, 6) if draw.small else (48, 46)
    tensors = {
        "fg": draw.normal(2, c, side, side),
        "bg": draw.normal(2, c, side, side),
        "hole": draw.bits(1, 1, side // 2, side // 2),
    }
    leaves, terms = ("fg", "bg"), 64 * 81 * 4
    found = []
    for name, options in (
        ("fuse", {"softmax_scale": 1.0}),
        ("plain", {"fuse": False, "hole_mode": "exclude", "softmax_scale": 1.0}),
    ):
        found.append(Problem("contextual_attention", name, tensors, options, leaves, terms))
    return found


def _matching(draw: _Draw) -> list[Problem]:
    c, side = (4, 6) if draw.small else (70, 37)
    maps = [draw.normal(2, c, side, side) for _ in range(2)]
    shifted = {"decoder": maps[0], "encoder": maps[1], "hole": draw.bits(2, 1, side, side).bool()}
    mrf = {"generated": maps[0], "target": maps[1]}
    patches = {"query": maps[0], "key": maps[1], "valid": torch.ones(1, 1, side, side)}
    guess = torch.zeros(2, side - 2, side - 2, dtype=torch.int64)
    return [
        Problem("shift_connection", "maps", shifted, {}, ("encoder",)),
        Problem("id_mrf_loss", "sum", mrf, {}, ("generated", "target"), 64 * 1024),
        Problem("nearest_patch", "cosine", patches, {}, terms=c * 9),
        Problem("nearest_patch", "l2-7", patches, {"patch_size": 5, "metric": "l2"}, terms=c * 25),
        Problem("refine_patch", "3", {**patches, "guess": guess}, {"patch_size": 3}, terms=c * 9),
    ]


def _others(draw: _Draw) -> list[Problem]:
    c, side = (4, 6) if draw.small else (24, 37)
    norm = {
        "x": draw.normal(2, c, side, side),
        "weight": draw.normal(c),
        "bias": draw.normal(c),
        "residual": draw.normal(2, c, side, side),
    }
    cells = 9
    linear = {
        "x": draw.normal(2, c, 3, 3),
        "weight": draw.normal(c, cells, cells),
        "bias": draw.normal(c, cells),
    }
    return [
        Problem("instance_norm", "elu", norm, {"activation": "elu"}, tuple(norm), 2 * side**2),
        Problem("channelwise_linear", "3x3", linear, {}, tuple(linear)),
    ]


def problems(small: bool) -> list[Problem]:
    """Return all calls; in a rehearsal the first of each operator, of a few values."""
    draw = _Draw(small)
    makers = (_convolutions, _transposed, _partial, _attention, _matching, _others)
    found = [problem for make in makers for problem in make(draw)]
    if not small:
        return found
    first: dict[str, Problem] = {}
    for problem in found:
        first.setdefault(problem.op, problem)
    return list(first.values())
