"""Rows of cosines of the ID-MRF loss: the nearest target, and the exponentials of the softmax.

With the cosine c of a row to a target, d = (1 - c) / 2 and the logits are -d / (d' + eps) / h,
d' the distance of the nearest target (with EXCLUDE, for the nearest itself, of the second).
"""

import triton
import triton.language as tl


@triton.jit
def cosines(strip_ptr, row, in_rows, start, positions, groups, BLOCK_N: tl.constexpr):
    """Columns of a tile, which cells are stored, which are targets, and cosines, -2 elsewhere.

    Loads are masked at whole groups of 16: masked at any target, each would load 4 bytes.
    """
    j = start + tl.arange(0, BLOCK_N)
    stored = in_rows[:, None] & (j < groups * 16)[None, :]
    inside = in_rows[:, None] & (j < positions)[None, :]
    cosine = tl.load(strip_ptr + row[:, None] + j[None, :], mask=stored, other=0.0)
    return j, stored, inside, tl.where(inside, cosine, -2.0)


@triton.jit
def nearest(
    strip_ptr,
    row,
    in_rows,
    positions,
    groups,
    EXCLUDE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """Greatest cosine of each row and its first place; with EXCLUDE also the second greatest."""
    best = tl.full((BLOCK_M,), -3.0, tl.float32)
    place = tl.zeros((BLOCK_M,), tl.int32)
    other = tl.full((BLOCK_M,), -3.0, tl.float32)
    other_place = tl.zeros((BLOCK_M,), tl.int32)
    for start in range(0, positions, BLOCK_N):
        j, _, _, cosine = cosines(strip_ptr, row, in_rows, start, positions, groups, BLOCK_N)
        most = tl.max(cosine, 1)
        first = tl.min(tl.where(cosine == most[:, None], j[None, :], 2147483647), 1)
        better = most > best
        if EXCLUDE:
            rest = tl.where(j[None, :] == first[:, None], -3.0, cosine)
            next_most = tl.max(rest, 1)
            next_first = tl.min(tl.where(rest == next_most[:, None], j[None, :], 2147483647), 1)
            # Second overall: the worse of both sides' first, or the second of the better side; of
            # equals the earlier.
            mine = tl.where(better, best, other)
            my_place = tl.where(better, place, other_place)
            theirs = tl.where(better, next_most, most)
            their_place = tl.where(better, next_first, first)
            other = tl.where(theirs > mine, theirs, mine)
            other_place = tl.where(theirs > mine, their_place, my_place)
        place = tl.where(better, first, place)
        best = tl.where(better, most, best)
    # A row of NaN may give a place outside.
    last = positions - 1
    return best, tl.minimum(place, last), other, tl.minimum(other_place, last)


@triton.jit
def exponentials(cosine, j, inside, best, place, factor, offset, EXCLUDE: tl.constexpr):
    """exp(logit - logit of the nearest) of a tile, zero outside."""
    logit = factor[:, None] * (cosine - best[:, None]) + offset[:, None]
    if EXCLUDE:
        logit = tl.where(j[None, :] == place[:, None], 0.0, logit)
    return tl.where(inside, tl.exp(logit), 0.0)


@triton.jit
def factors(best, other, bandwidth, eps, EXCLUDE: tl.constexpr):
    """Factor 1 / (2 h (d' + eps)) of a row's logits, the nearest's own, and the logits' offset.

    With EXCLUDE the nearest has a factor from the distance of the second; as logits are relative to
    the nearest's, those of the others are offset by the difference.
    """
    factor = 1 / (2 * bandwidth * ((1 - best) / 2 + eps))
    own = factor
    if EXCLUDE:
        own = 1 / (2 * bandwidth * ((1 - other) / 2 + eps))
    return factor, own, (own - factor) * (1 - best)
