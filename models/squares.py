"""Completion by a network that predicts one hole, the middle of a square.

Such a network drops the whole middle of its square, known pixels included. `Squares` finds the
holes of a picture and has each filled for itself, so that what is dropped is little more than what
is missing.
"""

from __future__ import annotations

import warnings
from typing import NamedTuple

import torch
from torch import Tensor

from inpaint_ops import checks
from inpaint_ops.models.blocks import centre
from inpaint_ops.models.holes import Holes, Rect
from inpaint_ops.models.windows import Fill, Windows
from inpaint_ops.ops import tensors
from inpaint_ops.progress import Part

# Side of the cells of `Holes`: missing pixels less than one cell apart are of one hole.
_CELL = 8
# Share of a square that is missing, from which on it is filled as one.
_FULL = 0.5
# Known pixels for each missing one below which a note is given. In training there are four.
_LEAST = 0.5


class HoleNote(checks.Note):
    """States that a hole leaves a network too little to see."""


class _Job(NamedTuple):
    """A hole that has one square.

    Args:
        sample: its number.
        box: around the hole.
        own: the hole's pixels, (H, W) bool.
    """

    sample: int
    box: Rect
    own: Tensor


class Squares(Windows):
    """Fills the holes of pictures of one size, each in a square of its own.

    1. Missing pixels less than a cell apart are of one hole. Holes whose common box is no longer
       than `part`, what the smallest square drops, are one.
    2. A hole has one square if its box is no longer than that, or if half of the square around
       its box is missing. So has a box of any size.
    3. A longer hole, such as a scratch or a frame, is filled in parts, as `Windows` does it.

    A `HoleNote` says where one square shows not even half as many known pixels as are missing.

    Args:
        fill: fills pictures whose wanted pixels are one hole, by `centre.fill_centre`.
        overlap: of `centre.fill_centre`.
        size: height and width of the pictures.
        looks_beyond: `fill` needs more of the picture than the square.
        op: of the note.
    """

    def __init__(
        self, fill: Fill, overlap: int, size: tuple[int, int], *, looks_beyond: bool, op: str
    ) -> None:
        side = centre.least_side(*size)
        super().__init__(fill, side, max(int(side * centre.largest_share(overlap)), 1))
        self.op, self.overlap_known, self.size = op, overlap, size
        self.looks_beyond = looks_beyond

    def fill_holes(
        self, image: Tensor, missing: Tensor, wanted: Tensor, given: Tensor | None = None
    ) -> Tensor:
        """Return the pictures with the wanted pixels filled; see `Fill`."""
        result = torch.where(missing, image.new_zeros(()), image)
        everywhere = Rect(0, 0, *self.size)
        # The first hole of each sample, the second, ...: these are filled together.
        rounds: list[list[_Job]] = []
        in_parts: list[_Job] = []
        for sample, mask in enumerate(wanted[:, 0]):
            holes, count = Holes(mask, _CELL), 0
            for hole in holes.shared(self.part):
                job = _Job(sample, hole.box, holes.of(hole, everywhere, mask))
                if hole.box.longest > self.part and job.own.sum() < _FULL * hole.box.longest**2:
                    in_parts.append(job)
                    continue
                if count == len(rounds):
                    rounds.append([])
                rounds[count].append(job)
                count += 1
        steps = len(in_parts) + len(rounds)
        for number, (sample, box, own) in enumerate(in_parts):
            one = slice(sample, sample + 1)
            with Part(number / steps, (number + 1) / steps):
                self._in_parts(result[one], missing[one], own[None, None], box)
        for number, jobs in enumerate(rounds, len(in_parts)):
            with Part(number / steps, (number + 1) / steps):
                self._one_each(result, missing, jobs)
        return result

    def _one_each(self, result: Tensor, missing: Tensor, jobs: list[_Job]) -> None:
        """Fill one hole of each of some samples, in place: those with cuts of one size at once."""
        boxes = centre.Box(*torch.tensor([job.box for job in jobs]).unbind(1))
        squares = zip(
            *(axis.tolist() for axis in centre.window(boxes, *self.size, self.overlap_known))
        )
        groups: dict[tuple[int, int], list[tuple[_Job, Rect]]] = {}
        for job, (top, left, side) in zip(jobs, squares):
            cut = Rect(0, 0, *self.size)
            if not self.looks_beyond:
                cut = job.box.around(side + 2 * centre.margin(side), *self.size)
            self._note(missing[job.sample, 0], job, centre.Square(top, left, side))
            groups.setdefault((cut.bottom - cut.top, cut.right - cut.left), []).append((job, cut))
        for group in groups.values():
            places = [(job.sample, slice(None), *cut.pixels) for job, cut in group]
            own = torch.stack([job.own[cut.pixels][None] for job, cut in group])
            images, unknown = (torch.stack([x[at] for at in places]) for x in (result, missing))
            for at, one, values in zip(places, own, self.fill(images, unknown, own)):
                result[at].copy_(torch.where(one, values, result[at]))

    def _in_parts(self, result: Tensor, missing: Tensor, own: Tensor, box: Rect) -> None:
        """Fill a hole of one picture (1, 3, H, W) part by part, in place."""
        image = tensors.compute_dtype(result)
        self._fill_parts(image, missing.clone(), own, box, None)
        if image.dtype != result.dtype:
            result.copy_(torch.where(own, image.to(result.dtype), result))

    def _note(self, missing: Tensor, job: _Job, square: centre.Square) -> None:
        count, pixels = centre.seen_pixels(missing, square, self.overlap_known), int(job.own.sum())
        if count >= _LEAST * pixels:
            return
        side, hole = centre.SIDE, centre.PREDICTED - 2 * self.overlap_known
        top, left, bottom, right = job.box
        warnings.warn(
            f"{self.op}: hole should leave half as many known pixels around it as are missing, "
            f"got {count} for {pixels} at {top}:{bottom}, {left}:{right} (rows, columns); the "
            f"network was trained for {hole} x {hole} in the middle of {side} x {side}, and "
            "what it predicts here tells little of this picture",
            HoleNote,
            stacklevel=2,
        )


def hole_by_hole(fill: Fill, op: str, overlap: int, *, looks_beyond: bool = False) -> Fill:
    """Return what fills every hole of pictures, of what fills one; see `Squares`."""

    def fill_all(
        image: Tensor, missing: Tensor, wanted: Tensor | None = None, given: Tensor | None = None
    ) -> Tensor:
        size = (image.shape[2], image.shape[3])
        own = missing if wanted is None else wanted
        squares = Squares(fill, overlap, size, looks_beyond=looks_beyond, op=op)
        return squares.fill_holes(image, missing, own, given)

    return fill_all
