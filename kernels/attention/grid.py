"""Cells of two grids in lines and columns of strips, and the neighbours that stencils add up.

A strip holds a window of query cells against all keys, (N, 1 + lines, ld): line 0 and the columns
from the last key on are blank, zeros or -inf, and stand for every neighbour that is not there. So
no load is masked: a neighbour is a line and a column, whatever the border did to it. Both fall
apart: lines are found in the kernel, once for all keys, columns in a table, once for all queries.

A row of keys starts at a multiple of four columns, so that four scores are stored at once; columns
that this leaves empty are blank too.

A window (y, rows, x, columns) holds the cells y + k, x + l of a grid of h x w, counted on along
rows: what lies past the end of a row is the beginning of the next, after the last row the first.
"""

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from inpaint_ops.kernels.launch import Kernel, Row, jit
from inpaint_ops.kernels.program import cdiv

# Kinds of neighbours. The fuse adds up along columns of the flattened grid and there along rows.
FUSE = tl.constexpr(0)
FUSE_ADJOINT = tl.constexpr(1)
BOX = tl.constexpr(2)
# Of a block of pixels, the cells that paste it; of a cell, the blocks that it pastes.
PASTED = tl.constexpr(3)
PASTING = tl.constexpr(4)
# Columns of a table are a multiple of this, so that blocks of keys need no mask.
BLOCK = 256


@triton.jit
def _along_rows(y, x, h, w, by: tl.constexpr):
    """Cell that is `by` (-1, 0, 1) places on in row-major order, and whether there is one."""
    x = x + by
    y = y + (x >= w).to(tl.int32) - (x < 0).to(tl.int32)
    x = tl.where(x >= w, 0, tl.where(x < 0, w - 1, x))
    return y, x, (y >= 0) & (y < h)


@triton.jit
def _along_columns(y, x, h, w, by: tl.constexpr):
    """Cell that is `by` places on in column-major order, and whether there is one."""
    x, y, inside = _along_rows(x, y, w, h, by)
    return y, x, inside


