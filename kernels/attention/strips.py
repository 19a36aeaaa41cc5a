"""Strips of query cells, so that what one kernel leaves the next finds in the second-level cache.

A strip is a stretch of whole rows of the query grid or, where those of some rows against all keys
pass the cache, a tile of it. A 3 x 3 patch reads one cell more on each side. The fuse reads one
more along columns of the flattened grid and, from there, one more along rows, both ways: it wraps
from the end of a row to the next and from the last row to the first, one column on. So windows are
counted on along rows and wrap from the last row to the first.

Scores before the fuse are formed again for what strips share: (R + 4) / R times for strips of R
whole rows, (R + 2) (Q + 4) / (R Q) for tiles of R x Q. R is 8 at least and Q 28: at most 1.5 times.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

# Where nothing says how large the cache is.
CACHE_BYTES = 1 << 25
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
    halo = 2 if fuse else 0
    rows = min(_MIN_ROWS, h)
    # A tile and its halo have whole blocks of cells.
    columns = (64 if most >= 64 * rows else 32) - 2 * halo
    if most >= rows * w or w < columns + 2 * halo + 2:
        columns = w
    rows = max(rows, most // columns)
    for y in range(0, h, rows):
        for x in range(0, w, columns):
            own = Window(y, min(rows, h - y), x, min(columns, w - x))
            scores = own
            if fuse:
                scores = own.grown(h, w, 2 if columns == w else 1, 2)
            yield Strip(own, scores, scores.grown(h, w, 1, 1))


@lru_cache
def _cache_of(index: int) -> int:
    properties = torch.cuda.get_device_properties(index)
    return max(CACHE_BYTES, int(getattr(properties, "L2_cache_size", 0)))


def cache_bytes(device: torch.device) -> int:
    """Bytes of the second-level cache of a device, 32 MiB at least."""
    if device.type != "cuda":
        return CACHE_BYTES
    return _cache_of(device.index if device.index is not None else torch.cuda.current_device())
