"""Strips of query rows, so that memory grows with one strip and not with all pairs of cells.

A 3 x 3 patch reads one row more on each side, the fuse two. The fuse runs along columns of the
flattened grid too and wraps from the last row to the first: row windows are cyclic.
"""

from collections.abc import Iterator
from typing import NamedTuple

from inpaint_ops.kernels import products

_MIN_ROWS = 4


class Strip(NamedTuple):
    """Query rows [first, first + rows), and the rows that they are made of.

    `scores`: rows (base, slots) of which scores before the fuse are needed.
    `gram`: rows (base, slots) of which products of pixels are needed.
    """

    first: int
    rows: int
    scores: tuple[int, int]
    gram: tuple[int, int]


def strips(h: int, row_bytes: int, samples: int, fuse: bool) -> Iterator[Strip]:
    """Strips of a grid of h rows, in order.

    Args:
        h: query rows.
        row_bytes: of the scores of one query row of one sample.
        samples: compared together.
        fuse: whether scores are fused, which reads two more rows on each side.
    """
    step = max(_MIN_ROWS, products.STRIP_BYTES // (4 * row_bytes * samples))
    halo = 2 if fuse else 0

    def window(start: int, rows: int) -> tuple[int, int]:
        return (0, h) if rows >= h else (start % h, rows)

    for first in range(0, h, step):
        rows = min(step, h - first)
        scores = window(first - halo, rows + 2 * halo)
        yield Strip(first, rows, scores, window(first - halo - 1, rows + 2 * halo + 2))
