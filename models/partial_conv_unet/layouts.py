"""Layouts of public weights of the PartialConv U-Net: naoto0804's port and mmagic."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from inpaint_ops.checkpoints import State
from inpaint_ops.models.partial_conv_unet.networks import PartialConvUNetwork
from inpaint_ops.models.weights.layouts import Layout, fixed, layer_keys

# The outermost layers have no normalisation.
NAOTO0804 = {
    "enc_{1}.conv.input_conv": "encoder.{0}.conv",
    "enc_{2}.bn": "encoder.{1}.norm",
    "dec_{1}.conv.input_conv": "decoder.{0}.conv",
    "dec_{2}.bn": "decoder.{1}.norm",
}
MMAGIC = {
    "encoder.enc{1}.conv": "encoder.{0}.conv",
    "encoder.enc{2}.bn": "encoder.{1}.norm",
    "decoder.dec{1}.conv": "decoder.{0}.conv",
    "decoder.dec{2}.bn": "decoder.{1}.norm",
}


def _options(stem: str, pattern: str) -> Callable[[Mapping[str, Tensor]], dict[str, Any]]:
    """Read the options from a state dict with that first layer; the pattern finds levels."""

    def options(state: Mapping[str, Tensor]) -> dict[str, Any]:
        return {
            "base_channels": state[f"{stem}.weight"].shape[0],
            "levels": max(int(found[1]) for key in state if (found := re.match(pattern, key))),
            "stem_bias": f"{stem}.bias" in state,
        }

    return options


def _ones(table: Mapping[str, str], ones: str) -> Callable[[PartialConvUNetwork], State]:
    """Make the constant kernels that public files keep next to every convolution."""

    def emitted(network: PartialConvUNetwork) -> State:
        return {
            re.sub(r"(input_conv\.)?weight$", ones, public): torch.ones_like(
                network.get_parameter(str(ours)).detach()
            )
            for public, ours in layer_keys(table)(network).items()
            if str(ours).endswith("conv.weight")
        }

    return emitted


LAYOUTS = (
    Layout(
        "naoto0804",
        "generator",
        layer_keys(NAOTO0804),
        signature=("enc_1.conv.input_conv.weight", "dec_1.conv.input_conv.weight"),
        options=_options("enc_1.conv.input_conv", r"enc_(\d{1,3})\."),
        recipe=fixed(input_range="imagenet", normalise="sum"),
        nesting=("model",),
        ignored=(r"mask_conv\.",),
        emitted=_ones(NAOTO0804, "mask_conv.weight"),
        licence="MIT",
        source="naoto0804/pytorch-inpainting-with-partial-conv",
    ),
    Layout(
        "mmagic",
        "generator",
        layer_keys(MMAGIC),
        signature=("encoder.enc1.conv.weight", "decoder.dec1.conv.weight"),
        options=_options("encoder.enc1.conv", r"encoder\.enc(\d{1,3})\."),
        recipe=fixed(input_range="signed", normalise="window"),
        nesting=("state_dict",),
        prefix="generator.",
        ignored=(r"weight_mask_updater$", r"^loss_percep\."),
        emitted=_ones(MMAGIC, "weight_mask_updater"),
        # Its configuration reads pictures with OpenCV and does not reorder them.
        channel_order="bgr",
        licence="Apache-2.0",
        source="open-mmlab/mmagic",
    ),
)
