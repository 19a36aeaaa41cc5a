"""Layouts of public weights of DeepFill v2: those of nipponjo's two ports and of zhaoyuzhi's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from inpaint_ops.checkpoints import State
from inpaint_ops.models.blocks.two_stage import LAYERS
from inpaint_ops.models.deepfill_v2.zhaoyuzhi import (
    DOUBLING,
    PORT_CHOICES,
    ROWS,
    ZhaoyuzhiGenerator,
)
from inpaint_ops.models.weights.layouts import Layout, Place, fixed, layer_keys

# Layers of the coarse stage, nipponjo's name in networks.py to ours. The second stage repeats them:
# its convolution branch the first two tables, its attention branch the first, its decoder the last.
HALVING = {
    "conv1": "conv1",
    "down_block1.conv1_downsample": "conv2_downsample",
    "down_block1.conv2": "conv3",
    "down_block2.conv1_downsample": "conv4_downsample",
    "down_block2.conv2": "conv5",
    "conv_bn1": "conv6",
}
DILATED = {
    "conv_bn2": "conv7_atrous",
    "conv_bn3": "conv8_atrous",
    "conv_bn4": "conv9_atrous",
    "conv_bn5": "conv10_atrous",
}
DECODING = {
    "conv_bn6": "conv11",
    "conv_bn7": "conv12",
    "up_block1.conv1_upsample.conv": "conv13_upsample",
    "up_block1.conv2": "conv14",
    "up_block2.conv1_upsample.conv": "conv15_upsample",
    "up_block2.conv2": "conv16",
    "conv_to_rgb": "conv17",
}
_COARSE = {**HALVING, **DILATED, **DECODING}
_BRANCH = {**HALVING, **DILATED}
NIPPONJO = {
    **{f"stage1.{port}.conv": f"coarse.{ours}" for port, ours in _COARSE.items()},
    **{f"stage2.conv_{port}.conv": f"refinement.convolution.x{o}" for port, o in _BRANCH.items()},
    **{
        f"stage2.ca_{port}.conv": f"refinement.before_attention.pm{o}"
        for port, o in HALVING.items()
    },
    "stage2.ca_conv_bn4.conv": "refinement.after_attention.pmconv9",
    "stage2.ca_conv_bn5.conv": "refinement.after_attention.pmconv10",
    **{f"stage2.{port}.conv": f"refinement.decoder.all{o}" for port, o in DECODING.items()},
}
# networks_tf.py has our names of layers, those of the TensorFlow code, without the stages.
NIPPONJO_TF = {
    f"{layer}.conv.conv" if layer.endswith("upsample") else f"{layer}.conv": f"{stage}.{layer}"
    for stage, layers in LAYERS.items()
    for layer in layers
}
NIPPONJO_CRITIC = {"conv{1}.conv_sn": "conv{1}"}
ZHAOYUZHI_CRITIC = {"block{1}.conv2d.module": "block{1}"}


def zhaoyuzhi_keys(network: ZhaoyuzhiGenerator) -> dict[str, Place]:
    """Return the keys of zhaoyuzhi's generator, where features and gates are two convolutions.

    Ours are one convolution: the first half of its filters makes the features. Convolutions after a
    doubling are spectrally normalised.
    """
    keys: dict[str, Place] = {}
    for stage in ("coarse", "refinement"):
        for at in range(len(ROWS) + 1):
            ours, public = f"{stage}.{at}.conv", f"{stage}.{at}"
            for half, (name, norm) in enumerate((("conv2d", "features"), ("mask_conv2d", "gates"))):
                if at not in DOUBLING:
                    keys[f"{public}.{name}.weight"] = (f"{ours}.weight", half, 2)
                    keys[f"{public}.{name}.bias"] = (f"{ours}.bias", half, 2)
                    continue
                port, weight = (
                    f"{public}.gated_conv2d.{name}.module",
                    f"{ours}.parametrizations.weight",
                )
                keys[f"{port}.bias"] = (f"{ours}.bias", half, 2)
                keys[f"{port}.weight_bar"] = (f"{weight}.original", half, 2)
                keys[f"{port}.weight_u"] = f"{weight}.0.{norm}._u"
                keys[f"{port}.weight_v"] = f"{weight}.0.{norm}._v"
    return keys


def _flat_vectors(state: State) -> State:
    """Take the first vectors of spectral normalisation from columns, as nipponjo's critic has."""
    return {k: v.flatten() if k.endswith("weight_u") else v for k, v in state.items()}


