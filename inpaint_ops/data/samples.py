"""A picture and its hole for each pair of an epoch and a number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from inpaint_ops import checks
from inpaint_ops.data.framing import Framing, Whole
from inpaint_ops.data.holes import HoleFiles, Holes
from inpaint_ops.data.sources import Picture
from inpaint_ops.program import reason

if TYPE_CHECKING:
    from torch import Tensor

ON_ERROR = ("stop", "skip")
# What generators are for: part of their seeds, so that none repeats the numbers of another.
_FRAME, _HOLE = 0, 1


class Sample(NamedTuple):
    """A picture of the data set with a hole.

    Attributes:
        image: (3, height, width) float32 RGB in [0, 1], complete.
        hole: (1, height, width) bool, True = missing.
        name: of the picture.
        faults: a text for each file that was skipped on the way to this one.
    """

    image: Tensor
    hole: Tensor
    name: str
    faults: tuple[str, ...] = ()


class Samples:
    """Samples by (epoch, index). The same pair gives the same sample, whoever asks and when.

    Evaluation asks for epoch 0: then a picture keeps its hole, too.

    Args:
        pictures: of `find_pictures`.
        framing: makes them one size; `Whole` leaves each its own.
        holes: `DrawnHoles`, `HoleFiles` or a function like them.
        seed: of all that is drawn.
        paired: the file of a hole is not drawn: picture i has file i of `HoleFiles`.
        on_error: "stop": a file that cannot be read is an error; "skip": the next picture in the
            order of `pictures` takes its place, and the sample says so.

    Raises:
        TypeError, ValueError: a wrong type or choice, or paired holes that are not as many files as
            pictures.
    """

    def __init__(
        self,
        pictures: Sequence[Picture],
        framing: Framing | Whole,
        holes: Holes,
        *,
        seed: int = 0,
        paired: bool = False,
        on_error: str = "stop",
    ) -> None:
        checks.check_int("Samples", "seed", seed, 0)
        checks.check_choice("Samples", "on_error", on_error, ON_ERROR)
        self.pictures, self.framing, self.holes = pictures, framing, holes
        self.seed, self.on_error = seed, on_error
        self._paired = self._pairs() if paired else None

    def _pairs(self) -> HoleFiles:
        if not isinstance(self.holes, HoleFiles):
            raise TypeError(
                f"Samples: holes must be HoleFiles where paired, got {type(self.holes).__name__}"
            )
        if len(self.holes.files) != len(self.pictures):
            raise ValueError(
                f"Samples: paired holes must be as many as pictures, {len(self.pictures)}, got "
                f"{len(self.holes.files)} files of {self.holes.files.origin}"
            )
        return self.holes

    def __len__(self) -> int:
        """Return the number of pictures."""
        return len(self.pictures)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        """Return the sample of an epoch and the number of a picture.

        Raises:
            ImportError: Pillow is not installed.
            ValueError: a file cannot be read, with its name and the reason; with "skip", none can.
        """
        epoch, index = key
        faults: list[str] = []
        for shift in range(len(self.pictures)):
            number = (index + shift) % len(self.pictures)
            try:
                return self._sample(epoch, number)._replace(faults=tuple(faults))
            except (OSError, ValueError) as exc:
                if self.on_error == "stop":
                    raise ValueError(reason(exc)) from exc
                faults.append(reason(exc))
        raise ValueError(f"none of {len(self.pictures)} pictures can be read: {faults[0]}")

    def _sample(self, epoch: int, number: int) -> Sample:
        picture = self.pictures[number]
        frame, hole = (
            np.random.default_rng((self.seed, epoch, number, use)) for use in (_FRAME, _HOLE)
        )
        image = self.framing(picture.load(), frame)
        size = int(image.shape[1]), int(image.shape[2])
        if self._paired is not None:
            return Sample(image, self._paired.hole(number, size), picture.name)
        return Sample(image, self.holes(size, hole), picture.name)
