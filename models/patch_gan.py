"""Patch-based GAN: dilated residual generator, discriminator with a global and a patch head."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from inpaint_ops.checkpoints import State
from inpaint_ops.layers import FusedConv2d
from inpaint_ops.losses import discriminator_loss, generator_loss, l1_loss
from inpaint_ops.models._blocks import ConvBlock, composite, initialise, signed, stacked, unsigned
from inpaint_ops.models._layouts import Implied
from inpaint_ops.models._model import InpaintingModel
from inpaint_ops.models._registry import register_model
from inpaint_ops.models._training import Phase, TrainingRecipe, adam, descend, frozen
from inpaint_ops.ops import _common

_MOST_BLOCKS = 256


class ResidualBlock(nn.Module):
    """x + norm(conv(relu(norm(conv(x))))): one of the two 3x3 convolutions may be dilated."""

    def __init__(self, channels: int, dilations: tuple[int, int]) -> None:
        super().__init__()
        first, second = dilations
        self.first = ConvBlock(channels, channels, 3, padding=first, dilation=first, bias=False)
        self.second = ConvBlock(
            channels,
            channels,
            3,
            padding=second,
            dilation=second,
            bias=False,
            activation="identity",
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, H, W) to the same."""
        y: Tensor = self.second(self.first(x))
        return x + y


class Generator(nn.Module):
    """Stem, two halvings, dilated residual blocks, two doublings (nearest, then convolved).

    Args:
        in_channels: 3, or 4 with the mask as last channel.
        base_channels: filters of the stem.
        dilations: of the residual blocks.
        dilated: which convolution of a block: "first" (type b of the paper), "second" (c), "none".
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        base_channels: int = 64,
        dilations: tuple[int, ...] = (1, 2, 4, 8, 16),
        dilated: str = "first",
    ) -> None:
        super().__init__()
        c = base_channels
        wide: dict[str, Any] = {"padding": 3, "padding_mode": "reflect"}
        self.stem = ConvBlock(in_channels, c, 7, bias=False, **wide)
        self.down = nn.Sequential(
            ConvBlock(c, 2 * c, 3, stride=2, padding=1, bias=False),
            ConvBlock(2 * c, 4 * c, 3, stride=2, padding=1, bias=False),
        )
        pairs = {"first": lambda d: (d, 1), "second": lambda d: (1, d), "none": lambda d: (1, 1)}
        self.middle = nn.Sequential(*(ResidualBlock(4 * c, pairs[dilated](d)) for d in dilations))
        self.up = nn.Sequential(
            ConvBlock(4 * c, 2 * c, 3, padding=1, bias=False, upsample=2),
            ConvBlock(2 * c, c, 3, padding=1, bias=False, upsample=2),
        )
        self.output = FusedConv2d(c, 3, 7, activation="tanh", **wide)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) in [-1, 1] to (N, 3, H, W) in [-1, 1].

        Sides are multiples of 4; others give the next ones.
        """
        y: Tensor = self.output(self.up(self.middle(self.down(self.stem(x)))))
        return y


def _judge(i: int, o: int, stride: int) -> ConvBlock:
    return ConvBlock(i, o, 4, stride=stride, padding=1, bias=False, activation="leaky_relu")


