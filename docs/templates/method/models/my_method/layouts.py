"""Public layouts of my_method's weights: which key of a file is which tensor of ours.

A layout is named after the owner of the public code. Its keys are facts and may be taken over; the
code that made them may not. tests/manifests/ holds keys and shapes of a real file of each.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from inpaint_ops.models.weights.layouts import Layout, fixed, layer_keys

# Public layer to ours; each brings all that our network holds of it.
GENERATOR = {"gen.conv1": "first", "gen.conv2": "output"}


def _generator_options(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Options of the model that the shapes tell."""
    return {"base_channels": state["gen.conv1.weight"].shape[0] // 2}


LAYOUTS = (
    Layout(
        "owner",
        "generator",
        layer_keys(GENERATOR),
        # Keys that together occur in no file of another layout.
        ("gen.conv1.weight", "gen.conv2.weight"),
        options=_generator_options,
        # What the names tell of how the owner's code computes. `unstated` are those of them that
        # differ between files with the same names: loading says what it assumes.
        recipe=fixed(channel_order="rgb"),
        unstated=("channel_order",),
        hint="as the owner's code reads pictures",
        # Terms of the published weights, and where the code is.
        licence="none stated",
        source="owner/repository",
    ),
)
