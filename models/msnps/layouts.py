"""Layouts of public weights of MSNPS: the content network of ZhanzhouFeng's port."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from inpaint_ops.models.context_encoder.layouts import generator_keys
from inpaint_ops.models.weights.layouts import Layout, fixed


def _options(state: Mapping[str, Tensor]) -> dict[str, Any]:
    return {
        "base_channels": state["net.0.weight"].shape[0],
        "bottleneck": state["net.14.weight"].shape[0],
    }


LAYOUTS = (
    Layout(
        "zhanzhoufeng",
        "content_network",
        generator_keys("net"),
        ("net.14.weight", "net.17.weight", "net.29.weight"),
        options=_options,
        recipe=fixed(elu_alpha=0.2),
        nesting=("state_dict",),
        licence="none given",
        source="ZhanzhouFeng/Pytorch-Implement-Faster-High-Res-Neural-Inpainting",
    ),
)
