"""Kernels of the exhaustive search: a matrix product with a running arg-max, and the merge.

A patch row is one stretch of NHWC memory, patch_size * C numbers. So the product runs over
patch_size stretches, whatever the number of channels, and a patch is known by its first pixel.
Traffic: each block of queries reads all keys of its segment; no matrix of scores exists.
"""

import triton.language as tl

from inpaint_ops.kernels.dot import dot
from inpaint_ops.kernels.launch import ARCHITECTURES, Kernel, Row, jit

_TYPES = {
    "query_ptr": "*T",
    "key_ptr": "*T",
    "query_pixel_ptr": "*i32",
    "key_pixel_ptr": "*i32",
    "query_count_ptr": "*i32",
    "key_count_ptr": "*i32",
    "query_factor_ptr": "*fp32",
    "key_term_ptr": "*fp32",
    "score_ptr": "*fp32",
    "place_ptr": "*i32",
    "queries": "i32",
    "keys": "i32",
    "query_image": "i32",
    "key_image": "i32",
    "query_width": "i32",
    "key_width": "i32",
    "patch_size": "i32",
    "units": "i32",
}


@jit(_TYPES)
def _search_kernel(
    query_ptr,
    key_ptr,
    query_pixel_ptr,
    key_pixel_ptr,
    query_count_ptr,
    key_count_ptr,
    query_factor_ptr,
    key_term_ptr,
    score_ptr,
    place_ptr,
    queries,
    keys,
    query_image,
    key_image,
    query_width,
    key_width,
    patch_size,
    units,
    COSINE: tl.constexpr,
    SCALE_QUERY: tl.constexpr,
    UNIT: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Best of one segment of the listed keys for BLOCK_M listed queries.

    S = <q, k> * term_k with COSINE (times factor_q with SCALE_QUERY), else <q, k> - term_k.
    Lists ascend, so the lowest place is the lowest index; entries after their count are not read.
    Grid: (blocks of queries, segments of keys, N).
    """
    n = tl.program_id(2).to(tl.int64)
    # The compiler sees that offsets are multiples of 16 bytes because this product is.
    C = units * UNIT
    segment = tl.program_id(1)
    segments = tl.num_programs(1)
    query_count = tl.load(query_count_ptr + n)
    key_count = tl.load(key_count_ptr + n)
    first = tl.program_id(0) * BLOCK_M
    if first >= query_count:
        return
    blocks = tl.cdiv(tl.cdiv(key_count, segments), BLOCK_N)
    begin = segment * blocks * BLOCK_N
    end = tl.minimum(begin + blocks * BLOCK_N, key_count)

    # The last of a list stands in for those after it: no load is masked along rows.
    at_m = first + tl.arange(0, BLOCK_M)
    in_queries = at_m < query_count
    at_m = tl.minimum(at_m, query_count - 1)
    query_row = (n * query_image + tl.load(query_pixel_ptr + n * queries + at_m)) * C
    if SCALE_QUERY:
        factor = tl.load(query_factor_ptr + n * queries + at_m)

    offs_k = tl.arange(0, BLOCK_K)
    query_rows = query_ptr + query_row[:, None] + offs_k[None, :]
    length = patch_size * C
    steps = tl.cdiv(length, BLOCK_K)
    best = tl.full((BLOCK_M,), float("-inf"), tl.float32)
    place = tl.full((BLOCK_M,), -1, tl.int32)
    for start in range(begin, end, BLOCK_N):
        at_n = start + tl.arange(0, BLOCK_N)
        in_keys = at_n < end
        safe_n = n * keys + tl.minimum(at_n, key_count - 1)
        key_row = (n * key_image + tl.load(key_pixel_ptr + safe_n)) * C
        key_rows = key_ptr + key_row[:, None] + offs_k[None, :]
        product = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
        # Places of a block in a row of the patch, and of that row in both images.
        at_k = 0
        query_at = 0
        key_at = 0
        for _step in range(patch_size * steps):
            in_row = (at_k + offs_k < length)[None, :]
            q = tl.load(query_rows + (query_at + at_k), mask=in_row, other=0.0)
            k = tl.load(key_rows + (key_at + at_k), mask=in_row, other=0.0)
            product = dot(q, tl.trans(k), product, PRECISION)
            at_k += BLOCK_K
            ends = at_k >= length
            at_k = tl.where(ends, 0, at_k)
            query_at += tl.where(ends, query_width * C, 0)
            key_at += tl.where(ends, key_width * C, 0)
        term = tl.load(key_term_ptr + safe_n)
        if COSINE:
            score = product * term[None, :]
        else:
            score = product - term[None, :]
        if SCALE_QUERY:
            score = score * factor[:, None]
        # A NaN never wins.
        score = tl.where(in_keys[None, :] & (score == score), score, float("-inf"))
        most = tl.max(score, 1)
        lowest = tl.min(tl.where(score == most[:, None], at_n[None, :], 2147483647), 1)
        better = most > best
        place = tl.where(better, lowest, place)
        best = tl.where(better, most, best)

    out = (n * segments + segment) * queries + at_m
    tl.store(score_ptr + out, best, mask=in_queries)
    tl.store(place_ptr + out, place, mask=in_queries)


_MERGE_TYPES = {
    "part_score_ptr": "*fp32",
    "part_place_ptr": "*i32",
    "query_list_ptr": "*i32",
    "key_list_ptr": "*i32",
    "query_count_ptr": "*i32",
    "score_ptr": "*fp32",
    "index_ptr": "*i64",
    "queries": "i32",
    "keys": "i32",
    "segments": "i32",
}


@jit(_MERGE_TYPES)
def _search_merge_kernel(
    part_score_ptr,
    part_place_ptr,
    query_list_ptr,
    key_list_ptr,
    query_count_ptr,
    score_ptr,
    index_ptr,
    queries,
    keys,
    segments,
    BLOCK_M: tl.constexpr,
):
    """Best of the segments' best, the first of equals, stored at the place of its query.

    Grid: (blocks of queries, N).
    """
    n = tl.program_id(1).to(tl.int64)
    at = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    inside = at < tl.load(query_count_ptr + n)
    best = tl.full((BLOCK_M,), float("-inf"), tl.float32)
    place = tl.full((BLOCK_M,), -1, tl.int32)
    for segment in range(segments):
        part = (n * segments + segment) * queries + at
        score = tl.load(part_score_ptr + part, mask=inside, other=float("-inf"))
        better = score > best
        place = tl.where(better, tl.load(part_place_ptr + part, mask=inside, other=-1), place)
        best = tl.where(better, score, best)
    found = inside & (place >= 0)
    query = tl.load(query_list_ptr + n * queries + at, mask=found, other=0)
    key = tl.load(key_list_ptr + n * keys + place, mask=found, other=0)
    tl.store(score_ptr + n * queries + query, best, mask=found)
    tl.store(index_ptr + n * queries + query, key.to(tl.int64), mask=found)


# Queries of a block; keys of a block, and of a wide one.
QUERIES, KEYS, WIDE_KEYS = 64, 64, 128
MERGE_BLOCK = 128
# Channels in 16 bytes.
UNIT = {"half": 8, "fp32": 4}


def _row(
    name: str,
    precision: str,
    archs: tuple[str, ...],
    keys: int = KEYS,
    block_k: int = 32,
    warps: int = 4,
) -> Row:
    dtype = "half" if name.startswith("half") else "fp32"
    return Row(
        name,
        dtype,
        {
            "BLOCK_M": QUERIES,
            "BLOCK_N": keys,
            "BLOCK_K": block_k,
            "UNIT": UNIT[dtype],
            "PRECISION": precision,
        },
        warps=warps,
        # On ROCm 64 KB of shared memory hold two programs.
        stages=2 if archs == _ROCM else 3,
        archs=archs,
        dot=True,
        tensor_cores=precision != "ieee" or dtype == "half",
        vectors=("query_ptr", "key_ptr"),
        # To split float32 factors takes longer than to multiply their parts.
        paced=precision != "tf32x3",
    )


_ROCM = ("gfx942",)
_CUDA = tuple(arch for arch in ARCHITECTURES if arch not in _ROCM)
# Elsewhere than on these, one product of float32 takes less time than three of TF32.
_SPLIT = ("sm_80", "sm_90", "sm_100")
_WHOLE = tuple(arch for arch in _CUDA if arch not in _SPLIT)
SEARCH = Kernel(
    _search_kernel,
    _TYPES,
    [
        _row("half", "ieee", _CUDA, block_k=64),
        _row("half-wide", "ieee", _SPLIT, WIDE_KEYS, block_k=64),
        _row("tf32", "tf32", _CUDA),
        _row("tf32-wide", "tf32", _SPLIT, WIDE_KEYS),
        _row("fp32", "tf32x3", ("sm_80",), block_k=16),
        _row("fp32", "tf32x3", ("sm_90", "sm_100")),
        _row("fp32", "ieee", _WHOLE, warps=8),
        _row("half", "ieee", _ROCM, block_k=64),
        _row("tf32", "tf32", _ROCM),
        _row("fp32", "ieee", _ROCM),
    ],
    free={"COSINE": (True, False), "SCALE_QUERY": (True, False)},
)
MERGE = Kernel(
    _search_merge_kernel, _MERGE_TYPES, [Row("fp32", "fp32", {"BLOCK_M": MERGE_BLOCK}, stages=1)]
)
