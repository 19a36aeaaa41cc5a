"""Stencils along diagonals of strips of scores: the sums of contextual attention, both ways.

A strip holds some rows of the query grid against all keys, (N, slots * w, ld) float32 with ld the
number of keys rounded up. Slot k is row (base + k) mod h: the fuse runs along columns of the
flattened grid and so wraps from the last row to the first, one column on. Every stencil shifts
query and key together; scores outside a grid or a strip count as zero.

Traffic: a stencil reads a strip once from memory (neighbours lie in the cache) and writes one.
"""

import triton
import triton.language as tl

from inpaint_ops.kernels.launch import Kernel, Row, interpreted, jit


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
def tap(strip_ptr, y, x, row_ok, column, column_ok, h, w, base, slots, ld):
    """Tile of a strip, zero outside; its rows are cells (y, x) of queries, its columns keys."""
    slot = y - base
    slot = tl.where(slot < 0, slot + h, slot)
    row_ok = row_ok & (slot < slots)
    row = (slot * w + x).to(tl.int64) * ld
    return tl.load(
        strip_ptr + row[:, None] + column[None, :],
        mask=row_ok[:, None] & column_ok[None, :],
        other=0.0,
    )


@triton.jit
def fused(
    strip_ptr, y, x, row_ok, v, u, column_ok, h, w, hb, wb, base, slots, ld, ADJOINT: tl.constexpr
):
    """Sum over the neighbours along rows, then along columns, of both grids; or its adjoint."""
    total = tl.zeros((y.shape[0], v.shape[0]), tl.float32)
    for a in tl.static_range(-1, 2):
        if ADJOINT:
            y1, x1, p_ok = _along_rows(y, x, h, w, a)
            v1, u1, q_ok = _along_rows(v, u, hb, wb, a)
        else:
            y1, x1, p_ok = _along_columns(y, x, h, w, a)
            v1, u1, q_ok = _along_columns(v, u, hb, wb, a)
        p_ok = p_ok & row_ok
        q_ok = q_ok & column_ok
        for b in tl.static_range(-1, 2):
            if ADJOINT:
                y2, x2, p_in = _along_columns(y1, x1, h, w, b)
                v2, u2, q_in = _along_columns(v1, u1, hb, wb, b)
            else:
                y2, x2, p_in = _along_rows(y1, x1, h, w, b)
                v2, u2, q_in = _along_rows(v1, u1, hb, wb, b)
            total += tap(
                strip_ptr, y2, x2, p_in & p_ok, v2 * wb + u2, q_in & q_ok, h, w, base, slots, ld
            )
    return total


# From one strip to another.
_STRIP_TYPES = {
    "in_ptr": "*fp32",
    "out_ptr": "*fp32",
    "factor_ptr": "*fp32",
    "h": "i32",
    "w": "i32",
    "hb": "i32",
    "wb": "i32",
    "groups": "i32",
    "in_base": "i32",
    "in_slots": "i32",
    "out_base": "i32",
    "out_slots": "i32",
}


