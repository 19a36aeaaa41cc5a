"""Local patch search as plain gathers of every candidate of every query patch."""

import torch
import torch.nn.functional as F
from torch import Tensor

# Patch values gathered at once: 256 MB in float32.
_VALUES = 1 << 26
_STEPS = ((0, 0), (0, -1), (0, 1), (-1, 0), (1, 0))


def refine_patch(
    query: Tensor,
    key: Tensor,
    guess: Tensor,
    *,
    valid: Tensor | None = None,
    where: Tensor | None = None,
    patch_size: int = 7,
    radius: int = 1,
    reach: int = 1,
) -> tuple[Tensor, Tensor]:
    """Plain version of `inpaint_ops.ops.refine_patch`: same arguments and results."""
    dtype = torch.float64 if query.dtype == torch.float64 else torch.float32
    query, key = query.to(dtype), key.to(dtype)
    usable = query.new_ones(key.shape[0], 1, *key.shape[2:], dtype=torch.bool)
    if valid is not None:
        usable = valid.bool().expand_as(usable)
        key = torch.where(usable, key, torch.zeros((), dtype=dtype, device=key.device))
    wanted = torch.ones_like(guess, dtype=torch.bool)
    if where is not None:
        wanted = where.bool()[:, 0].expand_as(guess)

    index = torch.full_like(guess, -1)
    distance = torch.full(guess.shape, float("inf"), dtype=dtype, device=query.device)
    if min(key.shape[2], key.shape[3]) < patch_size or guess.numel() == 0:
        return index, distance
    for n in range(query.shape[0]):
        places = wanted[n].nonzero()
        patches = F.unfold(query[n : n + 1], patch_size)[0].T  # (hq * wq, C * k * k)
        patches = patches.view(*guess.shape[1:], -1)[wanted[n]]
        whole = -F.max_pool2d(-usable[n].to(dtype), patch_size, stride=1)[0] > 0
        keys = key[n].unfold(1, patch_size, 1).unfold(2, patch_size, 1).permute(1, 2, 0, 3, 4)
        candidates = _candidates(guess[n], places, whole, radius, reach)
        best = [
            _nearest(p, keys, c)
            for p, c in zip(
                patches.split(max(1, _VALUES // (candidates.shape[1] * patches.shape[1]))),
                candidates.split(max(1, _VALUES // (candidates.shape[1] * patches.shape[1]))),
            )
        ]
        index[n][wanted[n]] = torch.cat([b[0] for b in best])
        distance[n][wanted[n]] = torch.cat([b[1] for b in best])
    return index, distance


def _candidates(guess: Tensor, places: Tensor, whole: Tensor, radius: int, reach: int) -> Tensor:
    """Return flat key positions (queries, candidates), -1 where there is no candidate."""
    rows, columns = guess.shape
    key_rows, key_columns = whole.shape
    window = torch.arange(-radius, radius + 1, device=guess.device)
    found = []
    for dy, dx in _STEPS:
        y, x = places[:, 0] + dy * reach, places[:, 1] + dx * reach
        inside = (y >= 0) & (y < rows) & (x >= 0) & (x < columns)
        near = guess[y.clamp(0, rows - 1), x.clamp(0, columns - 1)]
        inside &= (near >= 0) & (near < whole.numel())
        ky = (near // key_columns - dy * reach)[:, None, None] + window[:, None]
        kx = (near % key_columns - dx * reach)[:, None, None] + window
        ok = inside[:, None, None] & (ky >= 0) & (ky < key_rows) & (kx >= 0) & (kx < key_columns)
        ky, kx = ky.clamp(0, key_rows - 1), kx.clamp(0, key_columns - 1)
        ok &= whole[ky, kx]
        found.append(torch.where(ok, ky * key_columns + kx, -1).flatten(1))
    return torch.cat(found, 1)


def _nearest(patches: Tensor, keys: Tensor, candidates: Tensor) -> tuple[Tensor, Tensor]:
    """Return the candidate of least distance for each patch, of equals the lowest position."""
    at = candidates.clamp_min(0)
    values = keys[at // keys.shape[1], at % keys.shape[1]].flatten(2)
    d = (values - patches[:, None]).square().sum(2)
    d = d.masked_fill((candidates < 0) | d.isnan(), float("inf"))
    least = d.amin(1)
    index = torch.where(d == least[:, None], candidates, torch.iinfo(torch.int64).max).amin(1)
    return torch.where(least < float("inf"), index, -1), least
