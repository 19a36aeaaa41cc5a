"""Gated convolution as its paper writes it."""

import torch
from torch import Tensor

from inpaint_ops.reference.fused_conv2d import activate, fused_conv2d


def gated_conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] | str = 0,
    dilation: int | tuple[int, int] = 1,
    padding_mode: str = "zeros",
    activation: str = "elu",
    upsample: int = 1,
    algorithm: str = "auto",
) -> Tensor:
    """Plain version of `inpaint_ops.gated_conv2d`: same arguments, results and gradients."""
    pre_activation = fused_conv2d(
        x,
        weight,
        bias,
        stride=stride,
        padding=padding,
        dilation=dilation,
        padding_mode=padding_mode,
        upsample=upsample,
    )
    features, gates = pre_activation.chunk(2, 1)
    return activate(features, activation) * torch.sigmoid(gates)
