"""Elementwise pass after a convolution that cuDNN forms, and before its products in the backward.

For the layers that `choose` leaves to the library: it multiplies, one pass here adds the bias,
activates, gates or renormalises. Memory is NHWC, seen as a matrix of pixels by channels. Traffic:
the product once, y once, and the product once more if the pre-activation is kept.
"""

from functools import lru_cache

import torch
import triton.language as tl
from torch import Tensor

from inpaint_ops.kernels.convolution.activation import ACTS, activate, sigmoid
from inpaint_ops.kernels.launch import ARCHITECTURES, Kernel, Row, architecture, dtype_class, jit
from inpaint_ops.kernels.program import Call, cdiv
from inpaint_ops.ops.convolution import spec

# Values of KIND.
PLAIN, GATED, PARTIAL = 0, 1, 2
_GATED, _PARTIAL = tl.constexpr(GATED), tl.constexpr(PARTIAL)

FREE = {"KIND": (GATED, PARTIAL, PLAIN), "ACT": ACTS}

_TYPES = {
    "product_ptr": "*T",
    "bias_ptr": "*T",
    "mask_ratio_ptr": "*fp32",
    "update_mask_ptr": "*fp32",
    "y_ptr": "*T",
    "rows": "i32",
    "units": "i32",
    "plane_rows": "i32",
}


