"""A training-free photo filler: holes are filled with copies from the rest of the picture."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from inpaint_ops import _exemplar_levels as _levels
from inpaint_ops._exemplar_blend import blend
from inpaint_ops._exemplar_levels import Level
from inpaint_ops._exemplar_vote import vote
from inpaint_ops.ops import _common, nearest_patch, refine_patch

_NAME = "fill_exemplar"
Progress: TypeAlias = "Callable[[float], None] | None"

# Patch pairs that may be compared exhaustively in one step: a second or less on one core.
_PAIRS = 6e8
_COARSEST_PAIRS = 2e8
# Mean change of a feature at which a level is done.
_SETTLED = 0.1 / 255


def fill_exemplar(
    image: Tensor,
    hole: Tensor,
    *,
    seed: int = 0,
    progress: Progress = None,
    patch_size: int = 7,
    texture_weight: float = 3.0,
    iterations: int = 10,
) -> Tensor:
    """Fills holes so that every small patch of the filling occurs in the known picture.

    Minimises the sum over the patches that touch the hole of their squared distance to the nearest
    known patch, from coarse to fine; each step finds all nearest patches (exhaustively where that
    is affordable, else around the matches of the coarser size), then lets the overlapping patches
    vote for each pixel. At last every pixel is copied, not averaged, and faint steps of brightness
    between the copied pieces are evened out.

    Args:
        image: (N, 3 or 1, H, W) floating, [0, 1] where known; holes may hold anything, NaN
            included. Any size from 1 x 1.
        hole: (N or 1, 1, H, W), 1 = missing; bool, or 0 and 1 in uint8 or float.
        seed: 0 takes the nearest patch throughout; another number draws the first, coarse filling
            from the near ones, for a different result.
        progress: called with the done fraction, from 0 to 1 and never falling, or None.
        patch_size: odd side of the patches, pixels, 3 or more. Larger ones keep larger structures
            together and find fewer matches.
        texture_weight: of the local mean gradient against colour in a comparison, 0 or more; it
            keeps smooth patches from winning in rough places.
        iterations: steps at a size, at most.

    Returns:
        (N, C, H, W) in the dtype of `image`: known pixels bit for bit, the others in [0, 1]. The
        same for every number of threads.

        Where no whole known patch exists, the patch is made smaller, down to 3 pixels, and after
        that the colours around the hole are spread into it.

    Raises:
        TypeError: an argument has a wrong type or dtype.
        ValueError: wrong shape, range or mask value, or a hole that covers a whole picture.

    Source: Wexler et al., "Space-Time Completion of Video", TPAMI 2007; texture channels and vote
    of Newson et al., SIAM J. Imaging Sciences 2014 and IPOL 2017. Here the search at coarse sizes
    is exact instead of sampled.
    """
    _check(image, hole, seed, progress, patch_size, texture_weight, iterations)
    missing = _common.binary(_NAME, "hole", hole).cpu()
    missing = missing.expand(image.shape[0], 1, *image.shape[2:])
    _check_values(image, missing)
    report = _Reporter(progress, image.shape[0])
    result = image.clone()
    with torch.no_grad():
        for n in range(image.shape[0]):
            if bool(missing[n].any()):
                one, one_hole = image[n : n + 1].detach().float().cpu(), missing[n : n + 1]
                filled = _fill(
                    one, one_hole, seed, report, patch_size, texture_weight, iterations
                ).to(image)
                result[n : n + 1] = torch.where(one_hole.to(image.device), filled, image[n : n + 1])
            report.next_picture()
    return result


class _Reporter:
    """Progress over pictures and, in each, over weighted steps."""

    def __init__(self, progress: Progress, pictures: int) -> None:
        self._progress, self._pictures, self._picture = progress, max(1, pictures), 0
        self._last = -1.0
        self.done(0.0)
        if pictures == 0:
            self._emit(1.0)

    def done(self, fraction: float) -> None:
        self._emit((self._picture + fraction) / self._pictures)

    def next_picture(self) -> None:
        self._picture += 1
        self._emit(self._picture / self._pictures)

    def _emit(self, fraction: float) -> None:
        if self._progress is not None and fraction > self._last:
            self._last = fraction
            self._progress(min(1.0, fraction))


def _check(
    image: Tensor,
    hole: Tensor,
    seed: int,
    progress: Progress,
    patch_size: int,
    texture_weight: float,
    iterations: int,
) -> None:
    _common.check_image(_NAME, "image", image)
    if image.shape[1] not in (1, 3) or 0 in image.shape[2:]:
        raise ValueError(
            f"{_NAME}: image must have shape (N, 3 or 1, H, W) with pixels, got "
            f"{tuple(image.shape)}"
        )
    size = (image.shape[2], image.shape[3])
    _common.check_mask(_NAME, "hole", hole, image.shape[0], size, image.device)
    _common.check_int(_NAME, "seed", seed, minimum=0)
    if progress is not None and not callable(progress):
        raise TypeError(
            f"{_NAME}: progress must be callable or None, got {type(progress).__name__}"
        )
    _common.check_int(_NAME, "patch_size", patch_size, minimum=3)
    if patch_size % 2 == 0:
        raise ValueError(f"{_NAME}: patch_size must be odd, got {patch_size}")
    _common.check_finite(_NAME, "texture_weight", texture_weight)
    if texture_weight < 0:
        raise ValueError(f"{_NAME}: texture_weight must be at least 0, got {texture_weight}")
    _common.check_int(_NAME, "iterations", iterations)


def _check_values(image: Tensor, missing: Tensor) -> None:
    missing = missing.to(image.device)
    for n in range(image.shape[0]):
        if bool(missing[n].all()):
            raise ValueError(f"{_NAME}: hole must leave a known pixel, got none in picture {n}")
    bad = ~missing & ~((image >= 0) & (image <= 1))
    if bool(bad.any()):
        raise ValueError(
            f"{_NAME}: image must be in [0, 1] where it is known, got {image[bad][0].item()}"
        )


def _fill(
    image: Tensor,
    hole: Tensor,
    seed: int,
    report: _Reporter,
    patch_size: int,
    texture_weight: float,
    iterations: int,
) -> Tensor:
    """One picture, (1, C, H, W) float32."""
    image = torch.where(hole, 0.0, image)
    size = _usable_size(hole, patch_size)
    if size < 3:
        return _levels.diffuse(image, hole).clamp(0, 1)
    levels = _levels.build_levels(image, hole, size, texture_weight, _COARSEST_PAIRS)
    work = [level.queries * iterations for level in levels]
    done = 0.0
    index: Tensor | None = None
    for number in reversed(range(len(levels))):
        level = levels[number]
        if index is None:
            current = _levels.peel(level, size, seed)
        else:
            index = _enlarge(index, levels[number + 1], level, size)
            equal = torch.ones(index.shape)
            current = vote(level.features, level.hole, index, equal, level.penalty, size, False)
        exhaustive = level.queries * level.keys <= _PAIRS
        for step in range(iterations):
            if index is None or (exhaustive and step < 3):
                index, distance = _search(level, current, size, level.touching)
            else:
                index, distance = _refine(level, current, index, size, step)
            before = current
            current = vote(level.features, level.hole, index, distance, level.penalty, size, False)
            done += work[number] / iterations
            report.done(done / sum(work))
            if _change(before, current, level.hole) < _SETTLED:
                done += work[number] * (iterations - 1 - step) / iterations
                break
    return _paste(image, levels[0], index, distance, size).clamp(0, 1)


def _paste(image: Tensor, level: Level, index: Tensor, distance: Tensor, size: int) -> Tensor:
    """Each pixel copied from the nearest match over it."""
    height, width = image.shape[2:]
    rows = torch.arange(height, dtype=torch.float32)[:, None].expand(height, width)
    columns = torch.arange(width, dtype=torch.float32).expand(height, width)
    places = torch.stack([rows, columns])[None]
    source = vote(places, level.hole, index, distance, level.penalty, size, True)
    return blend(image, level.hole, source)


def _usable_size(hole: Tensor, patch_size: int) -> int:
    """The largest patch up to patch_size that has a whole known copy; 1 if none has 3 pixels."""
    for size in range(patch_size, 1, -2):
        if size <= min(hole.shape[2:]) and not bool(_levels._touching(hole, size).all()):
            return size
    return 1


def _search(level: Level, current: Tensor, size: int, where: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest patch of all."""
    valid = ~level.hole
    guess, _ = nearest_patch(
        current, level.features, valid=valid, where=where, patch_size=size, metric="l2"
    )
    # Again, from differences: a distance from norms has lost its digits where it is small.
    return refine_patch(
        current,
        level.features,
        guess,
        valid=valid,
        where=where,
        patch_size=size,
        radius=0,
    )


