"""Layouts of public weights of DeepFill v1."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from inpaint_ops.layers import FusedConv2d
from inpaint_ops.models.weights.layouts import Layout, Place


def _public_name(ours: str) -> str:
    """From our name of a generator's layer to daa233's."""
    stage, _, layer = ours.rpartition(".")
    plain = layer.removesuffix("_upsample")
    if stage == "coarse":
        return f"coarse_generator.{plain}"
    return f"fine_generator.{plain.removeprefix('x')}"


def _generator_keys(network: nn.Module) -> dict[str, Place]:
    names = [name for name, one in network.named_modules() if isinstance(one, FusedConv2d)]
    kinds = ("weight", "bias")
    return {f"{_public_name(n)}.conv.{k}": f"{n}.{k}" for n in names for k in kinds}


def _critic_keys(network: nn.Module) -> dict[str, Place]:
    keys: dict[str, Place] = {}
    for kind in ("weight", "bias"):
        for i in range(1, 5):
            keys[f"dis_conv_module.conv{i}.conv.{kind}"] = f"conv{i}.{kind}"
        keys[f"linear.{kind}"] = f"linear.{kind}"
    return keys


_STEM = "coarse_generator.conv1.conv.weight"


def _critic_side(state: Mapping[str, Tensor]) -> int:
    layer = state["dis_conv_module.conv4.conv.weight"]
    return 16 * math.isqrt(state["linear.weight"].shape[1] // layer.shape[0])


def _critic_options(local: bool) -> Any:
    def options(state: Mapping[str, Tensor]) -> dict[str, Any]:
        width = state["dis_conv_module.conv1.conv.weight"].shape[0]
        implied: dict[str, Any] = {
            "critic_channels": width,
            "size": _critic_side(state) * (2 if local else 1),
        }
        if local:
            implied["local_channels"] = state["dis_conv_module.conv4.conv.weight"].shape[0]
        return implied

    return options


_PORT = "daa233/generative-inpainting-pytorch"


def _critic_layout(network: str, name: str) -> Layout:
    local = network == "local_critic"
    return Layout(
        "daa233",
        network,
        _critic_keys,
        signature=("dis_conv_module.conv1.conv.weight", "linear.weight"),
        # Both have the same keys; the published ones see 256 and 128 pixels.
        recognise=lambda state: (_critic_side(state) < 256) == local,
        doubt=_which_critic,
        options=_critic_options(local),
        recipe=_critic_recipe,
        names=(name,),
        channel_order=None,
        ignored=(_TRAINER,),
        licence="MIT",
        source=_PORT,
    )


_OFFICIAL_RECIPE = {"padding": "same", "pick": "align_corners", "key_norm": "max"}


_PORT_RECIPE = {"padding": "symmetric", "pick": "floor", "key_norm": "sum"}


_TRAINER = r"^(netG|localD|globalD)\."


def _generator_options(state: Mapping[str, Tensor]) -> dict[str, Any]:
    return {"base_channels": state[_STEM].shape[0]}


def _is_converted(state: Mapping[str, Tensor]) -> bool | None:
    """Whether a trainer's file has the official local critic, which is wider; None without one."""
    layer = state.get("localD.dis_conv_module.conv4.conv.weight")
    return None if layer is None else layer.shape[0] != layer.shape[1]


def _whose(state: Mapping[str, Tensor], prefix: str) -> str | None:
    """The port's own files of generators have no prefix; with one they are of either kind."""
    if not prefix or _is_converted(state) is not None:
        return None
    return (
        "keys that begin with netG. are those of the port's trainer or of the official weights "
        "converted for it, which pad otherwise and were trained on BGR pictures: give "
        "layout='daa233' or layout='daa233_tf' (--layout)"
    )


def _critic_recipe(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The official local critic doubles its width in the last layer, the port's does not."""
    layer = state["dis_conv_module.conv4.conv.weight"]
    converted = layer.shape[0] != layer.shape[1] or _is_converted(state)
    return {"padding": "same" if converted else "symmetric"}


def _which_critic(state: Mapping[str, Tensor], prefix: str) -> str | None:
    side = _critic_side(state)
    if side in (128, 256):
        return None
    return (
        f"a critic for pictures of {side} pixels may be the global or the local one: give "
        "layout='daa233/global_critic' or layout='daa233/local_critic'"
    )