@jit(_TYPES)
def _conv_epilogue_fwd_kernel(
    product_ptr,
    bias_ptr,
    mask_ratio_ptr,
    update_mask_ptr,
    y_ptr,
    rows,
    units,
    plane_rows,
    KIND: tl.constexpr,
    ACT: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    KEEP: tl.constexpr,
    UNIT: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Y from the product p of a convolution, for each KIND.

    PLAIN: y = act(p + bias). GATED: y = act(f) sigmoid(g), [f | g] = p + bias.
    PARTIAL: y = p mask_ratio + bias update_mask, and 0 where update_mask is 0.
    KEEP puts the pre-activation p + bias in the place of p.
    One program: BLOCK_M pixels by BLOCK_C of the units * UNIT channels of y.
    Grid: (blocks of pixels, blocks of channels).
    """
    columns = units * UNIT
    offs_m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    offs_c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    in_m = offs_m < rows
    in_c = offs_c < columns
    in_bounds = in_m[:, None] & in_c[None, :]
    row_length = columns
    if KIND == _GATED:
        row_length = 2 * columns
    at = offs_m.to(tl.int64)[:, None] * row_length + offs_c[None, :]
    v = tl.load(product_ptr + at, mask=in_bounds, other=0.0).to(tl.float32)
    if HAS_BIAS:
        bias = tl.load(bias_ptr + offs_c, mask=in_c, other=0.0).to(tl.float32)[None, :]
    if KIND == _PARTIAL:
        plane = offs_m % plane_rows
        update_mask = tl.load(update_mask_ptr + plane, mask=in_m, other=0.0)[:, None]
        mask_ratio = tl.load(mask_ratio_ptr + plane, mask=in_m, other=0.0)[:, None]
        v = v * mask_ratio
        if HAS_BIAS:
            v += bias * update_mask
        v = tl.where(update_mask != 0.0, v, 0.0)
    else:
        if HAS_BIAS:
            v += bias
        if KEEP:
            tl.store(product_ptr + at, v.to(product_ptr.dtype.element_ty), mask=in_bounds)
        v = activate(v, ACT)
    if KIND == _GATED:
        gate = tl.load(product_ptr + at + columns, mask=in_bounds, other=0.0).to(tl.float32)
        if HAS_BIAS:
            gate += tl.load(bias_ptr + columns + offs_c, mask=in_c, other=0.0).to(tl.float32)[
                None, :
            ]
        if KEEP:
            tl.store(
                product_ptr + at + columns, gate.to(product_ptr.dtype.element_ty), mask=in_bounds
            )
        v = v * sigmoid(gate)
    out = offs_m.to(tl.int64)[:, None] * columns + offs_c[None, :]
    tl.store(y_ptr + out, v.to(y_ptr.dtype.element_ty), mask=in_bounds)


def epilogue_rows(main: str, half: int, odd: int) -> list[Row]:
    """Rows for channels in units of 16 bytes, and "-odd" ones for other counts of channels.

    `main`: the operand to be loaded by 16 bytes. `half`, `odd`: pixels of a block on CUDA; with
    more the backward pass spills on sm_120. ROCm has twice the threads to feed.
    """
    vectors = (main,)
    blocks = {"UNIT": 8, "BLOCK_C": 64}
    cuda, rocm = ARCHITECTURES[:-1], ARCHITECTURES[-1:]
    return [
        Row("half", "half", {**blocks, "BLOCK_M": half}, vectors=vectors, stages=2, archs=cuda),
        Row("half", "half", {**blocks, "BLOCK_M": 32}, vectors=vectors, stages=2, archs=rocm),
        Row("fp32", "fp32", {"UNIT": 4, "BLOCK_M": 32, "BLOCK_C": 32}, vectors=vectors, stages=2),
        Row("half-odd", "half", {"UNIT": 1, "BLOCK_M": odd, "BLOCK_C": 16}, stages=2),
        Row("fp32-odd", "fp32", {"UNIT": 1, "BLOCK_M": odd, "BLOCK_C": 16}, stages=2),
    ]


EPILOGUE = Kernel(
    _conv_epilogue_fwd_kernel,
    _TYPES,
    epilogue_rows("product_ptr", 32, 64),
    free={**FREE, "HAS_BIAS": (True, False), "KEEP": (True, False)},
)


def block_shape(
    kernel: Kernel, channels: int, dtype: torch.dtype, device: torch.device
) -> tuple[str, int, int, int]:
    """Name of the row, units, BLOCK_M and BLOCK_C for a result of so many channels."""
    name = dtype_class(dtype)
    unit = 16 // dtype.itemsize
    if channels % unit:
        name, unit = f"{name}-odd", 1
    blocks = kernel.row(name, architecture(device)).constexprs
    return name, channels // unit, blocks["BLOCK_M"], blocks["BLOCK_C"]


def finish(
    product: Tensor,
    bias: Tensor | None,
    y: Tensor,
    *,
    kind: int,
    activation: str = "identity",
    keep: bool = False,
    mask_ratio: Tensor | None = None,
    update_mask: Tensor | None = None,
) -> None:
    """Write y from the library's product; `keep` leaves the pre-activation in the product's place.

    Args:
        product: (N, filters, H, W), a view of dense NHWC memory.
        bias: (filters,).
        y: (N, filters or half of them, H, W), a view of dense NHWC memory.
        kind: PLAIN, GATED or PARTIAL.
        activation: of y; not of a partial convolution.
        keep: whether the backward pass needs the pre-activation.
        mask_ratio: (N or 1, 1, H, W) float32, for PARTIAL.
        update_mask: likewise.
    """
    planes = None if mask_ratio is None else mask_ratio.numel()
    call = _call(y.shape, y.dtype, y.device, kind, activation, bias is not None, keep, planes)
    EPILOGUE.run(call, (product, bias, mask_ratio, update_mask, y))


@lru_cache(maxsize=4096)
def _call(
    shape: tuple[int, ...],
    dtype: torch.dtype,
    device: torch.device,
    kind: int,
    activation: str,
    biased: bool,
    keep: bool,
    planes: int | None,
) -> Call:
    n, channels, height, width = shape
    rows = n * height * width
    name, units, block_m, block_c = block_shape(EPILOGUE, channels, dtype, device)
    return EPILOGUE.plan(
        name,
        (cdiv(rows, block_m), cdiv(channels, block_c)),
        rows=rows,
        units=units,
        plane_rows=rows if planes is None else planes,
        KIND=kind,
        ACT=spec.ACTIVATIONS.index(activation),
        HAS_BIAS=biased,
        KEEP=keep,
    )
