"""Shift-Net: a U-Net that moves known features into the hole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from inpaint_ops import checks
from inpaint_ops.checkpoints import State
from inpaint_ops.models.blocks.pictures import erase, signed, stacked, unsigned
from inpaint_ops.models.blocks.spectral_norm import spectral_keys
from inpaint_ops.models.method import InpaintingModel
from inpaint_ops.models.registry import register_model
from inpaint_ops.models.shift_net.mirrored_shift import RULES
from inpaint_ops.models.shift_net.networks import DEPTH, MINIMUM, SHIFT, Discriminator, Generator
from inpaint_ops.models.shift_net.recipe import ShiftNetRecipe
from inpaint_ops.models.weights.layouts import Implied, Layout, Place

_OP = "shift_net"


def _nested(level: int) -> str:
    return "model.model.1" + ".model.3" * level


def _unet_names() -> dict[str, str]:
    """Our layers to those of the nested U-Net, in its order of modules."""
    names = {"down1.conv": "model.model.0"}
    for i in range(2, DEPTH):
        names[f"down{i}.conv"] = f"{_nested(i - 2)}.model.1"
        names[f"down{i}.norm"] = f"{_nested(i - 2)}.model.2"
    innermost = _nested(DEPTH - 2)
    names[f"down{DEPTH}.conv"] = f"{innermost}.model.1"
    names[f"up{DEPTH}.conv"] = f"{innermost}.model.3"
    names[f"up{DEPTH}.norm"] = f"{innermost}.model.4"
    for i in range(DEPTH - 1, 1, -1):
        # Guidance and shift are modules of their own in front of the convolution.
        index = 7 if i == SHIFT else 5
        names[f"up{i}.conv"] = f"{_nested(i - 2)}.model.{index}"
        names[f"up{i}.norm"] = f"{_nested(i - 2)}.model.{index + 1}"
    names["up1.conv"] = "model.model.3"
    return names


def _face_names() -> dict[str, str]:
    names = {}
    for i in range(1, DEPTH + 1):
        names[f"down{i}.conv"] = f"e{i}_c"
        names[f"down{i}.norm"] = f"e{i}_norm"
        names[f"up{i}.conv"] = f"d{DEPTH + 1 - i}_dc"
        names[f"up{i}.norm"] = f"d{DEPTH + 1 - i}_norm"
    return names


def _keys(names: Mapping[str, str], network: nn.Module) -> dict[str, Place]:
    own = network.state_dict()
    return {
        f"{theirs}.{kind}": f"{ours}.{kind}"
        for ours, theirs in names.items()
        for kind in _KINDS
        if f"{ours}.{kind}" in own
    }


def _critic_keys(network: nn.Module) -> dict[str, Place]:
    keys: dict[str, Place] = {}
    names = {}
    for i, position in enumerate((0, 2, 5, 8, 11), start=1):
        keys.update(spectral_keys(f"model.{position}", f"conv{i}"))
        names[f"conv{i}"] = f"model.{position}"
        names[f"norm{i}"] = f"model.{position + 1}"
    return {**keys, **_keys(names, network)}


def _generator_options(stem: str, face: bool) -> Any:
    def options(state: Mapping[str, Tensor]) -> dict[str, Any]:
        width, inputs = state[stem].shape[:2]
        return {"base_channels": width, "in_channels": inputs, "face": face}

    return options


def _generator_recipe(mirror: str | None) -> Any:
    def recipe(state: Mapping[str, Tensor]) -> dict[str, Any]:
        counted = any(key.endswith("num_batches_tracked") for key in state)
        return {"mirror": mirror, "norm": "batch" if counted else "instance"}

    return recipe


def _stated(state: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Whether the file tells the normalisation.

    Statistics without counters are those of a batch norm of PyTorch before 0.4.1, or of an instance
    norm before 0.4. With "instance" either computes what the public test script does.
    """
    counted = any(key.endswith("num_batches_tracked") for key in state)
    return ("norm",) if counted or not any(k.endswith("running_mean") for k in state) else ()


def _critic_recipe(state: Mapping[str, Tensor]) -> dict[str, Any]:
    # Convolutions before an instance norm have a bias.
    batch = "model.3.running_mean" in state and "model.2.bias" not in state
    return {"norm": "batch" if batch else "instance"}


_KINDS = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
# Dropped where the network has none: old files carry statistics of instance norms.
_STATISTICS = (r"running_(mean|var)$", r"num_batches_tracked$")
_HINT = "it has statistics without counters, as batch and instance norms of old PyTorch wrote them"
_PORT = "Zhaoyi-Yan/Shift-Net_pytorch"


