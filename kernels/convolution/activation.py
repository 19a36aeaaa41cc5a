"""Activations and their derivatives, as the convolution kernels apply them to float32 registers.

ACT is an index into ``inpaint_ops.ops.convolution.spec.ACTIVATIONS``.
"""

import triton
import triton.language as tl

from inpaint_ops.ops.convolution import spec

# The costliest first, as `launch.Kernel.free` asks for.
ACTS = (5, 3, 4, 6, 2, 1, 0)
IDENTITY, RELU, LEAKY, ELU, SILU, TANH, SIGMOID = (
    tl.constexpr(spec.ACTIVATIONS.index(name))
    for name in ("identity", "relu", "leaky_relu", "elu", "silu", "tanh", "sigmoid")
)
_LOG2_E = tl.constexpr(1.4426950408889634)
SLOPE = tl.constexpr(spec.LEAKY_SLOPE)


@triton.jit
def exponential(v):
    """exp(v), 0 where that is below the normal numbers.

    One instruction of the processor and one factor. `tl.exp` takes three more for the results that
    are zero here.
    """
    return tl.exp2(v * _LOG2_E)


@triton.jit
def sigmoid(v):
    """1 / (1 + exp(-v)); where exp overflows to infinity, its inverse is 0 as it should be.

    A third of the instructions of a division, as precise: see `exponential`.
    """
    root = tl.rsqrt(1.0 + exponential(-v))
    return root * root


@triton.jit
def activate(v, ACT: tl.constexpr):
    """Activation of v."""
    if ACT == RELU:
        # Not maximum: it would turn a NaN into 0.
        v = tl.where(v < 0.0, 0.0, v)
    elif ACT == LEAKY:
        v = tl.where(v < 0.0, v * SLOPE, v)
    elif ACT == ELU:
        # Both branches are computed; the inner where keeps exp finite in the one not taken.
        v = tl.where(v > 0.0, v, exponential(tl.where(v > 0.0, 0.0, v)) - 1.0)
    elif ACT == SILU:
        v = v * sigmoid(v)
    elif ACT == TANH:
        v = 2.0 * sigmoid(2.0 * v) - 1.0
    elif ACT == SIGMOID:
        v = sigmoid(v)
    else:
        tl.static_assert(ACT == IDENTITY, "an activation without a formula")
    return v


@triton.jit
def derivative(v, ACT: tl.constexpr):
    """Derivative of the activation at v."""
    if ACT == RELU:
        d = tl.where(v > 0.0, 1.0, 0.0)
    elif ACT == LEAKY:
        d = tl.where(v > 0.0, 1.0, SLOPE)
    elif ACT == ELU:
        d = tl.where(v > 0.0, 1.0, exponential(tl.where(v > 0.0, 0.0, v)))
    elif ACT == SILU:
        s = sigmoid(v)
        d = s + v * s * (1.0 - s)
    elif ACT == TANH:
        t = 2.0 * sigmoid(2.0 * v) - 1.0
        d = 1.0 - t * t
    elif ACT == SIGMOID:
        s = sigmoid(v)
        d = s * (1.0 - s)
    else:
        tl.static_assert(ACT == IDENTITY, "an activation without a derivative")
        d = tl.full(v.shape, 1.0, tl.float32)
    return d


@triton.jit
def derivative_of_result(y, ACT: tl.constexpr):
    """Derivative where the activation is y; not for SiLU, which takes a value twice."""
    if ACT == ELU:
        d = tl.where(y > 0.0, 1.0, y + 1.0)
    elif ACT == TANH:
        d = 1.0 - y * y
    elif ACT == SIGMOID:
        d = y * (1.0 - y)
    else:
        d = derivative(y, ACT)
    return d
