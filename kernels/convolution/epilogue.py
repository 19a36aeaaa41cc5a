"""What follows the sums of a convolution that cuDNN forms, and what precedes them in its backward.

Used for compute-bound layers: the library multiplies, one elementwise pass here adds the bias,
activates, gates or renormalises (see `conv_dispatch`). Memory is NHWC, seen as a matrix of pixels
by channels.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from inpaint_ops.kernels.convolution.arithmetic import (
    ACTS,
    SILU,
    activate,
    derivative,
    derivative_of_result,
    sigmoid,
)
from inpaint_ops.kernels.launch import (
    ARCHITECTURES,
    Kernel,
    Row,
    architecture,
    dtype_class,
    jit,
)
from inpaint_ops.ops.convolution import spec

# Values of KIND.
PLAIN, GATED, PARTIAL = 0, 1, 2
_GATED, _PARTIAL = tl.constexpr(GATED), tl.constexpr(PARTIAL)

_FORWARD_TYPES = {
    "z_ptr": "*T",
    "bias_ptr": "*T",
    "scale_ptr": "*fp32",
    "share_ptr": "*fp32",
    "y_ptr": "*T",
    "rows": "i32",
    "units": "i32",
    "plane_rows": "i32",
}


@jit(_FORWARD_TYPES)
def _conv_epilogue_fwd_kernel(
    z_ptr,
    bias_ptr,
    scale_ptr,
    share_ptr,
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
    """Y = act(z + bias), act(f) sigmoid(g) of [f | g] = z + bias, or z scale + bias share.

    KEEP writes z + bias back. One program: BLOCK_M pixels by BLOCK_C of the units * UNIT channels
    of y. Grid: (pixels, channels) in blocks.
    """
    columns = units * UNIT
    offs_m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    offs_c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    in_m = offs_m < rows
    in_c = offs_c < columns
    in_bounds = in_m[:, None] & in_c[None, :]
    wide = columns
    if KIND == _GATED:
        wide = 2 * columns
    at = offs_m.to(tl.int64)[:, None] * wide + offs_c[None, :]
    v = tl.load(z_ptr + at, mask=in_bounds, other=0.0).to(tl.float32)
    if HAS_BIAS:
        bias = tl.load(bias_ptr + offs_c, mask=in_c, other=0.0).to(tl.float32)[None, :]
    if KIND == _PARTIAL:
        plane = offs_m % plane_rows
        share = tl.load(share_ptr + plane, mask=in_m, other=0.0)[:, None]
        scale = tl.load(scale_ptr + plane, mask=in_m, other=0.0)[:, None]
        v = v * scale
        if HAS_BIAS:
            v += bias * share
        v = tl.where(share != 0.0, v, 0.0)
    else:
        if HAS_BIAS:
            v += bias
        if KEEP:
            tl.store(z_ptr + at, v.to(z_ptr.dtype.element_ty), mask=in_bounds)
        v = activate(v, ACT)
    if KIND == _GATED:
        gate = tl.load(z_ptr + at + columns, mask=in_bounds, other=0.0).to(tl.float32)
        if HAS_BIAS:
            gate += tl.load(bias_ptr + columns + offs_c, mask=in_c, other=0.0).to(tl.float32)[
                None, :
            ]
        if KEEP:
            tl.store(z_ptr + at + columns, gate.to(z_ptr.dtype.element_ty), mask=in_bounds)
        v = v * sigmoid(gate)
    out = offs_m.to(tl.int64)[:, None] * columns + offs_c[None, :]
    tl.store(y_ptr + out, v.to(y_ptr.dtype.element_ty), mask=in_bounds)


_BACKWARD_TYPES = {
    "grad_ptr": "*T",
    "kept_ptr": "*T",
    "scale_ptr": "*fp32",
    "share_ptr": "*fp32",
    "grad_z_ptr": "*T",
    "sums_ptr": "*fp32",
    "rows": "i32",
    "units": "i32",
    "plane_rows": "i32",
    "blocks": "i32",
}


@jit(_BACKWARD_TYPES)
def _conv_epilogue_bwd_kernel(
    grad_ptr,
    kept_ptr,
    scale_ptr,
    share_ptr,
    grad_z_ptr,
    sums_ptr,
    rows,
    units,
    plane_rows,
    blocks,
    KIND: tl.constexpr,
    ACT: tl.constexpr,
    UNIT: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Gradient of the sums z from that of y, and its column sums: the gradient of the bias.

    kept: z of a gated layer or of SiLU, else y. One program: every num_programs(0)-th block of
    BLOCK_M pixels, BLOCK_C channels; its column sums go to row program_id(0) of `sums`, so that the
    total does not depend on which program ends first. Grid: (at most 1024, channels in blocks).
    """
    columns = units * UNIT
    offs_c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    in_c = offs_c < columns
    wide = columns
    if KIND == _GATED:
        wide = 2 * columns
    sums = tl.zeros((BLOCK_C,), tl.float32)
    gate_sums = tl.zeros((BLOCK_C,), tl.float32)
    for block in range(tl.program_id(0), blocks, tl.num_programs(0)):
        offs_m = block * BLOCK_M + tl.arange(0, BLOCK_M)
        in_m = offs_m < rows
        in_bounds = in_m[:, None] & in_c[None, :]
        at = offs_m.to(tl.int64)[:, None] * wide + offs_c[None, :]
        narrow = offs_m.to(tl.int64)[:, None] * columns + offs_c[None, :]
        grad = tl.load(grad_ptr + narrow, mask=in_bounds, other=0.0).to(tl.float32)
        if KIND == _PARTIAL:
            plane = offs_m % plane_rows
            share = tl.load(share_ptr + plane, mask=in_m, other=0.0)[:, None]
            scale = tl.load(scale_ptr + plane, mask=in_m, other=0.0)[:, None]
            # Select: what flows back from where nothing is valid may be anything.
            sums += tl.sum(tl.where(share != 0.0, grad * share, 0.0), 0)
            grad = tl.where(share != 0.0, grad * scale, 0.0)
        else:
            kept = tl.load(kept_ptr + at, mask=in_bounds, other=0.0).to(tl.float32)
            if KIND == _GATED:
                gate = tl.load(kept_ptr + at + columns, mask=in_bounds, other=0.0).to(tl.float32)
                s = sigmoid(gate)
                grad = grad * s
                grad_gate = grad * activate(kept, ACT) * (1.0 - s)
                gate_sums += tl.sum(grad_gate, 0)
                tl.store(
                    grad_z_ptr + at + columns,
                    grad_gate.to(grad_z_ptr.dtype.element_ty),
                    mask=in_bounds,
                )
                grad = grad * derivative(kept, ACT)
            elif ACT == SILU:
                grad = grad * derivative(kept, ACT)
            else:
                grad = grad * derivative_of_result(kept, ACT)
            sums += tl.sum(grad, 0)
        tl.store(grad_z_ptr + at, grad.to(grad_z_ptr.dtype.element_ty), mask=in_bounds)
    row = tl.program_id(0) * wide
    tl.store(sums_ptr + row + offs_c, sums, mask=in_c)
    if KIND == _GATED:
        tl.store(sums_ptr + row + columns + offs_c, gate_sums, mask=in_c)


