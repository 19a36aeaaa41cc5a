"""Layouts of public weights of EdgeConnect: the four files of knazeri's code."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from inpaint_ops.checkpoints import State
from inpaint_ops.models.weights.layouts import Layout, fixed, layer_keys

# Both generators and both discriminators have the same layers; those of the generator for edges are
# spectrally normalised, all but the last.
GENERATOR = {
    "encoder.1": "stem",
    "encoder.4": "down1",
    "encoder.7": "down2",
    "middle.{0}.conv_block.1": "middle.{0}.conv1",
    "middle.{0}.conv_block.5": "middle.{0}.conv2",
    "decoder.0": "up1",
    "decoder.3": "up2",
    "decoder.7": "head",
}
DISCRIMINATOR = {
    "conv1.0": "conv1",
    "conv2.0": "conv2",
    "conv3.0": "conv3",
    "conv4.0": "conv4",
    "conv5.0": "conv5",
}
# The port registers its first layer a second time, as part of a list.
ALIAS = {"features.0": "conv1"}
_LICENCE, _PORT = "CC BY-NC 4.0", "knazeri/edge-connect"


def _alias(network: nn.Module) -> State:
    own = network.state_dict()
    return {public: own[str(ours)] for public, ours in layer_keys(ALIAS)(network).items()}


def _generator_options(weight: str) -> Callable[[Mapping[str, Tensor]], dict[str, Any]]:
    def options(state: Mapping[str, Tensor]) -> dict[str, Any]:
        blocks = {key.split(".")[1] for key in state if key.startswith("middle.")}
        return {
            "base_channels": state[f"encoder.1.{weight}"].shape[0],
            "residual_blocks": len(blocks),
        }

    return options


def _discriminator_layout(network: str, channels: int) -> Layout:
    """Return the layout of a discriminator, recognised by the channels that it judges."""
    return Layout(
        "knazeri",
        network,
        layer_keys(DISCRIMINATOR),
        signature=("conv1.0.weight_orig", "conv2.0.weight_orig"),
        recognise=lambda state: state["conv1.0.weight_orig"].shape[1] == channels,
        options=lambda state: {"critic_channels": state["conv1.0.weight_orig"].shape[0]},
        recipe=fixed(adversarial="nsgan"),
        unstated=("adversarial",),
        hint="GAN_LOSS of its configuration",
        nesting=("discriminator",),
        ignored=(r"^features\.0\.",),
        emitted=_alias,
        licence=_LICENCE,
        source=_PORT,
    )


LAYOUTS = (
    Layout(
        "knazeri",
        "edge_generator",
        layer_keys(GENERATOR),
        signature=("encoder.1.weight_orig", "decoder.7.weight"),
        options=_generator_options("weight_orig"),
        recipe=fixed(sigma=2.0),
        unstated=("sigma",),
        hint="SIGMA of its configuration",
        nesting=("generator",),
        licence=_LICENCE,
        source=_PORT,
    ),
    Layout(
        "knazeri",
        "inpaint_generator",
        layer_keys(GENERATOR),
        signature=("encoder.1.weight", "decoder.7.weight"),
        recognise=lambda state: "encoder.1.weight_orig" not in state,
        options=_generator_options("weight"),
        nesting=("generator",),
        licence=_LICENCE,
        source=_PORT,
    ),
    _discriminator_layout("edge_discriminator", 2),
    _discriminator_layout("inpaint_discriminator", 3),
)
