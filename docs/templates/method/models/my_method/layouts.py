"""Public layouts of my_method's weights: which key of a file is which tensor of ours.

A layout is named after the owner of the public code. Its keys are facts and may be taken over; the
code that made them may not. tests/manifests/ holds keys and shapes of a real file of each.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from inpaint_ops.models.weights.layouts import Layout, fixed

# Public key to ours, both without "weight" and "bias".
_GENERATOR = {"gen.conv1": "first", "gen.conv2": "output"}


def _generator_keys(network: Any) -> dict[str, str]:
    kinds = ("weight", "bias")
    return {f"{public}.{k}": f"{ours}.{k}" for public, ours in _GENERATOR.items() for k in kinds}


def _generator_options(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Options of the model that the shapes tell."""
    return {"base_channels": state["gen.conv1.weight"].shape[0] // 2}


LAYOUTS = (
    Layout(
        "owner",
        "generator",
        _generator_keys,
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
