"""Pictures and holes: ranges, sizes, compositing."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def composite(image: Tensor, prediction: Tensor, hole: Tensor) -> Tensor:
    """The prediction where hole is 1, the image elsewhere; (N, C, H, W), hole (N, 1, H, W)."""
    return torch.where(hole > 0, prediction, image)


def erase(image: Tensor, hole: Tensor, value: float = 0.0) -> Tensor:
    """The image with a number in place of its missing pixels."""
    return torch.where(hole > 0, image.new_tensor(value), image)


def arranged(x: Tensor) -> Tensor:
    """The tensor in channels_last, the layout the convolutions work in."""
    return x.contiguous(memory_format=torch.channels_last)


def stacked(*planes: Tensor) -> Tensor:
    """Concatenation of channels, arranged."""
    return arranged(torch.cat(planes, 1))


def resized(image: Tensor, size: tuple[int, int]) -> Tensor:
    """The image at another size, bilinear, antialiased where it shrinks."""
    if tuple(image.shape[2:]) == size:
        return image
    return F.interpolate(image, size=size, mode="bilinear", antialias=True)


def resized_hole(hole: Tensor, size: tuple[int, int]) -> Tensor:
    """The mask at another size: missing is what any missing pixel touches."""
    return F.adaptive_max_pool2d(hole, size)


def pad_for(kernel: int, dilation: int, rule: str) -> int | str:
    """Padding that keeps the size at stride 1: "same" is TensorFlow's rule, "symmetric" ours."""
    return "same" if rule == "same" else dilation * (kernel - 1) // 2


def signed(image: Tensor) -> Tensor:
    """[0, 1] to [-1, 1]."""
    return image * 2 - 1


def unsigned(image: Tensor) -> Tensor:
    """[-1, 1] to [0, 1]."""
    return (image + 1) / 2
