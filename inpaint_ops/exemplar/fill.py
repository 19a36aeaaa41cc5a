"""A training-free photo filler: holes are filled with copies from the rest of the picture."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from inpaint_ops import checks
from inpaint_ops.exemplar.blend import blend
from inpaint_ops.exemplar.levels import (
    Level,
    build_levels,
    crop_to,
    diffuse,
    touching_patches,
)
from inpaint_ops.exemplar.scatter import interpolate, split
from inpaint_ops.exemplar.search import Matches, begin, enlarge
from inpaint_ops.exemplar.smooth import SURFACE_MARGIN, smooth_places
from inpaint_ops.exemplar.surface import surface
from inpaint_ops.exemplar.vote import vote
from inpaint_ops.progress import Part, Progress, check_progress, following, tell

_NAME = "fill_exemplar"

# Most patch pairs of the level that is filled first: its trials then take about a second in all.
_FIRST_PAIRS = 3e7
# A patch two pixels larger is taken unless it leaves less than 1 / _FEWER of the whole patches.
_FEWER = 16


def fill_exemplar(
    image: Tensor,
    hole: Tensor,
    *,
    seed: int = 0,
    progress: Progress = None,
    patch_size: int = 7,
    texture_weight: float = 4.0,
    iterations: int = 10,
) -> Tensor:
    """Fill holes so that every small patch of the filling occurs in the known picture.

    Minimises the sum, over the patches that touch the hole, of the squared distance to the nearest
    known patch. It works from coarse to fine sizes. The first step at a size finds all nearest
    patches, exhaustively where that is affordable; other steps look around the matches so far. Then
    the overlapping patches vote for each pixel. At the end every pixel is copied, not averaged, and
    faint steps of brightness between the copied pieces are removed. In smooth places a surface
    through the known pixels replaces copies, where it restores hidden known pixels better.

    Args:
        image: (N, 3 or 1, H, W) floating, [0, 1] where known; holes may hold anything, NaN
            included. Any size from 1 x 1.
        hole: (N or 1, 1, H, W), 1 = missing; bool, or 0 and 1 in uint8 or float.
        seed: 0 begins with the nearest patches; another seed draws among the near ones, and can
            give another result.
        progress: called with the done fraction, which rises from 0 to 1; True: a bar on standard
            error, where that is a terminal or a notebook; None: nothing.
        patch_size: odd side of the patches, pixels, 3 or more. Larger ones keep larger structures
            together and find fewer matches.
        texture_weight: weight of the local mean gradient beside the colours in a comparison, 0 or
            more; it keeps smooth patches from winning in rough places.
        iterations: largest number of steps at one size.

    Returns:
        (N, C, H, W) in the dtype of `image`: known pixels bit for bit, the others in [0, 1]. The
        same for every number of threads.

        Where hardly any known patch is whole, the patch is made smaller, down to 3 pixels; where
        there is none even then, the colours around the hole are spread into it. Scattered pixels
        (dead pixels and lines, salt and pepper) that leave few patches whole are first estimated by
        a smooth surface and then count as known. So are single specks and lines of a width of up to
        three pixels, where that surface predicts the known pixels beside them better than copies
        do.

    Raises:
        TypeError: an argument has a wrong type or dtype.
        ValueError: wrong shape, range or mask value, or a hole that covers a whole picture.

    Source: Wexler et al., "Space-Time Completion of Video", TPAMI 2007; texture channels and vote
    of Newson et al., SIAM J. Imaging Sciences 2014 and IPOL 2017. Here the search at coarse sizes
    is exact instead of sampled.
    """
    _check(image, hole, seed, progress, patch_size, texture_weight, iterations)
    missing = checks.binary(_NAME, "hole", hole).cpu()
    missing = missing.expand(image.shape[0], 1, *image.shape[2:])
    _check_values(image, missing)
    result, count = image.clone(), image.shape[0]
    with torch.no_grad(), following(progress, _NAME):
        for n in range(count):
            with Part(n / count, (n + 1) / count):
                if bool(missing[n].any()):
                    one, one_hole = image[n : n + 1].detach().float().cpu(), missing[n : n + 1]
                    filled = _fill(one, one_hole, seed, patch_size, texture_weight, iterations)
                    result[n : n + 1] = torch.where(
                        one_hole.to(image.device), filled.to(image), image[n : n + 1]
                    )
    return result


def _check(
    image: Tensor,
    hole: Tensor,
    seed: int,
    progress: Progress,
    patch_size: int,
    texture_weight: float,
    iterations: int,
) -> None:
    checks.check_image(_NAME, "image", image)
    if image.shape[1] not in (1, 3) or 0 in image.shape[2:]:
        raise ValueError(
            f"{_NAME}: image must have shape (N, 3 or 1, H, W) with pixels, got "
            f"{tuple(image.shape)}"
        )
    size = (image.shape[2], image.shape[3])
    checks.check_mask(_NAME, "hole", hole, image.shape[0], size, image.device)
    checks.check_int(_NAME, "seed", seed, minimum=0)
    check_progress(_NAME, progress)
    checks.check_int(_NAME, "patch_size", patch_size, minimum=3)
    if patch_size % 2 == 0:
        raise ValueError(f"{_NAME}: patch_size must be odd, got {patch_size}")
    checks.check_finite(_NAME, "texture_weight", texture_weight)
    if texture_weight < 0:
        raise ValueError(f"{_NAME}: texture_weight must be at least 0, got {texture_weight}")
    checks.check_int(_NAME, "iterations", iterations)


def _check_values(image: Tensor, missing: Tensor) -> None:
    missing = missing.to(image.device)
    for n in range(image.shape[0]):
        if bool(missing[n].all()):
            raise ValueError(
                f"{_NAME}: hole must leave a known pixel, got none in picture {n}; 1 is missing, "
                "not known"
            )
    checks.check_known(_NAME, image, missing)


def _fill(
    image: Tensor,
    hole: Tensor,
    seed: int,
    patch_size: int,
    texture_weight: float,
    iterations: int,
) -> Tensor:
    """Fill one picture, (1, C, H, W) float32."""
    image = torch.where(hole, 0.0, image)
    scattered, solid = split(image, hole, patch_size)
    if bool(scattered.any()):
        share = 0.2 if bool(solid.any()) else 1.0
        image = interpolate(image, scattered, solid, lambda s: tell(share * s))
        if share == 1.0:
            return image
        hole = solid
    size = _usable_size(hole, patch_size)
    if size < 3:
        return diffuse(image, hole).clamp(0, 1)
    levels, first = build_levels(image, hole, size, texture_weight, _FIRST_PAIRS)
    # The first fillings are tried on small levels; together they cost about as much as one level
    # more.
    work = [level.queries for level in [*levels[:first], levels[first]]]
    smooth = smooth_places(image, hole, levels[-1], 2 ** (len(levels) - 1), size)
    bent = _on_surface(image, hole) if bool(smooth.any()) else image
    if bool((smooth[hole] == 1).all()):
        return bent
    done = 0

    def after(share: float) -> None:
        tell((done + share * current) / sum(work))

    current = work[first]
    matches = begin(levels, first, size, seed, iterations, after)
    for number in reversed(range(first)):
        done, current = done + current, work[number]
        matches = enlarge(matches, levels, number, size, iterations, after)
    pasted = _paste(image, levels[0], matches, size).clamp(0, 1)
    return torch.lerp(pasted, bent, smooth) if bool(smooth.any()) else pasted


def _on_surface(image: Tensor, hole: Tensor) -> Tensor:
    """Return the picture with its hole on a surface through the known pixels around it."""
    near, top, left = crop_to(hole, hole, SURFACE_MARGIN)
    place = (..., slice(top, top + near.shape[2]), slice(left, left + near.shape[3]))
    result = image.clone()
    result[place] = torch.where(near, surface(image[place], near).clamp(0, 1), image[place])
    return result


def _paste(image: Tensor, level: Level, matches: Matches, size: int) -> Tensor:
    """Copy each pixel from the nearest of the matches that cover it, then blend the pieces."""
    height, width = image.shape[2:]
    rows = torch.arange(height, dtype=torch.float32)[:, None].expand(height, width)
    columns = torch.arange(width, dtype=torch.float32).expand(height, width)
    places = torch.stack([rows, columns])[None]
    bottom, right = level.top + level.hole.shape[2], level.left + level.hole.shape[3]
    window = places[..., level.top : bottom, level.left : right]
    source = vote(
        places, window, level.hole, matches.index, matches.distance, level.penalty, size, True
    )
    return blend(image, level.top, level.left, level.hole, source)


def _usable_size(hole: Tensor, patch_size: int) -> int:
    """Return the largest patch size with enough whole known patches; 1 if not even 3 has any."""
    best, most = 1, 0
    for size in range(3, patch_size + 1, 2):
        if size > min(hole.shape[2:]):
            break
        touching = touching_patches(crop_to(hole, hole, size - 1)[0], size)
        keys = math.prod(side - size + 1 for side in hole.shape[2:]) - int(touching.sum())
        # The whole filling would consist of those few patches.
        if keys * _FEWER < most or keys == 0:
            break
        best, most = size, keys
    return best
