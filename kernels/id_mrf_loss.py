"""id_mrf_loss on the GPU: strips of generated positions against all targets.

The library multiplies unit vectors in float32; a strip has whole rows, so the minimum and the
softmax over targets need no second product, and only the best of each target is kept over strips.
The backward pass forms the strips again. Strips take `STRIP_BYTES`, or what 64 rows need: memory
grows with the number of positions.
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from inpaint_ops.kernels import products
from inpaint_ops.kernels.launch import Kernel, Row, interpreted, jit
from inpaint_ops.kernels.products import product, without_autocast

_MIN_ROWS = 64


@triton.jit
def _cosines(strip_ptr, row, in_rows, start, positions, groups, BLOCK_N: tl.constexpr):
    """Places, which of a tile are to be stored, which are targets, and cosines, -2 elsewhere.

    Loads are masked at whole groups, or each would be of 4 bytes.
    """
    j = start + tl.arange(0, BLOCK_N)
    stored = in_rows[:, None] & (j < groups * 16)[None, :]
    inside = in_rows[:, None] & (j < positions)[None, :]
    cosine = tl.load(strip_ptr + row[:, None] + j[None, :], mask=stored, other=0.0)
    return j, stored, inside, tl.where(inside, cosine, -2.0)


@triton.jit
def _nearest(
    strip_ptr,
    row,
    in_rows,
    positions,
    groups,
    EXCLUDE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """Greatest cosine of each row and its first place; with EXCLUDE the next one's too."""
    best = tl.full((BLOCK_M,), -3.0, tl.float32)
    place = tl.zeros((BLOCK_M,), tl.int32)
    other = tl.full((BLOCK_M,), -3.0, tl.float32)
    other_place = tl.zeros((BLOCK_M,), tl.int32)
    for start in range(0, positions, BLOCK_N):
        j, _, _, cosine = _cosines(strip_ptr, row, in_rows, start, positions, groups, BLOCK_N)
        most = tl.max(cosine, 1)
        first = tl.min(tl.where(cosine == most[:, None], j[None, :], 2147483647), 1)
        better = most > best
        if EXCLUDE:
            rest = tl.where(j[None, :] == first[:, None], -3.0, cosine)
            next_most = tl.max(rest, 1)
            next_first = tl.min(tl.where(rest == next_most[:, None], j[None, :], 2147483647), 1)
            # The loser of the two first places against the second of the winner's side; of equals
            # the earlier.
            mine = tl.where(better, best, other)
            my_place = tl.where(better, place, other_place)
            theirs = tl.where(better, next_most, most)
            their_place = tl.where(better, next_first, first)
            other = tl.where(theirs > mine, theirs, mine)
            other_place = tl.where(theirs > mine, their_place, my_place)
        place = tl.where(better, first, place)
        best = tl.where(better, most, best)
    # Of a row of no numbers a place outside may come out.
    last = positions - 1
    return best, tl.minimum(place, last), other, tl.minimum(other_place, last)


@triton.jit
def _exponentials(cosine, j, inside, best, place, factor, offset, EXCLUDE: tl.constexpr):
    """exp(logit - logit of the nearest), zero outside."""
    logit = factor[:, None] * (cosine - best[:, None]) + offset[:, None]
    if EXCLUDE:
        logit = tl.where(j[None, :] == place[:, None], 0.0, logit)
    return tl.where(inside, tl.exp(logit), 0.0)


