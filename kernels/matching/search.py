"""Exhaustive search for the nearest patches.

The queries wanted and the keys that may be used are ascending lists made on the device, with their
lengths. So nothing waits for the host, and what is not listed costs nothing and is never read.
"""

import torch
from torch import Tensor

from inpaint_ops.kernels.launch import architecture, channels_last, dtype_class
from inpaint_ops.kernels.matching.search_kernels import (
    KEYS,
    MERGE,
    MERGE_BLOCK,
    QUERIES,
    SEARCH,
    UNIT,
    WIDE_KEYS,
)
from inpaint_ops.kernels.plans import tf32_products
from inpaint_ops.kernels.program import WANTED, batches, cdiv, check_count, segments


def search(
    query: Tensor,
    key: Tensor,
    query_pixels: Tensor,
    key_pixels: Tensor,
    wanted: Tensor | None,
    usable: Tensor | None,
    query_factor: Tensor | None,
    key_term: Tensor,
    *,
    patch_size: int,
    cosine: bool,
) -> tuple[Tensor, Tensor]:
    """Best usable key of each wanted query.

    Args:
        query: (N, C, Hq, Wq).
        key: (N, C, Hk, Wk), dtype and device of `query`.
        query_pixels: (Q,) int32, flat position of each query patch's first pixel.
        key_pixels: (K,) int32, likewise.
        wanted: (N or 1, Q) bool, or None for all.
        usable: (N or 1, K) bool, or None for all.
        query_factor: (N, Q) float32, factor on the scores of a query, or None.
        key_term: (N, K) float32, factor (cosine) or subtrahend of the scores of a key.
        patch_size: pixels.
        cosine: whether `key_term` is a factor.

    Returns:
        Index (N, Q) int64 and score (N, Q) float32; -1 and -inf where nothing was wanted or found.
    """
    n, queries, keys = query.shape[0], query_pixels.shape[0], key_pixels.shape[0]
    samples = list(batches(n))
    if len(samples) > 1:
        parts = [
            search(
                query[part],
                key[part],
                query_pixels,
                key_pixels,
                _of(wanted, part),
                _of(usable, part),
                _of(query_factor, part),
                key_term[part],
                patch_size=patch_size,
                cosine=cosine,
            )
            for part in samples
        ]
        return torch.cat([one[0] for one in parts]), torch.cat([one[1] for one in parts])
    widest = patch_size * max(query.shape[3], key.shape[3]) * query.shape[1]
    check_count("matching", "values of a row of patches", widest)
    score = query.new_full((n, queries), float("-inf"), dtype=torch.float32)
    index = query.new_full((n, queries), -1, dtype=torch.int64)
    if n * queries * keys == 0:
        return index, score
    name = dtype_class(query.dtype)
    unit = UNIT[name]
    if name == "fp32" and tf32_products():
        name = "tf32"
    query, key = channels_last(query, unit), channels_last(key, unit)
    query_list, query_count = _listed(wanted, n, queries, query.device)
    key_list, key_count = _listed(usable, n, keys, query.device)
    blocks = cdiv(queries, QUERIES)
    block = KEYS
    # A wide block loads its queries half as often, where there are enough of them.
    wide = f"{name}-wide"
    if n * blocks * cdiv(keys, WIDE_KEYS) >= WANTED and SEARCH.has(
        wide, architecture(query.device)
    ):
        name, block = wide, WIDE_KEYS
    shares = segments(n * blocks, cdiv(keys, block))
    part_score = query.new_empty((n, shares, queries), dtype=torch.float32)
    part_place = query.new_empty((n, shares, queries), dtype=torch.int32)
    listed_term = key_term.gather(1, key_list)
    SEARCH(
        name,
        (blocks, shares, n),
        query_ptr=query,
        key_ptr=key,
        query_pixel_ptr=query_pixels[query_list],
        key_pixel_ptr=key_pixels[key_list],
        query_count_ptr=query_count,
        key_count_ptr=key_count,
        query_factor_ptr=(
            listed_term if query_factor is None else query_factor.gather(1, query_list)
        ),
        key_term_ptr=listed_term,
        score_ptr=part_score,
        place_ptr=part_place,
        queries=queries,
        keys=keys,
        query_image=query.shape[2] * query.shape[3],
        key_image=key.shape[2] * key.shape[3],
        query_width=query.shape[3],
        key_width=key.shape[3],
        patch_size=patch_size,
        units=query.shape[1] // unit,
        COSINE=cosine,
        SCALE_QUERY=query_factor is not None,
    )
    MERGE(
        "fp32",
        (cdiv(queries, MERGE_BLOCK), n),
        part_score_ptr=part_score,
        part_place_ptr=part_place,
        query_list_ptr=query_list.int(),
        key_list_ptr=key_list.int(),
        query_count_ptr=query_count,
        score_ptr=score,
        index_ptr=index,
        queries=queries,
        keys=keys,
        segments=shares,
    )
    return index, score


def _of(x: Tensor | None, part: slice) -> Tensor | None:
    """Some samples of what is None or may hold one for all."""
    return x if x is None or x.shape[0] == 1 else x[part]


def _listed(
    wanted: Tensor | None, batch: int, total: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Positions wanted, ascending, then the others, (N, total) int64; and how many, (N,) int32."""
    if wanted is None:
        order = torch.arange(total, device=device)[None]
        count = torch.full((1,), total, dtype=torch.int32, device=device)
    else:
        order = torch.argsort(wanted.logical_not(), dim=1, stable=True)
        count = wanted.sum(1, dtype=torch.int32)
    return order.expand(batch, total).contiguous(), count.expand(batch).contiguous()
