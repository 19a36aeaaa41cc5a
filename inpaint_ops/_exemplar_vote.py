"""Votes of overlapping matched patches for the pixels of a hole."""

from __future__ import annotations

import torch
from torch import Tensor

# Hole pixels treated at once: bounds the memory of their votes.
_PIXELS = 16384


def vote(
    features: Tensor, hole: Tensor, index: Tensor, distance: Tensor, patch_size: int, best: bool
) -> Tensor:
    """Features with each hole pixel replaced by what the patches over it say.

    Args:
        features: (1, C, h, w); the pixels that patches are copied from.
        hole: (1, 1, h, w) bool.
        index: (1, gh, gw) int64 match of each patch, -1 where there is none.
        distance: (1, gh, gw) squared distance of the match.
        patch_size: side of a patch, pixels.
        best: copy from the nearest match instead of averaging.

    Source: Newson et al., "Non-Local Patch-Based Image Inpainting" (IPOL 2017), equation 6: weights
    exp(-d^2 / 2 s^2), s the 75th percentile of the distances of the patches over the pixel.
    """
    width = features.shape[3]
    rows, columns = index.shape[1:]
    flat, matches, distances = features[0].flatten(1), index.flatten(), distance.flatten()
    result = features.clone()
    steps = torch.arange(patch_size)
    dy, dx = steps.repeat_interleave(patch_size), steps.repeat(patch_size)
    for y, x in zip(*(p.split(_PIXELS) for p in hole[0, 0].nonzero().T)):
        oy, ox = y[:, None] - dy, x[:, None] - dx
        inside = (oy >= 0) & (oy < rows) & (ox >= 0) & (ox < columns)
        origin = oy.clamp(0, rows - 1) * columns + ox.clamp(0, columns - 1)
        match = torch.where(inside, matches[origin], -1)
        d = torch.where(match >= 0, distances[origin], float("inf"))
        match = match.clamp_min(0)
        source = (match // columns + dy) * width + match % columns + dx
        if best:
            result[0, :, y, x] = flat[:, source.gather(1, d.argmin(1, keepdim=True))[:, 0]]
            continue
        votes = (d < float("inf")).sum(1)
        middle = (votes * 3 // 4).clamp(0, patch_size**2 - 1).minimum((votes - 1).clamp_min(0))
        scale = d.sort(1).values.gather(1, middle[:, None]).clamp_min(1e-8)
        weight = torch.exp(-d / (2 * scale))
        total = (flat[:, source] * weight).sum(2)
        result[0, :, y, x] = total / weight.sum(1).clamp_min(1e-20)
    return result
