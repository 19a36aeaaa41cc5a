"""gated_conv2d on GPUs: see `conv_forward` for the kernel and `conv_dispatch` for the choice."""

from typing import Any

from torch import Tensor

from inpaint_ops.kernels import conv_layer
from inpaint_ops.ops import _conv


def forward(x: Tensor, weight: Tensor, bias: Tensor | None, *rest: Any) -> tuple[Tensor, Tensor]:
    """Arguments and results of the registered operator."""
    *where, activation, keep = rest
    g = _conv.geometry(*where)
    y, z = conv_layer.forward(x, weight, bias, g, gated=True, activation=activation, keep=keep)
    return y, _conv.empty_gradient(x) if not keep or z is None else z


def backward(
    grad: Tensor, x: Tensor, weight: Tensor, z: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Arguments and results of the registered operator."""
    *where, activation, wanted = rest
    g = _conv.geometry(*where)
    return conv_layer.backward(
        grad, x, weight, z, g, gated=True, activation=activation, wanted=wanted
    )