@register_model("shift_net")
class ShiftNet(InpaintingModel):
    """U-Net with the shift connection, 70 x 70 patch discriminator.

    Published models for a centre hole work for exactly that hole, 120 x 120 of 256 x 256.

    Args:
        base_channels: width of the generator's first layer.
        critic_channels: width of the discriminator's first layer.
        in_channels: 4, picture and known pixels, or 3, picture alone.
        face: kernel 6 in the third layer, as in the published model for faces.
        mirror: whether features of the mirrored picture are shifted too: None (no), "port" (as the
            code that the model for faces was trained with, index arithmetic included) or "exact"
            (what that code means); see `MirroredShift`. Files of the face model imply "port".
        norm: "instance", or "batch" for weights trained so; recognised by the counters beside its
            statistics. Files of old PyTorch have statistics without counters for both: "instance"
            is assumed then, and a note says so. In evaluation "batch" uses the statistics of the
            training. The public test script stays in training mode with one picture at a time,
            which is what the same weights compute with norm="instance".
        channel_order: of the pictures the weights were trained on.

    Source: Yan et al., ECCV 2018 (arXiv 1801.09392); Zhaoyi-Yan/Shift-Net_pytorch.
    """

    multiple = 8
    minimum = MINIMUM
    layouts = (
        Layout(
            "zhaoyiyan",
            "generator",
            lambda network: _keys(_unet_names(), network),
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
            lambda network: _keys(_face_names(), network),
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
            _critic_keys,
            signature=("model.0.weight_orig", "model.3.weight"),
            options=lambda state: {"critic_channels": state["model.0.weight_orig"].shape[0]},
            recipe=_critic_recipe,
            ignored=_STATISTICS,
            licence="MIT",
            source=_PORT,
        ),
    )
    recipe_class = ShiftNetRecipe

    def __init__(
        self,
        *,
        base_channels: int = 64,
        critic_channels: int = 64,
        in_channels: int = 4,
        face: bool = False,
        mirror: str | None = None,
        norm: str = "instance",
        channel_order: str = "rgb",
    ) -> None:
        super().__init__(channel_order=channel_order)
        checks.check_int(_OP, "base_channels", base_channels)
        checks.check_int(_OP, "critic_channels", critic_channels)
        if mirror is not None:
            checks.check_choice(_OP, "mirror", mirror, RULES)
        checks.check_choice(_OP, "norm", norm, ("instance", "batch"))
        if in_channels not in (3, 4):
            raise ValueError(f"{_OP}: in_channels must be 3 or 4, got {in_channels}")
        self.base_channels = base_channels
        self.critic_channels = critic_channels
        self.in_channels = in_channels
        self.face = face
        self.mirror = mirror
        self.norm = norm
        self.generator = Generator(base_channels, in_channels, face=face, mirror=mirror, norm=norm)
        self.discriminator = Discriminator(critic_channels, norm)

    @classmethod
    def read_options(cls, state: State) -> Implied:
        """As `InpaintingModel.read_options`."""
        facts: dict[str, Any] = {}
        if "generator.down1.conv.weight" in state:
            width, inputs = state["generator.down1.conv.weight"].shape[:2]
            facts = {"base_channels": width, "in_channels": inputs}
            facts["face"] = state[f"generator.down{SHIFT}.conv.weight"].shape[2] == 6
        judge = "discriminator.conv1.parametrizations.weight.original"
        if judge in state:
            facts["critic_channels"] = state[judge].shape[0]
        counted = any(key.endswith("norm2.running_mean") for key in state) or (
            "generator.down2.norm.running_mean" in state
        )
        facts["norm"] = "batch" if counted else "instance"
        return Implied(facts, ("channel_order", "mirror"))

    def prepared(self, image: Tensor, hole: Tensor) -> Tensor:
        """What the generator takes of a picture in [-1, 1] and a hole, (N, in_channels, H, W)."""
        return stacked(image, 1 - hole) if self.in_channels == 4 else image

    def generate(self, image: Tensor, hole: Tensor) -> Tensor:
        """The picture in [-1, 1] for (N, 3, H, W) in [0, 1] and (N, 1, H, W)."""
        result: Tensor = self.generator(self.prepared(erase(signed(image), hole), hole), hole)
        return result

    def _fill(self, image: Tensor, hole: Tensor, *, seed: int) -> Tensor:
        return unsigned(self.generate(image, hole))
