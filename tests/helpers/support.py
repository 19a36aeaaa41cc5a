"""Comparisons and golden files; the one table of tolerances."""

import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

# Relative to the largest reference value of the tensor, for sums of up to 64 terms.
RTOL = {torch.float64: 1e-10, torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}
# Whole networks in float32: relative to the largest output.
NETWORK_TOLERANCE = 1e-4


def check_network(actual: Tensor, expected: Tensor) -> None:
    """Compares the output of a whole network with a public implementation's in float64."""
    scale = expected.abs().max().item()
    torch.testing.assert_close(actual, expected, rtol=0, atol=NETWORK_TOLERANCE * scale)


def network_state(shapes: Mapping[str, Sequence[int]], seed: int, gain: float) -> dict[str, Tensor]:
    """Weights of the DeepFill and Shift-Net golden files, drawn in the order of the keys."""
    rng = np.random.default_rng(seed)
    state = {}
    for key, shape in shapes.items():
        values = rng.standard_normal(shape)
        if len(shape) == 4:
            values *= math.sqrt(gain / math.prod(shape[1:]))
        elif key.endswith("weight"):
            values = 1 + 0.1 * values
        else:
            values *= 0.05
        state[key] = torch.from_numpy(values.astype(np.float32))
    return state


def check_close(actual: Tensor, expected: Tensor, *, terms: int = 1, dtype: Any = None) -> None:
    """Compares with a float64 reference under the tolerance of `actual`'s dtype.

    `terms` is the length of the sums behind a value; `dtype` the type of the inputs where it is
    coarser than the result's.
    """
    rtol = RTOL[dtype or actual.dtype] * math.sqrt(max(1.0, terms / 64))
    expected = expected.double()
    atol = rtol * (expected.abs().max().item() if expected.numel() else 0.0)
    torch.testing.assert_close(actual.double(), expected, rtol=rtol, atol=atol)


def golden(name: str) -> dict[str, Any]:
    """Arrays of one golden file, as tensors where they are arrays."""
    with np.load(Path(__file__).parents[1] / "golden" / f"{name}.npz") as file:
        return {
            key: torch.from_numpy(file[key]) if file[key].ndim else file[key].item()
            for key in file.files
        }


def poisoned(allocate: Any) -> Any:
    """The allocation, full of NaN or of a huge integer for whoever asks from our package."""

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        result = allocate(*args, **kwargs)
        caller = sys._getframe(1).f_globals.get("__name__", "")
        if caller.startswith("inpaint_ops") and type(result) is Tensor:
            if result.is_floating_point():
                result.fill_(math.nan)
            elif result.dtype != torch.bool:
                result.fill_(torch.iinfo(result.dtype).max)
        return result

    return wrapper
