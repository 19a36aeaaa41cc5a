"""Levels of the exemplar filler (one picture size each), and first fillings of a level."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

# Distances held at once by the first filling: 128 MB in float64.
_DISTANCES = 1 << 24
# Most rings of a hole that count; finer levels start from the matches of coarser ones, which have
# fewer rings.
_DEEPEST = 24


@dataclass(frozen=True)
class Level:
    """A picture at one size, and the window of it that changes.

    The window is the smallest rectangle with all patches that touch the hole. What a step computes
    has its size, so that a small hole costs the same in a picture of any size.

    Attributes:
        features: (1, C + 2, h, w) of the whole picture: colours less their mean, then two texture
            channels; zero in the hole.
        known: (1, 1, h, w) bool, of the whole picture.
        top: first row of the window.
        left: its first column.
        hole: (1, 1, wh, ww) bool, of the window.
        touching: (1, 1, wh - k + 1, ww - k + 1) bool, patches of the window with a hole pixel.
        penalty: the same shape; grows with the depth of a patch in the hole. A patch's vote has the
            weight exp(-penalty), so that the known pixels at the rim decide what grows inwards.
    """

    features: Tensor
    known: Tensor
    top: int
    left: int
    hole: Tensor
    touching: Tensor
    penalty: Tensor

    @property
    def window(self) -> Tensor:
        """The features in the window, a view."""
        height, width = self.hole.shape[2:]
        return self.features[..., self.top : self.top + height, self.left : self.left + width]

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches in the whole picture."""
        lost = self.hole.shape[2] - self.touching.shape[2]
        return self.known.shape[2] - lost, self.known.shape[3] - lost

    @property
    def queries(self) -> int:
        """Patches that need a match."""
        return int(self.touching.sum())

    @property
    def keys(self) -> int:
        """Patches that may be copied."""
        rows, columns = self.grid
        return rows * columns - self.queries


def build_levels(
    image: Tensor, hole: Tensor, patch_size: int, texture_weight: float, pairs: float
) -> tuple[list[Level], int]:
    """Return levels from the full size down, and the number of the one to be filled first.

    That is the largest level whose hole has a width of at most about four patches and which has at
    most `pairs` patch pairs. If there is none, it is the smallest level that leaves enough of the
    known picture. One level more is made if it leaves enough, too.
    """
    holes, first = [hole], -1
    while True:
        queries, keys = _patches(holes[-1], patch_size)
        crop, _, _ = crop_to(holes[-1], holes[-1], 1)
        too_deep = _radius(crop, 2 * patch_size + 2) > 2 * patch_size + 2
        if not too_deep and queries * keys <= pairs:
            if first >= 0:
                break
            first = len(holes) - 1
        smaller = _halve_hole(holes[-1])
        if min(smaller.shape[2:]) < 3 * patch_size:
            break
        if _patches(smaller, patch_size)[1] < 4 * patch_size**2:
            break
        holes.append(smaller)

    first = first if first >= 0 else len(holes) - 1
    known = ~hole
    # float64: its rounding leaves the result the same however a sum is divided among threads.
    total = torch.where(hole, 0.0, image).sum((2, 3), keepdim=True, dtype=torch.float64)
    mean = (total / known.sum()).to(image.dtype)
    # Neighbourhoods of about one pixel of the level that is filled first.
    texture = _texture(image, known, 2**first + 1)
    features = torch.cat([image - mean, texture * texture_weight], 1)
    levels = []
    for index, level_hole in enumerate(holes):
        if index:
            features = halve(features, ~holes[index - 1])
        levels.append(make_level(features, level_hole, patch_size))
        features = levels[-1].features
    return levels, first


def make_level(features: Tensor, hole: Tensor, patch_size: int) -> Level:
    """Return the level of features (1, C + 2, h, w), whatever they hold in the hole."""
    inside, top, left = crop_to(hole, hole, patch_size - 1)
    touching = touching_patches(inside, patch_size)
    features = torch.where(hole, 0.0, features)
    return Level(features, ~hole, top, left, inside, touching, _penalty(inside, patch_size))


def box_any(x: Tensor, rows: int, columns: int) -> Tensor:
    """Return whether each rows x columns box of a bool (1, 1, h, w) holds a set pixel."""
    for axis, size in ((2, rows), (3, columns)):
        reach = 1
        while reach < size:
            step = min(reach, size - reach)
            count = x.shape[axis] - step
            x = x.narrow(axis, 0, count) | x.narrow(axis, step, count)
            reach += step
    return x


