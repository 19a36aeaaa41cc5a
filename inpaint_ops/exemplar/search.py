"""Matches of a level: patch search and vote in turn, and the step to the next finer level."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from inpaint_ops.exemplar.levels import Level, peel
from inpaint_ops.exemplar.vote import vote
from inpaint_ops.ops.nearest_patch import nearest_patch
from inpaint_ops.ops.refine_patch import refine_patch

# Most patch pairs that one step compares exhaustively: a second or less on one core.
_PAIRS = 6e8
# First steps that also look around the matches of patches far away.
_WIDE_STEPS = 3
# Mean change of a feature in one step below which a level is done.
_SETTLED = 0.1 / 255
# Standard deviation of a pixel that the eye does not see.
_NOISE = 0.03


@dataclass(frozen=True)
class Matches:
    """Nearest known patches of the patches of a level's window.

    Attributes:
        index: (1, gh, gw) int64, its flat position on the grid of the whole picture; -1 for patches
            that do not touch the hole.
        distance: (1, gh, gw), squared.
    """

    index: Tensor
    distance: Tensor


def begin(
    levels: list[Level],
    first: int,
    size: int,
    seed: int,
    iterations: int,
    after_step: Callable[[float], None],
) -> Matches:
    """Return matches on level `first`: the better of two first fillings.

    One starts on this level, the other, where there is one, on a coarser level, where larger
    structures fit into a patch. The filling of the least misfit is kept. These levels are small, so
    a trial costs little.
    """
    best, least = None, float("inf")
    starts = range(first, len(levels))
    for start in starts:

        def after(done: float, trial: int = start - first) -> None:
            after_step((trial + done) / len(starts))

        filled = peel(levels[start], size, seed)
        matches = settle(levels[start], filled, None, size, iterations, after)
        for number in reversed(range(first, start)):
            matches = enlarge(matches, levels, number, size, iterations)
        energy = _misfit(levels[first], matches, size)
        if best is None or energy < least:
            best, least = matches, energy
    assert best is not None
    return best


def _misfit(level: Level, matches: Matches, size: int) -> float:
    """Return the mean distance of the patches that touch the hole, each relative to its variance.

    The distance alone would favour the filling with the largest smooth areas.
    """
    picture = filling(level, matches.index, matches.distance, size).double()
    mean = F.avg_pool2d(picture, size, 1)
    variance = (F.avg_pool2d(picture.square(), size, 1) - mean.square()).sum(1) * size**2
    floor = _NOISE**2 * picture.shape[1] * size**2
    misfit = matches.distance.double() / (variance.clamp_min(0.0) + floor)
    return float(misfit[level.touching[:, 0]].mean())


def enlarge(
    matches: Matches,
    levels: list[Level],
    number: int,
    size: int,
    iterations: int,
    after_step: Callable[[float], None] = lambda fraction: None,
) -> Matches:
    """Return matches on level `number`, made from those on the next coarser one."""
    fine = levels[number]
    index = _double(matches.index, levels[number + 1], fine, size)
    equal = torch.ones(index.shape, dtype=torch.float32)
    current = filling(fine, index, equal, size)
    return settle(fine, current, index, size, iterations, after_step)


def settle(
    level: Level,
    current: Tensor,
    index: Tensor | None,
    size: int,
    iterations: int,
    after_step: Callable[[float], None] = lambda fraction: None,
) -> Matches:
    """Search and vote in turn until the picture hardly changes.

    Args:
        level: to work on.
        current: the features of its window with the hole filled.
        index: guesses, (1, gh, gw), or None.
        size: of a patch, pixels.
        iterations: steps at most.
        after_step: called with the done fraction of these steps.
    """
    # Once: more exhaustive steps take longer and give no better fillings.
    exhaustive = level.queries * level.keys <= _PAIRS
    for step in range(iterations):
        if index is None or (exhaustive and step == 0):
            matches = _search(level, current, size, level.touching)
        else:
            matches = _refine(level, current, index, size, step)
        index, before = matches.index, current
        current = filling(level, index, matches.distance, size)
        after_step((step + 1) / iterations)
        if _change(before, current, level.hole) < _SETTLED:
            break
    return matches


def filling(level: Level, index: Tensor, distance: Tensor, size: int) -> Tensor:
    """Return the window of a level with its hole filled by the votes of the matched patches."""
    return vote(
        level.features, level.window, level.hole, index, distance, level.penalty, size, False
    )


def _search(level: Level, current: Tensor, size: int, where: Tensor) -> Matches:
    """Return the nearest of all known patches."""
    valid = level.known
    guess, _ = nearest_patch(
        current, level.features, valid=valid, where=where, patch_size=size, metric="l2"
    )
    # Distances again, from differences: a small distance from norms has lost its digits.
    index, distance = refine_patch(
        current, level.features, guess, valid=valid, where=where, patch_size=size, radius=0
    )
    return Matches(index, distance)


def _refine(level: Level, current: Tensor, index: Tensor, size: int, step: int) -> Matches:
    """Return the nearest patch around the last matches of a patch and of its neighbours."""
    distance = torch.zeros(index.shape, dtype=torch.float32)
    reaches = (1, 8, 4, 2, 1) if step < _WIDE_STEPS else (1,)
    for turn, reach in enumerate(reaches):
        index, distance = refine_patch(
            current,
            level.features,
            index,
            valid=level.known,
            where=level.touching,
            patch_size=size,
            radius=0 if turn else 3 if step == 0 else 1,
            reach=reach,
        )
    lost = level.touching & (index < 0)[:, None]
    if bool(lost.any()):  # at an odd border rounding can leave a patch without a usable guess
        again = _search(level, current, size, lost)
        index = torch.where(lost[:, 0], again.index, index)
        distance = torch.where(lost[:, 0], again.distance, distance)
    return Matches(index, distance)


def _change(before: Tensor, after: Tensor, hole: Tensor) -> float:
    """Return the mean absolute change of the features of hole pixels."""
    total = (after - before).abs().double().sum()
    return float(total / (hole.sum() * before.shape[1]))


def _double(index: Tensor, coarse: Level, fine: Level, size: int) -> Tensor:
    """Return matches at twice the size, offsets doubled; -1 where that leaves known pixels."""
    half = size // 2
    (coarse_rows, coarse_columns), (rows, columns) = coarse.grid, fine.grid
    shape = fine.touching.shape[2:]
    y, x = torch.arange(shape[0]) + fine.top, torch.arange(shape[1]) + fine.left

    def twice(cy: Tensor, cx: Tensor) -> Tensor:
        found = _matches_at(index, coarse, cy, cx)
        to_y = (y[:, None] + 2 * (found // coarse_columns - cy[:, None])).clamp(0, rows - 1)
        to_x = (x + 2 * (found % coarse_columns - cx)).clamp(0, columns - 1)
        ty, tx = to_y - fine.top, to_x - fine.left
        inside = (ty >= 0) & (ty < shape[0]) & (tx >= 0) & (tx < shape[1])
        holed = fine.touching[0, 0][ty.clamp(0, shape[0] - 1), tx.clamp(0, shape[1] - 1)]
        return torch.where((found >= 0) & ~(inside & holed), to_y * columns + to_x, -1)

    last_y, last_x = coarse_rows - 1, coarse_columns - 1
    centred = twice(
        ((y + half) // 2 - half).clamp(0, last_y), ((x + half) // 2 - half).clamp(0, last_x)
    )
    # From its corner a whole coarse patch always covers a whole fine one.
    corner = twice((y // 2).clamp(0, last_y), (x // 2).clamp(0, last_x))
    return torch.where(centred >= 0, centred, corner)[None]


def _matches_at(index: Tensor, level: Level, y: Tensor, x: Tensor) -> Tensor:
    """Return the matches of patches at rows y and columns x of the picture, -1 if there is none."""
    rows, columns = index.shape[1:]
    y, x = y - level.top, x - level.left
    inside = ((y >= 0) & (y < rows))[:, None] & (x >= 0) & (x < columns)
    found = index[0][y.clamp(0, rows - 1)][:, x.clamp(0, columns - 1)]
    return torch.where(inside, found, -1)
