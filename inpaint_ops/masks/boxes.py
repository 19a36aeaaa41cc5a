"""Holes that are boxes: in the middle, or at a random place."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from inpaint_ops.masks.arguments import (
    Seed,
    check_integer,
    check_picture,
    count_range,
    hole_tensor,
    random_generator,
)

if TYPE_CHECKING:
    from torch import Tensor


def center_hole(height: int, width: int, size: int | tuple[int, int] | None = None) -> Tensor:
    """Return a box in the middle as a hole.

    Args:
        height: of the picture in pixels.
        width: of the picture in pixels.
        size: side, or height and width, of the box in pixels; half the picture if None.

    Raises:
        TypeError: a size is not an integer.
        ValueError: a size is not positive, or the box is larger than the picture.
    """
    check_picture("center_hole", height, width, 0)
    box_h, box_w = _box_size("center_hole", height, width, size)
    top, left = (height - box_h) // 2, (width - box_w) // 2
    hole = np.zeros((height, width), bool)
    hole[top : top + box_h, left : left + box_w] = True
    return hole_tensor(hole)


def random_box_hole(
    height: int,
    width: int,
    *,
    seed: Seed,
    size: int | tuple[int, int] | None = None,
    ratio: tuple[float, float] | None = None,
    border: int = 0,
) -> Tensor:
    """Return a box at a random place as a hole.

    Args:
        height: of the picture in pixels.
        width: of the picture in pixels.
        seed: integer, or a generator that is advanced.
        size: side, or height and width, of the box in pixels. None takes half the picture less a
            random 0 to 1/8 of that at both ends, as in the training of DeepFill (128 pixels of
            256, less 0 to 16).
        ratio: (low, high) makes the missing share of the picture lie in (low, high], with sides
            drawn to fit and at most 1 to 2 where possible; excludes size.
        border: pixels at each edge that stay known.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: an argument is out of range, or no box fits.

    Source: Yu et al., "Generative Image Inpainting with Contextual Attention" (CVPR 2018).
    """
    rng = random_generator("random_box_hole", seed)
    check_picture("random_box_hole", height, width, border)
    inner_h, inner_w = height - 2 * border, width - 2 * border
    if ratio is not None:
        if size is not None:
            raise ValueError("random_box_hole: size must be None when ratio is given")
        low, high = count_range("random_box_hole", height, width, ratio, border)
        box_h, box_w = _box_of_area(rng, inner_h, inner_w, low, high)
    else:
        box_h, box_w = _box_size("random_box_hole", inner_h, inner_w, size)
        if size is None:
            box_h -= 2 * int(rng.integers(0, box_h // 8, endpoint=True))
            box_w -= 2 * int(rng.integers(0, box_w // 8, endpoint=True))
    top = border + int(rng.integers(0, inner_h - box_h, endpoint=True))
    left = border + int(rng.integers(0, inner_w - box_w, endpoint=True))
    hole = np.zeros((height, width), bool)
    hole[top : top + box_h, left : left + box_w] = True
    return hole_tensor(hole)


def _box_size(
    name: str, height: int, width: int, size: int | tuple[int, int] | None
) -> tuple[int, int]:
    if size is None:
        return max(height // 2, 1), max(width // 2, 1)
    box = size if isinstance(size, tuple) else (size, size)
    if len(box) != 2:
        raise ValueError(f"{name}: size must be an integer or (height, width), got {size}")
    for side, limit in zip(box, (height, width)):
        check_integer(name, "size", side, 1)
        if side > limit:
            raise ValueError(f"{name}: size must fit into {height} x {width} pixels, got {size}")
    return box


def _box_of_area(
    rng: np.random.Generator, height: int, width: int, low: int, high: int
) -> tuple[int, int]:
    """Draw the sides of a box that fits into height x width and has low to high pixels."""
    heights = np.arange(1, height + 1)
    least = np.maximum(-(-low // heights), 1)
    most = np.minimum(high // heights, width)
    possible = least <= most
    if not possible.any():
        raise ValueError(
            f"random_box_hole: ratio cannot be met: no box within {height} x {width} pixels"
            f" has {low} to {high} pixels"
        )
    # Sides of at most 1 to 2 where possible: without this most draws would be slivers.
    shapely_least = np.maximum(least, -(-heights // 2))
    shapely_most = np.minimum(most, 2 * heights)
    shapely = shapely_least <= shapely_most
    if shapely.any():
        possible, least, most = shapely, shapely_least, shapely_most
    box_h = int(rng.choice(heights[possible]))
    box_w = int(rng.integers(least[box_h - 1], most[box_h - 1], endpoint=True))
    return box_h, box_w
