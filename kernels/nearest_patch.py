"""nearest_patch on GPUs: usable patches and norms first, then the search."""

import torch
import torch.nn.functional as F
from torch import Tensor

from inpaint_ops.kernels.matching.search import search


def forward(
    query: Tensor,
    key: Tensor,
    valid: Tensor | None,
    where: Tensor | None,
    patch_size: int,
    stride: int,
    key_stride: int,
    metric: str,
) -> tuple[Tensor, Tensor]:
    """Arguments and results of the registered operator.

    A mask counts as 1 wherever it is not 0; its values are not checked.
    """
    rows = _origins(query.shape[2], patch_size, stride, query.device)
    columns = _origins(query.shape[3], patch_size, stride, query.device)
    key_rows = _origins(key.shape[2], patch_size, key_stride, query.device)
    key_columns = _origins(key.shape[3], patch_size, key_stride, query.device)
    shape = (query.shape[0], len(rows), len(columns))
    if len(rows) * len(columns) * len(key_rows) * len(key_columns) == 0:
        index = query.new_full(shape, -1, dtype=torch.int64)
        return index, query.new_full(shape, float("-inf"), dtype=torch.float32)
    usable = None
    if valid is not None:
        missing = F.max_pool2d((valid == 0).float(), patch_size, stride=1)
        usable = _at_origins(missing, key_rows, key_columns) == 0
    square = _at_origins(_patch_squares(key, patch_size), key_rows, key_columns)
    cosine = metric == "cosine"
    factor = None
    if cosine:
        own = _at_origins(_patch_squares(query, patch_size), rows, columns)
        factor = own.sqrt().clamp_min(1e-8).reciprocal()
    index, score = search(
        query,
        key,
        _pixels(rows, columns, query.shape[3]),
        _pixels(key_rows, key_columns, key.shape[3]),
        None if where is None else (where != 0).flatten(1),
        usable,
        factor,
        square.sqrt().clamp_min(1e-8).reciprocal() if cosine else square / 2,
        patch_size=patch_size,
        cosine=cosine,
    )
    return index.view(shape), score.view(shape)


def _origins(size: int, patch_size: int, stride: int, device: torch.device) -> Tensor:
    """Origins 0, stride, 2 stride, ... and the last that fits, as `reference.patch_origins`."""
    last = size - patch_size
    count = 0 if last < 0 else -(-last // stride) + 1
    return (torch.arange(count, dtype=torch.int32, device=device) * stride).clamp_max(last)


def _pixels(rows: Tensor, columns: Tensor, width: int) -> Tensor:
    return (rows[:, None] * width + columns).flatten()


def _at_origins(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """(N, 1, H, W) at the rows and columns given, (N, rows * columns)."""
    return x[:, 0].index_select(1, rows).index_select(2, columns).flatten(1)


def _patch_squares(x: Tensor, patch_size: int) -> Tensor:
    """(N, 1, H - k + 1, W - k + 1) sums of squares; by a pool, for a convolution may use TF32."""
    square = x.float().square().sum(1, keepdim=True)
    return F.avg_pool2d(square, patch_size, stride=1, divisor_override=1)
