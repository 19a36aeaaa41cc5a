"""nearest_patch: exhaustive best match of every query patch among the usable key patches."""

from typing import Any

import torch
from torch import Tensor

from inpaint_ops import checks
from inpaint_ops.ops import dispatch, tensors, triton
from inpaint_ops.ops.overrides import call, has_override, inside, tracing
from inpaint_ops.reference.nearest_patch import nearest_patch as nearest_patch_reference

_OP = "nearest_patch"
_METRICS = ("cosine", "l2")


def nearest_patch(
    query: Tensor,
    key: Tensor,
    *,
    valid: Tensor | None = None,
    where: Tensor | None = None,
    patch_size: int = 3,
    stride: int = 1,
    key_stride: int = 1,
    metric: str = "cosine",
) -> tuple[Tensor, Tensor]:
    """Finds argmax_j S(q_i, k_j) over all key patches j, exactly, without storing S.

    Patches are not padded. Their origins along an axis are 0, s, 2s, ... and the last that fits
    (`reference.patch_origins`), rows first.

    Args:
        query: (N, C, Hq, Wq), float16, bfloat16, float32 or float64, any layout.
        key: (N, C, Hk, Wk), dtype and device of `query`.
        valid: (N or 1, 1, Hk, Wk), 1 = key pixel that may be used: a patch with any other pixel is
            never taken. Bool, or 0 and 1 in uint8 or float. Pixels that are not valid may hold
            anything, NaN included.
        where: (N or 1, 1, hq, wq) on the grid of query patches, 1 = match this one.
        patch_size: side of the square patches, pixels.
        stride: between query patches, pixels.
        key_stride: between key patches, pixels.
        metric: "cosine": S = <q, k> / (|q| |k|), norms at least 1e-8, so that a zero vector scores
            0 against everything; "l2": S = <q, k> - |k|^2 / 2, greatest where |q - k| is least:
            |q - k|^2 = |q|^2 - 2 S.

    Returns:
        index: (N, hq, wq) int64, the flat position of the best key patch on the grid of key
            patches; the lowest of equals; -1 where `where` is 0, where no key is usable or where
            every score is NaN.
        score: (N, hq, wq), S of that pair, float32 (float64 for float64 input); -inf where index
            is -1. Sums are formed in this type. Not differentiable.

        Under autocast the match runs in float32. On a GPU the products of float32 input follow
        torch's TF32 switch (off by default), and mask values are not checked, for which the host
        would have to wait: what is not 0 counts as 1.

    Raises:
        TypeError: wrong type or dtype, or `query` and `key` differ in dtype.
        ValueError: wrong shape, device, mask value, stride, patch size or metric.

    Source: neural patch matching of Yang et al., CVPR 2017 (arXiv 1611.09969), section 3.3; with
    "l2" the exhaustive form of the search of Wexler et al., TPAMI 2007.
    """
    if (has_override(query, key, valid, where) or tracing()) and not inside():
        return call(nearest_patch, locals())
    checks.check_image(_OP, "query", query)
    checks.check_image(_OP, "key", key)
    query, key = tensors.autocast_to_float32(query.device, query, key)
    checks.check_same(_OP, "query and key", query, key)
    if query.shape[:2] != key.shape[:2]:
        raise ValueError(
            f"{_OP}: query and key must agree in N and C, got {tuple(query.shape)} and "
            f"{tuple(key.shape)}"
        )
    checks.check_int(_OP, "patch_size", patch_size)
    checks.check_int(_OP, "stride", stride)
    checks.check_int(_OP, "key_stride", key_stride)
    checks.check_choice(_OP, "metric", metric, _METRICS)
    batch = query.shape[0]
    if valid is not None:
        size = (key.shape[2], key.shape[3])
        checks.check_mask(_OP, "valid", valid, batch, size, query.device)
    if where is not None:
        grid = _grid(query, patch_size, stride)
        checks.check_mask(_OP, "where", where, batch, grid, query.device)
    index, score = _operator(query, key, valid, where, patch_size, stride, key_stride, metric)
    return index, score


def _count(size: int, patch_size: int, stride: int) -> int:
    return 0 if size < patch_size else (size - patch_size + stride - 1) // stride + 1


def _grid(x: Tensor, patch_size: int, stride: int) -> tuple[int, int]:
    return _count(x.shape[2], patch_size, stride), _count(x.shape[3], patch_size, stride)


def _empty_results(query: Tensor, patch_size: int, stride: int) -> tuple[Tensor, Tensor]:
    shape = (query.shape[0], *_grid(query, patch_size, stride))
    dtype = torch.float64 if query.dtype == torch.float64 else torch.float32
    return query.new_empty(shape, dtype=torch.int64), query.new_empty(shape, dtype=dtype)


def _cpu(
    query: Tensor,
    key: Tensor,
    valid: Tensor | None,
    where: Tensor | None,
    patch_size: int,
    stride: int,
    key_stride: int,
    metric: str,
) -> tuple[Tensor, Tensor]:
    index, score = _empty_results(query, patch_size, stride)
    tensors.native().nearest_patch(
        tensors.compute_dtype(query),
        tensors.compute_dtype(key),
        tensors.bytes_of(_OP, "valid", valid),
        tensors.bytes_of(_OP, "where", where),
        patch_size,
        stride,
        key_stride,
        metric == "cosine",
        index,
        score,
        tensors.threads(),
    )
    return index, score


def _reference(
    query: Tensor,
    key: Tensor,
    valid: Tensor | None,
    where: Tensor | None,
    patch_size: int,
    stride: int,
    key_stride: int,
    metric: str,
) -> tuple[Tensor, Tensor]:
    return nearest_patch_reference(
        query,
        key,
        valid=None if valid is None else checks.binary(_OP, "valid", valid),
        where=None if where is None else checks.binary(_OP, "where", where),
        patch_size=patch_size,
        stride=stride,
        key_stride=key_stride,
        metric=metric,
    )


def _cuda(query: Tensor, key: Tensor, *arguments: Any) -> Any:
    return triton.kernels(_OP).forward(query.detach(), key.detach(), *arguments)


def _fake(
    query: Tensor,
    key: Tensor,
    valid: Tensor | None,
    where: Tensor | None,
    patch_size: int,
    stride: int,
    key_stride: int,
    metric: str,
) -> tuple[Tensor, Tensor]:
    return _empty_results(query, patch_size, stride)


_operator = dispatch.register(
    _OP,
    "(Tensor query, Tensor key, Tensor? valid, Tensor? where, int patch_size, int stride, "
    "int key_stride, str metric) -> (Tensor, Tensor)",
    cpu=_cpu,
    reference=_reference,
    fake=_fake,
    cuda=_cuda,
)
