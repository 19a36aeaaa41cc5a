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
    """A picture at one size.

    Attributes:
        features: (1, C + 2, h, w) colours less their mean, then two texture channels; zero in the
            hole.
        hole: (1, 1, h, w) bool.
        touching: (1, 1, h - k + 1, w - k + 1) bool, patches with a hole pixel.
        penalty: the same shape; grows with the depth of a patch in the hole. A patch's vote has the
            weight exp(-penalty), so that the known pixels at the rim decide what grows inwards.
    """

    features: Tensor
    hole: Tensor
    touching: Tensor
    penalty: Tensor

    @property
    def queries(self) -> int:
        """Patches that need a match."""
        return int(self.touching.sum())

    @property
    def keys(self) -> int:
        """Patches that may be copied."""
        return self.touching.numel() - self.queries


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
        touching = touching_patches(holes[-1], patch_size)
        queries = int(touching.sum())
        too_deep = _radius(holes[-1], 2 * patch_size + 2) > 2 * patch_size + 2
        if not too_deep and queries * (touching.numel() - queries) <= pairs:
            if first >= 0:
                break
            first = len(holes) - 1
        smaller = _halve_hole(holes[-1])
        if min(smaller.shape[2:]) < 3 * patch_size:
            break
        if int((~touching_patches(smaller, patch_size)).sum()) < 4 * patch_size**2:
            break
        holes.append(smaller)

    first = first if first >= 0 else len(holes) - 1
    known = ~hole
    # float64: its rounding leaves the result the same however a sum is divided among threads.
    total = torch.where(hole, 0.0, image.double()).sum((2, 3), keepdim=True)
    mean = (total / known.sum()).to(image.dtype)
    # Neighbourhoods of about one pixel of the level that is filled first.
    texture = _texture(image, known, 2**first + 1)
    features = torch.cat([image - mean, texture * texture_weight], 1)
    levels = []
    for index, level_hole in enumerate(holes):
        if index:
            features = _halve(features, ~holes[index - 1])
        features = torch.where(level_hole, 0.0, features)
        touching = touching_patches(level_hole, patch_size)
        levels.append(Level(features, level_hole, touching, _penalty(level_hole, patch_size)))
    return levels, first


def touching_patches(hole: Tensor, patch_size: int) -> Tensor:
    """Return the patches with a hole pixel, (1, 1, h - k + 1, w - k + 1) bool."""
    return F.max_pool2d(hole.float(), patch_size, stride=1) > 0


def _erode(hole: Tensor) -> Tensor:
    # Nothing is known beyond the picture, so a hole does not shrink from the picture's border.
    padded = F.pad(hole.float(), (1, 1, 1, 1), value=1.0)
    return F.max_pool2d(-padded, 3, stride=1) < 0


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
    return F.max_pool2d(F.pad(hole.float(), (0, width % 2, 0, height % 2)), 2) > 0


def _halve(x: Tensor, known: Tensor) -> Tensor:
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
        step = (grey.narrow(axis, 1, n) - grey.narrow(axis, 0, n)).abs()
        total = F.pad(torch.where(both, step, 0.0), pad)
        count = F.pad(both.to(grey.dtype), pad)
        total = F.avg_pool2d(total, size, 1, size // 2)
        count = F.avg_pool2d(count, size, 1, size // 2)
        found.append(total / count.clamp_min(1e-6))
    return torch.cat(found, 1)


def peel(level: Level, patch_size: int, draws: list[int]) -> list[Tensor]:
    """Return features with the hole filled ring by ring from its rim, one result for each draw.

    Patches on the rim are compared by their known pixels alone, in float64, whose rounding leaves
    the choice the same for every number of threads. Draw 0 takes the nearest patch. Another number
    is the seed of a random choice among the near ones.
    """
    known, filled = ~level.hole.flatten(), level.features[0].flatten(1).repeat(len(draws), 1, 1)
    channels, width = level.features.shape[1], level.features.shape[3]
    around = torch.arange(patch_size)
    inside = (around[:, None] * width + around).flatten()  # pixels of a patch from its corner
    rows, columns = (~level.touching[0, 0]).nonzero().T
    keys = level.features[0].flatten(1)[:, (rows * width + columns)[:, None] + inside]
    keys = keys.transpose(0, 1).flatten(1)  # (keys, C * k * k)
    keys64 = keys.double().T
    squares = keys64.square().view(channels, -1, len(keys)).sum(0)
    generators = [torch.Generator().manual_seed(draw) for draw in draws]
    while not bool(known.all()):
        at, rim = _rim_patches(known.view_as(level.hole), patch_size, inside)
        mask = known[at].double()  # (patches, k * k)
        query = filled[:, :, at].double() * mask  # (draws, C, patches, k * k)
        best: list[list[Tensor]] = [[] for _ in draws]
        count = max(1, _DISTANCES // len(keys))
        for start in range(0, len(at), count):
            some = slice(start, start + count)
            norms = mask[some] @ squares
            for q, chosen, draw, generator in zip(query, best, draws, generators):
                q = q[:, some].transpose(0, 1).flatten(1)
                distance = norms - 2 * (q @ keys64) + q.square().sum(1, keepdim=True)
                chosen.append(_choose(distance, draw, generator))
        # The weight of a patch is the known fraction of its pixels.
        weight = mask.mean(1).float()[:, None].expand_as(at).flatten()
        weights = torch.zeros(len(known), dtype=torch.float32).index_add_(0, at.flatten(), weight)
        for one, chosen in zip(filled, best):
            copied = keys[torch.cat(chosen)].view(len(at), channels, -1).transpose(0, 1)
            total = torch.zeros_like(one)
            total.index_add_(1, at.flatten(), copied.reshape(channels, -1) * weight)
            one[:, rim] = (total / weights.clamp_min(1e-9))[:, rim]
        known[rim] = True
    return [one.view_as(level.features) for one in filled]


def _rim_patches(known: Tensor, patch_size: int, inside: Tensor) -> tuple[Tensor, Tensor]:
    """Pixels (patches, k * k) of the patches centred on the rim of a hole, and the rim's pixels."""
    height, width = known.shape[2:]
    rim = ~known & (F.max_pool2d(known.float(), 3, 1, 1) > 0)
    y, x = rim[0, 0].nonzero().T
    corner_y = (y - patch_size // 2).clamp(0, height - patch_size)
    corner_x = (x - patch_size // 2).clamp(0, width - patch_size)
    corners = torch.unique(corner_y * width + corner_x)
    return corners[:, None] + inside, y * width + x


def _choose(distance: Tensor, draw: int, generator: torch.Generator) -> Tensor:
    """Return the nearest key, or for a draw other than 0 a random one at most 10 % farther."""
    if draw == 0:
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
