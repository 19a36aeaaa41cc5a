"""Relative similarities of the ID-MRF loss on strips of cosines, and the best of each target.

A strip has whole rows, so the softmax over targets needs no second product. Traffic: `SOFTMAX`
reads the strip three times (nearest, sum, result; the later ones mostly from the cache) and writes
it once, `BEST` reads it once more.
"""

import triton.language as tl

from inpaint_ops.kernels.attention.cosines import cosines, exponentials, factors, nearest
from inpaint_ops.kernels.launch import Kernel, Row, interpreted, jit

_SOFTMAX_TYPES = {
    "strip_ptr": "*fp32",
    "rows": "i32",
    "positions": "i32",
    "groups": "i32",
    "bandwidth": "fp32",
    "eps": "fp32",
}


@jit(_SOFTMAX_TYPES)
def _id_mrf_loss_softmax_kernel(
    strip_ptr,
    rows,
    positions,
    groups,
    bandwidth,
    eps,
    EXCLUDE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """Replace cosines by relative similarities: a softmax over targets, in place.

    Grid: (blocks of rows, N).
    """
    n = tl.program_id(1).to(tl.int64)
    i = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    in_rows = i < rows
    row = (n * rows + i) * groups * 16
    best, place, other, _other_place = nearest(
        strip_ptr, row, in_rows, positions, groups, EXCLUDE, BLOCK_M, BLOCK_N
    )
    factor, _own, offset = factors(best, other, bandwidth, eps, EXCLUDE)
    total = tl.zeros((BLOCK_M,), tl.float32)
    for start in range(0, positions, BLOCK_N):
        j, _, inside, cosine = cosines(strip_ptr, row, in_rows, start, positions, groups, BLOCK_N)
        total += tl.sum(exponentials(cosine, j, inside, best, place, factor, offset, EXCLUDE), 1)
    inverse = 1 / tl.where(in_rows, total, 1.0)
    # All reads of the cosines come before the first of them is replaced.
    tl.debug_barrier()
    for start in range(0, positions, BLOCK_N):
        j, stored, inside, cosine = cosines(
            strip_ptr, row, in_rows, start, positions, groups, BLOCK_N
        )
        e = exponentials(cosine, j, inside, best, place, factor, offset, EXCLUDE)
        tl.store(strip_ptr + row[:, None] + j[None, :], e * inverse[:, None], mask=stored)


_BEST_TYPES = {
    "strip_ptr": "*fp32",
    "best_ptr": "*fp32",
    "choice_ptr": "*i64",
    "first": "i32",
    "rows": "i32",
    "positions": "i32",
    "groups": "i32",
}


@jit(_BEST_TYPES)
def _id_mrf_loss_best_kernel(
    strip_ptr,
    best_ptr,
    choice_ptr,
    first,
    rows,
    positions,
    groups,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """Update the best similarity of each target and the row that has it; a NaN stays.

    Grid: (blocks of targets, N).
    """
    n = tl.program_id(1).to(tl.int64)
    j = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    at = n * positions + j
    # Each place of the tile keeps its own, compared once, after the loop: there threads have to
    # wait for each other.
    i = tl.arange(0, BLOCK_M)
    most = tl.full((BLOCK_M, BLOCK_N), -1.0, tl.float32)
    begun = tl.zeros((BLOCK_M, BLOCK_N), tl.int32)
    strange = tl.zeros((BLOCK_M, BLOCK_N), tl.int32)
    for start in range(0, rows, BLOCK_M):
        row = (n * rows + start + i) * groups * 16
        inside = (start + i < rows)[:, None] & (j < groups * 16)[None, :]
        s = tl.load(strip_ptr + row[:, None] + j[None, :], mask=inside, other=-1.0)
        strange = tl.where(s != s, 1, strange)
        better = s > most
        begun = tl.where(better, start, begun)
        most = tl.where(better, s, most)
    highest = tl.max(most, 0)
    place = tl.min(tl.where(most == highest[None, :], begun + i[:, None], 2147483647), 0)
    best = tl.load(best_ptr + at, mask=j < positions, other=0.0)
    choice = tl.load(choice_ptr + at, mask=j < positions, other=0)
    choice = tl.where(highest > best, (first + place).to(tl.int64), choice)
    best = tl.where(highest > best, highest, best)
    best = tl.where(tl.max(strange, 0) > 0, float("nan"), best)
    tl.store(best_ptr + at, best, mask=j < positions)
    tl.store(choice_ptr + at, choice, mask=j < positions)


# A warp has whole rows of a tile, so that no sum along a row waits for other warps. The interpreter
# is slow by the program, whatever its tile: there tiles are larger.
ROWS, COLUMNS = (16 if interpreted() else 8), 64
TILE = {"BLOCK_M": ROWS, "BLOCK_N": 256 if interpreted() else 128}
EXCLUDE = {"EXCLUDE": (True, False)}
SOFTMAX = Kernel(
    _id_mrf_loss_softmax_kernel,
    _SOFTMAX_TYPES,
    [Row("fp32", "fp32", TILE, stages=1, vectors=("strip_ptr",))],
    free=EXCLUDE,
)
BEST = Kernel(
    _id_mrf_loss_best_kernel,
    _BEST_TYPES,
    [Row("fp32", "fp32", {"BLOCK_M": 32, "BLOCK_N": COLUMNS}, stages=1, vectors=("strip_ptr",))],
)
