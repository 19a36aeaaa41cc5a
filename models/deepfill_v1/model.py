"""DeepFill v1: a coarse and a refined picture by plain convolutions and contextual attention."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from inpaint_ops import checks
from inpaint_ops.checkpoints import State
from inpaint_ops.layers import ContextualAttention
from inpaint_ops.models.blocks.pictures import erase, signed, unsigned
from inpaint_ops.models.deepfill_v1.layouts import LAYOUTS
from inpaint_ops.models.deepfill_v1.networks import Critic, Generator
from inpaint_ops.models.method import InpaintingModel
from inpaint_ops.models.weights.layouts import Implied

_OP = "deepfill_v1"


class DeepFillV1(InpaintingModel):
    """Coarse and refined picture, contextual attention, critics for the whole and for the hole.

    The defaults are the official TensorFlow networks. The PyTorch port pads symmetrically, picks
    every second pixel, adds its epsilon to every element of a key (padding="symmetric",
    pick="floor", key_norm="sum") and halves the local critic's last layer; its layout sets that.

    The layout "daa233_tf", official weights converted for the port, gets the official arithmetic
    and channel order. The official weights were trained on BGR pictures; that the conversion kept
    their order is an assumption. Keys of these files begin with "netG.", as in a state dict of the
    port's trainer. Give the layout where no local critic shows which of the two a file is.

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
    layouts = LAYOUTS

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
        checks.check_int(_OP, "base_channels", base_channels, 2)
        if base_channels % 2:
            raise ValueError(f"{_OP}: base_channels must be even, got {base_channels}")
        checks.check_int(_OP, "critic_channels", critic_channels)
        if local_channels is None:
            local_channels = 8 * critic_channels
        checks.check_int(_OP, "local_channels", local_channels)
        checks.check_int(_OP, "size", size, 32)
        if size % 32:
            raise ValueError(f"{_OP}: size must be a multiple of 32, got {size}")
        checks.check_choice(_OP, "padding", padding, ("same", "symmetric"))
        checks.check_choice(_OP, "pick", pick, ("floor", "align_corners"))
        checks.check_choice(_OP, "key_norm", key_norm, ("max", "sum"))
        self.base_channels = base_channels
        self.critic_channels = critic_channels
        self.local_channels = local_channels
        self.size = self.trained_size = size
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
        for name, parts in (("local_critic", 2), ("global_critic", 1)):
            if f"{name}.linear.weight" in state:
                last = state[f"{name}.conv4.weight"].shape[0]
                facts["critic_channels"] = state[f"{name}.conv1.weight"].shape[0]
                cells = math.isqrt(state[f"{name}.linear.weight"].shape[1] // last)
                facts["size"] = 16 * cells * parts
                if name == "local_critic":
                    facts["local_channels"] = last
        return Implied(facts, ("padding", "pick", "key_norm", "channel_order"))

    def generate(self, image: Tensor, hole: Tensor) -> tuple[Tensor, Tensor]:
        """Return both stages' pictures in [-1, 1] for (N, 3, H, W) in [0, 1] and (N, 1, H, W)."""
        first, second = self.generator(erase(signed(image), hole), hole)
        return first, second

    def _fill(self, image: Tensor, hole: Tensor, *, seed: int) -> Tensor:
        return unsigned(self.generate(image, hole)[1])
