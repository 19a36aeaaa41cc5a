"""Files of lines: a sketch that is drawn into a hole, or the edges of a picture."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import torch

from inpaint_ops.images.photo import MAX_PIXELS, load_photo, size_text

if TYPE_CHECKING:
    from torch import Tensor

# Parts of red, green and blue in the brightness (ITU-R BT.601).
_LUMA = (0.299, 0.587, 0.114)
# Share of white above which the file is taken for dark lines on white.
_MOST = 0.5


def load_lines(
    path: str | os.PathLike[str], size: tuple[int, int], *, max_pixels: int = MAX_PIXELS
) -> Tensor:
    """Read lines, white on black: (1, 1, height, width) float32 in [0, 1], 1 = line.

    The value of a pixel is its brightness times its opacity, so that the soft map of an edge
    detector stays soft.

    Args:
        path: the file.
        size: height and width in pixels of the picture the lines belong to.
        max_pixels: as `load_photo`.

    Raises:
        ImportError, OSError: as `load_photo`.
        ValueError: as `load_photo`, another size, more white than black, or no line.
    """
    photo = load_photo(path, max_pixels=max_pixels)
    if photo.size != tuple(size):
        raise ValueError(
            f"{path}: the lines have {size_text(photo.size)} pixels,"
            f" but the picture has {size_text(size)}"
        )
    image = photo.image()
    lines = (image * image.new_tensor(_LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True).clamp(0, 1)
    if photo.has_alpha:
        lines = lines * torch.from_numpy(photo.pixels[..., -1] / photo.levels).to(lines)
    share = float(lines.mean())
    if share > _MOST:
        raise ValueError(
            f"{path}: lines must be white on black or transparent, got {100 * share:.0f} % white"
        )
    if share == 0.0:
        raise ValueError(f"{path}: lines must be white on black or transparent, got no line")
    return lines
