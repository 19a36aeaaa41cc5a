"""Strips of query cells, so that memory grows with the number of keys and not with all pairs.

A strip is a stretch of whole rows of the query grid or a tile of it, whichever forms fewer scores
twice. A 3 x 3 patch reads one cell more on each side. The fuse reads one more along columns of the
flattened grid and, from there, one more along rows, both ways: it wraps from the end of a row to
the next and from the last row to the first, one column on. So windows are counted on along rows and
wrap from the last row to the first.

Scores before the fuse are formed again for what strips share: (R + 4) / R times for strips of R
whole rows, (R + 2) (Q + 4) / (R Q) for tiles of R x Q. R is 8 at least and Q 28, but for
the last: at most 1.5 times; 1.2 for a grid of 128 x 128 against as many keys, 1.4 for 256 x 256.

Why not strips that fit the second-level cache: 12 bytes a pair lie between the kernels of a strip,
so that the 50 MB of an H100 hold 4 million pairs. They take 25 us there (predicted), but the host
takes 100 us to launch a strip's six kernels (measured with a stand-in for the driver), and even a
graph's replay, with about 2 us a kernel, would lose what the cache saves: 20 bytes a pair, of which
half are moved while the instructions run anyway.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

# Pairs of a query and a key in the strips of one call, where the fewest rows allow it: 250 MB, and
# about as long on the device as the host takes to launch a strip.
PAIRS = 5 << 22
_MIN_ROWS = 8


class Window(NamedTuple):
    """Cells y + k, x + l of the query grid, k < rows and l < columns, counted on along rows."""

    y: int
    rows: int
    x: int
    columns: int

    @property
    def lines(self) -> int:
        """Number of cells."""
        return self.rows * self.columns

    def grown(self, h: int, w: int, rows: int, columns: int) -> "Window":
        """Window with so many rows and, unless it has whole rows, columns more on each side."""
        y, count, x, width = self
        y, count = (0, h) if count + 2 * rows >= h else ((y - rows) % h, count + 2 * rows)
        if width < w:
            x, width = x - columns, width + 2 * columns
        return Window(y, count, x, width)

    def cells(self, h: int, w: int, device: torch.device) -> Tensor:
        """Flat numbers of the cells, (lines,) int64, each only once."""
        y = torch.arange(self.y, self.y + self.rows, device=device)[:, None]
        x = torch.arange(self.x, self.x + self.columns, device=device)
        return ((y * w + x) % (h * w)).flatten()


class Strip(NamedTuple):
    """Query cells, and the windows of cells that they are made of.

    `scores`: of which scores before the fuse are needed. `pixels`: of which pixels are needed.
    """

    own: Window
    scores: Window
    pixels: Window


def strips(h: int, w: int, most: int, fuse: bool) -> Iterator[Strip]:
    """Strips of a grid of h x w cells, in order, the largest first.

    Args:
        h: query rows.
        w: query columns.
        most: lines that fit the memory allowed.
        fuse: whether scores are fused.
    """
    least = min(_MIN_ROWS, h)
    halo = 2 if fuse else 0

    def formed(columns: int) -> float:
        """Scores formed for each one used, by strips of so many columns."""
        rows = max(least, most // columns)
        if columns == w:
            return 1.0 if rows >= h else (rows + 2 * halo) / rows
        return (rows + halo) * (columns + 2 * halo) / (rows * columns)

    # Tiles and their halos have whole blocks of cells.
    choice = [w, *(c - 2 * halo for c in (64, 32) if w >= c + 2)]
    fitting = [columns for columns in choice if most >= least * columns]
    columns = min(fitting or [min(choice)], key=formed)
    rows = max(least, most // columns)
    for y in range(0, h, rows):
        for x in range(0, w, columns):
            own = Window(y, min(rows, h - y), x, min(columns, w - x))
            scores = own
            if fuse:
                scores = own.grown(h, w, 2 if columns == w else 1, 2)
            yield Strip(own, scores, scores.grown(h, w, 1, 1))
