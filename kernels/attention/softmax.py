"""Softmax of contextual attention on strips of scores (see `stencils`), forward and backward.

The fuse is formed while the scores are loaded. Traffic: forward reads the strip, writes the scores
and rewrites them as attention; backward does the same and writes a gradient beside it.
"""

import triton
import triton.language as tl

from inpaint_ops.kernels.attention.stencils import TILE, fused, tap
from inpaint_ops.kernels.launch import Kernel, Row, jit


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
    """Scaled scores of a tile, with FUSE summed over neighbours."""
    v = j // wb
    u = j % wb
    if FUSE:
        score = fused(
            strip_ptr, y, x, in_rows, v, u, j < keys, h, w, hb, wb, base, slots, ld, False
        )
    else:
        score = tap(strip_ptr, y, x, in_rows, j, j < ld, h, w, base, slots, ld)
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


ATTEND = Kernel(
    _contextual_attention_attend_kernel,
    _ATTEND_TYPES,
    [Row("fp32", "fp32", TILE, stages=1, vectors=("attention_ptr",))],
    free={"FUSE": (True, False), "EXCLUDE": (False, True)},
)
ATTEND_BACKWARD = Kernel(
    _contextual_attention_attend_backward_kernel,
    _ATTEND_BACKWARD_TYPES,
    [Row("fp32", "fp32", TILE, stages=1, vectors=("attention_ptr", "grad_score_ptr"))],
    free={"FUSE": (True, False)},
)
