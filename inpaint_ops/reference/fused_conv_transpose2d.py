"""Transposed convolution with its activation as separate PyTorch calls."""

import torch.nn.functional as F
from torch import Tensor

from inpaint_ops.reference.fused_conv2d import activate


def fused_conv_transpose2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: int = 2,
    padding: int = 1,
    activation: str = "identity",
    algorithm: str = "auto",
) -> Tensor:
    """Plain version of `inpaint_ops.fused_conv_transpose2d`: same arguments and results."""
    return activate(F.conv_transpose2d(x, weight, bias, stride, padding), activation)
