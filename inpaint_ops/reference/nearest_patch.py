"""Nearest patches as the papers write them: unfold, compare all pairs, take the best."""

import torch
import torch.nn.functional as F
from torch import Tensor

from inpaint_ops import checks

# Scores held at once: 256 MB in float32.
_SCORES = 1 << 26


def patch_origins(size: int, patch_size: int, stride: int) -> list[int]:
    """Return the origins 0, stride, 2 stride, ... along an axis, and the last that fits.

    Args:
        size: pixels along the axis.
        patch_size: pixels of a patch.
        stride: pixels between patches.

    Returns:
        The origins in pixels; empty where no patch fits.
    """
    last = size - patch_size
    if last < 0:
        return []
    return [*range(0, last, stride), last]


def _patches(x: Tensor, patch_size: int, stride: int) -> Tensor:
    """Return the patches of (N, C, H, W) as (N, C * k * k, rows, columns)."""
    dense = (x.shape[2] - patch_size + 1, x.shape[3] - patch_size + 1)
    grid = [max(-(-(size - 1) // stride) + 1, 0) if size > 0 else 0 for size in dense]
    if 0 in grid:
        return x.new_zeros(x.shape[0], x.shape[1] * patch_size**2, *grid)
    unfolded = F.unfold(x, patch_size).view(x.shape[0], x.shape[1] * patch_size**2, *dense)
    if stride == 1:
        return unfolded
    # The origins of `patch_origins`, of sizes that may be free in a program.
    rows, columns = (
        (torch.arange(count, device=x.device) * stride).clamp(max=size - 1)
        for count, size in zip(grid, dense)
    )
    return unfolded[:, :, rows][:, :, :, columns]


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
    """Plain version of `inpaint_ops.nearest_patch`: same arguments and results."""
    dtype = torch.float64 if query.dtype == torch.float64 else torch.float32
    query, key = query.to(dtype), key.to(dtype)
    if valid is not None:
        # Select, not multiply: an unusable pixel may hold NaN.
        key = torch.where(valid.bool(), key, torch.zeros((), dtype=dtype, device=key.device))
    q = _patches(query, patch_size, stride)
    k = _patches(key, patch_size, key_stride).flatten(2)  # (N, D, keys)
    n, _, rows, columns = q.shape
    q = q.flatten(2).transpose(1, 2)  # (N, queries, D)

    square = k.square().sum(1, keepdim=True)  # (N, 1, keys)
    if metric == "cosine":
        k = k / square.sqrt().clamp_min(1e-8)
        q = q / q.square().sum(2, keepdim=True).sqrt().clamp_min(1e-8)
    usable = torch.ones_like(square, dtype=torch.bool)
    if valid is not None:
        missing = _patches((~valid.bool()).to(dtype), patch_size, key_stride).flatten(2)
        usable = (missing.sum(1, keepdim=True) == 0).expand_as(square)

    none = float("-inf")
    if k.shape[2] == 0:
        index = torch.full((n, rows * columns), -1, dtype=torch.int64, device=query.device)
        score = torch.full((n, rows * columns), none, dtype=dtype, device=query.device)
    else:
        best = []
        once = max(1, _SCORES // max(1, n * k.shape[2])) if checks.has_values(q) else None
        for some in (q,) if once is None else q.split(once, dim=1):
            scores = some @ k
            if metric == "l2":
                scores = scores - square / 2
            # NaN never wins.
            best.append(scores.masked_fill(~usable | scores.isnan(), none).max(2))
        score = torch.cat([b.values for b in best], 1)
        index = torch.cat([b.indices for b in best], 1)
        index = torch.where(score == none, -1, index)

    index, score = index.view(n, rows, columns), score.view(n, rows, columns)
    if where is not None:
        wanted = where.bool()[:, 0]
        index = torch.where(wanted, index, -1)
        score = torch.where(wanted, score, none)
    return index, score
