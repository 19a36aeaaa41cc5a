"""Votes of overlapping matched patches for the pixels of a hole."""

from __future__ import annotations

import torch
from torch import Tensor

from inpaint_ops.backends import current_backend
from inpaint_ops.ops import tensors
from inpaint_ops.ops.native import extension

# Hole pixels at once in plain PyTorch, which bounds the memory of their votes.
_PIXELS = 16384


def vote(
    features: Tensor,
    window: Tensor,
    hole: Tensor,
    index: Tensor,
    distance: Tensor,
    penalty: Tensor,
    patch_size: int,
    best: bool,
) -> Tensor:
    """Return a window with each hole pixel replaced by the vote of the matched patches over it.

    Args:
        features: (1, C, h, w) float32; the pixels that patches are copied from.
        window: (1, C, wh, ww) float32, pixels to start from.
        hole: (1, 1, wh, ww) bool. A hole pixel without any matched patch keeps its value.
        index: (1, gh, gw) int64 match of each patch of the window, a flat position on the grid of
            patches of `features`; -1 where there is none.
        distance: (1, gh, gw) squared distance of the match.
        penalty: (1, 1, gh, gw), minus the logarithm of the weight of a patch's vote.
        patch_size: side of a patch, pixels.
        best: copy from the nearest match instead of averaging.

    Source: Newson et al., "Non-Local Patch-Based Image Inpainting" (IPOL 2017): weights
    exp(-d^2 / 2 s^2), s the 75th percentile of the distances of the patches over the pixel; times
    the confidence of Wexler et al. (TPAMI 2007), section 3.3.
    """
    result = window.clone(memory_format=torch.contiguous_format)
    native = None if current_backend() == "reference" else extension()
    if native is None:
        _vote_reference(result, features, hole, index, distance, penalty, patch_size, best)
    else:
        native.vote_patches(
            features,
            hole[:, 0].contiguous().view(torch.uint8),
            index.contiguous(),
            distance.contiguous(),
            penalty.contiguous(),
            patch_size,
            best,
            result,
            tensors.threads(),
        )
    return result


def _vote_reference(
    result: Tensor,
    features: Tensor,
    hole: Tensor,
    index: Tensor,
    distance: Tensor,
    penalty: Tensor,
    patch_size: int,
    best: bool,
) -> None:
    rows, columns = index.shape[1:]
    flat, width = features[0].flatten(1), features.shape[3]
    key_columns = width - patch_size + 1
    matches, distances, penalties = index.flatten(), distance.flatten(), penalty.flatten()
    steps = torch.arange(patch_size)
    dy, dx = steps.repeat_interleave(patch_size), steps.repeat(patch_size)
    infinity = torch.tensor(float("inf"), dtype=torch.float32)
    for y, x in zip(*(p.split(_PIXELS) for p in hole[0, 0].nonzero().T)):
        oy, ox = y[:, None] - dy, x[:, None] - dx
        inside = (oy >= 0) & (oy < rows) & (ox >= 0) & (ox < columns)
        origin = oy.clamp(0, rows - 1) * columns + ox.clamp(0, columns - 1)
        match = torch.where(inside, matches[origin], -1)
        some = (match >= 0).any(1)
        y, x, origin, match = y[some], x[some], origin[some], match[some]
        d = torch.where(match >= 0, distances[origin], infinity)
        source = (match // key_columns + dy) * width + match % key_columns + dx
        source = torch.where(match >= 0, source, 0)
        if best:
            result[0, :, y, x] = flat[:, source.gather(1, d.argmin(1, keepdim=True))[:, 0]]
            continue
        votes = (match >= 0).sum(1, keepdim=True)
        rank = torch.minimum(votes * 3 // 4, votes - 1)
        scale = d.sort(1).values.gather(1, rank).clamp_min(1e-8)
        cost = penalties[origin] + d / (2 * scale)
        weight = torch.exp(cost.amin(1, keepdim=True) - cost)
        result[0, :, y, x] = (flat[:, source] * weight).sum(2) / weight.sum(1)
