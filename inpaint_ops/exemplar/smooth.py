"""Smooth places, such as sky and skin: a surface instead of copies where it predicts better.

Copies of blurred places do not fit each other, and the eye sees it. A surface through the known
pixels around would blur texture. So a surface is taken only where the picture around is smooth, and
only if it also restores known pixels that are hidden for a trial better than copies do.
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor

from inpaint_ops.exemplar.levels import (
    Level,
    around,
    crop_to,
    diffuse,
    make_level,
    peel,
)
from inpaint_ops.exemplar.search import filling, settle
from inpaint_ops.exemplar.surface import surface

# Contrast within 5 x 5 pixels: a surface where it is less than the first value, copies where it is
# more than the second. Noise of a camera and skin stay below.
_SMOOTH, _ROUGH = 0.015, 0.025
_NEAR, _AROUND = 5, 15
# Known pixels around a window that its surface may depend on.
SURFACE_MARGIN = 16
# Fewer hidden smooth pixels decide nothing.
_ENOUGH = 24
# Places to which the hole is moved.
_TRIALS = 3
# Steps of a trial, and the part of a hole that must be smooth for one.
_STEPS, _SHARE = 4, 0.1


def smooth_places(image: Tensor, hole: Tensor, level: Level, scale: int, size: int) -> Tensor:
    """Return where a surface is to replace copies, a weight (1, 1, h, w) from 0 to 1.

    Args:
        image: (1, C, h, w), zero in the hole.
        hole: (1, 1, h, w) bool.
        level: a small level of that picture, on which surface and copies are tried.
        scale: pixels of the picture in a row of a pixel of the level.
        size: of a patch, pixels.
    """
    # As far around the hole as the trial may move it.
    rows, columns = crop_to(hole, hole, 0)[0].shape[2:]
    near, top, left = crop_to(hole, hole, max(rows, columns) + _AROUND)
    bottom, right = top + near.shape[2], left + near.shape[3]
    top, left = top - top % scale, left - left % scale
    place = (..., slice(top, bottom), slice(left, right))
    weight = _smoothness(image[place], hole[place])
    everywhere = torch.zeros(hole.shape, dtype=image.dtype)
    # In float64, here and below: its rounding leaves the choice the same for any number of threads.
    if float(weight[hole[place]].double().mean()) < _SHARE:
        return everywhere
    small = F.avg_pool2d(weight, scale, ceil_mode=True)
    smooth = torch.zeros(level.known.shape, dtype=image.dtype)
    y, x = top // scale, left // scale
    part = smooth[..., y : y + small.shape[2], x : x + small.shape[3]]
    part.copy_(small[..., : part.shape[2], : part.shape[3]])
    smooth = torch.where(level.known, smooth, 0.0)
    if _surface_is_better(level, smooth, size, image.shape[1]):
        everywhere[place] = torch.where(hole[place], weight, 0.0)
    return everywhere


def _smoothness(image: Tensor, hole: Tensor) -> Tensor:
    """Return a weight for each pixel, (1, 1, h, w): 1 where the picture around is smooth, 0 rough.

    Args:
        image: (1, C, h, w), zero in the hole.
        hole: (1, 1, h, w) bool. Its pixels get the weight of the nearest known ones.
    """
    known = (~hole).to(image.dtype)
    near = around(image, _NEAR) / around(known, _NEAR).clamp_min(1e-6)
    contrast = ((image - near) * known).square().mean(1, keepdim=True)
    rough, share = around(contrast, _AROUND), around(known, _AROUND)
    rough = (rough / share.clamp_min(1.0)).sqrt()
    # Deep in the hole the values of its rim, spread at a quarter of the size.
    deep = share < _AROUND**2 / 4
    if bool(deep.any()):
        weight = (~deep).to(image.dtype)
        total, weight = (F.avg_pool2d(x, 4, ceil_mode=True) for x in (rough * weight, weight))
        spread = diffuse(total / weight.clamp_min(1e-6), weight < 1 / 32)
        spread = F.interpolate(spread, scale_factor=4, mode="nearest")
        rough = torch.where(deep, spread[..., : hole.shape[2], : hole.shape[3]], rough)
    return ((_ROUGH - rough) / (_ROUGH - _SMOOTH)).clamp(0, 1)


def _surface_is_better(level: Level, smooth: Tensor, size: int, channels: int) -> bool:
    """Return whether a surface restores hidden smooth pixels of a level better than copies do.

    Args:
        level: of small size.
        smooth: (1, 1, h, w), the smoothness of its known pixels.
        size: of a patch, pixels.
        channels: of the features, those that are colours.
    """
    wrong = [0.0, 0.0]
    for hidden in _moved(~level.known, smooth, size):
        trial = make_level(level.features, ~level.known | hidden, size)
        if trial.keys == 0:
            continue
        matches = settle(trial, peel(trial, size, 0), None, size, _STEPS)
        rows, columns = trial.hole.shape[2:]
        place = (..., slice(trial.top, trial.top + rows), slice(trial.left, trial.left + columns))
        truth = level.features[place][:, :channels]
        weight = torch.where(hidden, smooth, 0.0)[place].double()
        copies = filling(trial, matches.index, matches.distance, size)[:, :channels]
        bent = surface(trial.window[:, :channels], trial.hole)
        for number, guess in enumerate((bent, copies)):
            wrong[number] += float(((guess - truth).double().square() * weight).sum())
    return wrong[0] < wrong[1]


def _moved(hole: Tensor, smooth: Tensor, size: int) -> list[Tensor]:
    """Return the hole, moved to the places where it covers most smooth known pixels."""
    inside, _, _ = crop_to(hole, hole, 0)
    found = []
    height, width = hole.shape[2:]
    for far in (inside.shape[2:], (size, size)):
        dy, dx = far[0] + 2, far[1] + 2
        for y, x in itertools.product((0, -dy, dy), (0, -dx, dx)):
            if (y, x) == (0, 0) or abs(y) >= height or abs(x) >= width:
                continue
            moved = torch.zeros_like(hole)
            moved[..., max(0, y) : height + min(0, y), max(0, x) : width + min(0, x)] = hole[
                ..., max(0, -y) : height - max(0, y), max(0, -x) : width - max(0, x)
            ]
            moved &= ~hole
            found.append((float(smooth[moved].double().sum()), moved))
    found.sort(key=lambda one: -one[0])
    return [moved for covered, moved in found[:_TRIALS] if covered >= max(_ENOUGH, found[0][0] / 2)]
