"""What vmap makes of a call: one with the samples of all in its batch, or one for each of them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor


def mapped(
    name: str,
    function: Any,
    info: Any,
    dims: Sequence[Any],
    inputs: Sequence[Any],
    shared: Collection[int] | None,
) -> Any:
    """Return the results of a function of autograd for batches of its arguments, and their axes.

    Args:
        name: the operator, for errors.
        function: takes the call, then tensors and other arguments.
        info: vmap's.
        dims: the axis of each argument that vmap takes; None: it has none.
        inputs: the arguments.
        shared: places, after the call, of tensors that have no axis of samples; all others begin
            with it, and so do all results. None: the results do not.
    """
    if info.batch_size == 0:
        raise ValueError(f"{name}: vmap must have a batch that is not empty")
    call, *values = inputs
    axes = dims[1:]
    if shared is not None and all(axes[i] is None for i in shared if values[i] is not None):
        places = {i % len(values) for i in shared}
        own = [i for i, x in enumerate(values) if isinstance(x, Tensor) and i not in places]
        samples = max(_samples(values[i], axes[i]) for i in own)
        # A mask for all samples of a call stays one where it is one for all calls as well.
        fit = (axes[i] is None or _samples(values[i], axes[i]) in (0, samples) for i in own)
        if samples and all(fit):
            for i in own:
                values[i] = _folded(values[i], axes[i], info.batch_size, samples)
            results = function.apply(call, *values)
            return _unfolded(results, info.batch_size, samples)
    results = []
    for k in range(info.batch_size):
        one = (x.select(dim, k) if isinstance(dim, int) else x for x, dim in zip(inputs, dims))
        results.append(function.apply(*one))
    if isinstance(results[0], Tensor):
        return torch.stack(results), 0
    return tuple(map(torch.stack, zip(*results))), (0,) * len(results[0])


def _samples(x: Tensor, axis: int | None) -> int:
    """Samples in one call's tensor; none in the stand-in for a tensor nobody wants."""
    return x.shape[0] if axis is None else x.movedim(axis, 0).shape[1]


def _folded(x: Tensor, axis: int | None, batch: int, samples: int) -> Tensor:
    """The tensor for a call with batch * samples samples."""
    if axis is not None:
        return x.movedim(axis, 0).flatten(0, 1)
    return x.expand(batch, *x.shape).flatten(0, 1) if x.shape[0] == samples else x


def _unfolded(results: Any, batch: int, samples: int) -> Any:
    if isinstance(results, Tensor):
        return _apart(results, batch, samples), 0
    return tuple(_apart(x, batch, samples) for x in results), (0,) * len(results)


def _apart(x: Tensor, batch: int, samples: int) -> Tensor:
    every = x.shape[0] == batch * samples
    parts: Tensor = x.unflatten(0, (batch, samples)) if every else x.expand(batch, *x.shape)
    return parts
