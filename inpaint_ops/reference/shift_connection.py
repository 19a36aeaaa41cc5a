"""Shift-connection as the paper writes it: all cosines, the best known position, its feature."""

import torch
from torch import Tensor


def shift_connection(
    decoder: Tensor, encoder: Tensor, hole: Tensor, *, gradient_scale: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Plain version of `inpaint_ops.shift_connection`: same arguments, results and gradients."""
    n, c, h, w = encoder.shape
    if encoder.numel() == 0:
        return encoder.clone(), torch.full((n, h, w), -1, device=encoder.device)
    missing = hole.bool().expand(n, 1, h, w).reshape(n, 1, h * w)
    zero = torch.zeros((), dtype=encoder.dtype, device=encoder.device)
    dtype = torch.float64 if encoder.dtype == torch.float64 else torch.float32
    with torch.no_grad():
        # Select first: under the hole the encoder may hold NaN.
        key = torch.where(missing, zero, encoder.flatten(2)).to(dtype)
        query = decoder.flatten(2).to(dtype)
        key = key / key.square().sum(1, keepdim=True).sqrt().clamp_min(1e-8)
        cosine = query.transpose(1, 2) @ key  # (N, queries, keys); |query| cannot change the best
        best = cosine.masked_fill(missing | cosine.isnan(), float("-inf")).max(2)
        unmatched = best.values == float("-inf")
        index = torch.where(missing[:, 0] & ~unmatched, best.indices, -1)
    values = encoder.flatten(2)
    picked = values.gather(2, index.clamp_min(0)[:, None].expand(n, c, h * w))
    if picked.requires_grad:
        picked.register_hook(lambda grad: grad * gradient_scale)
    shifted = torch.where((index >= 0)[:, None], picked, zero)
    return shifted.view(n, c, h, w), index.view(n, h, w)