def _rows(main: str, half: int, odd: int) -> list[Row]:
    """Channels in 16-byte units, and in single elements for counts that are no multiple of one.

    `half`, `odd`: pixels of a block on CUDA; the backward pass spills on sm_120 with more. ROCm has
    twice the threads to feed.
    """
    wide = (main,)
    blocks = {"UNIT": 8, "BLOCK_C": 64}
    cuda, rocm = ARCHITECTURES[:-1], ARCHITECTURES[-1:]
    return [
        Row("half", "half", {**blocks, "BLOCK_M": half}, wide=wide, stages=2, archs=cuda),
        Row("half", "half", {**blocks, "BLOCK_M": 32}, wide=wide, stages=2, archs=rocm),
        Row("fp32", "fp32", {"UNIT": 4, "BLOCK_M": 32, "BLOCK_C": 32}, wide=wide, stages=2),
        Row("half-odd", "half", {"UNIT": 1, "BLOCK_M": odd, "BLOCK_C": 16}, stages=2),
        Row("fp32-odd", "fp32", {"UNIT": 1, "BLOCK_M": odd, "BLOCK_C": 16}, stages=2),
    ]


_FREE = {"KIND": (GATED, PARTIAL, PLAIN), "ACT": ACTS}
EPILOGUE = Kernel(
    _conv_epilogue_fwd_kernel,
    _FORWARD_TYPES,
    _rows("z_ptr", 32, 64),
    free={**_FREE, "HAS_BIAS": (True, False), "KEEP": (True, False)},
)
EPILOGUE_BACKWARD = Kernel(
    _conv_epilogue_bwd_kernel, _BACKWARD_TYPES, _rows("grad_ptr", 16, 32), free=_FREE
)
_MOST_PROGRAMS = 1024


