"""Channel-wise fully connected layer as its formula reads."""

import torch
from torch import Tensor


def channelwise_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Plain version of `inpaint_ops.channelwise_linear`; a result of another size is a column.

    Args:
        x: (N, C, H, W).
        weight: (C, Ho * Wo, H * W).
        bias: (C, Ho * Wo).

    Returns:
        (N, C, H, W) if Ho * Wo equals H * W, else (N, C, Ho * Wo, 1).
    """
    y = torch.einsum("nci,coi->nco", x.flatten(2), weight)
    if bias is not None:
        y = y + bias
    same = weight.shape[1] == weight.shape[2]
    return y.view(x.shape) if same else y[..., None]
