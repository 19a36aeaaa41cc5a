"""Instance normalisation with activation and residual as separate PyTorch calls."""

import torch.nn.functional as F
from torch import Tensor

from inpaint_ops.reference.fused_conv2d import activate


def instance_norm(
    x: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    eps: float = 1e-5,
    activation: str = "identity",
    residual: Tensor | None = None,
) -> Tensor:
    """Plain version of `inpaint_ops.ops.instance_norm`: same arguments, results and gradients."""
    y = activate(F.instance_norm(x, weight=weight, bias=bias, eps=eps), activation)
    return y if residual is None else y + residual