class Discriminator(nn.Module):
    """A trunk for two heads: one logit for the whole picture, one for each patch of 70 pixels.

    Args:
        size: side of the picture, a multiple of 64: the global head ends in a dense layer.
        base_channels: filters of the first layer.
    """

    def __init__(self, *, size: int = 256, base_channels: int = 64) -> None:
        super().__init__()
        if size < 64 or size % 64:
            raise ValueError(f"patch_gan: image_size must be a multiple of 64, got {size}")
        self.size = size
        c = base_channels
        self.trunk = nn.Sequential(
            FusedConv2d(3, c, 4, 2, 1, activation="leaky_relu"),
            _judge(c, 2 * c, 2),
            _judge(2 * c, 4 * c, 2),
        )
        self.patch_head = nn.Sequential(_judge(4 * c, 8 * c, 1), FusedConv2d(8 * c, 1, 4, 1, 1))
        self.global_head = nn.Sequential(
            _judge(4 * c, 8 * c, 2),
            _judge(8 * c, 8 * c, 2),
            _judge(8 * c, 8 * c, 2),
        )
        self.fuse = nn.Linear(8 * c * (size // 64) ** 2, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 3, size, size) in [-1, 1] to logits: global (N,), patches (N, 1, size/8 - 2, same).

        Raises:
            ValueError: another size.
        """
        if x.dim() != 4 or tuple(x.shape[1:]) != (3, self.size, self.size):
            raise ValueError(
                f"patch_gan.discriminator: x must have shape (N, 3, {self.size}, {self.size}), "
                f"got {tuple(x.shape)}"
            )
        shared = self.trunk(x)
        whole: Tensor = self.fuse(self.global_head(shared).contiguous().flatten(1))
        patches: Tensor = self.patch_head(shared)
        return whole.flatten(), patches


@register_model("patch_gan")
class PatchGAN(InpaintingModel):
    """Patch-based image inpainting: after Demir & Unal, not checked against their code.

    No code or weights of the authors could be found, so there is no public layout. From the paper
    (abstract and introduction read, the rest recalled): a residual generator with dilated blocks of
    "type b" whose dilation doubles, as many doublings as halvings, upsampling before convolution; a
    discriminator that shares its first layers between a global and a patch head; the three loss
    weights. Chosen by us, and options where they are options: all numbers of layers, widths and
    kernels, five blocks with dilations 1 to 16, nearest upsampling, batch normalisation everywhere
    but at the ends, no ReLU behind the sum of a block, reflected edges, three input channels, mean
    colour in the hole, the range [-1, 1] with tanh, compositing, optimiser and rates.

    Args:
        base_channels: filters of the first layers.
        in_channels: 3 as in the paper, or 4: the mask too.
        dilations: of the residual blocks, as many as there are.
        dilated: "first" convolution of a block (type b), "second" (type c) or "none" (type a).
        mean: colour of the hole (R, G, B) in [0, 1].
        image_size: side of the pictures that the discriminator judges, a multiple of 64.
        channel_order: "rgb" or "bgr".

    Source: Demir and Unal, 2018 (arXiv 1803.07422).
    """

    multiple = 4
    minimum = 4

    def __init__(
        self,
        *,
        base_channels: int = 64,
        in_channels: int = 3,
        dilations: tuple[int, ...] = (1, 2, 4, 8, 16),
        dilated: str = "first",
        mean: tuple[float, float, float] = (0.5, 0.5, 0.5),
        image_size: int = 256,
        channel_order: str = "rgb",
    ) -> None:
        super().__init__(channel_order=channel_order)
        _common.check_int(self.name, "base_channels", base_channels)
        _common.check_choice(self.name, "dilated", dilated, ("first", "second", "none"))
        if in_channels not in (3, 4):
            raise ValueError(f"{self.name}: in_channels must be 3 or 4, got {in_channels}")
        if len(mean) != 3 or not all(0 <= level <= 1 for level in mean):
            raise ValueError(f"{self.name}: mean must be three numbers in [0, 1], got {mean}")
        if len(dilations) > _MOST_BLOCKS:
            raise ValueError(
                f"{self.name}: dilations must be at most {_MOST_BLOCKS}, got {len(dilations)}"
            )
        for dilation in dilations:
            _common.check_int(self.name, "dilations", dilation)
        self.base_channels = base_channels
        self.in_channels = in_channels
        self.dilations = tuple(dilations)
        self.dilated = dilated
        self.mean = tuple(mean)
        self.image_size = image_size
        self.generator = Generator(
            in_channels=in_channels,
            base_channels=base_channels,
            dilations=self.dilations,
            dilated=dilated,
        )
        self.discriminator = Discriminator(size=image_size, base_channels=base_channels)
        initialise(self, 0.02)

    @classmethod
    def read_options(cls, state: State) -> Implied:
        """As `InpaintingModel.read_options`."""
        facts: dict[str, Any] = {}
        asked: dict[str, str] = {}
        unstated: tuple[str, ...] = ("mean", "channel_order")
        stem = state.get("generator.stem.conv.weight")
        if stem is not None:
            facts = {"base_channels": stem.shape[0], "in_channels": stem.shape[1]}
            blocks = {key.split(".")[2] for key in state if key.startswith("generator.middle.")}
            unstated = ("dilations", "dilated", *unstated)
            if len(blocks) != 5:
                text = f"the dilation of each of its {len(blocks)} residual blocks"
                asked["dilations"] = text
        if "discriminator.fuse.weight" in state:
            base = state["discriminator.trunk.0.weight"].shape[0]
            facts["base_channels"] = base
            cells = math.isqrt(state["discriminator.fuse.weight"].shape[1] // (8 * base))
            facts["image_size"] = 64 * cells
        return Implied(facts, unstated, asked)

    def inputs(self, image: Tensor, hole: Tensor) -> Tensor:
        """What the generator sees, from a picture in [0, 1] and its hole."""
        levels = self.mean if self.channel_order == "rgb" else self.mean[::-1]
        seen = signed(torch.where(hole > 0, image.new_tensor(levels).view(3, 1, 1), image))
        return stacked(seen, hole.to(seen.dtype)) if self.in_channels == 4 else seen

    def _fill(self, image: Tensor, hole: Tensor, *, seed: int) -> Tensor:
        return unsigned(self.generator(self.inputs(image, hole)))


class PatchGANRecipe(TrainingRecipe):
    """Discriminator, then generator: L1 over the whole picture and one adversary for each head.

    Loss weights are the paper's (recalled); each head's logits are averaged over patches and
    samples. Ours: Adam with beta1 = 0.5 and rate 2e-4 for both, batches of 8, the non-saturating
    generator loss, equal weights of the heads in the discriminator's loss, real and completed
    pictures judged in separate passes, completions composited with what is known. Pictures are
    `image_size` squares; holes of 128 x 128 pixels, in the middle or anywhere.

    Source: Demir and Unal, 2018 (arXiv 1803.07422), section 3.
    """

    phases = (
        Phase(
            "joint",
            batch=8,
            numbers={
                "generator_rate": 2e-4,
                "discriminator_rate": 2e-4,
                "reconstruction": 0.995,
                "global_adversarial": 0.0025,
                "patch_adversarial": 0.0025,
            },
        ),
    )
    model: PatchGAN

    def build_optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Adam for both networks."""
        return {
            name: adam(
                self.model.get_submodule(name).parameters(),
                self.numbers[f"{name}_rate"],
                (0.5, 0.999),
            )
            for name in ("discriminator", "generator")
        }

    def update(self, image: Tensor, hole: Tensor) -> dict[str, Tensor]:
        """One step of each network."""
        model, numbers = self.model, self.numbers
        target = signed(image)
        prediction = model.generator(model.inputs(image, hole))
        completed = composite(target, prediction, hole)
        pairs = zip(model.discriminator(target), model.discriminator(completed.detach()))
        judged = [discriminator_loss(real, fake) for real, fake in pairs]
        descend(self.optimizers["discriminator"], judged[0] + judged[1])
        reconstruction = l1_loss(prediction, target)
        with frozen(model.discriminator):
            whole, patches = (generator_loss(fake) for fake in model.discriminator(completed))
            total = (
                numbers["reconstruction"] * reconstruction
                + numbers["global_adversarial"] * whole
                + numbers["patch_adversarial"] * patches
            )
            descend(self.optimizers["generator"], total)
        return {
            "global_discriminator": judged[0],
            "patch_discriminator": judged[1],
            "reconstruction": reconstruction,
            "global_adversarial": whole,
            "patch_adversarial": patches,
        }


PatchGAN.recipe_class = PatchGANRecipe
