"""Softmax of contextual attention over all keys of a strip, in one pass over its scores.

The fuse is formed while the scores are loaded. Keys are shared by segments, whose running maxima,
sums and best keys are merged. What is left is the strip of fused scores, -inf where a key may not
be used and in all that is blank: exp(score - maximum) / sum is formed where it is used, so that no
pass normalises. Traffic of a pair: the scores are read and the fused ones written, 8 bytes.
"""

import triton
import triton.language as tl

from inpaint_ops.kernels.attention.grid import FUSE, cell_of, segment_of, stencil
from inpaint_ops.kernels.convolution.activation import exponential
from inpaint_ops.kernels.launch import Kernel, Row, interpreted, jit

WINDOW_TYPES = {
    "h": "i32",
    "w": "i32",
    "groups": "i32",
    "own_y": "i32",
    "own_rows": "i32",
    "own_x": "i32",
    "own_columns": "i32",
    "own_lines": "i32",
}
SCORE_TYPES = {
    "first_y": "i32",
    "rows": "i32",
    "first_x": "i32",
    "columns": "i32",
    "lines": "i32",
    "softmax_scale": "fp32",
}


@triton.jit
def fused_scores(
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
    FUSED: tl.constexpr,
):
    """Scaled scores of a tile, with FUSED summed over neighbours, -inf for keys not usable."""
    if FUSED:
        score = stencil(
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
            FUSE,
        )
    else:
        at = strip_ptr + (tl.where(in_rows, 1 + line, 0).to(tl.int64) * groups * 16)[:, None]
        score = tl.load(at + j[None, :], mask=(j < groups * 16)[None, :], other=0.0)
    usable = tl.load(usable_ptr + j) != 0
    return usable, tl.where(usable[None, :], score * softmax_scale, float("-inf"))


_ATTEND_TYPES = {
    "strip_ptr": "*fp32",
    "table_ptr": "*i32",
    "usable_ptr": "*u8",
    "fused_ptr": "*fp32",
    "part_max_ptr": "*fp32",
    "part_sum_ptr": "*fp32",
    "part_index_ptr": "*i32",
    **WINDOW_TYPES,
    **SCORE_TYPES,
}


