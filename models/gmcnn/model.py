"""GMCNN: one picture from three columns of convolutions side by side."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from inpaint_ops import checks
from inpaint_ops.checkpoints import State
from inpaint_ops.models.blocks.pictures import erase, signed, stacked, unsigned
from inpaint_ops.models.gmcnn.layouts import LAYOUTS, critic_side
from inpaint_ops.models.gmcnn.networks import MINIMUM, Generator, GlobalLocalCritic
from inpaint_ops.models.method import InpaintingModel
from inpaint_ops.models.weights.layouts import Implied


class GMCNN(InpaintingModel):
    """Generative multi-column network: one stage without attention, trained by special losses.

    The network is that of the authors' PyTorch version. The paper's TensorFlow version pads with
    zeros and differs in some layers; its files do not fit. Reflection before the most dilated layer
    needs sides of 196 pixels; smaller pictures are padded.

    Args:
        base_channels: of the first layer of each column.
        critic_channels: of the critics' first layer.
        critic_size: side of the training pictures in pixels; the critics end in a linear layer.
        local_size: side of the square around the hole that the second critic sees: 128 for the
            public boxes, critic_size for brush strokes.
        channel_order: of the pictures the weights were trained on.

    Source: Wang et al., NeurIPS 2018 (arXiv 1810.08771); shepnerd/inpainting_gmcnn: pytorch.
    """

    multiple = 4
    minimum = MINIMUM
    layouts = LAYOUTS

    def __init__(
        self,
        *,
        base_channels: int = 32,
        critic_channels: int = 64,
        critic_size: int = 256,
        local_size: int = 128,
        channel_order: str = "rgb",
    ) -> None:
        super().__init__(channel_order=channel_order)
        for label, value, least in (
            ("base_channels", base_channels, 2),
            ("critic_channels", critic_channels, 1),
            ("critic_size", critic_size, 16),
            ("local_size", local_size, 16),
        ):
            checks.check_int(self.name, label, value, least)
        if base_channels % 2:
            raise ValueError(f"{self.name}: base_channels must be even, got {base_channels}")
        if local_size > critic_size:
            raise ValueError(
                f"{self.name}: local_size must be at most {critic_size}, got {local_size}"
            )
        self.base_channels = base_channels
        self.critic_channels = critic_channels
        self.critic_size = self.trained_size = critic_size
        self.local_size = local_size
        self.generator = Generator(base_channels)
        self.discriminator = GlobalLocalCritic(critic_channels, critic_size, local_size)

    @classmethod
    def read_options(cls, state: State) -> Implied:
        """As `InpaintingModel.read_options`."""
        facts: dict[str, Any] = {}
        fitting: dict[str, Any] = {}
        if "generator.columns.0.stem.weight" in state:
            facts["base_channels"] = state["generator.columns.0.stem.weight"].shape[0]
        critic = "discriminator.{}.{}.parametrizations.weight.original"
        if critic.format("whole", "linear") in state:
            first = state[critic.format("whole", "conv0")]
            facts["critic_channels"] = first.shape[0]
            for name, option in (("whole", "critic_size"), ("local", "local_size")):
                fitting[option] = critic_side(first, state[critic.format(name, "linear")])
        return Implied(facts, ("channel_order",), fitting=fitting)

    def generate(self, image: Tensor, hole: Tensor) -> Tensor:
        """Return the picture in [-1, 1] for (N, 3, H, W) in [0, 1] and (N, 1, H, W)."""
        made: Tensor = self.generator(stacked(erase(signed(image), hole), hole))
        return made

    def _fill(self, image: Tensor, hole: Tensor, *, seed: int) -> Tensor:
        return unsigned(self.generate(image, hole))
