"""Tensors of a case: values, memory layouts, and memory around them that must not change."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from zlib import crc32

import torch
from torch import Tensor

# Largest factors whose products and sums of squares stay inside a type, and smallest.
HUGE = {"float64": 1e60, "float32": 1e14, "bfloat16": 1e14, "float16": 8.0}
TINY = {"float64": 1e-160, "float32": 1e-24, "bfloat16": 1e-24, "float16": 1e-4}


@dataclass
class Made:
    """A tensor and the memory it lies in, with a copy of it from before the calls."""

    tensor: Tensor
    memory: Tensor
    before: Tensor

    def changed(self) -> bool:
        """Whether anything was written to the tensor or around it."""
        return not same_bits(self.memory, self.before)


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors of one type and shape hold the same, NaN and signed zero told apart."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if torch.equal(a, b):
        return not a.is_floating_point() or torch.equal(a.signbit(), b.signbit())
    if not a.is_floating_point():
        return False
    kinds = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    return torch.equal(
        a.contiguous().view(kinds[a.itemsize]), b.contiguous().view(kinds[b.itemsize])
    )


def generator(seed: int, name: str) -> torch.Generator:
    """One of its own for each tensor, so that shrinking one leaves the others."""
    return torch.Generator().manual_seed(seed * 1009 + crc32(name.encode()))


def values(kind: str, shape: Sequence[int], dtype: str, g: torch.Generator) -> Tensor:
    """Packed values in a floating type."""
    wanted: torch.dtype = getattr(torch, dtype)
    if kind == "zeros":
        return torch.zeros(shape, dtype=wanted)
    if kind == "integers":
        return torch.randint(-2, 3, shape, generator=g).to(wanted)
    draw = torch.float64 if dtype == "float64" else torch.float32
    x = torch.randn(shape, generator=g, dtype=draw)
    if kind == "constant":
        x = torch.ones(shape, dtype=draw) * (1.5 if x.numel() == 0 else x.flatten()[0])
    elif kind == "sparse":
        x = torch.where(torch.rand(shape, generator=g) < 0.1, x, 0.0)
    elif kind == "spike" and x.numel():
        place = int(torch.randint(x.numel(), (1,), generator=g))
        x.view(-1)[place] = 100.0 if dtype == "float16" else 1e6
    elif kind == "huge":
        x *= HUGE[dtype]
    elif kind == "tiny":
        x *= TINY[dtype]
    return x.to(wanted)


def mask_values(kind: str, shape: Sequence[int], g: torch.Generator) -> Tensor:
    """(N, K, H, W) bool, or float32 if soft; True in the marked part."""
    n, k, h, w = shape
    if kind == "soft":
        x = torch.rand(n, k, h, w, generator=g)
        return torch.where(x < 0.3, 0.0, torch.where(x > 0.7, 1.0, x))
    marked = torch.zeros(n, k, h, w, dtype=torch.bool)
    if kind == "all" or kind == "none":
        return marked | (kind == "all")
    if kind == "salt":
        return torch.rand(n, k, h, w, generator=g) < 0.5
    if kind == "stripes":
        marked[..., ::2] = True
        return marked
    for plane in marked.flatten(0, 1):
        for _ in range(1 if kind == "box" else 4):
            if h and w:
                top, left = (int(torch.randint(s, (1,), generator=g)) for s in (h, w))
                high, wide = (int(torch.randint(s // 2 + 1, (1,), generator=g)) for s in (h, w))
                plane[top : top + high + 1, left : left + wide + 1] = True
    return marked


def laid_out(x: Tensor, layout: str) -> Made:
    """The same values, except along an expanded dimension, in a layout."""
    dims = x.dim()
    if dims == 0:
        return _made(x, x)
    kind, _, number = layout.partition(" ")
    if kind == "channels_last" and dims == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    elif kind == "transposed" and dims > 1:
        x = x.transpose(-1, -2).contiguous().transpose(-1, -2)
    elif kind == "reversed":
        order = list(range(dims))[::-1]
        x = x.permute(order).contiguous().permute(order)
    elif kind == "offset":
        memory = _poison(x, (x.numel() + 2,))
        memory[1:-1] = x.flatten()
        return _made(memory[1:-1].view(x.shape), memory)
    elif kind in ("sliced", "stepped"):
        step = 1 if kind == "sliced" else 2
        shape = [size + 2 for size in x.shape]
        shape[-1] = step * x.shape[-1] + 2
        memory = _poison(x, shape)
        inner = memory[tuple(slice(1, -1) for _ in shape)][..., ::step]
        inner.copy_(x)
        return _made(inner, memory)
    elif kind == "expanded" and int(number) < dims and x.shape[int(number)]:
        base = x.narrow(int(number), 0, 1).contiguous()
        return _made(base.expand(x.shape), base)
    else:
        x = x.contiguous()
    return _made(x, x)


def _poison(like: Tensor, shape: Sequence[int]) -> Tensor:
    if like.is_floating_point():
        return like.new_full(shape, math.nan)
    return like.new_full(shape, 1 if like.dtype == torch.bool else torch.iinfo(like.dtype).max)


def _made(x: Tensor, memory: Tensor) -> Made:
    return Made(x, memory, memory.clone())


def make(case: dict[str, Any], name: str, spec: dict[str, Any]) -> Made:
    """The tensor that a specification describes: shape, dtype, layout, values, scale, hidden."""
    g = generator(case["seed"], name)
    dtype = spec["dtype"]
    if spec.get("mask"):
        x = mask_values(spec["values"], spec["shape"], g)
        if spec.get("valid"):
            x = ~x if x.dtype == torch.bool else 1 - x
        return laid_out(x.to(getattr(torch, dtype)), spec["layout"])
    if spec["values"] == "positions":
        low, high = spec["range"]
        return laid_out(torch.randint(low, high, spec["shape"], generator=g), spec["layout"])
    x = values(spec["values"], spec["shape"], dtype, g)
    if "scale" in spec and spec["values"] != "integers":
        x = x * spec["scale"]
    return laid_out(x, spec["layout"])


def poisoned_where(made: Made, missing: Tensor, g: torch.Generator) -> Made:
    """The tensor with NaN, infinities and huge numbers where a mask says that nobody looks."""
    x = made.tensor
    bad = torch.tensor([math.nan, math.inf, -math.inf, 6e4], dtype=x.dtype)
    x = torch.where(missing, bad[torch.randint(4, x.shape, generator=g)], x)
    strides = made.tensor.stride()
    memory = made.memory.clone()
    inner = memory.as_strided(x.shape, strides, made.tensor.storage_offset())
    if 0 in strides and x.numel():
        return made
    inner.copy_(x)
    return _made(inner, memory)
