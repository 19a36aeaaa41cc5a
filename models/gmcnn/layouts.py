"""Layouts of public weights of GMCNN."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from inpaint_ops.models.blocks.spectral_norm import spectral_keys
from inpaint_ops.models.gmcnn.networks import _INDEX, Generator, GlobalLocalCritic


def _generator_keys(network: Generator) -> dict[str, str]:
    keys = {}
    for ours in network.state_dict():
        if ours.startswith("columns."):
            _, number, layer, kind = ours.split(".")
            keys[f"EB{int(number) + 1}.{_INDEX[layer]}.{kind}"] = ours
        else:
            layer, kind = ours.split(".")
            keys[f"decoding_layers.{int(layer == 'to_picture')}.{kind}"] = ours
    return keys


_CRITICS = {"global_discriminator": "whole", "local_discriminator": "local"}


def _critic_keys(network: GlobalLocalCritic) -> dict[str, str]:
    keys = {}
    for public, critic in _CRITICS.items():
        for i, layer in enumerate(("conv0", "conv1", "conv2", "conv3", "linear")):
            name, ours = f"{public}.layers.{i}.module", f"{critic}.{layer}"
            keys[f"{name}.bias"] = f"{ours}.bias"
            keys |= spectral_keys(name, ours, "weight_bar")
    return keys


def _critic_options(state: Mapping[str, Tensor]) -> dict[str, Any]:
    return {"critic_channels": state["global_discriminator.layers.0.module.weight_bar"].shape[0]}


def _critic_sizes(state: Mapping[str, Tensor]) -> dict[str, Any]:
    width = state["global_discriminator.layers.0.module.weight_bar"].shape[0]
    sizes = [
        16 * math.isqrt(state[f"{name}.layers.4.module.weight_bar"].shape[1] // (4 * width))
        for name in _CRITICS
    ]
    return {"critic_size": sizes[0], "local_size": sizes[1]}
