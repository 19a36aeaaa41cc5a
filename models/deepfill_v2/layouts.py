"""Layouts of public weights of DeepFill v2."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from inpaint_ops.layers import FusedConv2d
from inpaint_ops.models.blocks.spectral_norm import spectral_keys
from inpaint_ops.models.weights.layouts import Place

_NIPPONJO_COARSE = {
    "conv1": "conv1",
    "conv2_downsample": "down_block1.conv1_downsample",
    "conv3": "down_block1.conv2",
    "conv4_downsample": "down_block2.conv1_downsample",
    "conv5": "down_block2.conv2",
    "conv6": "conv_bn1",
    **{f"conv{7 + i}_atrous": f"conv_bn{2 + i}" for i in range(4)},
    "conv11": "conv_bn6",
    "conv12": "conv_bn7",
    "conv13_upsample": "up_block1.conv1_upsample.conv",
    "conv14": "up_block1.conv2",
    "conv15_upsample": "up_block2.conv1_upsample.conv",
    "conv16": "up_block2.conv2",
    "conv17": "conv_to_rgb",
}


def _nipponjo_name(ours: str) -> str:
    """From our name of a layer to the one in networks.py."""
    stage, _, layer = ours.rpartition(".")
    if stage == "coarse":
        return f"stage1.{_NIPPONJO_COARSE[layer]}"
    if layer.startswith("all"):
        return f"stage2.{_NIPPONJO_COARSE[layer[3:]]}"
    branch = "conv" if layer.startswith("x") else "ca"
    plain = layer[1:] if layer.startswith("x") else layer[2:]
    # Layers 7 and 8 of the attention branch are the attention: 9 and 10 are its bn4 and bn5.
    after = {"conv9": "conv_bn4", "conv10": "conv_bn5"}
    name = after[plain] if branch == "ca" and plain in after else _NIPPONJO_COARSE[plain]
    return f"stage2.{branch}_{name}"


def _tf_name(ours: str) -> str:
    layer = ours.rpartition(".")[2]
    return f"{layer}.conv" if layer.endswith("upsample") else layer


def _layers(network: nn.Module) -> list[str]:
    return [name for name, one in network.named_modules() if isinstance(one, FusedConv2d)]


def _nipponjo_keys(network: nn.Module) -> dict[str, Place]:
    kinds = ("weight", "bias")
    return {f"{_nipponjo_name(n)}.conv.{k}": f"{n}.{k}" for n in _layers(network) for k in kinds}


def _tf_keys(network: nn.Module) -> dict[str, Place]:
    kinds = ("weight", "bias")
    return {f"{_tf_name(n)}.conv.{k}": f"{n}.{k}" for n in _layers(network) for k in kinds}


def _critic_keys(network: nn.Module) -> dict[str, Place]:
    keys: dict[str, Place] = {}
    for name, _ in network.named_children():
        keys[f"{name}.conv_sn.bias"] = f"{name}.bias"
        keys.update(spectral_keys(f"{name}.conv_sn", name, "weight"))
    return keys


def _critic_convert(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k: v.flatten() if k.endswith("weight_u") else v for k, v in state.items()}


def _critic_restore(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        k: v.unsqueeze(1) if k.endswith("weight_u") else v
        for k, v in state.items()
        if not k.endswith("weight_v")
    }


def _generator_options(stem: str) -> Callable[[Mapping[str, Tensor]], dict[str, Any]]:
    return lambda state: {
        "variant": "official",
        "base_channels": state[stem].shape[0],
        "sketch": state[stem].shape[1] == 6,
    }


def _critic_options(state: Mapping[str, Tensor]) -> dict[str, Any]:
    return {
        "variant": "official",
        "critic_channels": state["conv1.conv_sn.weight"].shape[0],
        "sketch": state["conv1.conv_sn.weight"].shape[1] == 5,
    }


_SOURCE = "nipponjo/deepfillv2-pytorch"


_LICENCE = "none stated; weights converted from the official ones are CC BY-NC 4.0"
