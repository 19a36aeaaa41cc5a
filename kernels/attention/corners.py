"""Weights of blocks of pixels: 2 x 2 diagonal sums of the attention.

A cell pastes two by two blocks, so that a block of the result takes the block of a key with the sum
of up to four weights of attention. With the sums formed first, the library pastes each block once,
rate^2 C multiply-adds a pair instead of 4 rate^2 C.

The weights are formed here, from the strip of fused scores: four exponentials a pair cost fewer
instructions than a pass of its own that reads and writes the strip. Traffic of a pair: 4 bytes
read, one weight written.
"""

import triton.language as tl

from inpaint_ops.kernels.attention.grid import PASTED, line_of, neighbour
from inpaint_ops.kernels.attention.softmax import TILE, inverse_of
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
    {0, 1}. Grid: (blocks of corners, blocks of the keys' corners, N).
    """
    ld = groups * 16
    corner_ld = corner_groups * 16
    table_ld = tl.cdiv(corner_groups, 16) * 256
    n = tl.program_id(2).to(tl.int64)
    i = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    j = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    in_rows = i < (own_rows + 1) * (own_columns + 1)
    y = i // (own_columns + 1)
    x = i % (own_columns + 1)
    fused_ptr += n * own_lines * ld
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for tap in tl.static_range(0, 4):
        y1, x1, inside = neighbour(y, x, own_rows, own_columns, PASTED, tap)
        inside = inside & in_rows
        line = line_of(y1, x1, inside, own_rows, own_columns, 0, own_rows, 0, own_columns)
        at = (n * h + own_y + y1) * w + own_x + x1
        top = tl.load(row_max_ptr + at, mask=inside, other=0.0)
        inverse = inverse_of(tl.load(row_sum_ptr + at, mask=inside, other=1.0))
        column = tl.load(table_ptr + tap * table_ld + j)
        score = tl.load((fused_ptr + line.to(tl.int64) * ld)[:, None] + column[None, :])
        total += tl.exp(score - top[:, None]) * inverse[:, None]
    out = (n * (own_rows + 1) * (own_columns + 1) + i) * corner_ld
    tl.store(
        corner_ptr + out[:, None] + j[None, :],
        total,
        mask=in_rows[:, None] & (j < corner_ld)[None, :],
    )


CORNER = Kernel(
    _contextual_attention_corner_kernel,
    _TYPES,
    [Row(dtype, dtype, TILE, stages=1, vectors=("table_ptr",)) for dtype in ("half", "fp32")],
)
