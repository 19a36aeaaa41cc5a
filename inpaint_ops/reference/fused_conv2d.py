"""Convolution with upsampling, padding and activation as separate PyTorch calls."""

import torch
import torch.nn.functional as F
from torch import Tensor

_ACTIVATIONS = {
    "identity": lambda x: x,
    "relu": F.relu,
    "leaky_relu": lambda x: F.leaky_relu(x, 0.2),
    "elu": F.elu,
    "silu": F.silu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
}


def activate(pre_activation: Tensor, activation: str) -> Tensor:
    """Apply the activation of that name."""
    result: Tensor = _ACTIVATIONS[activation](pre_activation)
    return result


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value


def padded(
    x: Tensor,
    kernel: tuple[int, int],
    stride: int | tuple[int, int],
    padding: int | tuple[int, int] | str,
    dilation: int | tuple[int, int],
    padding_mode: str,
) -> Tensor:
    """Return the input with its padding; "same" is TensorFlow's rule."""
    sides: list[int] = []
    if isinstance(padding, str):
        rules = zip(x.shape[2:], kernel, _pair(stride), _pair(dilation))
        for size, k, step, spread in rules:
            total = max((-(-size // step) - 1) * step + (k - 1) * spread + 1 - size, 0)
            sides = [total // 2, total - total // 2, *sides]
    else:
        vertical, horizontal = _pair(padding)
        sides = [horizontal, horizontal, vertical, vertical]
    mode = "constant" if padding_mode == "zeros" else padding_mode
    return F.pad(x, sides, mode=mode)


def fused_conv2d(  # noqa: PLR0913 - the options of a convolution
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] | str = 0,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
    padding_mode: str = "zeros",
    activation: str = "identity",
    upsample: int = 1,
    algorithm: str = "auto",
) -> Tensor:
    """Plain version of `inpaint_ops.fused_conv2d`: same arguments, results and gradients."""
    if upsample > 1:
        x = F.interpolate(x, scale_factor=upsample, mode="nearest")
    kernel = (weight.shape[2], weight.shape[3])
    x = padded(x, kernel, stride, padding, dilation, padding_mode)
    return activate(F.conv2d(x, weight, bias, stride, 0, dilation, groups), activation)
