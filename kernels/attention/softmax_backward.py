"""Softmax of contextual attention backward: gradients of a strip's fused scores.

A query's gradient needs the sum of attention times its gradient over all keys, of which each
segment of keys forms a part. Traffic of a pair: `ATTEND_BACKWARD` reads the scores and the gradient
of the corners, and writes the fused scores and the gradient of the attention, 16 bytes;
`SOFTMAX_BACKWARD` reads the latter two and writes one, 12.
"""

import triton.language as tl

from inpaint_ops.kernels.attention.grid import cell_of, segment_of
from inpaint_ops.kernels.attention.softmax import (
    FUSED,
    SCORE_TYPES,
    TILE,
    TILE_WARPS,
    WINDOW_TYPES,
    fused_scores,
    inverse_of,
)
from inpaint_ops.kernels.convolution.activation import exponential
from inpaint_ops.kernels.launch import Kernel, Row, jit

_ATTEND_BACKWARD_TYPES = {
    "strip_ptr": "*fp32",
    "table_ptr": "*i32",
    "usable_ptr": "*u8",
    "row_max_ptr": "*fp32",
    "row_sum_ptr": "*fp32",
    "grad_corner_ptr": "*fp32",
    "corner_table_ptr": "*i32",
    "fused_ptr": "*fp32",
    "grad_ptr": "*fp32",
    "part_mean_ptr": "*fp32",
    **WINDOW_TYPES,
    "corner_groups": "i32",
    **SCORE_TYPES,
}


