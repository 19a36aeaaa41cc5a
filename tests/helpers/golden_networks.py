"""Weights of the golden files of whole networks, drawn as their `recipe` says."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from support import golden
from torch import Tensor


def network_golden(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arrays of a golden file and its recipe."""
    data = golden(name)
    return data, json.loads(str(np.asarray(data["recipe"])))


def drawn_state(
    shapes: Mapping[str, Sequence[int]],
    recipe: Mapping[str, Any],
    sums: Tensor,
    finish: Callable[[dict[str, Tensor]], dict[str, Tensor]] = dict,
) -> dict[str, Tensor]:
    """The state dict with these keys and shapes, checked against the sums in the golden file.

    `finish` makes what the file holds of what was drawn.
    """
    rng = np.random.default_rng(recipe["seed"])
    state = {}
    for key, shape in shapes.items():
        last = key.rpartition(".")[2]
        if last == "num_batches_tracked":
            state[key] = torch.zeros(tuple(shape), dtype=torch.int64)
            continue
        if "mask_conv" in key or last == "weight_mask_updater":
            values = np.ones(shape)
        elif last == "running_var":
            values = 0.5 + rng.random(shape)
        else:
            values = rng.standard_normal(shape) * _scale(last, shape, recipe)
        if last in ("weight_u", "weight_v"):
            values /= np.linalg.norm(values)
        if last == "weight" and len(shape) == 1:
            values = 1 + values
        state[key] = torch.from_numpy(values.astype(np.float32))
    state = finish(state)
    drawn = torch.tensor([v.double().sum().item() for v in state.values()], dtype=torch.float64)
    limit = 1e-5 * torch.tensor([v.abs().double().sum().item() for v in state.values()]).max()
    torch.testing.assert_close(drawn, sums.double(), rtol=1e-6, atol=limit.item())
    return state


def _scale(last: str, shape: Sequence[int], recipe: Mapping[str, Any]) -> float:
    if last in ("weight_u", "weight_v"):
        return 1.0
    if len(shape) < 2:
        return 0.1
    root = math.sqrt(math.prod(shape[1:]))
    grows = "*" in recipe["weight_rule"]
    return float(recipe["gain"]) * (root if grows else 1 / root)
