"""Layouts of public weights of GMCNN: those of the authors' PyTorch version."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from inpaint_ops.models.weights.layouts import Layout, layer_keys

# Layers of a column by their index in the port's list of modules. The three columns have those up
# to 11, up to 14 and all.
COLUMN = {
    0: "stem",
    1: "down1",
    2: "same",
    3: "down2",
    4: "quarter1",
    5: "quarter2",
    6: "dilated2",
    7: "dilated4",
    8: "dilated8",
    9: "dilated16",
    10: "quarter3",
    11: "quarter4",
    13: "up1",
    14: "after_up1",
    16: "up2",
    17: "after_up2",
}
GENERATOR = {
    **{f"EB1.{index}": f"columns.0.{layer}" for index, layer in COLUMN.items() if index <= 11},
    **{f"EB2.{index}": f"columns.1.{layer}" for index, layer in COLUMN.items() if index <= 14},
    **{f"EB3.{index}": f"columns.2.{layer}" for index, layer in COLUMN.items()},
    "decoding_layers.0": "merge",
    "decoding_layers.1": "to_picture",
}
DISCRIMINATOR = {
    "global_discriminator.layers.0.module": "whole.conv0",
    "global_discriminator.layers.1.module": "whole.conv1",
    "global_discriminator.layers.2.module": "whole.conv2",
    "global_discriminator.layers.3.module": "whole.conv3",
    "global_discriminator.layers.4.module": "whole.linear",
    "local_discriminator.layers.0.module": "local.conv0",
    "local_discriminator.layers.1.module": "local.conv1",
    "local_discriminator.layers.2.module": "local.conv2",
    "local_discriminator.layers.3.module": "local.conv3",
    "local_discriminator.layers.4.module": "local.linear",
}
_GLOBAL = "global_discriminator.layers.{}.module.weight_bar"
_LOCAL = "local_discriminator.layers.{}.module.weight_bar"


def critic_side(first: Tensor, last: Tensor) -> int:
    """Return a side of pictures, in pixels, that fits a critic's first and last weight."""
    return 16 * math.isqrt(last.shape[1] // (4 * first.shape[0]))


def _critic_options(state: Mapping[str, Tensor]) -> dict[str, Any]:
    return {"critic_channels": state[_GLOBAL.format(0)].shape[0]}


def _critic_sizes(state: Mapping[str, Tensor]) -> dict[str, Any]:
    first = state[_GLOBAL.format(0)]
    return {
        "critic_size": critic_side(first, state[_GLOBAL.format(4)]),
        "local_size": critic_side(first, state[_LOCAL.format(4)]),
    }


LAYOUTS = (
    Layout(
        "shepnerd",
        "generator",
        layer_keys(GENERATOR),
        signature=("EB1.0.weight", "EB3.17.weight", "decoding_layers.1.weight"),
        options=lambda state: {"base_channels": state["EB1.0.weight"].shape[0]},
        licence="MIT",
        source="shepnerd/inpainting_gmcnn",
    ),
    Layout(
        "shepnerd",
        "discriminator",
        layer_keys(DISCRIMINATOR, weight="weight_bar"),
        signature=(_GLOBAL.format(0), _LOCAL.format(0)),
        options=_critic_options,
        fitting=_critic_sizes,
        licence="MIT",
        source="shepnerd/inpainting_gmcnn",
    ),
)