@triton.jit
def _factors(best, other, bandwidth, eps, EXCLUDE: tl.constexpr):
    """Factors a = 1 / (2 h (d + eps)) of all targets and of the nearest; what their logits add."""
    factor = 1 / (2 * bandwidth * ((1 - best) / 2 + eps))
    own = factor
    if EXCLUDE:
        own = 1 / (2 * bandwidth * ((1 - other) / 2 + eps))
    return factor, own, (own - factor) * (1 - best)


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
    """Puts relative similarities, normalised over targets, in the place of cosines.

    Grid: (blocks of rows, N).
    """
    n = tl.program_id(1).to(tl.int64)
    i = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    in_rows = i < rows
    row = (n * rows + i) * groups * 16
    best, place, other, _other_place = _nearest(
        strip_ptr, row, in_rows, positions, groups, EXCLUDE, BLOCK_M, BLOCK_N
    )
    factor, _own, offset = _factors(best, other, bandwidth, eps, EXCLUDE)
    total = tl.zeros((BLOCK_M,), tl.float32)
    for start in range(0, positions, BLOCK_N):
        j, _, inside, cosine = _cosines(strip_ptr, row, in_rows, start, positions, groups, BLOCK_N)
        total += tl.sum(_exponentials(cosine, j, inside, best, place, factor, offset, EXCLUDE), 1)
    inverse = 1 / tl.where(in_rows, total, 1.0)
    # All reads of the cosines come before the first of them is replaced.
    tl.debug_barrier()
    for start in range(0, positions, BLOCK_N):
        j, stored, inside, cosine = _cosines(
            strip_ptr, row, in_rows, start, positions, groups, BLOCK_N
        )
        e = _exponentials(cosine, j, inside, best, place, factor, offset, EXCLUDE)
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
    """Best similarity of each target so far and who has it; what is no number stays.

    Grid: (blocks of targets, N).
    """
    n = tl.program_id(1).to(tl.int64)
    j = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    at = n * positions + j
    best = tl.load(best_ptr + at, mask=j < positions, other=0.0)
    choice = tl.load(choice_ptr + at, mask=j < positions, other=0)
    for start in range(0, rows, BLOCK_M):
        i = start + tl.arange(0, BLOCK_M)
        row = (n * rows + i) * groups * 16
        inside = (i < rows)[:, None] & (j < groups * 16)[None, :]
        s = tl.load(strip_ptr + row[:, None] + j[None, :], mask=inside, other=-1.0)
        strange = tl.max((s != s).to(tl.int32), 0) > 0
        s = tl.where(s == s, s, -1.0)
        most = tl.max(s, 0)
        place = tl.min(tl.where(s == most[None, :], i[:, None], 2147483647), 0)
        better = most > best
        choice = tl.where(better, (first + place).to(tl.int64), choice)
        best = tl.where(better, most, best)
        best = tl.where(strange, float("nan"), best)
    tl.store(best_ptr + at, best, mask=j < positions)
    tl.store(choice_ptr + at, choice, mask=j < positions)


_BACKWARD_TYPES = {
    "strip_ptr": "*fp32",
    "choice_ptr": "*i64",
    "share_ptr": "*fp32",
    "first": "i32",
    "rows": "i32",
    "positions": "i32",
    "groups": "i32",
    "bandwidth": "fp32",
    "eps": "fp32",
}


