"""my_op on the GPU. State here: what a program does, its registers, and the traffic.

A program takes a block of one plane (sample and channel). Traffic: x once, y once.
"""

import torch
import triton.language as tl
from torch import Tensor

from inpaint_ops.kernels.launch import Kernel, Row, aligned, dtype_class, jit
from inpaint_ops.kernels.program import cdiv
from inpaint_ops.ops.tensors import memory_format

# What the kernel takes; "T" is the type of the row below.
_TYPES = {
    "x_ptr": "*T",
    "weight_ptr": "*T",
    "y_ptr": "*T",
    "channels": "i32",
    "pixels": "i32",
    "factor": "fp32",
}


@jit(_TYPES)
def _my_op_fwd_kernel(x_ptr, weight_ptr, y_ptr, channels, pixels, factor, BLOCK: tl.constexpr):
    """Multiply each plane by its factor. Grid: (N C, blocks of pixels)."""
    # What may pass 65535 is the first axis of the grid.
    plane = tl.program_id(0)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    # Offsets that may pass 2**31 are 64-bit.
    place = plane.to(tl.int64) * pixels + at
    weight = tl.load(weight_ptr + plane % channels).to(tl.float32)
    x = tl.load(x_ptr + place, mask=at < pixels, other=0.0).to(tl.float32)
    tl.store(y_ptr + place, x * (weight * factor), mask=at < pixels)


_BLOCK = 1024
# Each row is one compiled program, with a budget of its own: `make gpu-compile
# GPU_COMPILE_ARGS=--update` stores it, and its diff is part of the change.
FORWARD = Kernel(
    _my_op_fwd_kernel,
    _TYPES,
    [
        Row("half", "half", {"BLOCK": _BLOCK}, stages=1),
        Row("fp32", "fp32", {"BLOCK": _BLOCK}, stages=1),
    ],
)


def my_op(x: Tensor, weight: Tensor, factor: float) -> Tensor:
    """The operator, with the arguments of its schema; float64 never comes here."""
    n, c, h, w = x.shape
    planes = aligned(x.contiguous())
    y = torch.empty_like(planes)
    if x.numel():
        FORWARD(
            dtype_class(x.dtype),
            (n * c, cdiv(h * w, _BLOCK)),
            x_ptr=planes,
            weight_ptr=aligned(weight.contiguous()),
            y_ptr=y,
            channels=c,
            pixels=h * w,
            factor=factor,
        )
    return y.contiguous(memory_format=memory_format(x))
