"""Weights of blocks of pixels: 2 x 2 diagonal sums of the attention.

A cell pastes two by two blocks, so that a block of the result takes the block of a key with the sum
of up to four weights of attention. With the sums formed first, the library pastes each block once,
rate^2 C multiply-adds a pair instead of 4 rate^2 C.
"""

import triton.language as tl

from inpaint_ops.kernels.attention.stencils import TILE
from inpaint_ops.kernels.launch import Kernel, Row, jit

_TYPES = {
    "attention_ptr": "*fp32",
    "corner_ptr": "*T",
    "rows": "i32",
    "w": "i32",
    "hb": "i32",
    "wb": "i32",
    "groups": "i32",
    "corner_groups": "i32",
}


@jit(_TYPES)
def _contextual_attention_corner_kernel(
    attention_ptr,
    corner_ptr,
    rows,
    w,
    hb,
    wb,
    groups,
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
    n = tl.program_id(2).to(tl.int64)
    i = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    j = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    in_rows = i < (rows + 1) * (w + 1)
    y = i // (w + 1)
    x = i % (w + 1)
    v = j // (wb + 1)
    u = j % (wb + 1)
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for dy in tl.static_range(0, 2):
        y_ok = in_rows & (y >= dy) & (y - dy < rows)
        v_ok = (v >= dy) & (v - dy < hb)
        for dx in tl.static_range(0, 2):
            p_ok = y_ok & (x >= dx) & (x - dx < w)
            q_ok = v_ok & (u >= dx) & (u - dx < wb)
            row = (n * rows * w + (y - dy) * w + x - dx) * ld
            total += tl.load(
                attention_ptr + row[:, None] + ((v - dy) * wb + u - dx)[None, :],
                mask=p_ok[:, None] & q_ok[None, :],
                other=0.0,
            )
    out = (n * (rows + 1) * (w + 1) + i) * corner_ld
    tl.store(
        corner_ptr + out[:, None] + j[None, :],
        total,
        mask=in_rows[:, None] & (j < corner_ld)[None, :],
    )


CORNER = Kernel(
    _contextual_attention_corner_kernel,
    _TYPES,
    [Row(dtype, dtype, TILE, stages=1) for dtype in ("half", "fp32")],
)
