"""Kernels of contextual attention on strips of scores: stencils along diagonals, and the softmax.

A strip holds some rows of the query grid against all keys, (N, slots * w, ld) float32 with ld the
number of keys rounded up. Slot k is row (base + k) mod h: the fuse runs along columns of the
flattened grid and so wraps from the last row to the first, one column on. Every stencil shifts
query and key together; what lies outside a grid or a strip counts as zero.
"""

import triton
import triton.language as tl

from inpaint_ops.kernels.launch import Kernel, Row, interpreted, jit


@triton.jit
def _along_rows(y, x, h, w, by: tl.constexpr):
    """The cell `by` (-1, 0, 1) places on in row-major order, and whether there is one."""
    x = x + by
    y = y + (x >= w).to(tl.int32) - (x < 0).to(tl.int32)
    x = tl.where(x >= w, 0, tl.where(x < 0, w - 1, x))
    return y, x, (y >= 0) & (y < h)


@triton.jit
def _along_columns(y, x, h, w, by: tl.constexpr):
    """The same in column-major order."""
    x, y, inside = _along_rows(x, y, w, h, by)
    return y, x, inside


@triton.jit
def _tap(strip_ptr, y, x, row_ok, column, column_ok, h, w, base, slots, ld):
    """A tile of a strip, zero outside: rows are cells (y, x) of queries, columns are keys."""
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
def _fused(
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
            total += _tap(
                strip_ptr, y2, x2, p_in & p_ok, v2 * wb + u2, q_in & q_ok, h, w, base, slots, ld
            )
    return total


_BOX_TYPES = {
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


@jit(_BOX_TYPES)
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

    Its own adjoint. Grid: (blocks of rows, blocks of keys, N).
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
            total += _tap(
                strip_ptr, y + dy, x + dx, p_ok, j + dy * wb + dx, q_ok, h, w, in_base, in_slots, ld
            )
    if SCALE:
        total *= tl.load(factor_ptr + n * ld + j, mask=j < ld, other=0.0)[None, :]
    rows = (n * out_slots * w + i) * ld
    tl.store(out_ptr + rows[:, None] + j[None, :], total, mask=in_rows[:, None] & (j < ld)[None, :])


@triton.jit
def _scores(
    strip_ptr,
    y,
    x,
    in_rows,
    j,
    keys,
    h,
    w,
    hb,
    wb,
    base,
    slots,
    ld,
    softmax_scale,
    FUSE: tl.constexpr,
):
    """Scaled scores of a tile, fused or as they are."""
    v = j // wb
    u = j % wb
    if FUSE:
        score = _fused(
            strip_ptr, y, x, in_rows, v, u, j < keys, h, w, hb, wb, base, slots, ld, False
        )
    else:
        score = _tap(strip_ptr, y, x, in_rows, j, j < ld, h, w, base, slots, ld)
    return score * softmax_scale


_ATTEND_TYPES = {
    "strip_ptr": "*fp32",
    "usable_ptr": "*u8",
    "attention_ptr": "*fp32",
    "index_ptr": "*i64",
    "row_max_ptr": "*fp32",
    "row_sum_ptr": "*fp32",
    "h": "i32",
    "w": "i32",
    "hb": "i32",
    "wb": "i32",
    "groups": "i32",
    "base": "i32",
    "slots": "i32",
    "first": "i32",
    "rows": "i32",
    "softmax_scale": "fp32",
}


@jit(_ATTEND_TYPES)
def _contextual_attention_attend_kernel(
    strip_ptr,
    usable_ptr,
    attention_ptr,
    index_ptr,
    row_max_ptr,
    row_sum_ptr,
    h,
    w,
    hb,
    wb,
    groups,
    base,
    slots,
    first,
    rows,
    softmax_scale,
    FUSE: tl.constexpr,
    EXCLUDE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """Attention of the query rows [first, first + rows): softmax over keys, zero where not usable.

    The first pass leaves the scores in the place of the result and keeps a running maximum, sum and
    best key; the second normalises. Grid: (blocks of queries, N).
    """
    ld = groups * 16
    n = tl.program_id(1).to(tl.int64)
    i = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    in_rows = i < rows * w
    y = tl.minimum(i // w + first, h - 1)
    x = i % w
    keys = hb * wb
    strip_ptr += n * slots * w * ld
    attention_ptrs = attention_ptr + ((n * rows * w + i) * ld)[:, None]
    top = tl.full((BLOCK_M,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_M,), tl.float32)
    best = tl.full((BLOCK_M,), float("-inf"), tl.float32)
    index = tl.zeros((BLOCK_M,), tl.int32)
    for start in range(0, ld, BLOCK_N):
        j = start + tl.arange(0, BLOCK_N)
        score = _scores(
            strip_ptr, y, x, in_rows, j, keys, h, w, hb, wb, base, slots, ld, softmax_scale, FUSE
        )
        tl.store(attention_ptrs + j[None, :], score, mask=in_rows[:, None] & (j < ld)[None, :])
        usable = tl.load(usable_ptr + n * ld + j, mask=j < ld, other=0) != 0
        only = tl.where(usable[None, :], score, float("-inf"))
        number = tl.where(only == only, only, float("-inf"))
        most = tl.max(number, 1)
        lowest = tl.min(tl.where(number == most[:, None], j[None, :], 2147483647), 1)
        index = tl.where(most > best, lowest, index)
        best = tl.maximum(best, most)
        if not EXCLUDE:
            # A key that is missing counts as a score of 0.
            only = tl.where((usable | (j >= keys))[None, :], only, 0.0)
            most = tl.max(tl.where(only == only, only, float("-inf")), 1)
        new_top = tl.maximum(top, most)
        # Without a usable key so far there is nothing to subtract.
        safe = tl.where(new_top == float("-inf"), 0.0, new_top)
        total = total * tl.exp(top - safe) + tl.sum(tl.exp(only - safe[:, None]), 1)
        top = new_top
    top = tl.where(top == float("-inf"), 0.0, top)
    out = (n * h + first) * w + i
    tl.store(index_ptr + out, index.to(tl.int64), mask=in_rows)
    tl.store(row_max_ptr + out, top, mask=in_rows)
    tl.store(row_sum_ptr + out, total, mask=in_rows)

    inverse = tl.where(total == 0, 0.0, 1 / tl.where(total == 0, 1.0, total))
    tl.debug_barrier()
    for start in range(0, ld, BLOCK_N):
        j = start + tl.arange(0, BLOCK_N)
        inside = in_rows[:, None] & (j < ld)[None, :]
        score = tl.load(attention_ptrs + j[None, :], mask=inside, other=0.0)
        usable = tl.load(usable_ptr + n * ld + j, mask=j < ld, other=0) != 0
        less = tl.where(usable[None, :], score - top[:, None], 0.0)
        weight = tl.where(usable[None, :], tl.exp(less) * inverse[:, None], 0.0)
        tl.store(attention_ptrs + j[None, :], weight, mask=inside)


_ATTEND_BACKWARD_TYPES = {
    "strip_ptr": "*fp32",
    "usable_ptr": "*u8",
    "row_max_ptr": "*fp32",
    "row_sum_ptr": "*fp32",
    "grad_corner_ptr": "*fp32",
    "factor_ptr": "*fp32",
    "attention_ptr": "*fp32",
    "grad_score_ptr": "*fp32",
    "h": "i32",
    "w": "i32",
    "hb": "i32",
    "wb": "i32",
    "groups": "i32",
    "corner_groups": "i32",
    "base": "i32",
    "slots": "i32",
    "first": "i32",
    "rows": "i32",
    "softmax_scale": "fp32",
}


@jit(_ATTEND_BACKWARD_TYPES)
def _contextual_attention_attend_backward_kernel(
    strip_ptr,
    usable_ptr,
    row_max_ptr,
    row_sum_ptr,
    grad_corner_ptr,
    factor_ptr,
    attention_ptr,
    grad_score_ptr,
    h,
    w,
    hb,
    wb,
    groups,
    corner_groups,
    base,
    slots,
    first,
    rows,
    softmax_scale,
    FUSE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """Attention again, from the saved maximum and sum, and the gradient of the scores.

    The gradient of the attention is the 2 x 2 diagonal sum of that of the corners. Without FUSE the
    scores are the key-normalised products, and their factor is applied here.
    Grid: (blocks of queries, N).
    """
    ld = groups * 16
    corner_ld = corner_groups * 16
    n = tl.program_id(1).to(tl.int64)
    i = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    in_rows = i < rows * w
    y = tl.minimum(i // w + first, h - 1)
    x = i % w
    keys = hb * wb
    strip_ptr += n * slots * w * ld
    own = ((n * rows * w + i) * ld)[:, None]
    at = (n * h + first) * w + i
    top = tl.load(row_max_ptr + at, mask=in_rows, other=0.0)
    total = tl.load(row_sum_ptr + at, mask=in_rows, other=1.0)
    inverse = tl.where(total == 0, 0.0, 1 / tl.where(total == 0, 1.0, total))
    corner = n * (rows + 1) * (w + 1) + i // w * (w + 1) + x
    mean = tl.zeros((BLOCK_M,), tl.float32)
    for start in range(0, ld, BLOCK_N):
        j = start + tl.arange(0, BLOCK_N)
        inside = in_rows[:, None] & (j < ld)[None, :]
        usable = tl.load(usable_ptr + n * ld + j, mask=j < ld, other=0) != 0
        score = _scores(
            strip_ptr, y, x, in_rows, j, keys, h, w, hb, wb, base, slots, ld, softmax_scale, FUSE
        )
        less = tl.where(usable[None, :], score - top[:, None], 0.0)
        weight = tl.where(usable[None, :], tl.exp(less) * inverse[:, None], 0.0)
        tl.store(attention_ptr + own + j[None, :], weight, mask=inside)
        grad = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
        block = j // wb * (wb + 1) + j % wb
        for dy in tl.static_range(0, 2):
            for dx in tl.static_range(0, 2):
                row = (corner + dy * (w + 1) + dx) * corner_ld
                grad += tl.load(
                    grad_corner_ptr + row[:, None] + (block + dy * (wb + 1) + dx)[None, :],
                    mask=in_rows[:, None] & usable[None, :],
                    other=0.0,
                )
        tl.store(grad_score_ptr + own + j[None, :], grad, mask=inside)
        mean += tl.sum(weight * grad, 1)
    tl.debug_barrier()
    for start in range(0, ld, BLOCK_N):
        j = start + tl.arange(0, BLOCK_N)
        inside = in_rows[:, None] & (j < ld)[None, :]
        weight = tl.load(attention_ptr + own + j[None, :], mask=inside, other=0.0)
        grad = tl.load(grad_score_ptr + own + j[None, :], mask=inside, other=0.0)
        grad = softmax_scale * weight * (grad - mean[:, None])
        if not FUSE:
            grad *= tl.load(factor_ptr + n * ld + j, mask=j < ld, other=0.0)[None, :]
        tl.store(grad_score_ptr + own + j[None, :], grad, mask=inside)


_FUSE_ADJOINT_TYPES = {
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


@jit(_FUSE_ADJOINT_TYPES)
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
    """Gradient of the products from that of the fused scores. Grid: (rows, keys, N)."""
    ld = groups * 16
    n = tl.program_id(2).to(tl.int64)
    i = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    j = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    in_rows = i < out_slots * w
    y = (i // w + out_base) % h
    strip_ptr = in_ptr + n * in_slots * w * ld
    total = _fused(
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
    """out[q] += sum over rows of a * b, in order. Grid: (blocks of keys, N)."""
    ld = groups * 16
    n = tl.program_id(1).to(tl.int64)
    j = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    total = tl.load(out_ptr + n * ld + j, mask=j < ld, other=0.0)
    for start in range(0, rows, BLOCK_M):
        i = start + tl.arange(0, BLOCK_M)
        at = ((n * rows + i) * ld)[:, None] + j[None, :]
        inside = (i < rows)[:, None] & (j < ld)[None, :]
        a = tl.load(a_ptr + at, mask=inside, other=0.0)
        b = tl.load(b_ptr + at, mask=inside, other=0.0)
        total += tl.sum(a * b, 0)
    tl.store(out_ptr + n * ld + j, total, mask=j < ld)


_CORNER_TYPES = {
    "attention_ptr": "*fp32",
    "corner_ptr": "*T",
    "rows": "i32",
    "w": "i32",
    "hb": "i32",
    "wb": "i32",
    "groups": "i32",
    "corner_groups": "i32",
}


@jit(_CORNER_TYPES)
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
    """2 x 2 diagonal sums: what each pair of blocks of pixels, on grids one larger, shares.

    corner[R, K, V, U] = sum over s in {0, 1}^2 of attention[R - s, K - s, V - s, U - s].
    Grid: (blocks of corners, blocks of the keys' corners, N).
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


# The interpreter takes its time for a program, whatever the size of its tile.
ROWS, COLUMNS = (16 if interpreted() else 4), 256
_TILE = {"BLOCK_M": ROWS, "BLOCK_N": COLUMNS}
COLUMN = 64
BOX = Kernel(
    _contextual_attention_box_kernel,
    _BOX_TYPES,
    [Row("fp32", "fp32", _TILE, stages=1)],
    free={"SCALE": (True, False)},
)
ATTEND = Kernel(
    _contextual_attention_attend_kernel,
    _ATTEND_TYPES,
    [Row("fp32", "fp32", _TILE, stages=1, wide=("attention_ptr",))],
    free={"FUSE": (True, False), "EXCLUDE": (False, True)},
)
ATTEND_BACKWARD = Kernel(
    _contextual_attention_attend_backward_kernel,
    _ATTEND_BACKWARD_TYPES,
    [Row("fp32", "fp32", _TILE, stages=1, wide=("attention_ptr", "grad_score_ptr"))],
    free={"FUSE": (True, False)},
)
FUSE_ADJOINT = Kernel(
    _contextual_attention_fuse_adjoint_kernel,
    _FUSE_ADJOINT_TYPES,
    [Row("fp32", "fp32", _TILE, stages=1)],
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
            wide=("a_ptr", "b_ptr"),
        )
    ],
)
CORNER = Kernel(
    _contextual_attention_corner_kernel,
    _CORNER_TYPES,
    [Row(dtype, dtype, _TILE, stages=1) for dtype in ("half", "fp32")],
)