def _column_vectors(state: State) -> State:
    """Invert `_flat_vectors`; the port keeps no second vectors."""
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


def _zhaoyuzhi_options(state: Mapping[str, Tensor]) -> dict[str, Any]:
    width = state["coarse.0.conv2d.weight"].shape[0]
    return {"variant": "zhaoyuzhi", "base_channels": width}


def _zhaoyuzhi_critic_options(state: Mapping[str, Tensor]) -> dict[str, Any]:
    width = state["block1.conv2d.module.weight_bar"].shape[0]
    return {"variant": "zhaoyuzhi", "critic_channels": width}


_SOURCE = "nipponjo/deepfillv2-pytorch"
_LICENCE = "none stated; weights converted from the official ones are CC BY-NC 4.0"
_ZHAOYUZHI_RECIPE = {name: choices[0] for name, choices in PORT_CHOICES.items()}
_ZHAOYUZHI_HINT = "--pad_type, --activation and --norm of the port's training"

LAYOUTS = (
    Layout(
        "nipponjo",
        "generator",
        layer_keys(NIPPONJO),
        signature=("stage1.conv1.conv.weight", "stage2.conv_conv1.conv.weight"),
        options=_generator_options("stage1.conv1.conv.weight"),
        recipe=fixed(padding="symmetric", pick="floor", fuse=True),
        nesting=("G",),
        ignored=(r"fuse_weight$",),
        emitted=lambda network: {
            "stage2.contextual_attention.fuse_weight": torch.eye(3)[None, None]
        },
        licence=_LICENCE,
        source=_SOURCE,
    ),
    Layout(
        "nipponjo_tf",
        "generator",
        layer_keys(NIPPONJO_TF),
        signature=("conv1.conv.weight", "xconv1.conv.weight"),
        options=_generator_options("conv1.conv.weight"),
        recipe=fixed(padding="same", pick="align_corners", fuse=False),
        unstated=("channel_order",),
        hint="the port feeds RGB; the official weights were trained on BGR",
        nesting=("G",),
        ignored=(r"fuse_weight$",),
        licence=_LICENCE,
        source=_SOURCE,
    ),
    Layout(
        "nipponjo",
        "discriminator",
        layer_keys(NIPPONJO_CRITIC, weight="weight"),
        signature=("conv1.conv_sn.weight", "conv6.conv_sn.weight"),
        options=_critic_options,
        recipe=fixed(padding="same"),
        unstated=("padding",),
        hint="both of the port's generators have critics of these names",
        nesting=("D",),
        convert=_flat_vectors,
        restore=_column_vectors,
        licence=_LICENCE,
        source=_SOURCE,
    ),
    Layout(
        "zhaoyuzhi",
        "generator",
        zhaoyuzhi_keys,
        signature=("coarse.0.conv2d.weight", "coarse.0.mask_conv2d.weight"),
        options=_zhaoyuzhi_options,
        recipe=fixed(**_ZHAOYUZHI_RECIPE),
        unstated=tuple(_ZHAOYUZHI_RECIPE),
        hint=_ZHAOYUZHI_HINT,
        optional=(),
        licence="none stated",
        source="zhaoyuzhi/deepfillv2",
    ),
    Layout(
        "zhaoyuzhi",
        "discriminator",
        layer_keys(ZHAOYUZHI_CRITIC, weight="weight_bar"),
        signature=("block1.conv2d.module.weight_bar", "block6.conv2d.module.weight_bar"),
        options=_zhaoyuzhi_critic_options,
        recipe=fixed(**_ZHAOYUZHI_RECIPE),
        unstated=tuple(_ZHAOYUZHI_RECIPE),
        hint=_ZHAOYUZHI_HINT,
        optional=(),
        licence="none stated",
        source="zhaoyuzhi/deepfillv2",
    ),
)
