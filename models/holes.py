"""Holes of a large picture: groups of missing pixels, each with the box around it."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Array = npt.NDArray[Any]


class Rect(NamedTuple):
    """A rectangle of pixels; ends exclusive."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def longest(self) -> int:
        """The longer side."""
        return max(self.bottom - self.top, self.right - self.left)

    @property
    def pixels(self) -> tuple[slice, slice]:
        """Index of these pixels, (rows, columns)."""
        return slice(self.top, self.bottom), slice(self.left, self.right)

    def joined(self, other: Rect) -> Rect:
        """Return the smallest rectangle that holds both."""
        first, last = zip(self[:2], other[:2]), zip(self[2:], other[2:])
        return Rect(*(min(pair) for pair in first), *(max(pair) for pair in last))

    def around(self, side: int, height: int, width: int) -> Rect:
        """Return a square around this one's middle, moved, and where it must be cut, to fit."""
        ends = []
        for first, last, size in ((self.top, self.bottom, height), (self.left, self.right, width)):
            length = min(side, size)
            start = min(max((first + last) // 2 - length // 2, 0), size - length)
            ends.append((start, start + length))
        (top, bottom), (left, right) = ends
        return Rect(top, left, bottom, right)

    def grown(self, margin: int, height: int, width: int) -> Rect:
        """Return this rectangle with a margin, as far as a picture of that size goes."""
        top, left = max(self.top - margin, 0), max(self.left - margin, 0)
        return Rect(top, left, min(self.bottom + margin, height), min(self.right + margin, width))

    def within(self, other: Rect) -> Rect:
        """Return this rectangle in the pixels of another."""
        (top, left), (down, right) = other[:2], other[:2]
        return Rect(self.top - top, self.left - left, self.bottom - down, self.right - right)


class Hole(NamedTuple):
    """Missing pixels of a picture that are filled together.

    Args:
        box: around them.
        groups: their numbers in `Holes.groups`.
    """

    box: Rect
    groups: tuple[int, ...]


class Holes:
    """The missing pixels of one picture, in groups.

    The picture is divided into square cells. Two missing pixels are of one group if their cells
    are equal, neighbours (of eight), or linked by cells with missing pixels.

    Args:
        missing: (H, W) bool.
        cell: side of a cell, in pixels, a multiple of 8.
    """

    def __init__(self, missing: Tensor, cell: int) -> None:
        self.cell = cell
        pixels = missing.cpu().numpy()
        across, down = _pooled(pixels, cell)
        # Cells (rows, columns): the number of their group, 0 = nothing is missing there.
        self.groups = _numbered(_any_of(across, cell))
        self._pixels = pixels
        self._boxes = _boxes(across, down, self.groups, cell)

    def shared(self, most: int) -> list[Hole]:
        """Return the holes; groups are one hole as long as the sides of its box are at most `most`.

        Each group, in the order of their first cells, joins the first hole that it fits.
        """
        boxes = np.empty((len(self._boxes), 4), np.int64)
        members: list[list[int]] = []
        for number, box in enumerate(self._boxes, 1):
            found = boxes[: len(members)]
            first, last = np.minimum(found[:, :2], box[:2]), np.maximum(found[:, 2:], box[2:])
            fitting = np.nonzero((last - first).max(1, initial=0) <= most)[0]
            at = int(fitting[0]) if len(fitting) else len(members)
            if at == len(members):
                members.append([])
                boxes[at] = box
            members[at].append(number)
            boxes[at] = Rect(*boxes[at].tolist()).joined(box)
        return [Hole(Rect(*box.tolist()), tuple(of)) for box, of in zip(boxes, members)]

    def is_deep(self, hole: Hole, side: int) -> bool:
        """Return whether all pixels of some square are missing, or beyond the picture's edge.

        Every square inside the picture of this side is found, and some whose sides are up to two
        cells shorter; at the edge, those that about half of it is inside of.
        """
        count = max(side // self.cell - 1, 1)
        full = ~_any_of(_pooled(~self._pixels, self.cell)[0], self.cell)
        full &= np.isin(self.groups, hole.groups)
        full = np.pad(full, count // 2, constant_values=True)
        for _ in range(count - 1):
            down = full[:-1] & full[1:]
            full = down[:, :-1] & down[:, 1:]
        return bool(full.any())

    def of(self, hole: Hole, where: Rect, missing: Tensor) -> Tensor:
        """Return the hole's own pixels in a rectangle, (h, w) bool, of the missing (H, W)."""
        if len(hole.groups) == len(self._boxes):
            return missing[where.pixels]
        own = torch.from_numpy(np.isin(self.groups, hole.groups)).to(missing.device)
        rows, columns = (
            torch.arange(first, last, device=missing.device) // self.cell
            for first, last in ((where.top, where.bottom), (where.left, where.right))
        )
        return missing[where.pixels] & own[rows[:, None], columns]


def _pooled(mask: Array, cell: int) -> tuple[Array, Array]:
    """Return whether a mask is set in a row of a cell (H, cells), and in a column (cells, W)."""
    bits = np.packbits(mask, axis=1)
    rows, columns = np.arange(0, mask.shape[0], cell), np.arange(0, bits.shape[1], cell // 8)
    down = np.bitwise_or.reduceat(bits, rows, 0)
    across = np.bitwise_or.reduceat(bits, columns, 1) != 0
    return across, np.unpackbits(down, axis=1, count=mask.shape[1]) != 0


def _any_of(across: Array, cell: int) -> Array:
    """Return whether a mask is set in a cell, from its rows (H, cells)."""
    found: Array = np.logical_or.reduceat(across, np.arange(0, across.shape[0], cell), 0)
    return found


def _numbered(cells: Array) -> Array:
    """Return the number of each cell's group, from 1 on in the order of their first cells."""
    # Runs of cells of one row: the row, the first cell and the end.
    steps = np.diff(np.pad(cells.astype(np.int8), ((0, 0), (1, 1))), axis=1)
    rows, starts = np.nonzero(steps == 1)
    ends = np.nonzero(steps == -1)[1]
    runs = list(zip(rows.tolist(), starts.tolist(), ends.tolist()))
    # The run that stands for a run's group is the first one of it.
    first = list(range(len(runs)))

    def head(run: int) -> int:
        while first[run] != run:
            first[run] = first[first[run]]
            run = first[run]
        return run

    above = 0
    for number, (row, start, end) in enumerate(runs):
        # Runs of the row above that end before this one begins touch none of the later ones.
        while runs[above][0] < row - 1 or (runs[above][0] == row - 1 and runs[above][2] < start):
            above += 1
        other = above
        while runs[other][0] == row - 1 and runs[other][1] <= end:
            one, two = sorted((head(number), head(other)))
            first[two] = one
            other += 1
    numbers = np.zeros(cells.shape, np.int64)
    count: dict[int, int] = {}
    for number, (row, start, end) in enumerate(runs):
        numbers[row, start:end] = count.setdefault(head(number), len(count) + 1)
    return numbers


def _boxes(across: Array, down: Array, groups: Array, cell: int) -> list[Rect]:
    """Return the box of each group's pixels, from the rows and columns of its cells."""
    boxes = np.zeros((int(groups.max(initial=0)), 4), np.int64)
    boxes[:, :2] = max(*across.shape, *down.shape)
    for axis, (lines, numbers) in enumerate(((across, groups), (down.T, groups.T))):
        at, cells = np.nonzero(lines)
        group = numbers[at // cell, cells] - 1
        np.minimum.at(boxes[:, axis], group, at)
        np.maximum.at(boxes[:, axis + 2], group, at + 1)
    return [Rect(*box) for box in boxes.tolist()]
