"""refine_patch: best match of every query patch among the key patches near guesses."""

import torch
from torch import Tensor

from inpaint_ops import checks
from inpaint_ops.ops import dispatch, tensors
from inpaint_ops.ops.overrides import call, has_override, inside, tracing
from inpaint_ops.reference.refine_patch import refine_patch as refine_patch_reference

_OP = "refine_patch"


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
    """Finds argmin_j |q_i - k_j|^2 over the key patches j near the guesses around i.

    Patches lie at every pixel and are not padded: hq = Hq - patch_size + 1, and so on. Patch
    (y, x) looks at its own guess and at those of (y, x - reach), (y, x + reach), (y - reach, x) and
    (y + reach, x), each moved back by the same step, and at all key patches at most `radius` rows
    and columns away from one of these five.

    Args:
        query: (N, C, Hq, Wq), float16, bfloat16, float32 or float64, any layout.
        key: (N, C, Hk, Wk), dtype and device of `query`.
        guess: (N, hq, wq) int64, flat positions on the grid of key patches; negative or beyond the
            grid: no guess. It need not point at a usable patch.
        valid: (N or 1, 1, Hk, Wk), 1 = key pixel that may be used: a patch with any other pixel is
            never taken. Bool, or 0 and 1 in uint8 or float. Pixels that are not valid may hold
            anything, NaN included.
        where: (N or 1, 1, hq, wq), 1 = match this one; guesses of the others still count.
        patch_size: side of the square patches, pixels.
        radius: of the window around a guess, pixels, 0 or more.
        reach: distance of the neighbours whose guesses are tried, pixels.

    Returns:
        index: (N, hq, wq) int64, the flat position of the best key patch; the lowest of equals;
            -1 where `where` is 0, where no candidate is usable or where every distance is NaN.
        distance: (N, hq, wq), the squared distance of that pair, float32 (float64 for float64
            input), summed from differences, so that near-copies lose no digits; +inf where index
            is -1. Not differentiable.

        Under autocast the match runs in float32.

    Raises:
        TypeError: wrong type or dtype, or `query` and `key` differ in dtype.
        ValueError: wrong shape, device, mask value, patch size, radius or reach.

    Source: the propagation and local search of PatchMatch (Barnes et al., SIGGRAPH 2009, section
    3.2), with all four neighbours read at once and the random samples replaced by a full window.
    """
    if (has_override(query, key, guess, valid, where) or tracing()) and not inside():
        return call(refine_patch, locals())
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
    checks.check_int(_OP, "radius", radius, minimum=0)
    checks.check_int(_OP, "reach", reach)
    batch = query.shape[0]
    grid = _grid(query, patch_size)
    _check_guess(guess, (batch, *grid), query.device)
    if valid is not None:
        size = (key.shape[2], key.shape[3])
        checks.check_mask(_OP, "valid", valid, batch, size, query.device)
    if where is not None:
        checks.check_mask(_OP, "where", where, batch, grid, query.device)
    index, distance = _operator(query, key, guess, valid, where, patch_size, radius, reach)
    return index, distance


def _check_guess(guess: Tensor, shape: tuple[int, ...], device: torch.device) -> None:
    if not isinstance(guess, Tensor):
        raise TypeError(f"{_OP}: guess must be a Tensor, got {type(guess).__name__}")
    if guess.dtype != torch.int64:
        raise TypeError(f"{_OP}: guess must have dtype int64, got {guess.dtype}")
    if tuple(guess.shape) != shape:
        raise ValueError(f"{_OP}: guess must have shape {shape}, got {tuple(guess.shape)}")
    if guess.device != device:
        raise ValueError(f"{_OP}: guess must be on {device}, got {guess.device}")


def _grid(x: Tensor, patch_size: int) -> tuple[int, int]:
    rows, columns = x.shape[2] - patch_size + 1, x.shape[3] - patch_size + 1
    return max(rows, 0) if columns > 0 else 0, max(columns, 0) if rows > 0 else 0


def _bounded(
    query: Tensor, key: Tensor, patch_size: int, radius: int, reach: int
) -> tuple[int, int]:
    """Radius and reach beyond which nothing is added.

    Neighbours `reach` apart must be on the grid, and their windows, shifted back by as much, hold
    the whole image.
    """
    reach = min(reach, max(1, *_grid(query, patch_size)))
    return min(radius, max(key.shape[2], key.shape[3]) + reach), reach


def _empty_results(query: Tensor, guess: Tensor) -> tuple[Tensor, Tensor]:
    dtype = torch.float64 if query.dtype == torch.float64 else torch.float32
    return guess.new_empty(guess.shape), guess.new_empty(guess.shape, dtype=dtype)


def _cpu(
    query: Tensor,
    key: Tensor,
    guess: Tensor,
    valid: Tensor | None,
    where: Tensor | None,
    patch_size: int,
    radius: int,
    reach: int,
) -> tuple[Tensor, Tensor]:
    index, distance = _empty_results(query, guess)
    valid = tensors.bytes_of(_OP, "valid", valid)
    where = tensors.bytes_of(_OP, "where", where)
    if not index.numel():
        return index, distance
    radius, reach = _bounded(query, key, patch_size, radius, reach)
    tensors.native().refine_patch(
        tensors.compute_dtype(query),
        tensors.compute_dtype(key),
        guess.contiguous(),
        valid,
        where,
        patch_size,
        radius,
        reach,
        index,
        distance,
        tensors.threads(),
    )
    return index, distance


def _reference(
    query: Tensor,
    key: Tensor,
    guess: Tensor,
    valid: Tensor | None,
    where: Tensor | None,
    patch_size: int,
    radius: int,
    reach: int,
) -> tuple[Tensor, Tensor]:
    radius, reach = _bounded(query, key, patch_size, radius, reach)
    return refine_patch_reference(
        query,
        key,
        guess,
        valid=None if valid is None else checks.binary(_OP, "valid", valid),
        where=None if where is None else checks.binary(_OP, "where", where),
        patch_size=patch_size,
        radius=radius,
        reach=reach,
    )


def _fake(
    query: Tensor,
    key: Tensor,
    guess: Tensor,
    valid: Tensor | None,
    where: Tensor | None,
    patch_size: int,
    radius: int,
    reach: int,
) -> tuple[Tensor, Tensor]:
    return _empty_results(query, guess)


_operator = dispatch.register(
    _OP,
    "(Tensor query, Tensor key, Tensor guess, Tensor? valid, Tensor? where, int patch_size, "
    "int radius, int reach) -> (Tensor, Tensor)",
    cpu=_cpu,
    reference=_reference,
    fake=_fake,
)
