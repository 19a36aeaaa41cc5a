"""Scattered hole pixels: the rule that separates them from the rest of a hole, and their estimate.

Dead pixels, dead rows, salt and pepper leave hardly any patch whole, and the filler copies whole
known patches. So such pixels are estimated first, by a smooth surface through the known pixels, and
the estimates then count as known.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from inpaint_ops.exemplar.levels import box_any, crop_to, diffuse, touching_patches
from inpaint_ops.exemplar.surface import bent_surface

# A square of missing pixels of this side or more is a hole to be filled with copies.
_SOLID, _LARGEST = 5, 15
# Parts of a hole without a square of side _THIN may take a surface even where copies are possible.
# In larger parts a surface shows in texture. Pixels that hang on a solid part, up to _BRANCH away,
# belong to it.
_THIN, _BRANCH = 4, 16
# Known pixels that are predicted in both ways, and patches that may be copied for that.
_PROBES, _KEYS = 256, 4096
# Known pixels around a hole from which copies are tried.
_AROUND = 256
# The system is solved in tiles. That bounds the memory and makes a few specks cheap. Pixels farther
# away than the halo have no influence.
_TILE, _HALO = 512, 32


def split(image: Tensor, hole: Tensor, patch_size: int) -> tuple[Tensor, Tensor]:
    """Return the scattered pixels of a hole, and the rest of it.

    All thin parts are scattered where the hole leaves less than half as many patches whole as its
    solid parts alone. Elsewhere thin specks and lines are scattered only if the surface predicts
    the known pixels beside them better than the best matching patch does.

    Args:
        image: (1, C, h, w) float32, zero in the hole.
        hole: (1, 1, h, w) bool.
        patch_size: side of a patch, pixels; a smaller picture counts as one patch.
    """
    patch_size = min(patch_size, *hole.shape[2:])
    near, top, left = crop_to(hole, hole, _AROUND)
    part = image[..., top : top + near.shape[2], left : left + near.shape[3]]
    scattered, solid = torch.zeros_like(hole), torch.zeros_like(hole)
    found = _split_near(part, near, patch_size, _grid(hole, patch_size) - _grid(near, patch_size))
    for mask, one in zip((scattered, solid), found):
        mask[..., top : top + near.shape[2], left : left + near.shape[3]] = one
    return scattered, solid


def _split_near(
    image: Tensor, hole: Tensor, patch_size: int, elsewhere: int
) -> tuple[Tensor, Tensor]:
    """Return the same for the part of a picture around its hole.

    Args:
        image: (1, C, h, w) float32.
        hole: (1, 1, h, w) bool.
        patch_size: side of a patch, pixels.
        elsewhere: patches of the picture that do not lie in the part.
    """
    side = _SOLID
    solid = _opened(hole, side)
    if 2 * (elsewhere + _whole(hole, patch_size)) >= elsewhere + _whole(solid, patch_size):
        solid = _with_branches(_opened(hole, _THIN), hole)
        specks = hole & ~solid
        if bool(specks.any()) and _surface_is_better(image, specks, solid, patch_size):
            return specks, solid
        return torch.zeros_like(hole), hole
    # Dense scatter contains full squares by chance.
    enough = (elsewhere + _whole(_opened(hole, _LARGEST), patch_size)) / 2
    while side < _LARGEST and elsewhere + _whole(solid, patch_size) < enough:
        side += 2
        solid = _opened(hole, side)
    return hole & ~solid, solid


def _grid(x: Tensor, patch_size: int) -> int:
    """Return the number of patches."""
    return math.prod(side - patch_size + 1 for side in x.shape[2:])


def _with_branches(solid: Tensor, hole: Tensor) -> Tensor:
    """Return the solid parts of a hole and the pixels that hang on them."""
    for _ in range(_BRANCH):
        grown = hole & _beside(solid)
        if torch.equal(grown, solid):
            break
        solid = grown
    return solid


def _surface_is_better(image: Tensor, specks: Tensor, solid: Tensor, patch_size: int) -> bool:
    """Return whether the surface predicts hidden known pixels better than copies do."""
    hidden = _shifted_specks(specks, specks | solid, patch_size // 2 + 1)
    missing = hidden | specks | solid
    corners = (~touching_patches(missing, patch_size))[0, 0].nonzero()
    pixels = hidden[0, 0].nonzero()
    if len(corners) == 0 or len(pixels) == 0:
        return len(corners) == 0
    pixels, corners = _sample(pixels, _PROBES), _sample(corners, _KEYS)
    surface = interpolate(torch.where(hidden, 0.0, image), hidden | specks, solid)
    height, width = image.shape[2:]
    # float64, whose rounding leaves the choice the same for every number of threads.
    flat, known = image[0].flatten(1).double(), (~missing).flatten()
    around = torch.arange(patch_size)
    inside = (around[:, None] * width + around).flatten()
    first = torch.stack(
        [
            (pixels[:, axis] - patch_size // 2).clamp(0, extent - patch_size)
            for axis, extent in ((0, height), (1, width))
        ],
        1,
    )
    at = (first[:, 0] * width + first[:, 1])[:, None] + inside  # (probes, k * k)
    key_at = (corners[:, 0] * width + corners[:, 1])[:, None] + inside
    mask = known[at].double()
    distance = torch.zeros(len(at), len(key_at), dtype=torch.float64)
    for channel in flat:
        keys, query = channel[key_at].T, channel[at] * mask
        distance += mask @ keys.square() - 2 * (query @ keys)
    best = corners[distance.argmin(1)]
    copied = flat[
        :,
        (best[:, 0] + pixels[:, 0] - first[:, 0]) * width + best[:, 1] + pixels[:, 1] - first[:, 1],
    ]
    pixel = pixels[:, 0] * width + pixels[:, 1]
    truth, guess = flat[:, pixel], surface[0].flatten(1)[:, pixel].double()
    return bool((guess - truth).square().sum() < (copied - truth).square().sum())


def _shifted_specks(specks: Tensor, hole: Tensor, step: int) -> Tensor:
    """Return known pixels in the pattern of the specks, a few pixels beside them."""
    height, width = specks.shape[2:]
    around = F.pad(specks, (step, step, step, step))
    found = torch.zeros_like(specks)
    for dy, dx in ((0, 0), (2, 2), (0, 2), (2, 0)):
        shifted = around[..., dy * step :, dx * step :][..., :height, :width]
        found = found | (shifted & ~hole)
        if int(found.sum()) >= _PROBES // 4:
            break
    return found


def _sample(rows: Tensor, count: int) -> Tensor:
    """Return about `count` of the rows at most, evenly spread."""
    return rows[:: -(-len(rows) // count)]


def _whole(hole: Tensor, patch_size: int) -> int:
    return int((~touching_patches(hole, patch_size)).sum())


def _opened(hole: Tensor, side: int) -> Tensor:
    """Return the hole pixels in or beside a square of `side` x `side` hole pixels."""
    height, width = hole.shape[2:]
    rows, columns = min(side, height), min(side, width)
    full = ~box_any(~hole, rows, columns)
    around = F.pad(full, (columns, columns, rows, rows))
    return hole & box_any(around, rows + 2, columns + 2)


def _beside(x: Tensor) -> Tensor:
    """Return the set pixels of a mask and their eight neighbours."""
    return box_any(F.pad(x, (1, 1, 1, 1)), 3, 3)


def interpolate(
    image: Tensor,
    scattered: Tensor,
    solid: Tensor,
    after_step: Callable[[float], None] = lambda fraction: None,
) -> Tensor:
    """Return a picture with its scattered pixels on the least bent surface through the known ones.

    Differences that reach into the solid hole do not count.

    Args:
        image: (1, C, h, w) float32.
        scattered: (1, 1, h, w) bool, the pixels to estimate.
        solid: (1, 1, h, w) bool, pixels that are neither known nor estimated.
        after_step: called with the done fraction.
    """
    result = image.clone()
    tiles = [
        (y, x)
        for y in range(0, image.shape[2], _TILE)
        for x in range(0, image.shape[3], _TILE)
        if bool(scattered[..., y : y + _TILE, x : x + _TILE].any())
    ]
    for done, (y, x) in enumerate(tiles):
        top, left = max(0, y - _HALO), max(0, x - _HALO)
        rows, columns = slice(top, y + _TILE + _HALO), slice(left, x + _TILE + _HALO)
        tile = (whole[..., rows, columns] for whole in (image, scattered, solid))
        surface = _surface(*tile)[..., y - top :, x - left :]
        inside = scattered[..., y : y + _TILE, x : x + _TILE]
        place = result[..., y : y + _TILE, x : x + _TILE]
        place.copy_(torch.where(inside, surface[..., :_TILE, :_TILE].clamp(0, 1), place))
        after_step((done + 1) / len(tiles))
    return result


def _surface(image: Tensor, scattered: Tensor, solid: Tensor) -> Tensor:
    start = diffuse(image, scattered | solid, scattered)
    return bent_surface(start, scattered, ~solid)
