"""Matrix product of two blocks inside a kernel."""

import triton
import triton.language as tl

from inpaint_ops.kernels.launch import interpreted

_INTERPRETED = tl.constexpr(interpreted())


@triton.jit
def dot(a, b, acc, PRECISION: tl.constexpr):
    """Acc + a b in float32; PRECISION matters for float32 blocks only.

    "ieee": exact products. "tf32": factors cut to 11 bits. "tf32x3": a factor is the sum of two of
    11 bits, and the three larger products of those are added up, on tensor cores in 0.3 to 0.6 of
    the issue slots of "ieee". Its error is that of float32: simulated, the largest of 9216 sums is
    off by 1.1e-6 of the sum of the sizes of 288 products and by 2.2e-6 of 2304, where "ieee" is off
    by 1.0e-6 and 3.2e-6 and "tf32" by 1.3e-3 and 1.1e-3.
    """
    if _INTERPRETED:
        # Triton 3.7's interpreter multiplies the bit patterns of bfloat16 as integers.
        return tl.dot(a.to(tl.float32), b.to(tl.float32), acc, input_precision=PRECISION)
    return tl.dot(a, b, acc, input_precision=PRECISION)