@jit(_STRIP_TYPES)
def _contextual_attention_box_kernel(
    in_ptr,
    out_ptr,
    factor_ptr,
    h,
    w,
    hb,
    wb,
    groups,
    in_base,
    in_slots,
    out_base,
    out_slots,
    SCALE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """out[p, q] = sum over the 3 x 3 shifts of in[p + d, q + d], times factor[q] with SCALE.

    It is its own adjoint. Grid: (blocks of rows, blocks of keys, N).
    """
    ld = groups * 16
    n = tl.program_id(2).to(tl.int64)
    i = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    j = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    in_rows = i < out_slots * w
    y = (i // w + out_base) % h
    x = i % w
    v = j // wb
    u = j % wb
    in_keys = v < hb
    strip_ptr = in_ptr + n * in_slots * w * ld
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for dy in tl.static_range(-1, 2):
        y_ok = in_rows & (y + dy >= 0) & (y + dy < h)
        v_ok = in_keys & (v + dy >= 0) & (v + dy < hb)
        for dx in tl.static_range(-1, 2):
            p_ok = y_ok & (x + dx >= 0) & (x + dx < w)
            q_ok = v_ok & (u + dx >= 0) & (u + dx < wb)
            total += tap(
                strip_ptr, y + dy, x + dx, p_ok, j + dy * wb + dx, q_ok, h, w, in_base, in_slots, ld
            )
    if SCALE:
        total *= tl.load(factor_ptr + n * ld + j, mask=j < ld, other=0.0)[None, :]
    rows = (n * out_slots * w + i) * ld
    tl.store(out_ptr + rows[:, None] + j[None, :], total, mask=in_rows[:, None] & (j < ld)[None, :])


@jit(_STRIP_TYPES)
def _contextual_attention_fuse_adjoint_kernel(
    in_ptr,
    out_ptr,
    factor_ptr,
    h,
    w,
    hb,
    wb,
    groups,
    in_base,
    in_slots,
    out_base,
    out_slots,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """Gradient of the products of patches from that of the fused scores.

    Grid: (blocks of rows, blocks of keys, N).
    """
    ld = groups * 16
    n = tl.program_id(2).to(tl.int64)
    i = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    j = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    in_rows = i < out_slots * w
    y = (i // w + out_base) % h
    strip_ptr = in_ptr + n * in_slots * w * ld
    total = fused(
        strip_ptr,
        y,
        i % w,
        in_rows,
        j // wb,
        j % wb,
        j < hb * wb,
        h,
        w,
        hb,
        wb,
        in_base,
        in_slots,
        ld,
        True,
    )
    total *= tl.load(factor_ptr + n * ld + j, mask=j < ld, other=0.0)[None, :]
    rows = (n * out_slots * w + i) * ld
    tl.store(out_ptr + rows[:, None] + j[None, :], total, mask=in_rows[:, None] & (j < ld)[None, :])


_COLUMN_DOT_TYPES = {
    "a_ptr": "*fp32",
    "b_ptr": "*fp32",
    "out_ptr": "*fp32",
    "rows": "i32",
    "groups": "i32",
}


@jit(_COLUMN_DOT_TYPES)
def _contextual_attention_column_dot_kernel(
    a_ptr,
    b_ptr,
    out_ptr,
    rows,
    groups,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """out[q] += sum over rows of a * b, in one order always. Grid: (blocks of keys, N)."""
    ld = groups * 16
    n = tl.program_id(1).to(tl.int64)
    j = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    # Summed over rows once, after the loop: there threads have to wait for each other.
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for start in range(0, rows, BLOCK_M):
        i = start + tl.arange(0, BLOCK_M)
        at = ((n * rows + i) * ld)[:, None] + j[None, :]
        inside = (i < rows)[:, None] & (j < ld)[None, :]
        a = tl.load(a_ptr + at, mask=inside, other=0.0)
        b = tl.load(b_ptr + at, mask=inside, other=0.0)
        total += a * b
    before = tl.load(out_ptr + n * ld + j, mask=j < ld, other=0.0)
    tl.store(out_ptr + n * ld + j, before + tl.sum(total, 0), mask=j < ld)


# A warp has whole rows of a tile, so that no sum along a row waits for other warps. The interpreter
# is slow by the program, whatever its tile: there tiles are larger.
ROWS, COLUMNS = (16, 256) if interpreted() else (8, 128)
TILE = {"BLOCK_M": ROWS, "BLOCK_N": COLUMNS}
COLUMN = 64
BOX = Kernel(
    _contextual_attention_box_kernel,
    _STRIP_TYPES,
    [Row("fp32", "fp32", TILE, stages=1)],
    free={"SCALE": (True, False)},
)
FUSE_ADJOINT = Kernel(
    _contextual_attention_fuse_adjoint_kernel,
    _STRIP_TYPES,
    [Row("fp32", "fp32", TILE, stages=1)],
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
