"""DeepFill v1: two stages of plain convolutions with contextual attention."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from inpaint_ops import reference
from inpaint_ops.checkpoints import State
from inpaint_ops.layers import ContextualAttention, FusedConv2d
from inpaint_ops.models._blocks import composite, erase, pad_for, signed, stacked, unsigned
from inpaint_ops.models._deepfill_v1_training import DeepFillV1Recipe
from inpaint_ops.models._layouts import Implied, Layout, Place, fixed
from inpaint_ops.models._model import InpaintingModel
from inpaint_ops.models._registry import register_model
from inpaint_ops.models._two_stage import COARSE, Refinement, chain, check_sides, to_picture
from inpaint_ops.ops import _common

_OP = "deepfill_v1"


class Generator(nn.Module):
    """Both stages; ELU everywhere, no normalisation, results cut off at -1 and 1.

    Args:
        width: channels of the first layer.
        padding: "same" or "symmetric".
        attention: the layer in the middle.
    """

    def __init__(self, width: int, padding: str, attention: ContextualAttention) -> None:
        super().__init__()
        coarse = chain(FusedConv2d, COARSE, 5, width, padding)
        self.coarse = to_picture(coarse, "conv17", width, padding, "clip")
        self.refinement = Refinement(FusedConv2d, 5, width, padding, attention, "clip")
        _initialise(self)

    def forward(self, x: Tensor, hole: Tensor) -> tuple[Tensor, Tensor]:
        """Fills in two steps.

        Args:
            x: (N, 3, H, W) in [-1, 1] with 0 where it is missing. Sides are multiples of 8 in the
                ports; multiples of 4 round the attention's grid up.
            hole: (N, 1, H, W), 1 = missing.

        Returns:
            The pictures of both stages, (N, 3, H, W) in [-1, 1], known pixels predicted too.

        Raises:
            ValueError: other sides.
        """
        check_sides(f"{_OP}.generator", x)
        ones = torch.ones_like(hole)
        first: Tensor = self.coarse(stacked(x, ones, hole))
        second = self.refinement(stacked(composite(x, first, hole), ones, hole), hole)
        return first, second


class TwiceDifferentiable(FusedConv2d):
    """`FusedConv2d` by PyTorch's own operators, whose gradients have gradients."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) to (N, out_channels, Ho, Wo)."""
        return reference.fused_conv2d(
            x,
            self.weight,
            self.bias,
            stride=self.stride,
            padding=self.padding,
            activation=self.activation,
        )