def crop_to(x: Tensor, hole: Tensor, margin: int) -> tuple[Tensor, int, int]:
    """Return the part of x (..., h, w) around the set pixels of the hole, its top and its left."""
    height, width = hole.shape[2:]
    rows, columns = hole[0, 0].any(1).nonzero()[:, 0], hole[0, 0].any(0).nonzero()[:, 0]
    top, left = max(0, int(rows[0]) - margin), max(0, int(columns[0]) - margin)
    bottom, right = int(rows[-1]) + 1 + margin, int(columns[-1]) + 1 + margin
    return x[..., top : min(bottom, height), left : min(right, width)], top, left


def touching_patches(hole: Tensor, patch_size: int) -> Tensor:
    """Return the patches with a hole pixel, (1, 1, h - k + 1, w - k + 1) bool."""
    return box_any(hole, patch_size, patch_size)


def _patches(hole: Tensor, patch_size: int) -> tuple[int, int]:
    """Return the number of patches with a hole pixel, and of the others."""
    rows, columns = (size - patch_size + 1 for size in hole.shape[2:])
    inside, _, _ = crop_to(hole, hole, patch_size - 1)
    touching = int(touching_patches(inside, patch_size).sum())
    return touching, rows * columns - touching


def _erode(hole: Tensor) -> Tensor:
    # Nothing is known beyond the picture, so a hole does not shrink from the picture's border.
    return ~box_any(F.pad(~hole, (1, 1, 1, 1), value=False), 3, 3)


def _radius(hole: Tensor, limit: int) -> int:
    """Return the number of rings of a hole, at most limit + 1."""
    rings = 0
    while rings <= limit and bool(hole.any()):
        hole = _erode(hole)
        rings += 1
    return rings


def _penalty(hole: Tensor, patch_size: int) -> Tensor:
    """Mean depth of a patch's pixels in the hole, in rings, times log(1.5)."""
    depth, inside = torch.zeros(hole.shape, dtype=torch.float32), hole
    for _ in range(_DEEPEST):
        if not bool(inside.any()):
            break
        depth += inside
        inside = _erode(inside)
    return F.avg_pool2d(depth, patch_size, stride=1) * math.log(1.5)


def _halve_hole(hole: Tensor) -> Tensor:
    height, width = hole.shape[2:]
    return box_any(F.pad(hole, (0, width % 2, 0, height % 2)), 2, 2)[..., ::2, ::2].contiguous()


def halve(x: Tensor, known: Tensor) -> Tensor:
    """Weighted 1-3-3-1 average of the known pixels, at every second pixel."""
    height, width = x.shape[2:]
    border = (1, 1 + width % 2, 1, 1 + height % 2)
    weight = known.to(x.dtype)
    total, weights = F.pad(x * weight, border), F.pad(weight, border)

    def reduce(v: Tensor, axis: int) -> Tensor:
        span = v.shape[axis] - 3
        every_second = (slice(None),) * axis + (slice(None, None, 2),)
        a, b, c, d = (v.narrow(axis, start, span)[every_second] for start in range(4))
        return (a + d + 3.0 * (b + c)) / 8.0

    total, weights = reduce(reduce(total, 2), 3), reduce(reduce(weights, 2), 3)
    return total / weights.clamp_min(1e-6)


def _texture(image: Tensor, known: Tensor, size: int) -> Tensor:
    """Mean absolute grey differences along x and y in a size x size neighbourhood."""
    grey = torch.where(known, image, 0.0).mean(1, keepdim=True)
    size = max(3, size | 1)
    found = []
    for axis in (3, 2):
        n = grey.shape[axis] - 1
        pad = (0, 1) if axis == 3 else (0, 0, 0, 1)
        both = known.narrow(axis, 0, n) & known.narrow(axis, 1, n)
        step = (grey.narrow(axis, 1, n) - grey.narrow(axis, 0, n)).abs_().mul_(both)
        total = around(F.pad(step, pad), size)
        count = around(F.pad(both.to(grey.dtype), pad), size)
        found.append(total / count.clamp_min(1.0))
    return torch.cat(found, 1)


