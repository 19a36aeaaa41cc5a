"""Layouts of public weights of Shift-Net: those of the authors' PyTorch version."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from inpaint_ops.models.shift_net.networks import DEPTH, SHIFT
from inpaint_ops.models.weights.layouts import Layout, layer_keys


def _block(level: int) -> str:
    """Return the public name of a level's block; each block holds that of the next level."""
    return "model" + ".model.1" + ".model.3" * (level - 2)


# The U-Net, whose blocks are nested. Levels 1 and DEPTH have their own order of modules.
NESTED = {
    "model.model.0": "down1.conv",
    **{f"{_block(i)}.model.1": f"down{i}.conv" for i in range(2, DEPTH + 1)},
    **{f"{_block(i)}.model.2": f"down{i}.norm" for i in range(2, DEPTH)},
    f"{_block(DEPTH)}.model.3": f"up{DEPTH}.conv",
    f"{_block(DEPTH)}.model.4": f"up{DEPTH}.norm",
    **{f"{_block(i)}.model.5": f"up{i}.conv" for i in range(2, DEPTH) if i != SHIFT},
    **{f"{_block(i)}.model.6": f"up{i}.norm" for i in range(2, DEPTH) if i != SHIFT},
    # Guidance and shift are modules of their own before the convolution.
    f"{_block(SHIFT)}.model.7": f"up{SHIFT}.conv",
    f"{_block(SHIFT)}.model.8": f"up{SHIFT}.norm",
    "model.model.3": "up1.conv",
}
# The network for faces numbers the decoder's layers from the inside out.
FACE = {
    **{f"e{i}_c": f"down{i}.conv" for i in range(1, DEPTH + 1)},
    **{f"e{i}_norm": f"down{i}.norm" for i in range(2, DEPTH)},
    **{f"d{DEPTH + 1 - i}_dc": f"up{i}.conv" for i in range(1, DEPTH + 1)},
    **{f"d{DEPTH + 1 - i}_norm": f"up{i}.norm" for i in range(2, DEPTH + 1)},
}
DISCRIMINATOR = {
    "model.0": "conv1",
    "model.2": "conv2",
    "model.3": "norm2",
    "model.5": "conv3",
    "model.6": "norm3",
    "model.8": "conv4",
    "model.9": "norm4",
    "model.11": "conv5",
}
# Ignored where the network has none: old files hold statistics of instance norms.
_STATISTICS = (r"running_(mean|var)$", r"num_batches_tracked$")
_HINT = "it has statistics without counters, as batch and instance norms of old PyTorch wrote them"
_PORT = "Zhaoyi-Yan/Shift-Net_pytorch"

_Reader = Callable[[Mapping[str, Tensor]], dict[str, Any]]


def _generator_options(stem: str, face: bool) -> _Reader:
    def options(state: Mapping[str, Tensor]) -> dict[str, Any]:
        width, inputs = state[stem].shape[:2]
        return {"base_channels": width, "in_channels": inputs, "face": face}

    return options


def _generator_recipe(mirror: str | None) -> _Reader:
    def recipe(state: Mapping[str, Tensor]) -> dict[str, Any]:
        counted = any(key.endswith("num_batches_tracked") for key in state)
        return {"mirror": mirror, "norm": "batch" if counted else "instance"}

    return recipe


def _stated(state: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Return ("norm",) if a generator's file tells the normalisation.

    Statistics without counters are those of a batch norm of PyTorch before 0.4.1, or of an instance
    norm before 0.4. With "instance" either computes what the public test script does.
    """
    counted = any(key.endswith("num_batches_tracked") for key in state)
    return ("norm",) if counted or not any(k.endswith("running_mean") for k in state) else ()


def _critic_recipe(state: Mapping[str, Tensor]) -> dict[str, Any]:
    # Convolutions before an instance norm have a bias.
    batch = "model.3.running_mean" in state and "model.2.bias" not in state
    return {"norm": "batch" if batch else "instance"}


LAYOUTS = (
    Layout(
        "zhaoyiyan",
        "generator",
        layer_keys(NESTED),
        signature=("model.model.0.weight", "model.model.1.model.1.weight"),
        options=_generator_options("model.model.0.weight", False),
        recipe=_generator_recipe(None),
        unstated=("norm",),
        stated=_stated,
        hint=_HINT,
        ignored=_STATISTICS,
        licence="MIT",
        source=_PORT,
    ),
    Layout(
        "zhaoyiyan_face",
        "generator",
        layer_keys(FACE),
        signature=("e1_c.weight", "d1_dc.weight"),
        options=_generator_options("e1_c.weight", True),
        recipe=_generator_recipe("port"),
        unstated=("norm",),
        stated=_stated,
        hint=_HINT,
        ignored=_STATISTICS,
        licence="MIT",
        source=_PORT,
    ),
    Layout(
        "zhaoyiyan",
        "discriminator",
        layer_keys(DISCRIMINATOR),
        signature=("model.0.weight_orig", "model.3.weight"),
        options=lambda state: {"critic_channels": state["model.0.weight_orig"].shape[0]},
        recipe=_critic_recipe,
        ignored=_STATISTICS,
        licence="MIT",
        source=_PORT,
    ),
)
