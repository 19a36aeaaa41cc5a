"""An image times its mask, zero where the mask is, whatever the image holds there: one pass.

For the partial convolutions that the library multiplies, and for their gradients. Traffic: the
image once from memory and once to it.
"""

from collections.abc import Sequence
from functools import lru_cache

import torch
import triton.language as tl
from torch import Tensor

from inpaint_ops.kernels.launch import (
    Kernel,
    Row,
    channels_last,
    dense,
    dtype_class,
    jit,
)
from inpaint_ops.kernels.program import Call, cdiv

_TYPES = {
    "x_ptr": "*T",
    "bytes_ptr": "*u8",
    "soft_ptr": "*fp32",
    "y_ptr": "*T",
    "rows": "i32",
    "units": "i32",
    "first_unit": "i32",
    "width_units": "i32",
    "pixels": "i32",
    "parts": "i32",
    "part": "i32",
    "valid_batch": "i32",
}


@jit(_TYPES)
def _partial_conv2d_select_kernel(
    x_ptr,
    bytes_ptr,
    soft_ptr,
    y_ptr,
    rows,
    units,
    first_unit,
    width_units,
    pixels,
    parts,
    part,
    valid_batch,
    SOFT: tl.constexpr,
    EVERY: tl.constexpr,
    UNIT: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Y = x m where m is not 0, else 0, for the channels of one part of the mask m.

    x, y: (rows, units * UNIT), a row for each of the `pixels` of each image; of them the channels
    from first_unit * UNIT on. m: (valid_batch, parts, pixels) bytes, or float32 if SOFT. EVERY
    channel has a part of its own.
    One program: BLOCK_M pixels by BLOCK_C channels. Grid: (blocks of pixels, blocks of channels).
    """
    channels = units * UNIT
    offs_m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    offs_c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    in_m = offs_m < rows
    in_bounds = in_m[:, None] & (offs_c < width_units * UNIT)[None, :]
    image = offs_m // pixels
    image = tl.where(valid_batch == 1, 0, image).to(tl.int64)
    plane = image * parts * pixels + offs_m % pixels
    if EVERY:
        place = plane[:, None] + offs_c.to(tl.int64)[None, :] * pixels
        seen = in_bounds
    else:
        place = (plane + part.to(tl.int64) * pixels)[:, None]
        seen = in_m[:, None]
    if SOFT:
        m = tl.load(soft_ptr + place, mask=seen, other=0.0)
    else:
        m = tl.load(bytes_ptr + place, mask=seen, other=0).to(tl.float32)
    at = offs_m.to(tl.int64)[:, None] * channels + first_unit * UNIT + offs_c[None, :]
    x = tl.load(x_ptr + at, mask=in_bounds, other=0.0)
    y = x.to(tl.float32)
    if SOFT:
        y = y * m
    y = tl.where(m != 0.0, y, 0.0)
    tl.store(y_ptr + at, y.to(y_ptr.dtype.element_ty), mask=in_bounds)


def _rows() -> list[Row]:
    blocks = {"BLOCK_M": 32, "BLOCK_C": 64}
    return [
        Row("half", "half", {**blocks, "UNIT": 8}, stages=1, vectors=("x_ptr",)),
        Row("fp32", "fp32", {**blocks, "BLOCK_C": 32, "UNIT": 4}, stages=1, vectors=("x_ptr",)),
        Row("half-odd", "half", {"BLOCK_M": 64, "BLOCK_C": 16, "UNIT": 1}, stages=1),
        Row("fp32-odd", "fp32", {"BLOCK_M": 64, "BLOCK_C": 16, "UNIT": 1}, stages=1),
    ]


SELECT = Kernel(
    _partial_conv2d_select_kernel,
    _TYPES,
    _rows(),
    free={"SOFT": (True, False), "EVERY": (True, False)},
)
_SHAPES = {row.name: row.constexprs for row in SELECT.rows}


def select(x: Tensor, valid: Tensor, channels: Sequence[int]) -> Tensor:
    """The product, dense NHWC memory.

    Args:
        x: (N, C, H, W), any layout.
        valid: (1 or N, parts, H, W), bool, uint8 (all but 0 counts as 1) or floating.
        channels: of x that belong to each part, if there are neither one nor C parts.
    """
    x = channels_last(x)
    y = torch.empty_like(x, memory_format=torch.channels_last)
    soft = valid.is_floating_point()
    mask = dense(valid.float() if soft else valid.view(torch.uint8))
    pointers = (x, None, mask, y) if soft else (x, mask, None, y)
    for call in _calls(x.shape, x.dtype, valid.shape, soft, tuple(channels)):
        SELECT.run(call, pointers)
    return y


@lru_cache(maxsize=4096)
def _calls(
    shape: tuple[int, ...],
    dtype: torch.dtype,
    mask: tuple[int, ...],
    soft: bool,
    channels: tuple[int, ...],
) -> list[Call]:
    """A launch for each part of the mask."""
    n, c, h, w = shape
    batch, parts = mask[:2]
    every = parts == c
    cuts = (c,) if every or parts == 1 else channels
    calls = []
    first = 0
    for part, width in enumerate(cuts):
        name, unit = dtype_class(dtype), 16 // dtype.itemsize
        if c % unit or first % unit or width % unit:
            name, unit = f"{name}-odd", 1
        blocks = _SHAPES[name]
        call = SELECT.plan(
            name,
            (cdiv(n * h * w, blocks["BLOCK_M"]), cdiv(width, blocks["BLOCK_C"])),
            rows=n * h * w,
            units=c // unit,
            first_unit=first // unit,
            width_units=width // unit,
            pixels=h * w,
            parts=parts,
            part=part,
            valid_batch=batch,
            SOFT=soft,
            EVERY=every and parts > 1,
        )
        calls.append(call)
        first += width
    return calls
