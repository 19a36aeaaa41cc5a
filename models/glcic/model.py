"""GLCIC: globally and locally consistent image completion."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from inpaint_ops import checks
from inpaint_ops.blending import poisson_blend
from inpaint_ops.checkpoints import State
from inpaint_ops.models.blocks.pictures import stacked
from inpaint_ops.models.context_encoder.networks import numbered_keys
from inpaint_ops.models.glcic.networks import Discriminator, Generator
from inpaint_ops.models.glcic.recipe import GLCICRecipe
from inpaint_ops.models.method import InpaintingModel
from inpaint_ops.models.registry import register_model
from inpaint_ops.models.weights.layouts import Implied, Layout, fixed

# Mean colour of the official weights as public conversions of them list it.
MEAN = (0.4560, 0.4472, 0.4155)


def _port_keys(layers: Any, ours: str, names: list[str]) -> dict[str, str]:
    """conv1.*, bn1.* ... of a port to the blocks of a sequence."""
    keys: dict[str, str] = {}
    for i, (block, name) in enumerate(zip(layers, names), 1):
        for public, part in ((f"{name}{i}", "conv"), (f"bn{i}", "norm")):
            state = block.get_submodule(part).state_dict()
            keys |= {f"{public}.{key}": f"{ours}.{i - 1}.{part}.{key}" for key in state}
    return keys


def _otenim_keys(network: Generator) -> dict[str, str]:
    layers: Any = network.layers
    names = ["deconv" if block.transposed else "conv" for block in layers]
    keys = _port_keys(network.layers, "layers", names)
    return keys | {f"conv17.{key}": f"output.{key}" for key in ("weight", "bias")}


def _official_keys(network: Generator) -> dict[str, str]:
    keys, end = numbered_keys(network.layers, "layers")
    keys = {k: v for k, v in keys.items() if not k.endswith("num_batches_tracked")}
    return keys | {f"{end}.{key}": f"output.{key}" for key in ("weight", "bias")}


def _otenim_discriminator_keys(network: Discriminator) -> dict[str, str]:
    keys: dict[str, str] = {}
    for public, ours in (("model_ld", "local_trunk"), ("model_gd", "global_trunk")):
        layers: Any = network.get_submodule(ours).layers
        own = _port_keys(layers, f"{ours}.layers", ["conv"] * len(layers))
        own |= {f"linear{len(layers) + 1}.{k}": f"{ours}.linear.{k}" for k in ("weight", "bias")}
        keys |= {f"{public}.{key}": place for key, place in own.items()}
    return keys | {f"linear1.{key}": f"fuse.{key}" for key in ("weight", "bias")}


def _options(first: str) -> Callable[[Mapping[str, Tensor]], dict[str, Any]]:
    return lambda state: {"base_channels": state[first].shape[0]}


def _discriminator_options(state: Mapping[str, Tensor]) -> dict[str, Any]:
    base = state["model_ld.conv1.weight"].shape[0]

    def size(trunk: str, convolutions: int) -> int:
        inputs = state[f"{trunk}.linear{convolutions + 1}.weight"].shape[1]
        return math.isqrt(inputs // (8 * base)) << convolutions

    six = "model_gd.linear7.weight" in state
    return {
        "base_channels": base,
        "global_size": size("model_gd", 6 if six else 5),
        "local_size": size("model_ld", 5),
    }


_OTENIM = "otenim/GLCIC-PyTorch"
_LAYOUTS = (
    Layout(
        "otenim",
        "generator",
        _otenim_keys,
        ("conv1.weight", "deconv13.weight", "bn16.weight", "conv17.weight"),
        options=_options("conv1.weight"),
        recipe=fixed(norm_first=False, subtract_mean=False),
        asked={
            "mean": "three numbers in [0, 1], the mean colour of its training set: mpv in the "
            "config.json beside the file (--option mean=[R,G,B])"
        },
        licence="MIT",
        source=_OTENIM,
    ),
    Layout(
        "otenim",
        "discriminator",
        _otenim_discriminator_keys,
        ("model_ld.conv1.weight", "model_gd.conv1.weight", "linear1.weight"),
        options=_discriminator_options,
        recipe=fixed(norm_first=False),
        licence="MIT",
        source=_OTENIM,
    ),
    Layout(
        "official_converted",
        "generator",
        _official_keys,
        ("0.weight", "36.weight", "46.running_mean", "48.weight"),
        options=_options("0.weight"),
        recipe=fixed(norm_first=True, subtract_mean=True, mean=MEAN),
        unstated=("mean",),
        hint="as public conversions of the official weights list it",
        licence="CC BY-NC-SA 4.0 (conversion of the official weights)",
        source="chien-lung/inpaint_project",
    ),
)


@register_model("glcic")
class GLCIC(InpaintingModel):
    """GLCIC: a fully convolutional completion network, judged as a whole and around the hole.

    `complete` runs the network at the picture's own size (rounded up to multiples of 4). By default
    the known pixels are put back and nothing else is done, as the official code does; blend =
    "poisson" adds what the paper and the official code's option do after that, a Poisson blending
    (`inpaint_ops.blending.poisson_blend`; needs SciPy, extra "blend").

    Args:
        base_channels: filters of the first layers; their half and 16 times of it occur.
        norm_first: normalisation before ReLU, as in the official weights; False for otenim's.
        subtract_mean: the network sees pictures less `mean` with 0 in the hole (official); False:
            pictures with `mean` in the hole (otenim). Its result is in [0, 1] either way.
        mean: colour (R, G, B) in [0, 1]; of the official weights by default, as public conversions
            list it (not checked against the official file). otenim's files need theirs: it is in
            the config.json beside the weights ("mpv").
        global_size, local_size: of `Discriminator`.
        blend: "none" or "poisson".
        channel_order: of the pictures the weights were trained on.

    Source: Iizuka et al., SIGGRAPH 2017; satoshiiizuka/siggraph2017_inpainting: inpaint.lua;
    otenim/GLCIC-PyTorch: models.py, train.py.
    """

    multiple = 4
    minimum = 4
    layouts = _LAYOUTS
    recipe_class = GLCICRecipe

    def __init__(
        self,
        *,
        base_channels: int = 64,
        norm_first: bool = True,
        subtract_mean: bool = True,
        mean: tuple[float, float, float] = MEAN,
        global_size: int = 256,
        local_size: int = 128,
        blend: str = "none",
        channel_order: str = "rgb",
    ) -> None:
        super().__init__(channel_order=channel_order)
        checks.check_int(self.name, "base_channels", base_channels, 2)
        checks.check_choice(self.name, "blend", blend, ("none", "poisson"))
        if len(mean) != 3 or not all(0 <= level <= 1 for level in mean):
            raise ValueError(f"{self.name}: mean must be three numbers in [0, 1], got {mean}")
        self.base_channels = base_channels
        self.norm_first = norm_first
        self.subtract_mean = subtract_mean
        self.mean = tuple(mean)
        self.global_size = global_size
        self.local_size = local_size
        self.blend = blend
        self.generator = Generator(base_channels=base_channels, norm_first=norm_first)
        self.discriminator = Discriminator(
            global_size=global_size,
            local_size=local_size,
            base_channels=base_channels,
            norm_first=norm_first,
        )

    @classmethod
    def read_options(cls, state: State) -> Implied:
        """As `InpaintingModel.read_options`."""
        facts: dict[str, Any] = {}
        if "generator.layers.0.conv.weight" in state:
            facts["base_channels"] = state["generator.layers.0.conv.weight"].shape[0]
        trunks = "discriminator.{}_trunk."
        if "discriminator.fuse.weight" in state:
            base = state[trunks.format("local") + "layers.0.conv.weight"].shape[0]
            facts["base_channels"] = base
            for name in ("local", "global"):
                trunk = trunks.format(name)
                six = f"{trunk}layers.5.conv.weight" in state
                cells = math.isqrt(state[f"{trunk}linear.weight"].shape[1] // (8 * base))
                facts[f"{name}_size"] = cells << (6 if six else 5)
        return Implied(facts, ("norm_first", "subtract_mean", "mean", "channel_order"))

    def inputs(self, image: Tensor, hole: Tensor) -> Tensor:
        """What the generator sees: (N, 4, H, W) from a picture in [0, 1] and its hole."""
        levels = self.mean if self.channel_order == "rgb" else self.mean[::-1]
        mean = image.new_tensor(levels).view(3, 1, 1)
        if self.subtract_mean:
            seen = torch.where(hole > 0, 0.0, image - mean)
        else:
            seen = torch.where(hole > 0, mean, image)
        return stacked(seen, hole.to(seen.dtype))

    def _fill(self, image: Tensor, hole: Tensor, *, seed: int) -> Tensor:
        prediction: Tensor = self.generator(self.inputs(image, hole))
        if self.blend == "poisson":
            return poisson_blend(prediction, image, hole)
        return prediction
