"""Holes made of strokes: zig-zag brushes and lines that wander."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from inpaint_ops.masks.arguments import (
    Seed,
    check_picture,
    count_range,
    draw_count,
    hole_tensor,
    random_generator,
)
from inpaint_ops.masks.canvas import Canvas

if TYPE_CHECKING:
    from torch import Tensor

# The shares (low, high] of the irregular test set of Liu et al., "Image Inpainting for Irregular
# Holes Using Partial Convolutions" (ECCV 2018), section 4.1.
HOLE_RATIO_BINS = ((0.01, 0.1), (0.1, 0.2), (0.2, 0.3), (0.3, 0.4), (0.4, 0.5), (0.5, 0.6))


def free_form_hole(
    height: int,
    width: int,
    *,
    seed: Seed,
    ratio: tuple[float, float] | None = None,
    border: int = 0,
    scale_brush: bool = False,
) -> Tensor:
    """Draw zig-zag brush strokes.

    Without ratio 1 to 3 strokes of 4 to 11 segments are drawn, of a width of 12 to 39 pixels. The
    length of a segment is normally distributed with mean R = sqrt(height^2 + width^2) / 8 and
    deviation floor(R / 2), clipped to [0, 2R]. Segments turn back and forth by about 2 pi / 5.

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
    parameters of JiahuiYu/generative_inpainting:inpaint_ops.py. Deviations: that code exchanges
    height and width, which matters for pictures that are not square. The edges of its strokes
    differ by pixels from ours, which are exact distances to the segment.
    """
    rng = random_generator("free_form_hole", seed)
    check_picture("free_form_hole", height, width, border)
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
            draw_count(rng, count_range("free_form_hole", height, width, ratio, border)), stroke
        )
    return hole_tensor(canvas.hole)


def irregular_hole(
    height: int,
    width: int,
    *,
    seed: Seed,
    ratio: tuple[float, float] | None = None,
    border: int = 0,
) -> Tensor:
    """Draw lines that wander: random walks whose heading and thickness drift.

    A line has 8 to 40 steps. All lengths scale with s = sqrt(height * width): a step has s / 40 to
    s / 12, the thickness is s / 128 to s / 12.

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
    rng = random_generator("irregular_hole", seed)
    check_picture("irregular_hole", height, width, border)
    if ratio is None:
        ratio = HOLE_RATIO_BINS[int(rng.integers(len(HOLE_RATIO_BINS)))]
    target = draw_count(rng, count_range("irregular_hole", height, width, ratio, border))
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
            # A line that went on would follow the edge like a frame.
            if canvas.on_edge(point):
                break

    canvas.fill_to(target, stroke)
    return hole_tensor(canvas.hole)
