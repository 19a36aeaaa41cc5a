"""DeepFill v2: free-form inpainting with gated convolution."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from inpaint_ops.checkpoints import State
from inpaint_ops.layers import ContextualAttention, FusedConv2d, GatedConv2d
from inpaint_ops.losses import discriminator_loss, generator_loss, l1_loss
from inpaint_ops.models import _deepfill_v2_zhaoyuzhi
from inpaint_ops.models._blocks import (
    composite,
    erase,
    pad_for,
    signed,
    spectral,
    spectral_keys,
    stacked,
    unsigned,
)
from inpaint_ops.models._deepfill_v2_zhaoyuzhi import (
    MINIMUM_REFLECTED,
    PORT_CHOICES,
    Style,
    ZhaoyuzhiCritic,
    ZhaoyuzhiGenerator,
)
from inpaint_ops.models._layouts import Implied, Layout, Place, fixed
from inpaint_ops.models._model import InpaintingModel
from inpaint_ops.models._registry import register_model
from inpaint_ops.models._training import Phase, TrainingRecipe, adam, descend, frozen
from inpaint_ops.models._two_stage import COARSE, Refinement, chain, check_sides, to_picture
from inpaint_ops.ops import _common


class Generator(nn.Module):
    """Both stages; ELU on the features, no normalisation.

    Args:
        width: channels of the first layer.
        inputs: 5, or 6 with a sketch.
        padding: "same" or "symmetric".
        attention: the layer in the middle.
    """

    def __init__(
        self, width: int, inputs: int, padding: str, attention: ContextualAttention
    ) -> None:
        super().__init__()
        coarse = chain(GatedConv2d, COARSE, inputs, width, padding)
        self.coarse = to_picture(coarse, "conv17", width, padding, "tanh")
        self.refinement = Refinement(GatedConv2d, 3, width, padding, attention, "tanh")
        for module in self.modules():
            if isinstance(module, FusedConv2d):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: Tensor, hole: Tensor) -> tuple[Tensor, Tensor]:
        """Fills in two steps.

        Args:
            x: (N, 5, H, W): picture in [-1, 1] with 0 where it is missing, ones, hole; with a
                sketch (N, 6, H, W), its lines inside the hole as channel 3. Sides are multiples
                of 8 in the ports; multiples of 4 round the attention's grid up.
            hole: (N, 1, H, W), 1 = missing.

        Returns:
            The pictures of both stages, (N, 3, H, W) in [-1, 1], known pixels predicted too.

        Raises:
            ValueError: other sides.
        """
        check_sides("deepfill_v2.generator", x)
        first: Tensor = self.coarse(x)
        second = self.refinement(
            composite(x[:, :3], first, hole).contiguous(memory_format=torch.channels_last), hole
        )
        return first, second


class PatchCritic(nn.Module):
    """SN-PatchGAN: six 5x5 convolutions of stride 2; every output judges a patch.

    Args:
        width: channels of the first layer.
        inputs: 4, or 5 with a sketch.
        padding: "same" or "symmetric".
    """

    def __init__(self, width: int = 64, inputs: int = 4, padding: str = "same") -> None:
        super().__init__()
        for index, times in enumerate((1, 2, 4, 4, 4, 4), start=1):
            layer = FusedConv2d(
                inputs, times * width, 5, 2, pad_for(5, 1, padding), activation="leaky_relu"
            )
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
            self.add_module(f"conv{index}", spectral(layer, always=True))
            inputs = times * width

    def forward(self, x: Tensor) -> Tensor:
        """(N, 4, H, W), picture in [-1, 1] and hole, to (N, patches) scores, channels outside."""
        for layer in self.children():
            x = layer(x)
        return x.flatten(1)


_NIPPONJO_COARSE = {
    "conv1": "conv1",
    "conv2_downsample": "down_block1.conv1_downsample",
    "conv3": "down_block1.conv2",
    "conv4_downsample": "down_block2.conv1_downsample",
    "conv5": "down_block2.conv2",
    "conv6": "conv_bn1",
    **{f"conv{7 + i}_atrous": f"conv_bn{2 + i}" for i in range(4)},
    "conv11": "conv_bn6",
    "conv12": "conv_bn7",
    "conv13_upsample": "up_block1.conv1_upsample.conv",
    "conv14": "up_block1.conv2",
    "conv15_upsample": "up_block2.conv1_upsample.conv",
    "conv16": "up_block2.conv2",
    "conv17": "conv_to_rgb",
}


def _nipponjo_name(ours: str) -> str:
    """From our name of a layer to the one in networks.py."""
    stage, _, layer = ours.rpartition(".")
    if stage == "coarse":
        return f"stage1.{_NIPPONJO_COARSE[layer]}"
    if layer.startswith("all"):
        return f"stage2.{_NIPPONJO_COARSE[layer[3:]]}"
    branch = "conv" if layer.startswith("x") else "ca"
    plain = layer[1:] if layer.startswith("x") else layer[2:]
    # Layers 7 and 8 of the attention branch are the attention: 9 and 10 are its bn4 and bn5.
    after = {"conv9": "conv_bn4", "conv10": "conv_bn5"}
    name = after[plain] if branch == "ca" and plain in after else _NIPPONJO_COARSE[plain]
    return f"stage2.{branch}_{name}"


def _tf_name(ours: str) -> str:
    layer = ours.rpartition(".")[2]
    return f"{layer}.conv" if layer.endswith("upsample") else layer


def _layers(network: nn.Module) -> list[str]:
    return [name for name, one in network.named_modules() if isinstance(one, FusedConv2d)]


def _nipponjo_keys(network: nn.Module) -> dict[str, Place]:
    kinds = ("weight", "bias")
    return {f"{_nipponjo_name(n)}.conv.{k}": f"{n}.{k}" for n in _layers(network) for k in kinds}


def _tf_keys(network: nn.Module) -> dict[str, Place]:
    kinds = ("weight", "bias")
    return {f"{_tf_name(n)}.conv.{k}": f"{n}.{k}" for n in _layers(network) for k in kinds}


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


def _critic_keys(network: nn.Module) -> dict[str, Place]:
    keys: dict[str, Place] = {}
    for name, _ in network.named_children():
        keys[f"{name}.conv_sn.bias"] = f"{name}.bias"
        keys.update(spectral_keys(f"{name}.conv_sn", name, "weight"))
    return keys


def _critic_convert(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k: v.flatten() if k.endswith("weight_u") else v for k, v in state.items()}


def _critic_restore(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        k: v.unsqueeze(1) if k.endswith("weight_u") else v
        for k, v in state.items()
        if not k.endswith("weight_v")
    }


# The first is the default.
_CHOICES = {"padding": ("same", "symmetric"), "activation": ("elu",), "norm": ("none",)}
_SOURCE = "nipponjo/deepfillv2-pytorch"
_LICENCE = "none stated; weights converted from the official ones are CC BY-NC 4.0"


@register_model("deepfill_v2")
class DeepFillV2(InpaintingModel):
    """Two-stage generator of gated convolutions with contextual attention, SN-PatchGAN critic.

    The defaults are the official TensorFlow network. nipponjo's two PyTorch ports differ from it:
    networks.py pads symmetrically and picks every second pixel (padding="symmetric",
    pick="floor"), networks_tf.py leaves the fuse step out (fuse=False); the layouts set that.
    The official weights were trained on BGR pictures (OpenCV's order), the port feeds its
    conversion of them RGB, and so do we: give channel_order="bgr" unless the converter swapped the
    first layer.

    Args:
        variant: "official", or "zhaoyuzhi" for the other network of that name, which has no
            sketch, pick and fuse; it is trained here by the official recipe.
        base_channels: filters of the first layer, twice its channels; 48 if None (zhaoyuzhi:
            channels, 64).
        critic_channels: channels of the critic's first layer.
        sketch: whether there is an extra channel for lines drawn by the user.
        padding: "same" (TensorFlow's rule, the default) or "symmetric"; of zhaoyuzhi's "zeros" (the
            default), "reflect" or "replicate", its --pad_type.
        pick: pixel picking of the attention, see `contextual_attention`.
        fuse: whether the attention adds up the scores of neighbours.
        activation: "elu"; of zhaoyuzhi's "leaky_relu" (the default), "relu", "selu" or "identity",
            its --activation.
        norm: "none"; of zhaoyuzhi's "instance" (the default) or "none", its --norm.
        channel_order: of the pictures the weights were trained on.

    Source: Yu et al., ICCV 2019 (arXiv 1806.03589); JiahuiYu/generative_inpainting v2.0.0.
    """

    multiple = 8
    minimum = 16
    networks = ("generator", "discriminator")
    layouts = (
        Layout(
            "nipponjo",
            "generator",
            _nipponjo_keys,
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
            _tf_keys,
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
            _critic_keys,
            signature=("conv1.conv_sn.weight", "conv6.conv_sn.weight"),
            options=_critic_options,
            recipe=fixed(padding="same"),
            unstated=("padding",),
            hint="both of the port's generators have critics of these names",
            nesting=("D",),
            convert=_critic_convert,
            restore=_critic_restore,
            licence=_LICENCE,
            source=_SOURCE,
        ),
        *_deepfill_v2_zhaoyuzhi.LAYOUTS,
    )

    def __init__(
        self,
        *,
        variant: str = "official",
        base_channels: int | None = None,
        critic_channels: int = 64,
        sketch: bool = False,
        padding: str | None = None,
        pick: str = "align_corners",
        fuse: bool = True,
        activation: str | None = None,
        norm: str | None = None,
        channel_order: str = "rgb",
    ) -> None:
        super().__init__(channel_order=channel_order)
        _common.check_choice("deepfill_v2", "variant", variant, ("official", "zhaoyuzhi"))
        official = variant == "official"
        if sketch and not official:
            raise ValueError("deepfill_v2: sketch must be False for variant 'zhaoyuzhi', got True")
        if base_channels is None:
            base_channels = 48 if official else 64
        _common.check_int("deepfill_v2", "base_channels", base_channels, 4)
        if base_channels % 4:
            raise ValueError(f"deepfill_v2: base_channels must be 4 n, got {base_channels}")
        _common.check_int("deepfill_v2", "critic_channels", critic_channels)
        chosen = []
        for option, value in (("padding", padding), ("activation", activation), ("norm", norm)):
            choices = (_CHOICES if official else PORT_CHOICES)[option]
            chosen.append(choices[0] if value is None else value)
            _common.check_choice("deepfill_v2", f"{option} of {variant}", chosen[-1], choices)
        padding, activation, norm = chosen
        self.variant = variant
        self.base_channels = base_channels
        self.critic_channels = critic_channels
        self.sketch = sketch
        self.padding = padding
        self.activation = activation
        self.norm = norm
        self.pick = pick
        self.fuse = fuse
        self.generator: Generator | ZhaoyuzhiGenerator
        self.discriminator: PatchCritic | ZhaoyuzhiCritic
        if official:
            attention = ContextualAttention(rate=2, fuse=fuse, pick=pick, n_down=2)
            self.generator = Generator(base_channels // 2, 5 + sketch, padding, attention)
            self.discriminator = PatchCritic(critic_channels, 4 + sketch, padding)
        else:
            style = Style(padding, activation, norm)
            self.generator = ZhaoyuzhiGenerator(base_channels, style)
            self.discriminator = ZhaoyuzhiCritic(critic_channels, style)
            if padding == "reflect":
                self.minimum = MINIMUM_REFLECTED

    @classmethod
    def read_options(cls, state: State) -> Implied:
        """As `InpaintingModel.read_options`."""
        facts = _deepfill_v2_zhaoyuzhi.read_options(state)
        if facts:
            return Implied(facts, ("padding", "activation", "norm", "channel_order"))
        facts = {}
        stem = state.get("generator.coarse.conv1.weight")
        if stem is not None:
            facts = {"base_channels": stem.shape[0], "sketch": stem.shape[1] == 6}
        judge = state.get("discriminator.conv1.parametrizations.weight.original")
        if judge is not None:
            facts |= {"critic_channels": judge.shape[0], "sketch": judge.shape[1] == 5}
        if facts:
            facts["variant"] = "official"
        return Implied(facts, ("padding", "pick", "fuse", "channel_order"))

    def generate(
        self, image: Tensor, hole: Tensor, sketch: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Both stages' pictures in [-1, 1] for (N, 3, H, W) in [0, 1] and (N, 1, H, W).

        `sketch`: (N, 1, H, W) lines, 1 = line, for a model built with sketch=True; none if None.
        """
        if self.variant == "zhaoyuzhi":
            first, second = self.generator(image, hole)
            return signed(first), signed(second)
        planes = [erase(signed(image), hole)]
        if self.sketch:
            lines = torch.zeros_like(hole) if sketch is None else sketch.to(hole.dtype)
            planes.append(lines * hole)
        first, second = self.generator(stacked(*planes, torch.ones_like(hole), hole), hole)
        return first, second

    def _fill(self, image: Tensor, hole: Tensor, *, seed: int) -> Tensor:
        return unsigned(self.generate(image, hole)[1])


class DeepFillV2Recipe(TrainingRecipe):
    """Both stages' l1 over all pixels, and the hinge game on the second one, critic first.

    Source: JiahuiYu/generative_inpainting v2.0.0: inpaint_model.py, inpaint.yml.
    """

    model: DeepFillV2
    phases = (Phase("joint", None, 16, {"learning_rate": 1e-4, "l1": 1.0, "adversarial": 1.0}),)

    def build_optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Adam (0.5, 0.999) for generator and critic."""
        rate, model = self.numbers["learning_rate"], self.model
        return {
            "generator": adam(model.generator.parameters(), rate, (0.5, 0.999)),
            "discriminator": adam(model.discriminator.parameters(), rate, (0.5, 0.999)),
        }

    def _judge(self, image: Tensor, hole: Tensor) -> Tensor:
        planes = [image, hole]
        if self.model.variant == "zhaoyuzhi":
            planes[0] = unsigned(image)
        if self.model.sketch:
            planes.append(torch.zeros_like(hole))
        scores: Tensor = self.model.discriminator(stacked(*planes))
        return scores

    def update(self, image: Tensor, hole: Tensor) -> dict[str, Tensor]:
        """Critic, then generator."""
        model, truth = self.model, signed(image)
        first, second = model.generate(image, hole)
        filled = composite(truth, second, hole)
        both = self._judge(torch.cat([truth, filled.detach()]), torch.cat([hole, hole]))
        real, fake = both.chunk(2)
        critic = discriminator_loss(real, fake, "hinge") / 2
        descend(self.optimizers["discriminator"], critic)
        with frozen(model.discriminator):
            adversarial = generator_loss(self._judge(filled, hole), "hinge")
            l1 = l1_loss(first, truth) + l1_loss(second, truth)
            total = self.numbers["l1"] * l1 + self.numbers["adversarial"] * adversarial
            descend(self.optimizers["generator"], total)
        return {"l1": l1, "adversarial": adversarial, "critic": critic, "generator": total}


DeepFillV2.recipe_class = DeepFillV2Recipe
