"""What the tests of all methods need to know about each of them."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

MANIFESTS = Path(__file__).parent / "manifests"


@dataclass(frozen=True)
class ModelCase:
    """A method in a size that tests can afford.

    `manifests`: file (without .json) to (layout/network, options of the model it belongs to).
    `training`: side of the pictures in a training step; `features`: makes the feature network.
    """

    small: Mapping[str, Any]
    manifests: Mapping[str, tuple[str, Mapping[str, Any]]] = field(default_factory=dict)
    sizes: tuple[tuple[int, int], ...] = ((16, 16), (37, 50))
    training: int = 64
    features: Callable[[], torch.nn.Module] | None = None
    # Largest difference between fused and reference completions, in levels of [0, 1].
    tolerance: float = 1e-4


CASES: dict[str, ModelCase] = {
    "deepfill_v2": ModelCase(
        {"base_channels": 8, "critic_channels": 4},
        {
            "deepfillv2.nipponjo": (
                "nipponjo/generator",
                {"padding": "symmetric", "pick": "floor", "fuse": True},
            ),
            "deepfillv2.nipponjo_tf": ("nipponjo_tf/generator", {"fuse": False}),
            "deepfillv2.nipponjo_disc": ("nipponjo/discriminator", {}),
            "deepfillv2.nipponjo_tf_disc": ("nipponjo/discriminator", {}),
            "deepfillv2.zhaoyuzhi": ("zhaoyuzhi/generator", {"variant": "zhaoyuzhi"}),
            "deepfillv2.zhaoyuzhi_disc": ("zhaoyuzhi/discriminator", {"variant": "zhaoyuzhi"}),
        },
    ),
}


def manifest(name: str) -> dict[str, tuple[int, ...]]:
    """Keys and shapes of a public state dict."""
    content = json.loads((MANIFESTS / f"{name}.json").read_text())
    return {key: tuple(shape) for key, shape in content.items()}


def synthetic(shapes: Mapping[str, tuple[int, ...]], seed: int = 0) -> dict[str, Tensor]:
    """A state dict with such keys: small numbers, positive where variances are wanted."""
    rng = np.random.default_rng(seed)
    state = {}
    for key, shape in shapes.items():
        if key.endswith("num_batches_tracked"):
            state[key] = torch.zeros((), dtype=torch.int64)
            continue
        values = torch.from_numpy(rng.standard_normal(shape).astype(np.float32))
        fan = max(1, values[0].numel()) if values.dim() > 1 else 1
        state[key] = values.abs() + 0.5 if key.endswith("running_var") else values / fan**0.5
    return state