@jit(_ATTEND_BACKWARD_TYPES)
def _contextual_attention_attend_backward_kernel(
    strip_ptr,
    table_ptr,
    usable_ptr,
    row_max_ptr,
    row_sum_ptr,
    grad_corner_ptr,
    corner_table_ptr,
    fused_ptr,
    grad_ptr,
    part_mean_ptr,
    h,
    w,
    groups,
    own_y,
    own_rows,
    own_x,
    own_columns,
    own_lines,
    corner_groups,
    first_y,
    rows,
    first_x,
    columns,
    lines,
    softmax_scale,
    FUSED: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """Fused scores again, the gradient of the attention, and a segment's part of their product.

    The gradient of the attention is the 2 x 2 diagonal sum of that of the corners.
    Grid: (blocks of queries, segments, N).
    """
    ld = groups * 16
    n = tl.program_id(2).to(tl.int64)
    line = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    in_rows = line < own_rows * own_columns
    y, x = cell_of(line, h, w, own_y, own_x, own_columns)
    strip_ptr += n * lines * ld
    usable_ptr += n * tl.cdiv(groups, 16) * 256
    own = ((n * own_lines + 1 + line) * ld)[:, None]
    at = (n * h + y) * w + x
    top = tl.load(row_max_ptr + at, mask=in_rows, other=0.0)
    inverse = inverse_of(tl.load(row_sum_ptr + at, mask=in_rows, other=1.0))
    corner = line // own_columns * (own_columns + 1) + line % own_columns
    corner = tl.where(in_rows, corner, 0)
    grad_corner_ptr += n * (own_rows + 1) * (own_columns + 1) * corner_groups * 16
    table_ld = tl.cdiv(groups, 16) * 256
    mean = tl.zeros((BLOCK_M,), tl.float32)
    begin, end = segment_of(ld, BLOCK_N)
    for start in range(begin, end, BLOCK_N):
        j = start + tl.arange(0, BLOCK_N)
        usable, score = fused_scores(
            strip_ptr,
            table_ptr,
            usable_ptr,
            y,
            x,
            line,
            in_rows,
            j,
            h,
            w,
            first_y,
            rows,
            first_x,
            columns,
            groups,
            softmax_scale,
            FUSED,
        )
        inside = in_rows[:, None] & (j < ld)[None, :]
        tl.store(fused_ptr + own + j[None, :], score, mask=inside)
        grad = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
        for tap in tl.static_range(0, 4):
            row = corner + tap // 2 * (own_columns + 1) + tap % 2
            row = grad_corner_ptr + row.to(tl.int64) * (corner_groups * 16)
            column = tl.max_contiguous(tl.load(corner_table_ptr + tap * table_ld + j), 2)
            grad += tl.load(row[:, None] + column[None, :])
        # What is not used may be no number.
        grad = tl.where(usable[None, :], grad, 0.0)
        tl.store(grad_ptr + own + j[None, :], grad, mask=inside)
        mean += tl.sum(exponential(score - top[:, None]) * grad, 1)
    out = (n * tl.num_programs(1) + tl.program_id(1)) * own_lines + line
    tl.store(part_mean_ptr + out, mean * inverse, mask=in_rows)


_SOFTMAX_BACKWARD_TYPES = {
    "fused_ptr": "*fp32",
    "usable_ptr": "*u8",
    "row_max_ptr": "*fp32",
    "row_sum_ptr": "*fp32",
    "part_mean_ptr": "*fp32",
    "factor_ptr": "*fp32",
    "grad_ptr": "*fp32",
    **WINDOW_TYPES,
    "segments": "i32",
    "softmax_scale": "fp32",
}


@jit(_SOFTMAX_BACKWARD_TYPES)
def _contextual_attention_softmax_backward_kernel(
    fused_ptr,
    usable_ptr,
    row_max_ptr,
    row_sum_ptr,
    part_mean_ptr,
    factor_ptr,
    grad_ptr,
    h,
    w,
    groups,
    own_y,
    own_rows,
    own_x,
    own_columns,
    own_lines,
    segments,
    softmax_scale,
    FUSED: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """Replace the gradient of the attention by that of the fused scores.

    Without FUSED those are the key-normalised products, and their factor is applied here.
    Grid: (blocks of queries, blocks of keys, N).
    """
    ld = groups * 16
    n = tl.program_id(2).to(tl.int64)
    line = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    j = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    in_rows = line < own_rows * own_columns
    y, x = cell_of(line, h, w, own_y, own_x, own_columns)
    at = (n * h + y) * w + x
    top = tl.load(row_max_ptr + at, mask=in_rows, other=0.0)
    inverse = inverse_of(tl.load(row_sum_ptr + at, mask=in_rows, other=1.0))
    mean = tl.zeros((BLOCK_M,), tl.float32)
    for segment in range(segments):
        part = (n * segments + segment) * own_lines + line
        mean += tl.load(part_mean_ptr + part, mask=in_rows, other=0.0)
    own = ((n * own_lines + 1 + line) * ld)[:, None] + j[None, :]
    inside = in_rows[:, None] & (j < ld)[None, :]
    score = tl.load(fused_ptr + own, mask=inside, other=0.0)
    grad = tl.load(grad_ptr + own, mask=inside, other=0.0)
    usable = tl.load(usable_ptr + n * tl.cdiv(groups, 16) * 256 + j) != 0
    factor = tl.full((BLOCK_N,), 1.0, tl.float32) * softmax_scale
    if not FUSED:
        factor *= tl.load(factor_ptr + n * ld + j, mask=j < ld, other=0.0)
    weight = exponential(score - top[:, None]) * inverse[:, None]
    grad = factor[None, :] * weight * (grad - mean[:, None])
    tl.store(grad_ptr + own, tl.where(usable[None, :], grad, 0.0), mask=inside)


ATTEND_BACKWARD = Kernel(
    _contextual_attention_attend_backward_kernel,
    _ATTEND_BACKWARD_TYPES,
    [Row("fp32", "fp32", TILE, TILE_WARPS, stages=1)],
    free=FUSED,
)
SOFTMAX_BACKWARD = Kernel(
    _contextual_attention_softmax_backward_kernel,
    _SOFTMAX_BACKWARD_TYPES,
    [Row("fp32", "fp32", TILE, TILE_WARPS, stages=1, vectors=("fused_ptr", "grad_ptr"))],
    free=FUSED,
)
