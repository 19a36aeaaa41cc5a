"""Holes drawn at random: boxes, brush strokes and wandering lines, with a chosen share of pixels.

Every function returns a (1, 1, height, width) bool tensor, True = missing. The random ones take a
seed and give the same hole for the same seed and arguments.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch

from inpaint_ops.masks.canvas import Canvas

if TYPE_CHECKING:
    import numpy.typing as npt
    from torch import Tensor

Seed: TypeAlias = "int | np.random.Generator"

# The shares (low, high] of the irregular test set of Liu et al., "Image Inpainting for Irregular
# Holes Using Partial Convolutions" (ECCV 2018), section 4.1.
HOLE_RATIO_BINS = ((0.01, 0.1), (0.1, 0.2), (0.2, 0.3), (0.3, 0.4), (0.4, 0.5), (0.5, 0.6))


def center_hole(height: int, width: int, size: int | tuple[int, int] | None = None) -> Tensor:
    """A box in the middle.

    Args:
        height: of the picture in pixels.
        width: of the picture in pixels.
        size: side, or height and width, of the box in pixels; half the picture if None.

    Raises:
        TypeError: a size is not an integer.
        ValueError: a size is not positive, or the box is larger than the picture.
    """
    _check_picture("center_hole", height, width, 0)
    box_h, box_w = _box_size("center_hole", height, width, size)
    top, left = (height - box_h) // 2, (width - box_w) // 2
    hole = np.zeros((height, width), bool)
    hole[top : top + box_h, left : left + box_w] = True
    return _tensor(hole)


def random_box_hole(
    height: int,
    width: int,
    *,
    seed: Seed,
    size: int | tuple[int, int] | None = None,
    ratio: tuple[float, float] | None = None,
    border: int = 0,
) -> Tensor:
    """A box at a random place.

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
    rng = _generator("random_box_hole", seed)
    _check_picture("random_box_hole", height, width, border)
    inner_h, inner_w = height - 2 * border, width - 2 * border
    if ratio is not None:
        if size is not None:
            raise ValueError("random_box_hole: size must be None when ratio is given")
        low, high = _count_range("random_box_hole", height, width, ratio, border)
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
    return _tensor(hole)


