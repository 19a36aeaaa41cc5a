"""Tensors as PIL images, and several of them on one sheet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor

from inpaint_ops import checks
from inpaint_ops.images.formats import pillow

if TYPE_CHECKING:
    from PIL import Image

    Picture: TypeAlias = Image.Image
else:
    Picture = Any

# Pixels between pictures of a sheet.
GAP = 2


def check_picture(op: str, image: Tensor) -> None:
    """Check a picture (N, 3 or 1, H, W), floating.

    Raises:
        TypeError, ValueError: wrong type, dtype or shape.
    """
    checks.check_image(op, "image", image)
    if image.shape[1] not in (1, 3) or 0 in image.shape:
        raise ValueError(
            f"{op}: image must have shape (N, 3 or 1, H, W) with pixels, got {tuple(image.shape)}"
        )


def check_colour(op: str, colour: Sequence[float]) -> None:
    """Check a colour, three levels in [0, 1].

    Raises:
        TypeError, ValueError: something else.
    """
    if not isinstance(colour, (tuple, list)) or len(colour) != 3:
        raise TypeError(f"{op}: colour must be three levels in [0, 1], got {colour!r}")
    for level in colour:
        checks.check_finite(op, "colour", level)
    if min(colour) < 0 or max(colour) > 1:
        raise ValueError(f"{op}: colour must be three levels in [0, 1], got {colour!r}")


def rgb(image: Tensor) -> Tensor:
    """Return pictures as (N, 3, H, W) float32 in [0, 1] on the CPU; NaN becomes 0."""
    values = image.detach().cpu().float().nan_to_num(0.0).clamp(0, 1)
    return values.expand(-1, 3, -1, -1)


def enlarged(x: Tensor, scale: int) -> Tensor:
    """Return (N, C, H, W) with each pixel as scale x scale pixels."""
    return x.repeat_interleave(scale, 2).repeat_interleave(scale, 3)


def row(pictures: Tensor) -> Picture:
    """Return pictures (N, 3, H, W) in [0, 1] side by side."""
    return sheet(list(pictures), pictures.shape[0])


def sheet(pictures: Sequence[Tensor], columns: int, ground: float = 1.0) -> Picture:
    """Return pictures (3, H, W) in [0, 1], all of one size, in rows of `columns`.

    `ground` is the grey level between them.
    """
    height, width = pictures[0].shape[1:]
    rows = -(-len(pictures) // columns)
    size = (rows * (height + GAP) - GAP, columns * (width + GAP) - GAP)
    canvas = torch.full((3, *size), ground)
    for number, picture in enumerate(pictures):
        top, left = (height + GAP) * (number // columns), (width + GAP) * (number % columns)
        canvas[:, top : top + height, left : left + width] = picture
    return image_of(canvas)


def image_of(picture: Tensor) -> Picture:
    """Return a picture (3, H, W) in [0, 1] as a PIL image."""
    pixels = (picture * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
    image: Picture = pillow().fromarray(pixels)
    return image