@jit(_BACKWARD_TYPES)
def _id_mrf_loss_bwd_kernel(
    strip_ptr,
    choice_ptr,
    share_ptr,
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
    """Puts the gradients of cosines in their place; share = dL / d(best of a target).

    Through the softmax, and through its factor to the nearest, or with EXCLUDE the nearest's to
    the next. Grid: (blocks of rows, N).
    """
    n = tl.program_id(1).to(tl.int64)
    i = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    in_rows = i < rows
    row = (n * rows + i) * groups * 16
    q = (first + i)[:, None]
    share = tl.load(share_ptr + n)
    best, place, other, other_place = _nearest(
        strip_ptr, row, in_rows, positions, groups, EXCLUDE, BLOCK_M, BLOCK_N
    )
    factor, own, offset = _factors(best, other, bandwidth, eps, EXCLUDE)
    base = best
    if EXCLUDE:
        base = tl.full((BLOCK_M,), 1.0, tl.float32)
    total = tl.zeros((BLOCK_M,), tl.float32)
    chosen_sum = tl.zeros((BLOCK_M,), tl.float32)
    moved = tl.zeros((BLOCK_M,), tl.float32)
    chosen_moved = tl.zeros((BLOCK_M,), tl.float32)
    for start in range(0, positions, BLOCK_N):
        j, _, inside, cosine = _cosines(strip_ptr, row, in_rows, start, positions, groups, BLOCK_N)
        e = _exponentials(cosine, j, inside, best, place, factor, offset, EXCLUDE)
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
    mean = share * chosen_sum * inverse
    to_nearest = (share * chosen_moved - mean * moved) * inverse * bandwidth * factor * factor
    nearest_choice = tl.load(choice_ptr + n * positions + place, mask=in_rows, other=-1)
    nearest = (tl.where(nearest_choice == first + i, share, 0.0) - mean) * inverse
    to_other = nearest * (best - 1) * bandwidth * own * own
    tl.debug_barrier()
    for start in range(0, positions, BLOCK_N):
        j, stored, inside, cosine = _cosines(
            strip_ptr, row, in_rows, start, positions, groups, BLOCK_N
        )
        e = _exponentials(cosine, j, inside, best, place, factor, offset, EXCLUDE)
        choice = tl.load(choice_ptr + n * positions + j, mask=j < positions, other=-1)
        grad = e * inverse[:, None] * (tl.where(choice[None, :] == q, share, 0.0) - mean[:, None])
        is_nearest = j[None, :] == place[:, None]
        grad *= tl.where(is_nearest, own[:, None], factor[:, None])
        grad += tl.where(is_nearest, to_nearest[:, None], 0.0)
        if EXCLUDE:
            grad += tl.where(j[None, :] == other_place[:, None], to_other[:, None], 0.0)
        tl.store(strip_ptr + row[:, None] + j[None, :], grad, mask=stored)


# The interpreter takes its time for a program, whatever the size of its tile.
_ROWS, _COLUMNS = (16 if interpreted() else 4), 64
_TILE = {"BLOCK_M": _ROWS, "BLOCK_N": 256}
_EXCLUDE = {"EXCLUDE": (True, False)}
SOFTMAX = Kernel(
    _id_mrf_loss_softmax_kernel,
    _SOFTMAX_TYPES,
    [Row("fp32", "fp32", _TILE, stages=1, wide=("strip_ptr",))],
    free=_EXCLUDE,
)
BEST = Kernel(
    _id_mrf_loss_best_kernel,
    _BEST_TYPES,
    [Row("fp32", "fp32", {"BLOCK_M": 32, "BLOCK_N": _COLUMNS}, stages=1, wide=("strip_ptr",))],
)
BACKWARD = Kernel(
    _id_mrf_loss_bwd_kernel,
    _BACKWARD_TYPES,
    [Row("fp32", "fp32", _TILE, stages=1, wide=("strip_ptr",))],
    free=_EXCLUDE,
)


class _Vectors:
    """Unit vectors of both maps, (N, P, C), targets padded to rows of whole groups of 16."""

    def __init__(self, generated: Tensor, target: Tensor, exclude_self: bool) -> None:
        self.generated = generated.flatten(2).mT
        target = target.flatten(2).mT
        self.n, self.positions, _ = target.shape
        self.groups = triton.cdiv(self.positions, 16)
        self.target = F.pad(target, (0, 0, 0, 16 * self.groups - self.positions))
        # Without another target the nearest is measured by itself.
        self.exclude = exclude_self and self.positions > 1

    def strips(self) -> Iterator[tuple[int, Tensor]]:
        """First position and cosines (N, rows, 16 groups) of some generated positions each."""
        row_bytes = 4 * self.n * 16 * self.groups
        step = max(_MIN_ROWS, products.STRIP_BYTES // max(row_bytes, 1))
        for first in range(0, self.positions, step):
            yield first, product(self.generated[:, first : first + step], self.target.mT)

    def blocks(self, strip: Tensor) -> tuple[int, int]:
        return triton.cdiv(strip.shape[1], _ROWS), self.n

    def sizes(self, strip: Tensor) -> dict[str, Any]:
        return {"rows": strip.shape[1], "positions": self.positions, "groups": self.groups}


@without_autocast
def id_mrf_loss(
    generated: Tensor, target: Tensor, bandwidth: float, eps: float, exclude_self: bool
) -> tuple[Tensor, Tensor]:
    """The operator, of unit vectors: loss of each sample, best generated position per target."""
    vectors = _Vectors(generated, target, exclude_self)
    best = target.new_full((vectors.n, vectors.positions), -1.0)
    choice = torch.zeros_like(best, dtype=torch.int64)
    options = {"bandwidth": bandwidth, "eps": eps, "EXCLUDE": vectors.exclude}
    for first, strip in vectors.strips():
        sizes = vectors.sizes(strip)
        SOFTMAX("fp32", vectors.blocks(strip), strip_ptr=strip, **sizes, **options)
        BEST(
            "fp32",
            (triton.cdiv(vectors.positions, _COLUMNS), vectors.n),
            strip_ptr=strip,
            best_ptr=best,
            choice_ptr=choice,
            first=first,
            **sizes,
        )
    return -best.mean(1).log(), choice


@without_autocast
def id_mrf_loss_backward(
    grad: Tensor,
    generated: Tensor,
    target: Tensor,
    loss: Tensor,
    choice: Tensor,
    bandwidth: float,
    eps: float,
    exclude_self: bool,
) -> tuple[Tensor, Tensor]:
    """Gradients in both maps of unit vectors; sums over strips in order."""
    vectors = _Vectors(generated, target, exclude_self)
    grad_generated = torch.empty_like(vectors.generated)
    grad_target = torch.zeros_like(vectors.target)
    share = -grad / ((-loss).exp() * vectors.positions)
    for first, strip in vectors.strips():
        BACKWARD(
            "fp32",
            vectors.blocks(strip),
            strip_ptr=strip,
            choice_ptr=choice,
            share_ptr=share,
            first=first,
            **vectors.sizes(strip),
            bandwidth=bandwidth,
            eps=eps,
            EXCLUDE=vectors.exclude,
        )
        last = first + strip.shape[1]
        grad_generated[:, first:last] = product(strip, vectors.target)
        grad_target += product(strip.mT, vectors.generated[:, first:last])
    grad_target = grad_target[:, : vectors.positions]
    return (
        grad_generated.mT.reshape(generated.shape).contiguous(),
        grad_target.mT.reshape(target.shape).contiguous(),
    )
