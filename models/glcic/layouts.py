"""Layouts of public weights of GLCIC: otenim's port and the converted official weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from inpaint_ops.models.glcic.networks import Discriminator, Generator
from inpaint_ops.models.weights.layouts import Layout, Place, fixed, layer_keys

# Mean colour of the official weights as public conversions of them list it.
MEAN = (0.4560, 0.4472, 0.4155)

OTENIM = {
    **{f"conv{i + 1}": f"layers.{i}.conv" for i in range(16) if i not in (12, 14)},
    "deconv13": "layers.12.conv",
    "deconv15": "layers.14.conv",
    "bn{1}": "layers.{0}.norm",
    "conv17": "output",
}
OTENIM_DISCRIMINATOR = {
    "model_ld.conv{1}": "local_trunk.layers.{0}.conv",
    "model_ld.bn{1}": "local_trunk.layers.{0}.norm",
    "model_ld.linear6": "local_trunk.linear",
    "model_gd.conv{1}": "global_trunk.layers.{0}.conv",
    "model_gd.bn{1}": "global_trunk.layers.{0}.norm",
    "linear1": "fuse",
}
# One flat list of modules: convolution, normalisation and ReLU of a layer have a number each.
OFFICIAL = {
    **{f"{3 * i}": f"layers.{i}.conv" for i in range(16)},
    **{f"{3 * i + 1}": f"layers.{i}.norm" for i in range(16)},
    "48": "output",
}


def _otenim_discriminator(network: Discriminator) -> dict[str, Place]:
    # The global trunk has 5 or 6 convolutions, and its dense layer the next number.
    dense = f"model_gd.linear{len(network.global_trunk.layers) + 1}"
    return layer_keys({**OTENIM_DISCRIMINATOR, dense: "global_trunk.linear"})(network)


def _official(network: Generator) -> dict[str, Place]:
    # The Torch7 code does not count batches.
    keys = layer_keys(OFFICIAL)(network)
    return {key: ours for key, ours in keys.items() if not key.endswith("num_batches_tracked")}


def _options(first: str) -> Callable[[Mapping[str, Tensor]], dict[str, Any]]:
    return lambda state: {"base_channels": state[first].shape[0]}


def _discriminator_options(state: Mapping[str, Tensor]) -> dict[str, Any]:
    base = state["model_ld.conv1.weight"].shape[0]

    def size(trunk: str, convolutions: int) -> int:
        inputs = state[f"{trunk}.linear{convolutions + 1}.weight"].shape[1]
        return math.isqrt(inputs // (8 * base)) << convolutions

    six = "model_gd.linear7.weight" in state
    return {
        "base_channels": base,
        "global_size": size("model_gd", 6 if six else 5),
        "local_size": size("model_ld", 5),
    }


_OTENIM_SOURCE = "otenim/GLCIC-PyTorch"
LAYOUTS = (
    Layout(
        "otenim",
        "generator",
        layer_keys(OTENIM),
        ("conv1.weight", "deconv13.weight", "bn16.weight", "conv17.weight"),
        options=_options("conv1.weight"),
        recipe=fixed(norm_first=False, subtract_mean=False),
        asked={
            "mean": "three numbers in [0, 1], the mean colour of its training set: mpv in the "
            "config.json beside the file (--option mean=[R,G,B])"
        },
        licence="MIT",
        source=_OTENIM_SOURCE,
    ),
    Layout(
        "otenim",
        "discriminator",
        _otenim_discriminator,
        ("model_ld.conv1.weight", "model_gd.conv1.weight", "linear1.weight"),
        options=_discriminator_options,
        recipe=fixed(norm_first=False),
        licence="MIT",
        source=_OTENIM_SOURCE,
    ),
    Layout(
        "official_converted",
        "generator",
        _official,
        ("0.weight", "36.weight", "46.running_mean", "48.weight"),
        options=_options("0.weight"),
        recipe=fixed(norm_first=True, subtract_mean=True, mean=MEAN),
        unstated=("mean",),
        hint="as public conversions of the official weights list it",
        licence="CC BY-NC-SA 4.0 (conversion of the official weights)",
        source="chien-lung/inpaint_project",
    ),
)