@jit(_ATTEND_TYPES)
def _contextual_attention_attend_kernel(
    strip_ptr,
    table_ptr,
    usable_ptr,
    fused_ptr,
    part_max_ptr,
    part_sum_ptr,
    part_index_ptr,
    h,
    w,
    groups,
    own_y,
    own_rows,
    own_x,
    own_columns,
    own_lines,
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
    """Fused scores, and maximum, sum of exponentials and best key of a segment of the keys.

    Grid: (blocks of queries, segments, N).
    """
    ld = groups * 16
    n = tl.program_id(2).to(tl.int64)
    total_lines = own_rows * own_columns
    line = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    in_rows = line < total_lines
    y, x = cell_of(line, h, w, own_y, own_x, own_columns)
    strip_ptr += n * lines * ld
    usable_ptr += n * tl.cdiv(groups, 16) * 256
    fused_ptrs = (fused_ptr + (n * own_lines + 1 + line) * ld)[:, None]
    top = tl.full((BLOCK_M,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_M,), tl.float32)
    index = tl.zeros((BLOCK_M,), tl.int32)
    begin, end = segment_of(ld, BLOCK_N)
    for start in range(begin, end, BLOCK_N):
        j = start + tl.arange(0, BLOCK_N)
        _usable, score = fused_scores(
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
        tl.store(fused_ptrs + j[None, :], score, mask=in_rows[:, None] & (j < ld)[None, :])
        number = tl.where(score == score, score, float("-inf"))
        most = tl.max(number, 1)
        lowest = tl.min(tl.where(number == most[:, None], j[None, :], 2147483647), 1)
        index = tl.where(most > top, lowest, index)
        most = tl.maximum(top, most)
        # Without a usable key so far there is nothing to subtract.
        safe = tl.where(most == float("-inf"), 0.0, most)
        total = total * exponential(top - safe) + tl.sum(exponential(score - safe[:, None]), 1)
        top = most
    out = (n * tl.num_programs(1) + tl.program_id(1)) * own_lines + line
    tl.store(part_max_ptr + out, top, mask=in_rows)
    tl.store(part_sum_ptr + out, total, mask=in_rows)
    tl.store(part_index_ptr + out, index, mask=in_rows)


_MERGE_TYPES = {
    "part_max_ptr": "*fp32",
    "part_sum_ptr": "*fp32",
    "part_index_ptr": "*i32",
    "missing_ptr": "*fp32",
    "row_max_ptr": "*fp32",
    "row_sum_ptr": "*fp32",
    "index_ptr": "*i64",
    **WINDOW_TYPES,
    "segments": "i32",
    "wb": "i32",
}


@jit(_MERGE_TYPES)
def _contextual_attention_merge_kernel(
    part_max_ptr,
    part_sum_ptr,
    part_index_ptr,
    missing_ptr,
    row_max_ptr,
    row_sum_ptr,
    index_ptr,
    h,
    w,
    groups,
    own_y,
    own_rows,
    own_x,
    own_columns,
    own_lines,
    segments,
    wb,
    BLOCK_M: tl.constexpr,
):
    """Maximum, sum and best key from those of the segments; the first of equals.

    Missing keys, whose number is given, count as a score of 0. Grid: (blocks of queries, N).
    """
    n = tl.program_id(1).to(tl.int64)
    line = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    in_rows = line < own_rows * own_columns
    missing = tl.load(missing_ptr + n)
    best = tl.full((BLOCK_M,), float("-inf"), tl.float32)
    index = tl.zeros((BLOCK_M,), tl.int32)
    for segment in range(segments):
        part = (n * segments + segment) * own_lines + line
        most = tl.load(part_max_ptr + part, mask=in_rows, other=0.0)
        better = most > best
        place = tl.load(part_index_ptr + part, mask=in_rows, other=0)
        index = tl.where(better, place, index)
        best = tl.where(better, most, best)
    top = tl.where(best == float("-inf"), 0.0, best)
    top = tl.where(missing > 0, tl.maximum(top, 0.0), top)
    total = missing * exponential(-top)
    for segment in range(segments):
        part = (n * segments + segment) * own_lines + line
        most = tl.load(part_max_ptr + part, mask=in_rows, other=0.0)
        total += tl.load(part_sum_ptr + part, mask=in_rows, other=0.0) * exponential(most - top)
    y, x = cell_of(line, h, w, own_y, own_x, own_columns)
    out = (n * h + y) * w + x
    tl.store(row_max_ptr + out, top, mask=in_rows)
    tl.store(row_sum_ptr + out, total, mask=in_rows)
    # Columns count on by whole groups of four along a row of keys.
    pitch = tl.cdiv(wb, 4) * 4
    index = index // pitch * wb + index % pitch
    tl.store(index_ptr + out, index.to(tl.int64), mask=in_rows)


@triton.jit
def inverse_of(total):
    """1 / total, 0 where nothing could be used."""
    return tl.where(total == 0, 0.0, 1 / tl.where(total == 0, 1.0, total))


# A warp has whole rows of a tile, so that no sum along a row waits for other warps, and a block has
# fewer columns than threads: its columns are then loaded by all warps, not passed on through shared
# memory. The interpreter is slow by the program, whatever its tile: there tiles are larger.
ROWS, COLUMNS = (32, 256) if interpreted() else (16, 64)
TILE = {"BLOCK_M": ROWS, "BLOCK_N": COLUMNS}
TILE_WARPS = 4
MERGED = 128
FUSED = {"FUSED": (True, False)}
ATTEND = Kernel(
    _contextual_attention_attend_kernel,
    _ATTEND_TYPES,
    [Row("fp32", "fp32", TILE, TILE_WARPS, stages=1)],
    free=FUSED,
)
MERGE = Kernel(
    _contextual_attention_merge_kernel,
    _MERGE_TYPES,
    [Row("fp32", "fp32", {"BLOCK_M": MERGED}, stages=1)],
)
