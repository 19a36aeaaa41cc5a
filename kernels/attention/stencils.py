"""Stencils on strips of gradients, from one window of query cells to another.

Traffic of a pair: a stencil reads a strip once from memory (neighbours lie in the cache) and writes
one, 8 bytes.
"""

import triton.language as tl

from inpaint_ops.kernels.attention.grid import FUSE_ADJOINT, cell_of, segment_of, stencil
from inpaint_ops.kernels.attention.softmax import TILE, TILE_WARPS
from inpaint_ops.kernels.launch import Kernel, Row, jit

_TYPES = {
    "in_ptr": "*fp32",
    "table_ptr": "*i32",
    "factor_ptr": "*fp32",
    "out_ptr": "*fp32",
    "h": "i32",
    "w": "i32",
    "groups": "i32",
    "in_y": "i32",
    "in_rows": "i32",
    "in_x": "i32",
    "in_columns": "i32",
    "in_lines": "i32",
    "out_y": "i32",
    "out_rows": "i32",
    "out_x": "i32",
    "out_columns": "i32",
    "out_lines": "i32",
}


@jit(_TYPES)
def _contextual_attention_stencil_kernel(
    in_ptr,
    table_ptr,
    factor_ptr,
    out_ptr,
    h,
    w,
    groups,
    in_y,
    in_rows,
    in_x,
    in_columns,
    in_lines,
    out_y,
    out_rows,
    out_x,
    out_columns,
    out_lines,
    KIND: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """Sums over the neighbours of each pair of cells in a window, of what another window holds.

    With FUSE_ADJOINT the gradient of the products of patches, from that of the fused scores; the
    factor of the key is applied. With BOX that of the products of pixels, from that.
    Grid: (blocks of queries, segments of keys, N).
    """
    ld = groups * 16
    n = tl.program_id(2).to(tl.int64)
    line = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    stored = line < out_rows * out_columns
    y, x = cell_of(line, h, w, out_y, out_x, out_columns)
    in_ptr += n * in_lines * ld
    out = out_ptr + ((n * out_lines + 1 + line) * ld)[:, None]
    begin, end = segment_of(ld, BLOCK_N)
    for start in range(begin, end, BLOCK_N):
        j = start + tl.arange(0, BLOCK_N)
        total = stencil(
            in_ptr,
            table_ptr,
            y,
            x,
            stored,
            j,
            h,
            w,
            in_y,
            in_rows,
            in_x,
            in_columns,
            groups,
            KIND,
        )
        if KIND == FUSE_ADJOINT:
            total *= tl.load(factor_ptr + n * ld + j, mask=j < ld, other=0.0)[None, :]
        tl.store(out + j[None, :], total, mask=stored[:, None] & (j < ld)[None, :])


_COLUMN_DOT_TYPES = {
    "a_ptr": "*fp32",
    "b_ptr": "*fp32",
    "out_ptr": "*fp32",
    "count": "i32",
    "a_lines": "i32",
    "b_lines": "i32",
    "groups": "i32",
}


@jit(_COLUMN_DOT_TYPES)
def _contextual_attention_column_dot_kernel(
    a_ptr,
    b_ptr,
    out_ptr,
    count,
    a_lines,
    b_lines,
    groups,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """out[q] += sum over lines of a * b, in one order always. Grid: (blocks of keys, N)."""
    ld = groups * 16
    n = tl.program_id(1).to(tl.int64)
    j = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    # Summed over rows once, after the loop: there threads have to wait for each other.
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for start in range(0, count, BLOCK_M):
        i = start + tl.arange(0, BLOCK_M)
        inside = (i < count)[:, None] & (j < ld)[None, :]
        a_at = ((n * a_lines + 1 + i) * ld)[:, None] + j[None, :]
        b_at = ((n * b_lines + 1 + i) * ld)[:, None] + j[None, :]
        a = tl.load(a_ptr + a_at, mask=inside, other=0.0)
        b = tl.load(b_ptr + b_at, mask=inside, other=0.0)
        total += a * b
    before = tl.load(out_ptr + n * ld + j, mask=j < ld, other=0.0)
    tl.store(out_ptr + n * ld + j, before + tl.sum(total, 0), mask=j < ld)


COLUMN = 64
STENCIL = Kernel(
    _contextual_attention_stencil_kernel,
    _TYPES,
    [Row("fp32", "fp32", TILE, TILE_WARPS, stages=1)],
    free={"KIND": (1, 2)},
)
COLUMN_DOT = Kernel(
    _contextual_attention_column_dot_kernel,
    _COLUMN_DOT_TYPES,
    [
        Row(
            "fp32",
            "fp32",
            {"BLOCK_M": 32, "BLOCK_N": COLUMN},
            stages=1,
            vectors=("a_ptr", "b_ptr"),
        )
    ],
)
