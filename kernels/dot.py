"""Matrix product of two blocks inside a kernel."""

import triton
import triton.language as tl

from inpaint_ops.kernels.launch import interpreted

_INTERPRETED = tl.constexpr(interpreted())


@triton.jit
def dot(a, b, acc, PRECISION: tl.constexpr):
    """Acc + a b in float32; PRECISION ("ieee" or "tf32") matters for float32 blocks only."""
    if _INTERPRETED:
        # Triton 3.7's interpreter multiplies the bit patterns of bfloat16 as integers.
        return tl.dot(a.to(tl.float32), b.to(tl.float32), acc, input_precision=PRECISION)
    return tl.dot(a, b, acc, input_precision=PRECISION)
