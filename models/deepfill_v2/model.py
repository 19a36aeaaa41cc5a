"""DeepFill v2: a coarse and a refined picture by gated convolutions and contextual attention."""

from __future__ import annotations

from torch import Tensor

from inpaint_ops import checks
from inpaint_ops.checkpoints import State
from inpaint_ops.layers import ContextualAttention
from inpaint_ops.models.blocks.lines import thresholded
from inpaint_ops.models.blocks.pictures import erase, signed, stacked, unsigned
from inpaint_ops.models.deepfill_v2 import zhaoyuzhi
from inpaint_ops.models.deepfill_v2.layouts import LAYOUTS
from inpaint_ops.models.deepfill_v2.networks import Generator, PatchCritic
from inpaint_ops.models.deepfill_v2.zhaoyuzhi import (
    MINIMUM_REFLECTED,
    PORT_CHOICES,
    Style,
    ZhaoyuzhiCritic,
    ZhaoyuzhiGenerator,
)
from inpaint_ops.models.method import InpaintingModel
from inpaint_ops.models.weights.layouts import Implied

# Edges above it are lines of a sketch, in the official code.
_THRESHOLD = 0.6
# Options of the official network; the first is the default.
_CHOICES = {"padding": ("same", "symmetric"), "activation": ("elu",), "norm": ("none",)}


class DeepFillV2(InpaintingModel):
    """Two-stage generator of gated convolutions with contextual attention, SN-PatchGAN critic.

    The defaults are the official TensorFlow network. nipponjo's two PyTorch ports differ from it:
    networks.py pads symmetrically and picks every second pixel (padding="symmetric",
    pick="floor"), networks_tf.py leaves the fuse step out (fuse=False). The layouts set that.

    The official weights were trained on BGR pictures (OpenCV's order). The port feeds RGB to its
    conversion of them, and so do we: give channel_order="bgr" unless the converter swapped the
    channels of the first layer.

    Args:
        variant: "official", or "zhaoyuzhi" for the other network of that name, which has no
            sketch, pick and fuse; it is trained here by the official recipe.
        base_channels: filters of the first layer, twice its channels; 48 if None (zhaoyuzhi:
            channels, 64).
        critic_channels: channels of the critic's first layer.
        sketch: add a channel for lines drawn into the hole, see `complete`. Values above 0.6 are
            lines. Training takes the pictures' own edges for them.
        padding: "same" (TensorFlow's rule, the default) or "symmetric"; of zhaoyuzhi's "zeros" (the
            default), "reflect" or "replicate", its --pad_type.
        pick: pixel picking of the attention, see `contextual_attention`.
        fuse: add up the scores of neighbours in the attention.
        activation: "elu"; of zhaoyuzhi's "leaky_relu" (the default), "relu", "selu" or "identity",
            its --activation.
        norm: "none"; of zhaoyuzhi's "instance" (the default) or "none", its --norm.
        channel_order: of the pictures the weights were trained on.

    Source: Yu et al., ICCV 2019 (arXiv 1806.03589); JiahuiYu/generative_inpainting v2.0.0.
    """

    multiple = 8
    minimum = 16
    networks = ("generator", "discriminator")
    layouts = LAYOUTS

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
        checks.check_choice("deepfill_v2", "variant", variant, ("official", "zhaoyuzhi"))
        official = variant == "official"
        if sketch and not official:
            raise ValueError("deepfill_v2: sketch must be False for variant 'zhaoyuzhi', got True")
        if base_channels is None:
            base_channels = 48 if official else 64
        checks.check_int("deepfill_v2", "base_channels", base_channels, 4)
        if base_channels % 4:
            raise ValueError(f"deepfill_v2: base_channels must be 4 n, got {base_channels}")
        checks.check_int("deepfill_v2", "critic_channels", critic_channels)
        chosen = []
        for option, value in (("padding", padding), ("activation", activation), ("norm", norm)):
            choices = (_CHOICES if official else PORT_CHOICES)[option]
            chosen.append(choices[0] if value is None else value)
            checks.check_choice("deepfill_v2", f"{option} of {variant}", chosen[-1], choices)
        padding, activation, norm = chosen
        self.variant = variant
        self.base_channels = base_channels
        self.critic_channels = critic_channels
        self.sketch = sketch
        self.hint_names = ("sketch",) if sketch else ()
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
        facts = zhaoyuzhi.read_options(state)
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

    def lines(self, hole: Tensor, sketch: Tensor | None = None) -> tuple[Tensor, ...]:
        """Return what the networks see of a sketch, (N, 1, H, W) in {0, 1}, 0 outside the hole.

        It is one plane for a model built with sketch=True, else none.

        Args:
            hole: (N, 1, H, W), 1 = missing.
            sketch: (N, 1, H, W) in [0, 1]; None: no line.
        """
        if not self.sketch:
            return ()
        if sketch is None:
            return (hole.new_zeros(hole.shape),)
        return (thresholded(sketch, _THRESHOLD).to(hole.dtype) * hole,)

    def generate(
        self, image: Tensor, hole: Tensor, sketch: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return both stages' pictures in [-1, 1] for (N, 3, H, W) in [0, 1] and (N, 1, H, W).

        `sketch`: of `lines`.
        """
        if self.variant == "zhaoyuzhi":
            first, second = self.generator(image, hole)
            return signed(first), signed(second)
        planes = (erase(signed(image), hole), *self.lines(hole, sketch))
        first, second = self.generator(stacked(*planes, hole.new_ones(hole.shape), hole), hole)
        return first, second

    def hints(self, image: Tensor, hole: Tensor) -> tuple[Tensor, ...]:
        """Return a sketch without a line for a model built with sketch=True, (N, 1, H, W)."""
        _, cells, _ = self._framed(image, (hole > 0).expand(image.shape[0], -1, -1, -1))
        return self.lines(cells)

    def _fill_with(
        self,
        image: Tensor,
        hole: Tensor,
        hints: tuple[Tensor, ...],
        *,
        wanted: Tensor | None,
        seed: int,
    ) -> Tensor:
        return unsigned(self.generate(image, hole, *hints)[1])