class Critic(nn.Module):
    """Four 5x5 convolutions of stride 2 and a linear layer: one number for a picture.

    Args:
        width: channels of the first layer.
        last: channels of the fourth layer.
        side: of the square pictures it takes, a multiple of 16.
        padding: "same" or "symmetric".
    """

    def __init__(self, width: int, last: int, side: int, padding: str) -> None:
        super().__init__()
        inputs = 3
        for i, outputs in enumerate((width, 2 * width, 4 * width, last), start=1):
            pad = pad_for(5, 1, padding)
            layer = TwiceDifferentiable(inputs, outputs, 5, 2, pad, activation="leaky_relu")
            self.add_module(f"conv{i}", layer)
            inputs = outputs
        self.linear = nn.Linear(last * (side // 16) ** 2, 1)
        _initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, side, side) in [-1, 1] to (N, 1)."""
        for i in range(1, 5):
            x = self.get_submodule(f"conv{i}")(x)
        y: Tensor = self.linear(x.flatten(1))
        return y


def _initialise(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, (FusedConv2d, nn.Linear)):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def _public_name(ours: str) -> str:
    """From our name of a generator's layer to daa233's."""
    stage, _, layer = ours.rpartition(".")
    plain = layer.removesuffix("_upsample")
    if stage == "coarse":
        return f"coarse_generator.{plain}"
    return f"fine_generator.{plain.removeprefix('x')}"


def _generator_keys(network: nn.Module) -> dict[str, Place]:
    names = [name for name, one in network.named_modules() if isinstance(one, FusedConv2d)]
    kinds = ("weight", "bias")
    return {f"{_public_name(n)}.conv.{k}": f"{n}.{k}" for n in names for k in kinds}


def _critic_keys(network: nn.Module) -> dict[str, Place]:
    keys: dict[str, Place] = {}
    for kind in ("weight", "bias"):
        for i in range(1, 5):
            keys[f"dis_conv_module.conv{i}.conv.{kind}"] = f"conv{i}.{kind}"
        keys[f"linear.{kind}"] = f"linear.{kind}"
    return keys


_STEM = "coarse_generator.conv1.conv.weight"


_OFFICIAL_RECIPE = {"padding": "same", "pick": "align_corners", "key_norm": "max"}
_PORT_RECIPE = {"padding": "symmetric", "pick": "floor", "key_norm": "sum"}
_TRAINER = r"^(netG|localD|globalD)\."


def _generator_options(state: Mapping[str, Tensor]) -> dict[str, Any]:
    return {"base_channels": state[_STEM].shape[0]}


def _is_converted(state: Mapping[str, Tensor]) -> bool | None:
    """Whether a trainer's file has the official local critic, which is wider; None without one."""
    layer = state.get("localD.dis_conv_module.conv4.conv.weight")
    return None if layer is None else layer.shape[0] != layer.shape[1]


def _whose(state: Mapping[str, Tensor], prefix: str) -> str | None:
    """The port's own files of generators have no prefix; with one they are of either kind."""
    if not prefix or _is_converted(state) is not None:
        return None
    return (
        "keys that begin with netG. are those of the port's trainer or of the official weights "
        "converted for it, which pad otherwise and were trained on BGR pictures: give "
        "layout='daa233' or layout='daa233_tf' (--layout)"
    )


def _critic_side(state: Mapping[str, Tensor]) -> int:
    layer = state["dis_conv_module.conv4.conv.weight"]
    return 16 * math.isqrt(state["linear.weight"].shape[1] // layer.shape[0])


def _critic_recipe(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The official local critic doubles its width in the last layer, the port's does not."""
    layer = state["dis_conv_module.conv4.conv.weight"]
    converted = layer.shape[0] != layer.shape[1] or _is_converted(state)
    return {"padding": "same" if converted else "symmetric"}


def _which_critic(state: Mapping[str, Tensor], prefix: str) -> str | None:
    side = _critic_side(state)
    if side in (128, 256):
        return None
    return (
        f"a critic for pictures of {side} pixels may be the global or the local one: give "
        "layout='daa233/global_critic' or layout='daa233/local_critic'"
    )


def _critic_options(local: bool) -> Any:
    def options(state: Mapping[str, Tensor]) -> dict[str, Any]:
        width = state["dis_conv_module.conv1.conv.weight"].shape[0]
        implied: dict[str, Any] = {
            "critic_channels": width,
            "size": _critic_side(state) * (2 if local else 1),
        }
        if local:
            implied["local_channels"] = state["dis_conv_module.conv4.conv.weight"].shape[0]
        return implied

    return options


_PORT = "daa233/generative-inpainting-pytorch"


def _critic_layout(network: str, name: str) -> Layout:
    local = network == "local_critic"
    return Layout(
        "daa233",
        network,
        _critic_keys,
        signature=("dis_conv_module.conv1.conv.weight", "linear.weight"),
        # Both have the same keys; the published ones see 256 and 128 pixels.
        recognise=lambda state: (_critic_side(state) < 256) == local,
        doubt=_which_critic,
        options=_critic_options(local),
        recipe=_critic_recipe,
        names=(name,),
        channel_order=None,
        ignored=(_TRAINER,),
        licence="MIT",
        source=_PORT,
    )


@register_model("deepfill_v1")
class DeepFillV1(InpaintingModel):
    """Coarse and refined picture, contextual attention, critics for the whole and for the hole.

    The defaults are the official TensorFlow networks. The PyTorch port pads symmetrically, picks
    every second pixel, adds its epsilon to every element of a key (padding="symmetric",
    pick="floor", key_norm="sum") and halves the local critic's last layer; its layout sets that.
    Its conversion of the official weights (layout "daa233_tf") gets the official arithmetic and
    channel order: the official weights were trained on BGR pictures, and that the conversion kept
    their order is an assumption. Its keys begin with "netG.", as those of a state dict of the
    port's trainer do: where no local critic tells which of the two a file is, give the layout.

    Args:
        base_channels: width of the generator's first layer.
        critic_channels: width of the critics' first layer.
        local_channels: width of the local critic's last layer; None: 8 critic_channels.
        size: side of the pictures of a training step, a multiple of 32; the local critic sees half.
        padding: "same" (TensorFlow's rule) or "symmetric".
        pick: pixel picking of the attention, see `contextual_attention`.
        key_norm: of the attention, see `contextual_attention`.
        channel_order: of the pictures the weights were trained on.

    Source: Yu et al., CVPR 2018 (arXiv 1801.07892); JiahuiYu/generative_inpainting v1.0.0.
    """

    multiple = 8
    minimum = 16
    networks = ("generator", "global_critic", "local_critic")
    layouts = (
        Layout(
            "daa233",
            "generator",
            _generator_keys,
            signature=(_STEM, "fine_generator.pmconv1.conv.weight"),
            recognise=lambda state: _is_converted(state) is not True,
            doubt=_whose,
            options=_generator_options,
            recipe=fixed(**_PORT_RECIPE),
            prefixes=("netG.",),
            ignored=(_TRAINER,),
            licence="MIT",
            source=_PORT,
        ),
        Layout(
            "daa233_tf",
            "generator",
            _generator_keys,
            signature=(_STEM, "fine_generator.pmconv1.conv.weight"),
            recognise=lambda state: _is_converted(state) is not False,
            options=_generator_options,
            recipe=fixed(**_OFFICIAL_RECIPE),
            unstated=("channel_order",),
            hint="the official weights' order; that their conversion kept it is not known",
            prefix="netG.",
            ignored=(_TRAINER,),
            channel_order="bgr",
            licence="CC BY-NC 4.0",
            source=_PORT,
        ),
        _critic_layout("global_critic", "globalD"),
        _critic_layout("local_critic", "localD"),
    )
    recipe_class = DeepFillV1Recipe

    def __init__(
        self,
        *,
        base_channels: int = 32,
        critic_channels: int = 64,
        local_channels: int | None = None,
        size: int = 256,
        padding: str = "same",
        pick: str = "align_corners",
        key_norm: str = "max",
        channel_order: str = "rgb",
    ) -> None:
        super().__init__(channel_order=channel_order)
        _common.check_int(_OP, "base_channels", base_channels, 2)
        if base_channels % 2:
            raise ValueError(f"{_OP}: base_channels must be even, got {base_channels}")
        _common.check_int(_OP, "critic_channels", critic_channels)
        if local_channels is None:
            local_channels = 8 * critic_channels
        _common.check_int(_OP, "local_channels", local_channels)
        _common.check_int(_OP, "size", size, 32)
        if size % 32:
            raise ValueError(f"{_OP}: size must be a multiple of 32, got {size}")
        _common.check_choice(_OP, "padding", padding, ("same", "symmetric"))
        _common.check_choice(_OP, "pick", pick, ("floor", "align_corners"))
        _common.check_choice(_OP, "key_norm", key_norm, ("max", "sum"))
        self.base_channels = base_channels
        self.critic_channels = critic_channels
        self.local_channels = local_channels
        self.size = size
        self.padding = padding
        self.pick = pick
        self.key_norm = key_norm
        attention = ContextualAttention(rate=2, fuse=True, n_down=2, pick=pick, key_norm=key_norm)
        self.generator = Generator(base_channels, padding, attention)
        self.global_critic = Critic(critic_channels, 4 * critic_channels, size, padding)
        self.local_critic = Critic(critic_channels, local_channels, size // 2, padding)

    @classmethod
    def read_options(cls, state: State) -> Implied:
        """As `InpaintingModel.read_options`."""
        facts: dict[str, Any] = {}
        if "generator.coarse.conv1.weight" in state:
            facts["base_channels"] = state["generator.coarse.conv1.weight"].shape[0]
        for name, share in (("local_critic", 2), ("global_critic", 1)):
            if f"{name}.linear.weight" in state:
                last = state[f"{name}.conv4.weight"].shape[0]
                facts["critic_channels"] = state[f"{name}.conv1.weight"].shape[0]
                cells = math.isqrt(state[f"{name}.linear.weight"].shape[1] // last)
                facts["size"] = 16 * cells * share
                if name == "local_critic":
                    facts["local_channels"] = last
        return Implied(facts, ("padding", "pick", "key_norm", "channel_order"))

    def generate(self, image: Tensor, hole: Tensor) -> tuple[Tensor, Tensor]:
        """Both stages' pictures in [-1, 1] for (N, 3, H, W) in [0, 1] and (N, 1, H, W)."""
        first, second = self.generator(erase(signed(image), hole), hole)
        return first, second

    def _fill(self, image: Tensor, hole: Tensor, *, seed: int) -> Tensor:
        return unsigned(self.generate(image, hole)[1])
