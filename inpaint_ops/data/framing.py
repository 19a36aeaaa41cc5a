"""Pictures of one size: resized, cropped and flipped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch.nn.functional as F

from inpaint_ops import checks
from inpaint_ops.images import Photo

if TYPE_CHECKING:
    from torch import Tensor

RESIZES = ("shorter", "none")
CROPS = ("random", "center")


@dataclass(frozen=True)
class Framing:
    """The way from a picture of any size to one of `size`.

    Attributes:
        size: height and width of the result in pixels.
        resize: "shorter": the picture is scaled until it just covers `size`; "none": it keeps its
            pixels, unless it is smaller than `size`.
        scale: (low, high): "shorter" covers `size` times a number drawn from this range. GLCIC
            takes 256 to 384 pixels for crops of 256, a range of 1 to 1.5.
        crop: "random" or "center".
        flip: mirror half of the pictures, drawn at random.
        recolour: let the channels change places at random, and squeeze each into a random part of
            [0, 1], at least 0.4 of it: a few photographs then stand for many colours.

    Raises:
        TypeError, ValueError: a wrong type, size, range or choice.
    """

    size: tuple[int, int]
    resize: str = "shorter"
    scale: tuple[float, float] = (1.0, 1.0)
    crop: str = "random"
    flip: bool = True
    recolour: bool = False

    def __post_init__(self) -> None:
        for name, side in zip(("height", "width"), self.size):
            checks.check_int("Framing", f"{name} of size", side, 1)
        checks.check_choice("Framing", "resize", self.resize, RESIZES)
        checks.check_choice("Framing", "crop", self.crop, CROPS)
        low, high = self.scale
        if not 1 <= low <= high < float("inf"):
            raise ValueError(f"Framing: scale must satisfy 1 <= low <= high, got {self.scale}")
        if self.resize == "none" and self.scale != (1.0, 1.0):
            raise ValueError("Framing: scale must be (1, 1) where resize is 'none'")

    def __call__(self, photo: Photo, rng: np.random.Generator) -> Tensor:
        """Return (3, height, width) float32 RGB in [0, 1]; alpha is dropped.

        The crop is cut out of the stored pixels, then resized, bilinear and antialiased: what is
        outside of it has no influence, and no time is spent on it.
        """
        # Drawn in any case, so that one option does not change what another one draws.
        zoom = self.scale[0] + (self.scale[1] - self.scale[0]) * rng.random()
        places, mirrored = rng.random(2), rng.random() < 0.5
        if self.crop == "center":
            places[:] = 0.5
        ratios = [have / want for have, want in zip(photo.size, self.size)]
        # Pixels of the picture for one of the result.
        step = min(ratios) / zoom if self.resize == "shorter" else min(1.0, *ratios)
        box = [min(max(round(want * step), 1), have) for have, want in zip(photo.size, self.size)]
        top, left = (
            round(place * (have - taken)) for place, have, taken in zip(places, photo.size, box)
        )
        pixels = photo.pixels[top : top + box[0], left : left + box[1]]
        image = Photo(np.ascontiguousarray(pixels)).image()
        if tuple(box) != tuple(self.size):
            image = F.interpolate(image, size=self.size, mode="bilinear", antialias=True)
            image = image.clamp(0, 1)
        if self.flip and mirrored:
            image = image.flip(3)
        if self.recolour:
            image = _recoloured(image, rng)
        return image[0].contiguous()


def _recoloured(image: Tensor, rng: np.random.Generator) -> Tensor:
    order = rng.permutation(3)
    low, high = 0.3 * rng.random(3), 1 - 0.3 * rng.random(3)
    span, lowest = (image.new_tensor(x).view(3, 1, 1) for x in (high - low, low))
    return image[:, order] * span + lowest


@dataclass(frozen=True)
class Whole:
    """Pictures in their own size, as they are stored; nothing is drawn."""

    def __call__(self, photo: Photo, _rng: np.random.Generator) -> Tensor:
        """Return (3, height, width) float32 RGB in [0, 1]; alpha is dropped."""
        return photo.image()[0]
