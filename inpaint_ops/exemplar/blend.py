"""Removal of faint steps of brightness where copied pieces meet."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from inpaint_ops.exemplar.chebyshev import chebyshev

# A step of less than the first value (of a range of 1) is a seam and is removed. One of more than
# the second is an edge and stays.
_SEAM, _EDGE = 0.06, 0.16
# Pull towards the copied colours: a correction dies away over 1 / sqrt(_PULL) pixels, about 20.
_PULL = 0.0025
_STEPS = 120


def blend(image: Tensor, top: int, left: int, hole: Tensor, source: Tensor) -> Tensor:
    """Return the picture copied from `source`, its faint seams removed.

    The correction v of the copied colours is 0 on known pixels and minimises the sum of pull * v^2
    over pixels and of (v_b - v_a - r_ab)^2 over neighbours (a, b). There r_ab is the step of
    brightness that the pieces of a and b would have if they went on, less the step that they have.

    Args:
        image: (1, C, h, w), zero in the hole.
        top: first row of the window around the hole.
        left: its first column.
        hole: (1, 1, wh, ww) bool, of the window. Beyond the window all is known.
        source: (1, 2, wh, ww), row and column of the image that each pixel of the window is copied
            from; for known pixels their own.

    Source: the guided interpolation of Pérez et al., "Poisson Image Editing" (SIGGRAPH 2003),
    restricted to seams.
    """
    height, width = image.shape[2:]
    rows, columns = hole.shape[2:]
    flat, missing = image[0].flatten(1), hole.flatten()
    sy, sx = (s.long() for s in source[0].flatten(1))
    pixels = missing.nonzero()[:, 0]
    number = torch.full((rows * columns,), len(pixels))  # the last, extra pixel is a known one
    number[pixels] = torch.arange(len(pixels))
    copied = flat[:, sy[pixels] * width + sx[pixels]]
    y, x = pixels // columns, pixels % columns

    def value(row: Tensor, column: Tensor) -> tuple[Tensor, Tensor]:
        inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        at = row.clamp(0, height - 1) * width + column.clamp(0, width - 1)
        wy, wx = row - top, column - left
        windowed = (wy >= 0) & (wy < rows) & (wx >= 0) & (wx < columns)
        holed = missing[wy.clamp(0, rows - 1) * columns + wx.clamp(0, columns - 1)]
        return flat[:, at], inside & ~(windowed & holed)

    neighbours, total, degree = [], torch.zeros_like(copied), copied.new_zeros(len(pixels))
    for dy, dx in ((0, 1), (0, -1), (1, 0), (-1, 0)):
        # The window ends where the picture does, or in known pixels.
        inside = (y + dy >= 0) & (y + dy < rows) & (x + dx >= 0) & (x + dx < columns)
        other = torch.where(inside, pixels + dy * columns + dx, pixels)
        step = flat[:, sy[other] * width + sx[other]] - copied
        mine, mine_known = value(sy[pixels] + dy, sx[pixels] + dx)
        theirs, theirs_known = value(sy[other] - dy, sx[other] - dx)
        votes = mine_known.float() + theirs_known.float()
        wanted = torch.where(mine_known, mine - copied, 0.0)
        wanted = wanted + torch.where(theirs_known, step + copied - theirs, 0.0)
        error = torch.where(inside & (votes > 0), step - wanted / votes.clamp_min(1), 0.0)
        size = error.abs().amax(0)
        faint = ((_EDGE - size) / (_EDGE - _SEAM)).clamp(0, 1)
        # Towards the neighbour the correction has to rise by -error: flux out of this pixel.
        total += error * faint
        degree += inside.float()
        neighbours.append(torch.where(inside, number[other], len(pixels)))
    correction = _solve(torch.stack(neighbours), degree + _PULL, total)
    result = image.clone()
    result[0].view(image.shape[1], -1)[:, (y + top) * width + x + left] = copied + correction
    return result


def _solve(neighbours: Tensor, diagonal: Tensor, right: Tensor) -> Tensor:
    """Solve (diagonal - adjacency) v = right for v, both (C, pixels)."""

    def residual(v: Tensor) -> Tensor:
        padded = F.pad(v, (0, 1))  # the last column stands for known pixels
        inflow = sum((padded[:, n] for n in neighbours), padded.new_zeros(()))
        return right - (diagonal * v - inflow)

    v = chebyshev(residual, torch.zeros_like(right), (_PULL, 8.0 + _PULL), _STEPS)
    return v if math.isfinite(float(v.abs().max())) else torch.zeros_like(right)
