"""What is missing of each picture: drawn, or taken from files."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from inpaint_ops import checks
from inpaint_ops.data.sources import Picture, Pictures, find_pictures
from inpaint_ops.images import read_hole
from inpaint_ops.masks import HOLE_KINDS, draw_hole
from inpaint_ops.masks.reading import POLARITIES

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


class Holes(Protocol):
    """Function of the size of a picture and a generator that returns its hole."""

    def __call__(self, size: tuple[int, int], rng: np.random.Generator) -> Tensor:
        """Return (1, height, width) bool, True = missing."""


@dataclass(frozen=True)
class DrawnHoles:
    """Holes of a kind, or each of one that is drawn from several.

    The arguments are those of `inpaint_ops.masks.draw_hole`.
    """

    kind: str | tuple[str, ...]
    ratio: tuple[float, float] | None = None
    border: int = 0

    def __post_init__(self) -> None:
        if not self._kinds:
            raise ValueError("DrawnHoles: kind must not be empty")
        for kind in self._kinds:
            checks.check_choice("DrawnHoles", "kind", kind, HOLE_KINDS)

    @property
    def _kinds(self) -> tuple[str, ...]:
        return (self.kind,) if isinstance(self.kind, str) else self.kind

    def __call__(self, size: tuple[int, int], rng: np.random.Generator) -> Tensor:
        """As `Holes`."""
        kinds = self._kinds
        # One kind draws nothing here: its holes are those that `draw_hole` gives for the seed.
        kind = kinds[int(rng.integers(len(kinds)))] if len(kinds) > 1 else kinds[0]
        return draw_hole(kind, *size, seed=rng, ratio=self.ratio, border=self.border)[0]


class HoleFiles:
    """Holes of files, one drawn for each picture, scaled to its size (nearest pixel).

    Args:
        source: folder or list of the files, as for `find_pictures`.
        polarity: what marks a missing pixel: "white", "black", "alpha" or "painted". There is no
            default: the published sets of masks use both white and black, and the wrong one trains
            on everything but the hole without a sign of it.

    Raises:
        OSError, ValueError: as `find_pictures`, or no such polarity.
    """

    def __init__(self, source: str | os.PathLike[str], polarity: str) -> None:
        checks.check_choice("HoleFiles", "polarity", polarity, POLARITIES)
        self.files: Pictures = find_pictures(source)
        if any(one.size is not None for one in self.files):
            raise ValueError(f"HoleFiles: source must be a folder or a list, got shards ({source})")
        self.polarity = polarity

    def __call__(self, size: tuple[int, int], rng: np.random.Generator) -> Tensor:
        """As `Holes`.

        Raises:
            OSError, ValueError: the file that was drawn cannot be read, or marks nothing.
        """
        return self.hole(int(rng.integers(len(self.files))), size)

    def hole(self, index: int, size: tuple[int, int]) -> Tensor:
        """Return the hole of a file by its number, as `__call__` does."""
        return read_hole(self.files[index].path, size, self.polarity, resize=True)[0][0]

    def check(self, file: Picture) -> None:
        """Read one of the files, as `hole` does but in its own size, for `check_pictures`."""
        read_hole(file.path, None, self.polarity)
