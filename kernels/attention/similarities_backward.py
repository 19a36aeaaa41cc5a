"""Gradients of the cosines of the ID-MRF loss, in place of a strip of cosines."""

import triton.language as tl

from inpaint_ops.kernels.attention.cosines import cosines, exponentials, factors, nearest
from inpaint_ops.kernels.attention.similarities import EXCLUDE, TILE
from inpaint_ops.kernels.launch import Kernel, Row, jit

_TYPES = {
    "strip_ptr": "*fp32",
    "choice_ptr": "*i64",
    "grad_best_ptr": "*fp32",
    "first": "i32",
    "rows": "i32",
    "positions": "i32",
    "groups": "i32",
    "bandwidth": "fp32",
    "eps": "fp32",
}


@jit(_TYPES)
def _id_mrf_loss_bwd_kernel(
    strip_ptr,
    choice_ptr,
    grad_best_ptr,
    first,
    rows,
    positions,
    groups,
    bandwidth,
    eps,
    EXCLUDE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """Replace cosines by their gradients, in place; grad_best: dL / d(best of any target), (N,).

    Through the softmax, and through its factor to the nearest; with EXCLUDE through the nearest's
    factor to the second.
    Grid: (blocks of rows, N).
    """
    n = tl.program_id(1).to(tl.int64)
    i = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    in_rows = i < rows
    row = (n * rows + i) * groups * 16
    q = (first + i)[:, None]
    grad_best = tl.load(grad_best_ptr + n)
    best, place, other, other_place = nearest(
        strip_ptr, row, in_rows, positions, groups, EXCLUDE, BLOCK_M, BLOCK_N
    )
    factor, own, offset = factors(best, other, bandwidth, eps, EXCLUDE)
    base = best
    if EXCLUDE:
        base = tl.full((BLOCK_M,), 1.0, tl.float32)
    total = tl.zeros((BLOCK_M,), tl.float32)
    chosen_sum = tl.zeros((BLOCK_M,), tl.float32)
    moved = tl.zeros((BLOCK_M,), tl.float32)
    chosen_moved = tl.zeros((BLOCK_M,), tl.float32)
    for start in range(0, positions, BLOCK_N):
        j, _, inside, cosine = cosines(strip_ptr, row, in_rows, start, positions, groups, BLOCK_N)
        e = exponentials(cosine, j, inside, best, place, factor, offset, EXCLUDE)
        choice = tl.load(choice_ptr + n * positions + j, mask=j < positions, other=-1)
        chosen = tl.where(choice[None, :] == q, e, 0.0)
        total += tl.sum(e, 1)
        chosen_sum += tl.sum(chosen, 1)
        distance = cosine - base[:, None]
        if EXCLUDE:
            distance = tl.where(j[None, :] == place[:, None], 0.0, distance)
        moved += tl.sum(e * distance, 1)
        chosen_moved += tl.sum(chosen * distance, 1)
    inverse = 1 / tl.where(in_rows, total, 1.0)
    mean = grad_best * chosen_sum * inverse
    to_nearest = (grad_best * chosen_moved - mean * moved) * inverse * bandwidth * factor * factor
    nearest_choice = tl.load(choice_ptr + n * positions + place, mask=in_rows, other=-1)
    grad_nearest = (tl.where(nearest_choice == first + i, grad_best, 0.0) - mean) * inverse
    to_other = grad_nearest * (best - 1) * bandwidth * own * own
    tl.debug_barrier()
    for start in range(0, positions, BLOCK_N):
        j, stored, inside, cosine = cosines(
            strip_ptr, row, in_rows, start, positions, groups, BLOCK_N
        )
        e = exponentials(cosine, j, inside, best, place, factor, offset, EXCLUDE)
        choice = tl.load(choice_ptr + n * positions + j, mask=j < positions, other=-1)
        grad = (
            e * inverse[:, None] * (tl.where(choice[None, :] == q, grad_best, 0.0) - mean[:, None])
        )
        is_nearest = j[None, :] == place[:, None]
        grad *= tl.where(is_nearest, own[:, None], factor[:, None])
        grad += tl.where(is_nearest, to_nearest[:, None], 0.0)
        if EXCLUDE:
            grad += tl.where(j[None, :] == other_place[:, None], to_other[:, None], 0.0)
        tl.store(strip_ptr + row[:, None] + j[None, :], grad, mask=stored)


BACKWARD = Kernel(
    _id_mrf_loss_bwd_kernel,
    _TYPES,
    [Row("fp32", "fp32", TILE, stages=1, vectors=("strip_ptr",))],
    free=EXCLUDE,
)
