"""Completion of a large picture in windows around its holes.

A method was trained on pictures of some side and sees no farther than that: what it makes of a hole
in a large photograph, it makes of a window around the hole. `Windows` cuts such windows, has them
filled, and puts the holes' pixels back. docs/guides/large_pictures.md says what that means for the
result.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from inpaint_ops.models.blocks.pictures import hole_box
from inpaint_ops.models.holes import Hole, Holes, Rect
from inpaint_ops.ops import tensors
from inpaint_ops.progress import Part

# Windows that are filled at once.
_BATCH = 4
# Cells along a window of 64 pixels or more; see `Holes`.
_CELLS = 8


class Fill(Protocol):
    """Function that fills pictures (N, 3, h, w) with missing pixels (N, 1, h, w), bool."""

    def __call__(
        self,
        image: Tensor,
        missing: Tensor,
        wanted: Tensor | None = None,
        given: Tensor | None = None,
        /,
    ) -> Tensor:
        """Return the pictures with the wanted ones of the missing pixels filled; None: all.

        `given`: lines of the user's, (N, 1, h, w); see `InpaintingModel.complete`.
        """


class _Job(NamedTuple):
    """A window, and the hole in it that is filled."""

    sample: int
    where: Rect
    holes: Holes
    hole: Hole


class Windows:
    """Completes pictures in windows of one side.

    Args:
        fill: fills a window.
        side: of the windows, in pixels; where the picture is smaller, so are they.
        part: longest side of the box of missing pixels that is filled at once, at most half of
            `side`, so that a quarter of the window is around them.
    """

    def __init__(self, fill: Fill, side: int, part: int) -> None:
        self.fill, self.side, self.part = fill, side, part
        # Pixels that neighbouring parts of a hole share.
        self.overlap = max(part // 4, 1)

    def complete(self, image: Tensor, missing: Tensor, given: Tensor | None = None) -> Tensor:
        """Return the pictures (N, 3, H, W) with their missing pixels (N, 1, H, W) filled.

        What fills a hole depends on the known pixels around it, never on what fills another hole.
        `given`: lines of the user's, (N, 1, H, W).
        """
        # Means are taken of what a hole holds before it is filled, which may be anything.
        result = torch.where(missing, image.new_zeros(()), image)
        size = (image.shape[2], image.shape[3])
        jobs: list[_Job] = []
        large: list[_Job] = []
        for sample, mask in enumerate(missing[:, 0]):
            holes = Holes(mask, max(self.side // _CELLS // 8 * 8, 8))
            for hole in holes.shared(self.part):
                own = jobs if hole.box.longest <= self.part else large
                own.append(_Job(sample, hole.box.around(self.side, *size), holes, hole))
        done, work = 0, len(jobs) + sum(map(self._windows, large))
        for job in large:
            one, count = slice(job.sample, job.sample + 1), self._windows(job)
            with Part(done / work, (done + count) / work):
                mask, lines = missing[job.sample, 0], _cut(given, one)
                self._large(result[one], mask, job.holes, job.hole, lines)
            done += count
        for first in range(0, len(jobs), _BATCH):
            some = jobs[first : first + _BATCH]
            with Part(done / work, (done + len(some)) / work):
                self._at_once(result, missing, some, given)
            done += len(some)
        return result

    def _windows(self, job: _Job) -> int:
        """Return about how many windows a hole takes that is filled in parts."""
        box = job.hole.box
        rows, columns = (
            -(-side // self.part) for side in (box.bottom - box.top, box.right - box.left)
        )
        return rows * columns

    def _at_once(
        self, result: Tensor, missing: Tensor, jobs: Sequence[_Job], given: Tensor | None
    ) -> None:
        """Fill one hole in each of some windows, all of one size."""
        images, masks, wanted = [], [], []
        lines = None
        if given is not None:
            lines = torch.stack(
                [given[(job.sample, slice(None), *job.where.pixels)] for job in jobs]
            )
        for sample, where, holes, hole in jobs:
            images.append(result[(sample, slice(None), *where.pixels)])
            masks.append(missing[(sample, slice(None), *where.pixels)])
            wanted.append(holes.of(hole, where, missing[sample, 0])[None])
        own = torch.stack(wanted)
        filled = self.fill(torch.stack(images), torch.stack(masks), own, lines)
        for image, one, values in zip(images, own, filled):
            image.copy_(torch.where(one, values, image))

    def _is_guided(self, holes: Holes, hole: Hole) -> bool:
        """Tell whether a picture of half the size guides the filling of a large hole."""
        # A thin hole, such as a scratch, has known pixels at hand wherever a window lies.
        return holes.is_deep(hole, self.part)

    def _is_seen_whole(self, box: Rect, height: int, width: int) -> bool:
        """Tell whether a box of missing pixels of a picture is filled at once."""
        return box.longest <= self.part or max(height, width) <= self.side

    def _large(
        self, result: Tensor, missing: Tensor, holes: Holes, hole: Hole, given: Tensor | None
    ) -> None:
        """Fill a hole of one picture (1, 3, H, W) that no window takes whole."""
        guided = self._is_guided(holes, hole)
        # A window in the smallest picture, where the box is longer than half a part.
        margin = self.side * (-(-hole.box.longest // self.part) if guided else 1)
        where = hole.box.grown(margin, result.shape[2], result.shape[3])
        own = holes.of(hole, where, missing)[None, None]
        view = result[(..., *where.pixels)]
        image = tensors.compute_dtype(view)
        lines = _cut(given, (..., *where.pixels))
        self._fill_own(image, missing[where.pixels][None, None], own, lines, guided=guided)
        if image.dtype != view.dtype:
            view.copy_(torch.where(own, image.to(view.dtype), view))

    def _fill_own(
        self, image: Tensor, missing: Tensor, own: Tensor, given: Tensor | None, *, guided: bool
    ) -> None:
        """Fill a picture's own missing pixels in place, guided by a picture of half its size."""
        height, width = image.shape[2:]
        found = hole_box(own[0])
        if found is None:
            return
        box = Rect(*found)
        if self._is_seen_whole(box, height, width):
            window = (..., *box.around(self.side, height, width).pixels)
            values, mine = image[window], own[window]
            filled = self.fill(values, missing[window], mine, _cut(given, window))
            values.copy_(torch.where(mine, filled, values))
            return
        # A picture of half the size has a quarter of the parts, and so has what guides it.
        before = 0.25 if guided else 0.0
        if guided:
            small, unknown = _halved(image, missing)
            part = unknown & (F.max_pool2d(own.float(), 2, ceil_mode=True) > 0)
            lines = None if given is None else F.max_pool2d(given, 2, ceil_mode=True)
            with Part(0.0, before):
                self._fill_own(small, unknown, part, lines, guided=True)
            guide = _doubled(small, part | ~unknown, (height, width))
            image.copy_(torch.where(own, guide, image))
            missing = missing & ~own
        with Part(before, 1.0):
            self._fill_parts(image, missing.clone(), own, box, given)

    def _fill_parts(
        self, image: Tensor, missing: Tensor, own: Tensor, box: Rect, given: Tensor | None
    ) -> None:
        """Fill a picture's own pixels part by part, in place; they become known in `missing`.

        A part's surroundings are known pixels, parts that are filled already, and what the picture
        holds of others, unless it is missing. Where parts overlap their mean is taken, with weights
        that fall linearly to the end of each part.
        """
        weights = image.new_zeros((1, 1, box.bottom - box.top, box.right - box.left))
        parts = list(self.parts(box, image))
        for number, (part, weight) in enumerate(parts):
            mine = own[(..., *part.pixels)]
            if not mine.any():
                continue
            where = part.around(self.side, image.shape[2], image.shape[3])
            window, inside = (..., *where.pixels), (..., *part.within(where).pixels)
            wanted = torch.zeros_like(missing[window])
            wanted[inside] = mine
            lines = _cut(given, window)
            with Part(number / len(parts), (number + 1) / len(parts)):
                made = self.fill(image[window], missing[window] | wanted, wanted, lines)[inside]
            total = weights[(..., *part.within(box).pixels)]
            total += weight
            values = image[(..., *part.pixels)]
            blended = torch.lerp(values, made, weight / total).clamp(0, 1)
            values.copy_(torch.where(mine, blended, values))
            missing[(..., *part.pixels)] &= ~mine

    def parts(self, box: Rect, like: Tensor) -> Iterator[tuple[Rect, Tensor]]:
        """Yield the parts of a box, from its rim to its middle, and the weights (h, w) of each.

        The weights of all parts that a pixel is in have the sum 1.
        """
        rows = self._along(box.top, box.bottom, like)
        columns = self._along(box.left, box.right, like)

        def depth(at: tuple[int, int]) -> int:
            row, column = at
            return min(row, len(rows) - 1 - row, column, len(columns) - 1 - column)

        for row, column in sorted(product(range(len(rows)), range(len(columns))), key=depth):
            top, bottom, down = rows[row]
            left, right, across = columns[column]
            yield Rect(top, left, bottom, right), down[:, None] * across

    def _along(self, first: int, last: int, like: Tensor) -> list[tuple[int, int, Tensor]]:
        """Start, end and weights of the parts of a line of pixels."""
        if last - first <= self.part:
            return [(first, last, like.new_ones(last - first))]
        alone = last - first - self.overlap
        count = -(-alone // (self.part - self.overlap))
        rise = torch.arange(self.overlap, device=like.device, dtype=like.dtype) + 0.5
        rise /= self.overlap
        parts = []
        for number in range(count):
            start, end = (first + alone * at // count for at in (number, number + 1))
            weights = like.new_ones(end + self.overlap - start)
            if number > 0:
                weights[: self.overlap] = rise
            if number < count - 1:
                weights[-self.overlap :] = 1 - rise
            parts.append((start, end + self.overlap, weights))
        return parts


def _cut(given: Tensor | None, where: Any) -> Tensor | None:
    """Return a part of the user's lines, if there are any."""
    return None if given is None else given[where]


def _halved(image: Tensor, missing: Tensor) -> tuple[Tensor, Tensor]:
    """Return a picture of half the size, and which pixels are missing there.

    A pixel is the mean of the known ones of 2 x 2, and missing where none is known.
    """
    known = (~missing).to(image.dtype)
    share = F.avg_pool2d(known, 2, ceil_mode=True)
    sums = F.avg_pool2d(image * known, 2, ceil_mode=True)
    return sums / share.clamp(min=0.25), share == 0


def _doubled(image: Tensor, usable: Tensor, size: tuple[int, int]) -> Tensor:
    """Return a picture of twice the size, cut, from its usable pixels alone, bilinear."""
    height, width = size

    def larger(x: Tensor) -> Tensor:
        doubled = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        return doubled[:, :, :height, :width]

    sums = larger(torch.where(usable, image, 0.0))
    return sums / larger(usable.to(image.dtype))