def _shape(kernel: Kernel, channels: int, y: Tensor) -> tuple[str, int, int, int]:
    """Row name, units, and block sizes for a result of so many channels."""
    name = dtype_class(y.dtype)
    unit = 16 // y.element_size()
    if channels % unit:
        name, unit = f"{name}-odd", 1
    blocks = kernel.row(name, architecture(y.device)).constexprs
    return name, channels // unit, blocks["BLOCK_M"], blocks["BLOCK_C"]


def finish(
    z: Tensor,
    bias: Tensor | None,
    y: Tensor,
    *,
    kind: int,
    activation: str = "identity",
    keep: bool = False,
    scale: Tensor | None = None,
    share: Tensor | None = None,
) -> None:
    """Writes y from the sums z, both NHWC (N, C, H, W) views; `keep` leaves z + bias in z."""
    channels = y.shape[1]
    rows = y.numel() // channels
    name, units, block_m, block_c = _shape(EPILOGUE, channels, y)
    EPILOGUE(
        name,
        (triton.cdiv(rows, block_m), triton.cdiv(channels, block_c)),
        z_ptr=z,
        bias_ptr=z if bias is None else bias,
        scale_ptr=_floats(z, scale),
        share_ptr=_floats(z, share),
        y_ptr=y,
        rows=rows,
        units=units,
        plane_rows=rows if scale is None else scale.numel(),
        KIND=kind,
        ACT=spec.ACTIVATIONS.index(activation),
        HAS_BIAS=bias is not None,
        KEEP=keep,
    )


def finish_backward(
    grad: Tensor,
    kept: Tensor,
    *,
    kind: int,
    activation: str = "identity",
    scale: Tensor | None = None,
    share: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Gradients of the sums (NHWC, dtype of grad) and of the bias (float32)."""
    n, channels, h, w = grad.shape
    filters = 2 * channels if kind == GATED else channels
    rows = n * h * w
    grad_z = torch.empty((n, h, w, filters), dtype=grad.dtype, device=grad.device)
    name, units, block_m, block_c = _shape(EPILOGUE_BACKWARD, channels, grad)
    blocks = triton.cdiv(rows, block_m)
    programs = min(blocks, _MOST_PROGRAMS)
    sums = torch.empty((programs, filters), dtype=torch.float32, device=grad.device)
    EPILOGUE_BACKWARD(
        name,
        (programs, triton.cdiv(channels, block_c)),
        grad_ptr=grad,
        kept_ptr=kept,
        scale_ptr=_floats(sums, scale),
        share_ptr=_floats(sums, share),
        grad_z_ptr=grad_z,
        sums_ptr=sums,
        rows=rows,
        units=units,
        plane_rows=rows if scale is None else scale.numel(),
        blocks=blocks,
        KIND=kind,
        ACT=spec.ACTIVATIONS.index(activation),
    )
    return grad_z.permute(0, 3, 1, 2), sums.sum(0)


def _floats(like: Tensor, plane: Tensor | None) -> Tensor:
    """The plane, or any float32 memory in its place."""
    return torch.empty(4, dtype=torch.float32, device=like.device) if plane is None else plane