def around(x: Tensor, size: int) -> Tensor:
    """Sums over the size x size neighbourhood of each pixel, zero beyond the border; odd size.

    Sums of sums: a run of twice the length is added up from two runs.
    """
    x = F.pad(x, (size // 2,) * 4)
    for axis in (2, 3):
        sums, reach, first = {1: x}, 1, 0
        while 2 * reach <= size:
            count = sums[reach].shape[axis] - reach
            run = sums[reach]
            sums[2 * reach] = run.narrow(axis, 0, count) + run.narrow(axis, reach, count)
            reach *= 2
        count, total = x.shape[axis] - size + 1, None
        for reach, run in sums.items():
            if size & reach:
                part = run.narrow(axis, first, count)
                total, first = part if total is None else total + part, first + reach
        assert total is not None
        x = total
    return x


def peel(level: Level, patch_size: int, seed: int) -> Tensor:
    """Return the window with its hole filled ring by ring from the rim.

    Patches on the rim are compared by their known pixels alone, in float64, whose rounding leaves
    the choice the same for every number of threads. Seed 0 takes the nearest patch, another one
    draws among the near ones.
    """
    known, filled = ~level.hole.flatten(), level.window[0].flatten(1).clone()
    channels, width = level.features.shape[1], level.features.shape[3]
    side = torch.arange(patch_size)
    rows, columns = (~touching_patches(~level.known, patch_size)[0, 0]).nonzero().T
    of_key = (side[:, None] * width + side).flatten()  # pixels of a patch from its corner
    keys = level.features[0].flatten(1)[:, (rows * width + columns)[:, None] + of_key]
    keys = keys.transpose(0, 1).flatten(1)  # (keys, C * k * k)
    keys64 = keys.double().T
    squares = keys64.square().view(channels, -1, len(keys)).sum(0)
    inside = (side[:, None] * level.hole.shape[3] + side).flatten()
    generator = torch.Generator().manual_seed(seed)
    while not bool(known.all()):
        at, rim = _rim_patches(known.view_as(level.hole), patch_size, inside)
        mask = known[at].double()  # (patches, k * k)
        query = filled[:, at].double() * mask  # (C, patches, k * k)
        chosen = []
        count = max(1, _DISTANCES // len(keys))
        for start in range(0, len(at), count):
            some = slice(start, start + count)
            q = query[:, some].transpose(0, 1).flatten(1)
            distance = torch.addmm(mask[some] @ squares, q, keys64, alpha=-2)
            distance += q.square().sum(1, keepdim=True)
            chosen.append(_choose(distance, seed, generator))
        # The weight of a patch is the known fraction of its pixels.
        weight = mask.mean(1).float()[:, None].expand_as(at).flatten()
        weights = torch.zeros(len(known), dtype=torch.float32).index_add_(0, at.flatten(), weight)
        copied = keys[torch.cat(chosen)].view(len(at), channels, -1).transpose(0, 1)
        total = torch.zeros_like(filled)
        total.index_add_(1, at.flatten(), copied.reshape(channels, -1) * weight)
        filled[:, rim] = (total / weights.clamp_min(1e-9))[:, rim]
        known[rim] = True
    return filled.view_as(level.window)


def _rim_patches(known: Tensor, patch_size: int, inside: Tensor) -> tuple[Tensor, Tensor]:
    """Pixels (patches, k * k) of the patches centred on the rim of a hole, and the rim's pixels."""
    height, width = known.shape[2:]
    rim = ~known & box_any(F.pad(known, (1, 1, 1, 1)), 3, 3)
    y, x = rim[0, 0].nonzero().T
    corner_y = (y - patch_size // 2).clamp(0, height - patch_size)
    corner_x = (x - patch_size // 2).clamp(0, width - patch_size)
    corners = torch.unique(corner_y * width + corner_x)
    return corners[:, None] + inside, y * width + x


def _choose(distance: Tensor, seed: int, generator: torch.Generator) -> Tensor:
    """Return the nearest key, or for a seed other than 0 a random one at most 10 % farther."""
    if seed == 0:
        return distance.argmin(1)
    distance = distance.clamp_min(0.0)
    limit = distance.amin(1, keepdim=True) * 1.1**2 + 1e-12
    dice = torch.rand(distance.shape, generator=generator, dtype=torch.float32)
    return torch.where(distance <= limit, dice, -1.0).argmax(1)


def diffuse(image: Tensor, hole: Tensor, wanted: Tensor | None = None) -> Tensor:
    """Return a picture with its hole filled ring by ring by the means of known neighbours.

    With `wanted`, (1, 1, h, w) bool, filling ends as soon as those pixels have a value.
    """
    known = ~hole
    filled = torch.where(hole, 0.0, image)
    wanted = hole if wanted is None else wanted
    while bool(known.any()) and not bool((known | ~wanted).all()):
        weight = known.to(image.dtype)
        near = F.avg_pool2d(weight, 3, 1, 1)
        mean = F.avg_pool2d(filled * weight, 3, 1, 1) / near.clamp_min(1e-6)
        rim = ~known & (near > 0)
        filled = torch.where(rim, mean, filled)
        known = known | rim
    return filled
