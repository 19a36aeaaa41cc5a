"""gated_conv2d on GPUs: see `conv_forward` for the kernel and `conv_dispatch` for the choice."""

from typing import Any

from torch import Tensor

from inpaint_ops.kernels.convolution import layer
from inpaint_ops.ops.convolution import spec


def forward(x: Tensor, weight: Tensor, bias: Tensor | None, *rest: Any) -> tuple[Tensor, Tensor]:
    """Arguments and results of the registered operator."""
    *where, activation, keep = rest
    g = spec.geometry(*where)
    y, z = layer.forward(x, weight, bias, g, gated=True, activation=activation, keep=keep)
    return y, spec.empty_gradient(x) if not keep or z is None else z


def backward(
    grad: Tensor, x: Tensor, weight: Tensor, z: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Arguments and results of the registered operator."""
    *where, activation, wanted = rest
    g = spec.geometry(*where)
    return layer.backward(grad, x, weight, z, g, gated=True, activation=activation, wanted=wanted)