def free_form_hole(
    height: int,
    width: int,
    *,
    seed: Seed,
    ratio: tuple[float, float] | None = None,
    border: int = 0,
    scale_brush: bool = False,
) -> Tensor:
    """Zig-zag brush strokes.

    Without ratio 1 to 3 strokes of 4 to 11 segments are drawn; a stroke is 12 to 39 pixels wide,
    a segment has a normally distributed length of mean R = sqrt(height^2 + width^2) / 8 and
    deviation floor(R / 2), clipped to [0, 2R], and turns back and forth by about 2 pi / 5.

    Args:
        height: of the picture in pixels.
        width: of the picture in pixels.
        seed: integer, or a generator that is advanced.
        ratio: (low, high) makes the missing share of the picture lie in (low, high]: strokes are
            added until a share drawn from that range is reached, and the last one is cut short.
        border: pixels at each edge that stay known.
        scale_brush: scale the width of the brush by sqrt(height * width) / 256; the lengths
            always follow the size.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: an argument is out of range, or ratio cannot be met.

    Source: Yu et al., "Free-Form Image Inpainting with Gated Convolution" (ICCV 2019), with the
    parameters of JiahuiYu/generative_inpainting:inpaint_ops.py. That code takes height for width,
    which matters for pictures that are not square; here it is not so. The edges of strokes
    differ by pixels: ours are exact distances to the segment.
    """
    rng = _generator("free_form_hole", seed)
    _check_picture("free_form_hole", height, width, border)
    canvas = Canvas(height, width, border)
    radius_scale = math.sqrt(height * width) / 256 if scale_brush else 1.0

    def stroke(budget: int) -> None:
        mean = math.hypot(height, width) / 8
        low = 0.4 * math.pi - rng.uniform(0, 2 * math.pi / 15)
        high = 0.4 * math.pi + rng.uniform(0, 2 * math.pi / 15)
        brush = int(rng.uniform(12, 40)) * radius_scale
        point = canvas.random_point(rng)
        for vertex in range(int(rng.integers(4, 12))):
            angle = rng.uniform(low, high)
            if vertex % 2 == 0:
                angle = 2 * math.pi - angle
            length = min(max(rng.normal(mean, mean // 2), 0.0), 2 * mean)
            point = canvas.line(point, angle, length, brush / 2, budget)

    if ratio is None:
        for _ in range(int(rng.integers(1, 4))):
            stroke(height * width)
    else:
        canvas.fill_to(
            _draw_count(rng, _count_range("free_form_hole", height, width, ratio, border)), stroke
        )
    return _tensor(canvas.hole)


def irregular_hole(
    height: int,
    width: int,
    *,
    seed: Seed,
    ratio: tuple[float, float] | None = None,
    border: int = 0,
) -> Tensor:
    """Lines that wander: random walks whose heading and thickness drift.

    A line has 8 to 40 steps; everything scales with s = sqrt(height * width): a step is s / 40 to
    s / 12 long, the thickness is s / 128 to s / 12.

    Args:
        height: of the picture in pixels.
        width: of the picture in pixels.
        seed: integer, or a generator that is advanced.
        ratio: (low, high) makes the missing share of the picture lie in (low, high]: lines are
            added until a share drawn from that range is reached, and the last one is cut short.
            None draws one of `HOLE_RATIO_BINS`, each equally likely.
        border: pixels at each edge that stay known; the test set of partial convolutions has
            50 of 512 in its second half.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: an argument is out of range, or ratio cannot be met.

    Source: after the irregular holes of Liu et al. (ECCV 2018), which came from occlusions between
    video frames; the walk is our own.
    """
    rng = _generator("irregular_hole", seed)
    _check_picture("irregular_hole", height, width, border)
    if ratio is None:
        ratio = HOLE_RATIO_BINS[int(rng.integers(len(HOLE_RATIO_BINS)))]
    target = _draw_count(rng, _count_range("irregular_hole", height, width, ratio, border))
    canvas = Canvas(height, width, border)
    scale = math.sqrt(height * width)

    def stroke(budget: int) -> None:
        point = canvas.random_point(rng)
        heading = rng.uniform(0, 2 * math.pi)
        radius = scale * rng.uniform(1 / 256, 1 / 24)
        for _ in range(int(rng.integers(8, 41))):
            heading += rng.normal(0, 0.6)
            radius = min(max(radius * math.exp(rng.normal(0, 0.15)), scale / 256), scale / 24)
            length = scale * rng.uniform(1 / 40, 1 / 12)
            point = canvas.line(point, heading, length, radius, budget)
            # Going on would draw a frame along the edge.
            if canvas.on_edge(point):
                break

    canvas.fill_to(target, stroke)
    return _tensor(canvas.hole)


def _tensor(hole: npt.NDArray[np.bool_]) -> Tensor:
    return torch.from_numpy(hole)[None, None]


def _generator(name: str, seed: Seed) -> np.random.Generator:
    if isinstance(seed, np.random.Generator):
        return seed
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)):
        raise TypeError(
            f"{name}: seed must be an integer or numpy.random.Generator, got {type(seed).__name__}"
        )
    if seed < 0:
        raise ValueError(f"{name}: seed must be >= 0, got {seed}")
    return np.random.default_rng(int(seed))


def _check_picture(name: str, height: int, width: int, border: int) -> None:
    _check_integer(name, "height", height, 1)
    _check_integer(name, "width", width, 1)
    _check_integer(name, "border", border, 0)
    if 2 * border >= min(height, width):
        raise ValueError(
            f"{name}: border must leave a pixel of the {height} x {width} picture, got {border}"
        )


def _check_integer(name: str, argument: str, value: int, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name}: {argument} must be an integer, got {type(value).__name__}")
    if value < least:
        raise ValueError(f"{name}: {argument} must be >= {least}, got {value}")


def _box_size(
    name: str, height: int, width: int, size: int | tuple[int, int] | None
) -> tuple[int, int]:
    if size is None:
        return max(height // 2, 1), max(width // 2, 1)
    box = size if isinstance(size, tuple) else (size, size)
    if len(box) != 2:
        raise ValueError(f"{name}: size must be an integer or (height, width), got {size}")
    for side, limit in zip(box, (height, width)):
        _check_integer(name, "size", side, 1)
        if side > limit:
            raise ValueError(f"{name}: size must fit into {height} x {width} pixels, got {size}")
    return box


def _count_range(
    name: str, height: int, width: int, ratio: tuple[float, float], border: int
) -> tuple[int, int]:
    """The smallest and largest number of missing pixels with a share in (low, high]."""
    if not isinstance(ratio, (tuple, list)) or len(ratio) != 2:
        raise TypeError(f"{name}: ratio must be a pair (low, high), got {ratio!r}")
    low, high = ratio
    if not 0 <= low < high <= 1:
        raise ValueError(f"{name}: ratio must satisfy 0 <= low < high <= 1, got {ratio}")
    total = height * width
    # The comparisons that a user would make decide, not the rounding of low * total.
    least = max(int(low * total) - 1, 0)
    while least / total <= low:
        least += 1
    most = min(int(high * total) + 1, total)
    while most / total > high:
        most -= 1
    room = (height - 2 * border) * (width - 2 * border)
    if least > min(most, room):
        raise ValueError(
            f"{name}: ratio {tuple(ratio)} cannot be met in {height} x {width} pixels"
            f" with a border of {border}"
        )
    return least, min(most, room)


def _draw_count(rng: np.random.Generator, counts: tuple[int, int]) -> int:
    return int(rng.integers(counts[0], counts[1], endpoint=True))


def _box_of_area(
    rng: np.random.Generator, height: int, width: int, low: int, high: int
) -> tuple[int, int]:
    """Sides of a box that fits into height x width and has low to high pixels."""
    heights = np.arange(1, height + 1)
    narrowest = np.maximum(-(-low // heights), 1)
    widest = np.minimum(high // heights, width)
    possible = narrowest <= widest
    if not possible.any():
        raise ValueError(
            f"random_box_hole: ratio cannot be met: no box within {height} x {width} pixels"
            f" has {low} to {high} pixels"
        )
    # Sides of at most 1 to 2 first: without this most draws would be slivers.
    narrow = np.maximum(narrowest, -(-heights // 2))
    wide = np.minimum(widest, 2 * heights)
    shapely = narrow <= wide
    if shapely.any():
        possible, narrowest, widest = shapely, narrow, wide
    box_h = int(rng.choice(heights[possible]))
    box_w = int(rng.integers(narrowest[box_h - 1], widest[box_h - 1], endpoint=True))
    return box_h, box_w
