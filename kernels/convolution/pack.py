"""Weights as the fused kernel and the library read them, made by one launch at every call.

Made anew because nothing tells without waiting for the device that a weight is what it was: edits
through ``weight.data`` or in inference mode change no counter. So a captured graph follows its
weights, too. A weight is read once and is small beside what it multiplies.
"""

from functools import lru_cache
from math import prod

import torch
import triton.language as tl
from torch import Tensor

from inpaint_ops.kernels.launch import Kernel, Row, aligned, dtype_class, jit
from inpaint_ops.kernels.program import MOST, Call, cdiv

_TYPES = {
    "weight_ptr": "*T",
    "packed_ptr": "*T",
    "total": "i32",
    "rows": "i32",
    "columns": "i32",
    "known_columns": "i32",
    "taps_y": "i32",
    "taps_x": "i32",
    "kernel_height": "i32",
    "kernel_width": "i32",
    "stride_row": "i32",
    "stride_column": "i32",
    "stride_y": "i32",
    "stride_x": "i32",
    "phases": "i32",
    "phase_pad": "i32",
}


@jit(_TYPES)
def _conv_pack_kernel(
    weight_ptr,
    packed_ptr,
    total,
    rows,
    columns,
    known_columns,
    taps_y,
    taps_x,
    kernel_height,
    kernel_width,
    stride_row,
    stride_column,
    stride_y,
    stride_x,
    phases,
    phase_pad,
    DOUBLED: tl.constexpr,
    PHASED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """packed[phase, row, j, i, column] = weight[row, column, t(j), t(i)], zero where there is none.

    PHASED: t(j) = (phase + phase_pad) mod phases + (taps - 1 - j) phases, see `phases`; else j.
    DOUBLED: tap t of 4 is the sum of the taps [2 - t, 3 - t] of 3, the adjoint of a doubling.
    One program: BLOCK of the `total` results. Grid: (blocks of results).
    """
    offs = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    column = offs % columns
    rest = offs // columns
    x = rest % taps_x
    rest = rest // taps_x
    y = rest % taps_y
    rest = rest // taps_y
    row = rest % rows
    phase = rest // rows
    if PHASED:
        y = (phase // phases + phase_pad) % phases + (taps_y - 1 - y) * phases
        x = (phase % phases + phase_pad) % phases + (taps_x - 1 - x) * phases
    known = (offs < total) & (column < known_columns)
    base = weight_ptr + row.to(tl.int64) * stride_row + column.to(tl.int64) * stride_column
    if DOUBLED:
        first_y = tl.maximum(2 - y, 0)
        first_x = tl.maximum(2 - x, 0)
        two_y = known & (tl.minimum(3 - y, 2) > first_y)
        two_x = known & (tl.minimum(3 - x, 2) > first_x)
        at = base + first_y.to(tl.int64) * stride_y + first_x.to(tl.int64) * stride_x
        value = tl.load(at, mask=known, other=0.0).to(tl.float32)
        value += tl.load(at + stride_x, mask=two_x, other=0.0).to(tl.float32)
        below = tl.load(at + stride_y, mask=two_y, other=0.0).to(tl.float32)
        below += tl.load(at + stride_y + stride_x, mask=two_y & two_x, other=0.0).to(tl.float32)
        value += below
    else:
        known = known & (y < kernel_height) & (x < kernel_width)
        at = base + y.to(tl.int64) * stride_y + x.to(tl.int64) * stride_x
        value = tl.load(at, mask=known, other=0.0).to(tl.float32)
    tl.store(packed_ptr + offs, value.to(packed_ptr.dtype.element_ty), mask=offs < total)


_BLOCK = 512
PACK = Kernel(
    _conv_pack_kernel,
    _TYPES,
    [Row(dtype, dtype, {"BLOCK": _BLOCK}, stages=1) for dtype in ("half", "fp32")],
    free={"DOUBLED": (True, False), "PHASED": (True, False)},
)


def _pack(
    weight: Tensor,
    shape: tuple[int, int, int, int, int],
    *,
    phases: int = 1,
    phase_pad: int = 0,
    doubled: bool = False,
    phased: bool = True,
) -> Tensor:
    """Memory of that shape, from a weight whose axes are (row, column, y, x) in any strides."""
    weight = aligned(weight.contiguous() if max(weight.stride()) > MOST else weight)
    packed = torch.empty(shape, dtype=weight.dtype, device=weight.device)
    options = (phases, phase_pad, doubled, phased)
    call = _call(shape, weight.dtype, weight.shape, weight.stride(), *options)
    PACK.run(call, (weight, packed))
    return packed


@lru_cache(maxsize=4096)
def _call(
    shape: tuple[int, int, int, int, int],
    dtype: torch.dtype,
    weight: tuple[int, ...],
    strides: tuple[int, ...],
    phases: int,
    phase_pad: int,
    doubled: bool,
    phased: bool,
) -> Call:
    _, rows, taps_y, taps_x, columns = shape
    total = prod(shape)
    return PACK.plan(
        dtype_class(dtype),
        (cdiv(total, _BLOCK),),
        total=total,
        rows=rows,
        columns=columns,
        known_columns=weight[1],
        taps_y=taps_y,
        taps_x=taps_x,
        kernel_height=weight[2],
        kernel_width=weight[3],
        stride_row=strides[0],
        stride_column=strides[1],
        stride_y=strides[2],
        stride_x=strides[3],
        phases=phases,
        phase_pad=phase_pad,
        DOUBLED=doubled,
        PHASED=phased,
    )


def padded(weight: Tensor, channels: int) -> Tensor:
    """(1, filters, kh, kw, channels) from (filters, C, kh, kw), zeros from channel C on."""
    filters, _, kh, kw = weight.shape
    return _pack(weight, (1, filters, kh, kw, channels), phased=False)


def doubled(weight: Tensor, channels: int) -> Tensor:
    """(4 phases, filters, 2, 2, channels) for an image before its doubling, from 3x3 taps after it.

    (filters, C, 3, 3); sums of taps are formed in float32.
    """
    shape = (4, weight.shape[0], 2, 2, channels)
    return _pack(weight, shape, phases=2, phase_pad=1, doubled=True)


def doubled_transposed(weight: Tensor) -> Tensor:
    """The same as the weight of a transposed convolution, (C, filters, 4, 4) in channels_last."""
    filters, channels = weight.shape[:2]
    swapped = weight.transpose(0, 1)
    return _pack(swapped, (1, channels, 4, 4, filters), doubled=True, phased=False)[0].permute(
        0, 3, 1, 2
    )


def transposed(weight: Tensor, stride: int, padding: int, channels: int) -> Tensor:
    """(stride**2 phases, filters, ky, kx, channels) from (C, filters, kh, kw).

    Phase o mod stride meets the taps t = (o + padding) mod stride + j stride, j descending as i
    ascends. `channels`: C and the zeros that pad it.
    """
    _, filters, kh, kw = weight.shape
    shape = (stride**2, filters, -(-kh // stride), -(-kw // stride), channels)
    return _pack(weight.transpose(0, 1), shape, phases=stride, phase_pad=padding)
