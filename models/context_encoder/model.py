"""Context Encoder: a picture's missing part from its surroundings, by L2 and an adversary."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from inpaint_ops import checks
from inpaint_ops.checkpoints import State
from inpaint_ops.models.blocks.centre import fill_centre, fill_colour, largest_share
from inpaint_ops.models.blocks.conv_block import initialise
from inpaint_ops.models.blocks.pictures import composite, resized, signed, unsigned
from inpaint_ops.models.context_encoder.layouts import LAYOUTS, encoder_decoder_options
from inpaint_ops.models.context_encoder.networks import (
    VARIANTS,
    AlexNetEncoderDecoder,
    EncoderDecoder,
    PatchDiscriminator,
    RegionDiscriminator,
)
from inpaint_ops.models.method import InpaintingModel
from inpaint_ops.models.squares import hole_by_hole
from inpaint_ops.models.weights.layouts import Implied
from inpaint_ops.models.windows import Fill


class ContextEncoder(InpaintingModel):
    """Context Encoder: predicts what is missing from an encoding of what is around it.

    Variants, and how each completes a picture of any size:

    * "centre" (128^2 in, its middle 64^2 out, the net whose weights were published): a square
      around each sample's hole, see below.
    * "random_64", "random_128": the whole picture, resized to that size whatever its proportions,
      and the prediction resized back (bilinear, antialiased).
    * "alexnet": `AlexNetEncoderDecoder`, likewise at 227^2. Its docstring says how far it is
      verified.
    * "convolutional": the port of eriklindernoren, "centre" with a 1x1 bottleneck at 4x4 positions,
      white holes and normalisation with eps = 0.8, a slip of that port that its weights need; with
      overlap 0 (its layout sets that) and a discriminator of patches (`PatchDiscriminator`).

    "centre" was trained for one hole of 56^2 pixels in the middle of 128^2. Each hole of a picture
    is filled for itself; `Squares` says what is one hole, and what is filled in parts. The square
    is the smallest around the middle of the hole's bounding box whose predicted middle, less
    `overlap`, takes the box in: 128/56 of the box's longer side, rounded up to 32 pixels, and not
    below 128 pixels (or the image's shorter side). It is resized to 128^2, the dropped middle gets
    the mean colour, known pixels in there included, as in training, and the prediction is resized
    back to the hole. Where the square leaves the picture, as it must for holes of more than 0.44 of
    the picture's side, the network sees the mean colour. A `HoleNote` tells of a hole that leaves
    not even half as many known pixels in its square as are missing. Exported graphs take one square
    around all that is missing.

    The paper's channel-wise fully connected layer is in "alexnet" alone: the net for filling holes,
    whose weights were published, has a convolution over the whole map instead.

    Args:
        variant: see above.
        base_channels: filters of the first layer.
        bottleneck: length of the code; the published script's default is 100, its weights' 4000.
        bias: of convolutions; the published Torch weights have them (they hold one optimiser
            step), the port's have not.
        overlap: predicted pixels on each side whose surroundings are known: 4 in the code and the
            weights, 7 in the paper.
        channel_order: of the pictures the weights were trained on.

    Source: Pathak et al., CVPR 2016 (arXiv 1604.07379); pathak22/context-encoder: train.lua,
    train_random.lua; BoyuanJiang/context_encoder_pytorch: model.py.
    """

    multiple = 1
    minimum = 1
    layouts = LAYOUTS
    needs_all = True

    def __init__(
        self,
        *,
        variant: str = "centre",
        base_channels: int = 64,
        bottleneck: int = 4000,
        bias: bool = False,
        overlap: int = 4,
        channel_order: str = "rgb",
    ) -> None:
        super().__init__(channel_order=channel_order)
        checks.check_choice(self.name, "variant", variant, (*VARIANTS, "alexnet"))
        checks.check_int(self.name, "base_channels", base_channels)
        checks.check_int(self.name, "bottleneck", bottleneck)
        checks.check_int(self.name, "overlap", overlap, 0)
        if overlap > 31:
            raise ValueError(f"{self.name}: overlap must be below 32, got {overlap}")
        self.variant = variant
        self.base_channels = base_channels
        self.bottleneck = bottleneck
        self.bias = bias
        self.overlap = overlap
        self.generator: AlexNetEncoderDecoder | EncoderDecoder
        if variant == "alexnet":
            self.generator = AlexNetEncoderDecoder(base_channels=base_channels)
        else:
            self.generator = EncoderDecoder(
                variant=variant,
                base_channels=base_channels,
                bottleneck=bottleneck,
                bias=bias,
                eps=0.8 if variant == "convolutional" else 1e-5,
            )
        self.input_size = self.generator.input_size
        self.trained_size = self.input_size[0]
        if self.central:
            self.hole_share = largest_share(overlap)
        self.discriminator: PatchDiscriminator | RegionDiscriminator
        if variant == "convolutional":
            self.discriminator = PatchDiscriminator(base_channels=base_channels)
        else:
            self.discriminator = RegionDiscriminator(
                size=128 if variant == "random_128" else 64, base_channels=base_channels, bias=bias
            )
        initialise(self, 0.02, norms=True)

    @property
    def adversary(self) -> str:
        """Return the kind of the adversarial loss, see `inpaint_ops.losses.adversarial_term`."""
        return "lsgan" if self.variant == "convolutional" else "log"

    @property
    def central(self) -> bool:
        """Tell whether the network predicts the middle of its picture, not the whole."""
        return self.variant in ("centre", "convolutional")

    @classmethod
    def read_options(cls, state: State) -> Implied:
        """As `InpaintingModel.read_options`."""
        facts: dict[str, Any] = {}
        if "generator.bottleneck.weight" in state:
            facts["variant"] = "alexnet"
            facts["base_channels"] = state["generator.encoder.2.weight"].shape[0] // 4
        elif "generator.encoder.0.conv.weight" in state:
            facts |= encoder_decoder_options(state, "generator")
        if "discriminator.layers.0.weight" in state:
            facts["variant"] = "convolutional"
            facts["base_channels"] = state["discriminator.layers.0.weight"].shape[0]
        elif "discriminator.layers.0.conv.weight" in state:
            facts["base_channels"] = state["discriminator.layers.0.conv.weight"].shape[0]
            facts["bias"] = "discriminator.layers.0.conv.bias" in state
            if "discriminator.layers.5.conv.weight" in state:
                facts["variant"] = "random_128"
        return Implied(facts, ("overlap", "channel_order"))

    def colour(self, like: Tensor) -> Tensor:
        """Return the colour of missing pixels, (3, 1, 1) in [-1, 1]."""
        if self.variant == "convolutional":
            return like.new_ones(3, 1, 1)
        return fill_colour(like, self.channel_order)

    def _separated(self, fill: Fill) -> Fill:
        return hole_by_hole(fill, f"{self.name}.complete", self.overlap) if self.central else fill

    def _fill_with(
        self,
        image: Tensor,
        hole: Tensor,
        hints: tuple[Tensor, ...],
        *,
        wanted: Tensor | None,
        seed: int,
    ) -> Tensor:
        colour = self.colour(image)
        if self.central:
            options: dict[str, Any] = {"colour": colour, "overlap": self.overlap}
            return fill_centre(self.generator, image, hole, wanted=wanted, **options)
        seen = composite(signed(image), colour, hole)
        prediction = self.generator(resized(seen, self.input_size))
        return unsigned(resized(prediction, (image.shape[2], image.shape[3])))
