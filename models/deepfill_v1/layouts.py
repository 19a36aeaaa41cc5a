"""Layouts of public weights of DeepFill v1: those of daa233's port.

The port's own files and the official weights converted for it have the same keys. They differ in
prefixes and, where a file has it, in the width of the local critic's last layer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from inpaint_ops.models.blocks.two_stage import LAYERS
from inpaint_ops.models.weights.layouts import Layout, fixed, layer_keys


def _port_name(stage: str, layer: str) -> str:
    """Return the port's name of one of our layers: "xconv2_downsample" to "conv2_downsample"."""
    plain = layer.removesuffix("_upsample").removeprefix("x")
    return f"{'coarse' if stage == 'coarse' else 'fine'}_generator.{plain}.conv"


GENERATOR = {
    _port_name(stage, layer): f"{stage}.{layer}"
    for stage, layers in LAYERS.items()
    for layer in layers
}
CRITIC = {
    "dis_conv_module.conv1.conv": "conv1",
    "dis_conv_module.conv2.conv": "conv2",
    "dis_conv_module.conv3.conv": "conv3",
    "dis_conv_module.conv4.conv": "conv4",
    "linear": "linear",
}
_STEM = "coarse_generator.conv1.conv.weight"
_PORT = "daa233/generative-inpainting-pytorch"
# How the official code and the port compute.
_OFFICIAL_RECIPE = {"padding": "same", "pick": "align_corners", "key_norm": "max"}
_PORT_RECIPE = {"padding": "symmetric", "pick": "floor", "key_norm": "sum"}
# Prefixes of the networks in a state dict of the port's trainer.
_TRAINER = r"^(netG|localD|globalD)\."


def _critic_side(state: Mapping[str, Tensor]) -> int:
    """Return the side of the pictures that a critic takes."""
    layer = state["dis_conv_module.conv4.conv.weight"]
    return 16 * math.isqrt(state["linear.weight"].shape[1] // layer.shape[0])


def _critic_options(local: bool) -> Callable[[Mapping[str, Tensor]], dict[str, Any]]:
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


def _generator_options(state: Mapping[str, Tensor]) -> dict[str, Any]:
    return {"base_channels": state[_STEM].shape[0]}


def _is_converted(state: Mapping[str, Tensor]) -> bool | None:
    """Return whether a trainer's file has the official local critic, which is wider.

    None if it has no local critic.
    """
    layer = state.get("localD.dis_conv_module.conv4.conv.weight")
    return None if layer is None else layer.shape[0] != layer.shape[1]


def _which_generator(state: Mapping[str, Tensor], prefix: str) -> str | None:
    """Ask whose weights a generator with a prefix has; the port's own files have none."""
    if not prefix or _is_converted(state) is not None:
        return None
    return (
        "keys that begin with netG. are those of the port's trainer or of the official weights "
        "converted for it, which pad otherwise and were trained on BGR pictures: give "
        "layout='daa233' or layout='daa233_tf' (--layout)"
    )


def _critic_recipe(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Tell the official local critic by its last layer, which doubles the width."""
    layer = state["dis_conv_module.conv4.conv.weight"]
    converted = layer.shape[0] != layer.shape[1] or _is_converted(state)
    return {"padding": "same" if converted else "symmetric"}


def _which_critic(state: Mapping[str, Tensor], prefix: str) -> str | None:
    """Ask which critic a file holds if it fits neither of the published sizes."""
    side = _critic_side(state)
    if side in (128, 256):
        return None
    return (
        f"a critic for pictures of {side} pixels may be the global or the local one: give "
        "layout='daa233/global_critic' or layout='daa233/local_critic'"
    )


def _critic_layout(network: str, name: str) -> Layout:
    local = network == "local_critic"
    return Layout(
        "daa233",
        network,
        layer_keys(CRITIC),
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


LAYOUTS = (
    Layout(
        "daa233",
        "generator",
        layer_keys(GENERATOR),
        signature=(_STEM, "fine_generator.pmconv1.conv.weight"),
        recognise=lambda state: _is_converted(state) is not True,
        doubt=_which_generator,
        options=_generator_options,
        recipe=fixed(**_PORT_RECIPE),
        prefixes=("netG.",),
        ignored=(_TRAINER,),
        licence="MIT",
        source=_PORT,
    ),
    Layout(
        "daa233_tf",
        "generator",
        layer_keys(GENERATOR),
        signature=(_STEM, "fine_generator.pmconv1.conv.weight"),
        recognise=lambda state: _is_converted(state) is not False,
        options=_generator_options,
        recipe=fixed(**_OFFICIAL_RECIPE),
        unstated=("channel_order",),
        hint="the official weights' order; that their conversion kept it is not known",
        prefix="netG.",
        ignored=(_TRAINER,),
        channel_order="bgr",
        licence="CC BY-NC 4.0",
        source=_PORT,
    ),
    _critic_layout("global_critic", "globalD"),
    _critic_layout("local_critic", "localD"),
)