def _refine(
    level: Level, current: Tensor, index: Tensor, size: int, step: int
) -> tuple[Tensor, Tensor]:
    """The nearest patch around the last matches of a patch and of its neighbours."""
    reaches = (1, 8, 4, 2, 1) if step < 3 else (1,)
    for turn, reach in enumerate(reaches):
        index, distance = refine_patch(
            current,
            level.features,
            index,
            valid=~level.hole,
            where=level.touching,
            patch_size=size,
            radius=0 if turn else 3 if step < 2 else 1,
            reach=reach,
        )
    lost = level.touching & (index < 0)[:, None]
    if bool(lost.any()):  # rounding at an odd border can leave a patch without any usable guess
        again, nearest = _search(level, current, size, lost)
        index = torch.where(lost[:, 0], again, index)
        distance = torch.where(lost[:, 0], nearest, distance)
    return index, distance


def _change(before: Tensor, after: Tensor, hole: Tensor) -> float:
    """Mean absolute change of a hole pixel's features."""
    total = (after - before).abs().double().sum()
    return float(total / (hole.sum() * before.shape[1]))


def _enlarge(index: Tensor, coarse: Level, fine: Level, size: int) -> Tensor:
    """Matches at twice the size: offsets are doubled."""
    half = size // 2
    coarse_rows, coarse_columns = coarse.touching.shape[2:]
    rows, columns = fine.touching.shape[2:]
    y, x = torch.arange(rows), torch.arange(columns)

    def twice(cy: Tensor, cx: Tensor) -> Tensor:
        found = index[0][cy][:, cx]
        to_y = (y[:, None] + 2 * (found // coarse_columns - cy[:, None])).clamp(0, rows - 1)
        to_x = (x + 2 * (found % coarse_columns - cx)).clamp(0, columns - 1)
        target = to_y * columns + to_x
        return torch.where((found >= 0) & ~fine.touching.flatten()[target], target, -1)

    last_y, last_x = coarse_rows - 1, coarse_columns - 1
    centred = twice(
        ((y + half) // 2 - half).clamp(0, last_y), ((x + half) // 2 - half).clamp(0, last_x)
    )
    # At its own corner a whole coarse patch always lies over a whole fine one.
    corner = twice((y // 2).clamp(0, last_y), (x // 2).clamp(0, last_x))
    return torch.where(centred >= 0, centred, corner)[None]
