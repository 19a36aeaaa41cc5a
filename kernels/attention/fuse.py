"""The fuse of contextual attention: each score takes in those of its diagonal neighbours.

It sums along the columns of both flattened grids and then along their rows, always shifting query
and key together. In a flattened grid neighbours lie at fixed distances: 1 along rows, the width
along columns, which at either end of the grid go on with the next column, `cells - 1` back. The
first and last cell of all have no such neighbour on one side. So nothing here takes a division, and
all but the keys at either end are summed without a look at where they are.

Neighbours of keys that follow each other follow each other too, and the compiler sees it. Triton
3.6 spreads the threads of a load where it does not down the rows of the tile, and a sum along a row
then waits for all warps: `in_order` says it where it cannot be seen.
"""

import triton
import triton.language as tl

# Nine addresses for each row of a tile take registers: it has fewer keys than that of a stencil.
COLUMNS = 64


@triton.jit
def in_order(key, more):
    """Offsets `key` + `more` of keys that follow each other but where a row of the grid ends.

    The compiler is told of pairs. It may do nothing with that but spread threads along keys, since
    offsets without a common factor forbid loads of more than one number.
    """
    return tl.max_contiguous(key + more, 2)


@triton.jit
def _within(cell, cells):
    return cell.to(tl.uint32) < cells.to(tl.uint32)


@triton.jit
def strip_row(cell, row_ok, first, held, cells, ld):
    """Offset of a cell's row in a strip of `held` cells from `first` on, cyclic; whether it is."""
    slot = cell - first
    slot = tl.where(slot < 0, slot + cells, slot)
    return slot.to(tl.int64) * ld, row_ok & (slot < held)


@triton.jit
def _shifted(p, along, down: tl.constexpr, cells, width, ADJOINT: tl.constexpr):
    """Cell `down` places on along columns and `along` along rows, and whether there is one.

    Along columns first; with ADJOINT last.
    """
    if ADJOINT:
        p += along
        ok = _within(p, cells)
        ok &= _within(p + down, cells)
        p += down * width
        p = tl.where(_within(p, cells), p, p - down * (cells - 1))
    else:
        ok = _within(p + down, cells)
        p += down * width
        p = tl.where(_within(p, cells), p, p - down * (cells - 1))
        p += along
        ok &= _within(p, cells)
    return p, ok


@triton.jit
def _at_ends(strip_ptr, p, row_ok, j, cells, w, keys, wb, first, held, ld, ADJOINT: tl.constexpr):
    """Part of `fused` in which the neighbours of keys are in another column."""
    total = tl.zeros((p.shape[0], j.shape[0]), tl.float32)
    for step in tl.static_range(0, 2):
        down = 2 * step - 1
        for along in tl.static_range(-1, 2):
            cell, there = _shifted(p, along, down, cells, w, ADJOINT)
            row, there = strip_row(cell, there & row_ok, first, held, cells, ld)
            key = j + (down * (wb + 1 - keys) + along)
            if ADJOINT:
                inside = _within(j + along, keys) & _within(j + (along + down), keys)
                inside &= ~_within(j + (along + down * wb), keys)
            else:
                inside = _within(j + down, keys) & ~_within(j + down * wb, keys)
                inside &= _within(key, keys)
            inside &= j < keys
            total += tl.load(
                strip_ptr + row[:, None] + key[None, :],
                mask=there[:, None] & inside[None, :],
                other=0.0,
            )
    return total


@triton.jit
def _between(
    strip_ptr,
    p,
    row_ok,
    j,
    cells,
    w,
    keys,
    wb,
    first,
    held,
    ld,
    ADJOINT: tl.constexpr,
    INNER: tl.constexpr,
):
    """Part of `fused` in which neighbours lie at fixed distances; INNER: of all these keys."""
    total = tl.zeros((p.shape[0], j.shape[0]), tl.float32)
    for down in tl.static_range(-1, 2):
        for along in tl.static_range(-1, 2):
            cell, there = _shifted(p, along, down, cells, w, ADJOINT)
            row, there = strip_row(cell, there & row_ok, first, held, cells, ld)
            key = j + (down * wb + along)
            seen = there[:, None]
            if not INNER:
                before = j + (along if ADJOINT else down * wb)
                inside = (j < keys) & _within(before, keys) & _within(key, keys)
                seen = seen & inside[None, :]
            total += tl.load(strip_ptr + row[:, None] + key[None, :], mask=seen, other=0.0)
    return total


@triton.jit
def fused(
    strip_ptr,
    p,
    row_ok,
    start,
    cells,
    w,
    keys,
    wb,
    first,
    held,
    ld,
    ADJOINT: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """Tile of sums over the neighbours of queries p and of BLOCK_N keys from `start` on.

    With ADJOINT the adjoint. The strip holds the rows of `held` cells from `first` on, others count
    as zero, and so do keys beyond the last.
    """
    j = start + tl.arange(0, BLOCK_N)
    if (start > wb) & (start + BLOCK_N + wb < keys):
        total = _between(
            strip_ptr, p, row_ok, j, cells, w, keys, wb, first, held, ld, ADJOINT, True
        )
    else:
        total = _between(
            strip_ptr, p, row_ok, j, cells, w, keys, wb, first, held, ld, ADJOINT, False
        )
        total += _at_ends(strip_ptr, p, row_ok, j, cells, w, keys, wb, first, held, ld, ADJOINT)
    return total
