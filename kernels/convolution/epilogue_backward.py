"""Gradients through the elementwise pass of `epilogue`: of the pre-activation and of the bias.

One pass over the gradient of y and the saved tensor writes the gradient of the pre-activation,
from which the library forms those of x and weight.
"""

from functools import lru_cache
from typing import NamedTuple

import torch
import triton.language as tl
from torch import Tensor

from inpaint_ops.kernels.convolution.activation import (
    SILU,
    activate,
    derivative,
    derivative_of_result,
    sigmoid,
)
from inpaint_ops.kernels.convolution.epilogue import (
    FREE,
    GATED,
    PARTIAL,
    block_shape,
    epilogue_rows,
)
from inpaint_ops.kernels.launch import Kernel, jit
from inpaint_ops.kernels.program import Call, cdiv
from inpaint_ops.ops.convolution import spec

_GATED, _PARTIAL = tl.constexpr(GATED), tl.constexpr(PARTIAL)

_TYPES = {
    "grad_ptr": "*T",
    "saved_ptr": "*T",
    "mask_ratio_ptr": "*fp32",
    "update_mask_ptr": "*fp32",
    "grad_pre_activation_ptr": "*T",
    "bias_sums_ptr": "*fp32",
    "rows": "i32",
    "units": "i32",
    "plane_rows": "i32",
    "blocks": "i32",
}


@jit(_TYPES)
def _conv_epilogue_bwd_kernel(
    grad_ptr,
    saved_ptr,
    mask_ratio_ptr,
    update_mask_ptr,
    grad_pre_activation_ptr,
    bias_sums_ptr,
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
    """Gradient of the pre-activation from that of y; its sums over pixels are the bias's gradient.

    saved: the pre-activation of a gated layer or of SiLU, else y.
    One program: every num_programs(0)-th block of BLOCK_M pixels, BLOCK_C channels. Its sums go to
    row program_id(0) of bias_sums, so that the total does not depend on which program ends first.
    Grid: (at most 1024, blocks of channels).
    """
    columns = units * UNIT
    offs_c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    in_c = offs_c < columns
    row_length = columns
    if KIND == _GATED:
        row_length = 2 * columns
    # Summed over rows once, after the loop: there threads have to wait for each other.
    bias_sums = tl.zeros((BLOCK_M, BLOCK_C), tl.float32)
    gate_bias_sums = tl.zeros((BLOCK_M, BLOCK_C), tl.float32)
    for block in range(tl.program_id(0), blocks, tl.num_programs(0)):
        offs_m = block * BLOCK_M + tl.arange(0, BLOCK_M)
        in_m = offs_m < rows
        in_bounds = in_m[:, None] & in_c[None, :]
        at = offs_m.to(tl.int64)[:, None] * row_length + offs_c[None, :]
        grad_at = offs_m.to(tl.int64)[:, None] * columns + offs_c[None, :]
        grad = tl.load(grad_ptr + grad_at, mask=in_bounds, other=0.0).to(tl.float32)
        if KIND == _PARTIAL:
            plane = offs_m % plane_rows
            update_mask = tl.load(update_mask_ptr + plane, mask=in_m, other=0.0)[:, None]
            mask_ratio = tl.load(mask_ratio_ptr + plane, mask=in_m, other=0.0)[:, None]
            # Select, not multiply: the gradient where nothing is valid may be anything, NaN too.
            bias_sums += tl.where(update_mask != 0.0, grad * update_mask, 0.0)
            grad = tl.where(update_mask != 0.0, grad * mask_ratio, 0.0)
        else:
            saved = tl.load(saved_ptr + at, mask=in_bounds, other=0.0).to(tl.float32)
            if KIND == _GATED:
                gate = tl.load(saved_ptr + at + columns, mask=in_bounds, other=0.0).to(tl.float32)
                s = sigmoid(gate)
                grad = grad * s
                grad_gate = grad * activate(saved, ACT) * (1.0 - s)
                gate_bias_sums += grad_gate
                tl.store(
                    grad_pre_activation_ptr + at + columns,
                    grad_gate.to(grad_pre_activation_ptr.dtype.element_ty),
                    mask=in_bounds,
                )
                grad = grad * derivative(saved, ACT)
            elif ACT == SILU:
                grad = grad * derivative(saved, ACT)
            else:
                grad = grad * derivative_of_result(saved, ACT)
            bias_sums += grad
        tl.store(
            grad_pre_activation_ptr + at,
            grad.to(grad_pre_activation_ptr.dtype.element_ty),
            mask=in_bounds,
        )
    row = tl.program_id(0) * row_length
    tl.store(bias_sums_ptr + row + offs_c, tl.sum(bias_sums, 0), mask=in_c)
    if KIND == _GATED:
        gate_row = row + columns
        tl.store(bias_sums_ptr + gate_row + offs_c, tl.sum(gate_bias_sums, 0), mask=in_c)


EPILOGUE_BACKWARD = Kernel(
    _conv_epilogue_bwd_kernel, _TYPES, epilogue_rows("grad_ptr", 16, 32), free=FREE
)
_MOST_PROGRAMS = 1024


def finish_backward(
    grad: Tensor,
    saved: Tensor,
    *,
    kind: int,
    bias: bool,
    activation: str = "identity",
    mask_ratio: Tensor | None = None,
    update_mask: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Gradients of the pre-activation (NHWC, dtype of grad) and of the bias (float32).

    Args:
        grad: of y, dense NHWC memory.
        saved: the pre-activation of a gated layer or of SiLU, else y; not read for PARTIAL.
        kind: PLAIN, GATED or PARTIAL.
        bias: whether its gradient is wanted.
        activation: of y; not of a partial convolution.
        mask_ratio: (N or 1, 1, H, W) float32, for PARTIAL.
        update_mask: likewise.
    """
    planes = None if mask_ratio is None else mask_ratio.numel()
    plan = _plan(grad.shape, grad.dtype, grad.device, kind, activation, planes)
    grad_pre_activation = torch.empty_strided(
        plan.shape, plan.strides, dtype=grad.dtype, device=grad.device
    )
    bias_sums = torch.empty(plan.sums, dtype=torch.float32, device=grad.device)
    pointers = (grad, saved, mask_ratio, update_mask, grad_pre_activation, bias_sums)
    EPILOGUE_BACKWARD.run(plan.call, pointers)
    return grad_pre_activation, bias_sums.sum(0) if bias else None


class _Plan(NamedTuple):
    """Launch and results: shape and strides of the first, shape of the sums for the bias."""

    call: Call
    shape: tuple[int, int, int, int]
    strides: tuple[int, int, int, int]
    sums: tuple[int, int]


@lru_cache(maxsize=4096)
def _plan(
    shape: torch.Size,
    dtype: torch.dtype,
    device: torch.device,
    kind: int,
    activation: str,
    planes: int | None,
) -> _Plan:
    n, channels, h, w = shape
    filters = 2 * channels if kind == GATED else channels
    rows = n * h * w
    name, units, block_m, block_c = block_shape(EPILOGUE_BACKWARD, channels, dtype, device)
    blocks = cdiv(rows, block_m)
    programs = min(blocks, _MOST_PROGRAMS)
    call = EPILOGUE_BACKWARD.plan(
        name,
        (programs, cdiv(channels, block_c)),
        rows=rows,
        units=units,
        plane_rows=rows if planes is None else planes,
        blocks=blocks,
        KIND=kind,
        ACT=spec.ACTIVATIONS.index(activation),
    )
    strides = (h * w * filters, 1, w * filters, filters)
    return _Plan(call, (n, filters, h, w), strides, (programs, filters))
