"""Weights of blocks of pixels: 2 x 2 diagonal sums of the attention.

A cell pastes two by two blocks, so that a block of the result takes the block of a key with the sum
of up to four weights of attention. With the sums formed first, the library pastes each block once,
rate^2 C multiply-adds a pair instead of 4 rate^2 C.

The weights are formed here, from the strip of fused scores: four exponentials a pair cost fewer
instructions than a pass of its own that reads and writes the strip. Traffic of a pair: 4 bytes
read, one weight written.
"""

import triton
import triton.language as tl

from inpaint_ops.kernels.attention.grid import PASTED, line_of, neighbour, segment_of
from inpaint_ops.kernels.attention.softmax import TILE, TILE_WARPS, inverse_of
from inpaint_ops.kernels.convolution.activation import exponential
from inpaint_ops.kernels.launch import Kernel, Row, jit

_TYPES = {
    "fused_ptr": "*fp32",
    "table_ptr": "*i32",
    "row_max_ptr": "*fp32",
    "row_sum_ptr": "*fp32",
    "corner_ptr": "*T",
    "h": "i32",
    "w": "i32",
    "groups": "i32",
    "own_y": "i32",
    "own_rows": "i32",
    "own_x": "i32",
    "own_columns": "i32",
    "own_lines": "i32",
    "corner_groups": "i32",
}


@triton.jit
def _pasting(
    fused_ptr,
    row_max_ptr,
    row_sum_ptr,
    n,
    i,
    in_rows,
    h,
    w,
    y,
    rows,
    x,
    columns,
    ld,
    TAP: tl.constexpr,
):
    """Of a cell that pastes each block: line of scores, maximum, and inverse of the sum."""
    y1, x1, inside = neighbour(i // (columns + 1), i % (columns + 1), rows, columns, PASTED, TAP)
    inside = inside & in_rows
    line = line_of(y1, x1, inside, rows, columns, 0, rows, 0, columns)
    at = (n * h + y + y1) * w + x + x1
    top = tl.load(row_max_ptr + at, mask=inside, other=0.0)
    total = tl.load(row_sum_ptr + at, mask=inside, other=1.0)
    return (fused_ptr + line.to(tl.int64) * ld)[:, None], top[:, None], inverse_of(total)[:, None]


@triton.jit
def _weight(line_ptr, top, inverse, table_ptr, j):
    """Attention of cells to the keys in the columns of a table."""
    # As in `grid.stencil`.
    score = tl.load(line_ptr + tl.max_contiguous(tl.load(table_ptr + j), 2)[None, :])
    return exponential(score - top) * inverse


@jit(_TYPES)
def _contextual_attention_corner_kernel(
    fused_ptr,
    table_ptr,
    row_max_ptr,
    row_sum_ptr,
    corner_ptr,
    h,
    w,
    groups,
    own_y,
    own_rows,
    own_x,
    own_columns,
    own_lines,
    corner_groups,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """2 x 2 diagonal sums: the weight of each pair of blocks of pixels, on grids one larger.

    corner[(y, x), (v, u)] = sum of attention[(y - dy, x - dx), (v - dy, u - dx)] over dy, dx in
    {0, 1}. Grid: (blocks of corners, segments of the keys' corners, N).
    """
    ld = groups * 16
    corner_ld = corner_groups * 16
    table_ld = tl.cdiv(corner_groups, 16) * 256
    n = tl.program_id(2).to(tl.int64)
    i = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    in_rows = i < (own_rows + 1) * (own_columns + 1)
    fused_ptr += n * own_lines * ld
    window = (n, i, in_rows, h, w, own_y, own_rows, own_x, own_columns, ld)
    line_0, top_0, inverse_0 = _pasting(fused_ptr, row_max_ptr, row_sum_ptr, *window, 0)
    line_1, top_1, inverse_1 = _pasting(fused_ptr, row_max_ptr, row_sum_ptr, *window, 1)
    line_2, top_2, inverse_2 = _pasting(fused_ptr, row_max_ptr, row_sum_ptr, *window, 2)
    line_3, top_3, inverse_3 = _pasting(fused_ptr, row_max_ptr, row_sum_ptr, *window, 3)
    out = corner_ptr + ((n * (own_rows + 1) * (own_columns + 1) + i) * corner_ld)[:, None]
    begin, end = segment_of(corner_ld, BLOCK_N)
    for start in range(begin, end, BLOCK_N):
        j = start + tl.arange(0, BLOCK_N)
        total = _weight(line_0, top_0, inverse_0, table_ptr, j)
        total += _weight(line_1, top_1, inverse_1, table_ptr + table_ld, j)
        total += _weight(line_2, top_2, inverse_2, table_ptr + 2 * table_ld, j)
        total += _weight(line_3, top_3, inverse_3, table_ptr + 3 * table_ld, j)
        tl.store(out + j[None, :], total, mask=in_rows[:, None] & (j < corner_ld)[None, :])


CORNER = Kernel(
    _contextual_attention_corner_kernel,
    _TYPES,
    [Row(dtype, dtype, TILE, TILE_WARPS, stages=1) for dtype in ("half", "fp32")],
)
