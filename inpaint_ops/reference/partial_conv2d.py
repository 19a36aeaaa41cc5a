"""Partial convolution as NVIDIA's layer computes it."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from inpaint_ops.reference.fused_conv2d import padded


def partial_conv2d(  # noqa: PLR0913 - the options of a convolution
    x: Tensor | Sequence[Tensor],
    valid: Tensor | Sequence[Tensor],
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] | str = 0,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
    normalise: str = "window",
    upsample: int | tuple[int, ...] = 1,
    algorithm: str = "auto",
) -> tuple[Tensor, Tensor]:
    """Plain version of `inpaint_ops.partial_conv2d`: same arguments, results and gradients."""
    kernel = (weight.shape[2], weight.shape[3])
    images = [x] if isinstance(x, Tensor) else list(x)
    masks = [valid] if isinstance(valid, Tensor) else list(valid)
    factors = [upsample] * len(images) if isinstance(upsample, int) else list(upsample)
    kind = masks[0].dtype
    images = [F.interpolate(one, scale_factor=float(f)) for one, f in zip(images, factors)]
    masks = [
        F.interpolate(one.detach().to(image.dtype), scale_factor=float(f))
        for one, image, f in zip(masks, images, factors)
    ]
    if len(images) > 1 or normalise == "sum":
        batch = max(mask.shape[0] for mask in masks)
        masks = [m.expand(batch, one.shape[1], -1, -1) for m, one in zip(masks, images)]
    image, mask = torch.cat(images, 1), torch.cat(masks, 1)

    def convolve(image: Tensor, filters: Tensor, groups: int = 1) -> Tensor:
        image = padded(image, kernel, stride, padding, dilation, "zeros")
        return F.conv2d(image, filters, None, stride, 0, dilation, groups)

    # Select as well as multiply: NaN in a hole stays there.
    masked = torch.where(mask != 0, image * mask, 0)
    with torch.no_grad():
        ones = mask.new_ones(1, mask.shape[1], *kernel)
        total = convolve(mask, ones)
        if normalise == "window":
            update_mask = total.clamp(0, 1)
            mask_ratio = ones.numel() / (total + 1e-8) * update_mask
        else:
            update_mask = (total != 0).to(total.dtype)
            mask_ratio = update_mask / torch.where(total == 0, 1, total)
        seen = update_mask != 0
    raw = convolve(masked, weight, groups)
    y = raw * mask_ratio
    if bias is not None:
        y = (y + bias.view(1, -1, 1, 1)) * update_mask
    return torch.where(seen, y, 0), update_mask.to(kind)