@triton.jit
def neighbour(y, x, h, w, KIND: tl.constexpr, TAP: tl.constexpr):
    """Neighbour of a cell (y, x) in a grid of h x w, and whether there is one."""
    if KIND == FUSE:
        y1, x1, first = _along_columns(y, x, h, w, TAP // 3 - 1)
        y2, x2, second = _along_rows(y1, x1, h, w, TAP % 3 - 1)
        inside = first & second
    elif KIND == FUSE_ADJOINT:
        y1, x1, first = _along_rows(y, x, h, w, TAP // 3 - 1)
        y2, x2, second = _along_columns(y1, x1, h, w, TAP % 3 - 1)
        inside = first & second
    else:
        if KIND == BOX:
            y2 = y + (TAP // 3 - 1)
            x2 = x + (TAP % 3 - 1)
        elif KIND == PASTED:
            y2 = y - TAP // 2
            x2 = x - TAP % 2
        else:
            y2 = y + TAP // 2
            x2 = x + TAP % 2
        inside = (y2 >= 0) & (y2 < h) & (x2 >= 0) & (x2 < w)
    return y2, x2, inside


@triton.jit
def cell_of(line, h, w, first_y, first_x, columns):
    """Cell (y, x) of a line of a window, the blank line not counted."""
    x = first_x + line % columns
    y = first_y + line // columns + (x >= w).to(tl.int32) - (x < 0).to(tl.int32)
    x = tl.where(x >= w, x - w, tl.where(x < 0, x + w, x))
    return tl.where(y >= h, y - h, tl.where(y < 0, y + h, y)), x


@triton.jit
def line_of(y, x, inside, h, w, first_y, rows, first_x, columns):
    """Line of a cell in a window, the blank line counted; 0 where it is not inside."""
    right = x - first_x
    past = (right >= columns).to(tl.int32)
    before = (right < 0).to(tl.int32)
    right += (before - past) * w
    down = y - first_y + past - before
    down = tl.where(down < 0, down + h, tl.where(down >= h, down - h, down))
    inside = inside & (right >= 0) & (right < columns) & (down < rows)
    return tl.where(inside, 1 + down * columns + right, 0)


@triton.jit
def segment_of(ld, BLOCK_N: tl.constexpr):
    """First column of a program's segment (the second axis of its grid), and the end."""
    steps = tl.cdiv(tl.cdiv(ld, BLOCK_N), tl.num_programs(1))
    begin = tl.program_id(1) * steps * BLOCK_N
    return begin, tl.minimum(begin + steps * BLOCK_N, ld)


@triton.jit
def stencil(
    strip_ptr,
    table_ptr,
    y,
    x,
    in_rows,
    j,
    h,
    w,
    first_y,
    rows,
    first_x,
    columns,
    groups,
    KIND: tl.constexpr,
):
    """Tile of sums over the nine neighbours of query cells (y, x) and of keys j."""
    ld = groups * 16
    table_ld = tl.cdiv(groups, 16) * 256
    total = tl.zeros((y.shape[0], j.shape[0]), tl.float32)
    for tap in tl.static_range(0, 9):
        y2, x2, inside = neighbour(y, x, h, w, KIND, tap)
        line = line_of(y2, x2, inside & in_rows, h, w, first_y, rows, first_x, columns)
        # Neighbours in the tile are neighbours in memory, but for the ends of rows. Told so, Triton
        # 3.6 spreads threads along the columns, as later releases do. Loads become no wider by it,
        # because the offsets have no common factor.
        column = tl.max_contiguous(tl.load(table_ptr + tap * table_ld + j), 2)
        total += tl.load((strip_ptr + line.to(tl.int64) * ld)[:, None] + column[None, :])
    return total


_TYPES = {
    "table_ptr": "*i32",
    "h": "i32",
    "w": "i32",
    "pitch": "i32",
    "to_h": "i32",
    "to_w": "i32",
    "to_pitch": "i32",
    "table_ld": "i32",
}


@jit(_TYPES)
def _contextual_attention_table_kernel(
    table_ptr,
    h,
    w,
    pitch,
    to_h,
    to_w,
    to_pitch,
    table_ld,
    KIND: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """Columns of the neighbours, in a grid of to_h x to_w, of the cells of one of h x w.

    Rows of the grids take `pitch` and `to_pitch` columns. One row of the table for each neighbour;
    the first column after all where there is none. Grid: (blocks of columns).
    """
    j = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    y = j // pitch
    x = j % pitch
    taps: tl.constexpr = 9 if KIND <= 2 else 4
    for tap in tl.static_range(0, taps):
        y2, x2, inside = neighbour(y, x, to_h, to_w, KIND, tap)
        inside = inside & (y < h) & (x < w)
        column = tl.where(inside, y2 * to_pitch + x2, to_h * to_pitch)
        tl.store(table_ptr + tap * table_ld + j, column)


TABLE = Kernel(
    _contextual_attention_table_kernel,
    _TYPES,
    [Row("i32", "fp32", {"BLOCK_N": BLOCK}, stages=1)],
    free={"KIND": (0, 1, 2, 3, 4)},
)


class Keys(NamedTuple):
    """A grid of keys, or of blocks of pixels, in the columns of a strip.

    A row takes `pitch` columns, and all rows whole groups of 16 with one blank column at least.
    """

    h: int
    w: int
    pitch: int

    @property
    def groups(self) -> int:
        """Groups of 16 columns in a line."""
        return self.h * self.pitch // 16 + 1

    @property
    def ld(self) -> int:
        """Columns of a line."""
        return 16 * self.groups

    @property
    def table_ld(self) -> int:
        """Columns of a table: whole blocks."""
        return cdiv(self.ld, BLOCK) * BLOCK


def table(kind: Any, keys: Keys, to: Keys, device: torch.device) -> Tensor:
    """Columns of the neighbours of one grid in another (see the kernel), int32."""
    taps = 9 if kind.value <= 2 else 4
    columns = torch.empty((taps, keys.table_ld), dtype=torch.int32, device=device)
    TABLE(
        "i32",
        (keys.table_ld // BLOCK,),
        table_ptr=columns,
        h=keys.h,
        w=keys.w,
        pitch=keys.pitch,
        to_h=to.h,
        to_w=to.w,
        to_pitch=to.pitch,
        table_ld=keys.table_ld,
        KIND=kind.value,
    )
    return columns
