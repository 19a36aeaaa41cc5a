"""Shift-Net: a U-Net that moves known features into the hole."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from inpaint_ops import checks
from inpaint_ops.checkpoints import State
from inpaint_ops.models.blocks.pictures import erase, signed, stacked, unsigned
from inpaint_ops.models.method import InpaintingModel
from inpaint_ops.models.shift_net.layouts import LAYOUTS
from inpaint_ops.models.shift_net.mirrored_shift import RULES
from inpaint_ops.models.shift_net.networks import MINIMUM, SHIFT, Discriminator, Generator
from inpaint_ops.models.weights.layouts import Implied

_OP = "shift_net"


class ShiftNet(InpaintingModel):
    """U-Net with the shift connection, 70 x 70 patch discriminator.

    Published models for a centre hole work for exactly that hole, 120 x 120 of 256 x 256.

    Args:
        base_channels: width of the generator's first layer.
        critic_channels: width of the discriminator's first layer.
        in_channels: 4, picture and known pixels, or 3, picture alone.
        face: kernel 6 in the third layer, as in the published model for faces.
        mirror: shift features of the mirrored picture too: None (no), "port" (with the index
            arithmetic of the code that trained the model for faces) or "exact" (as that code was
            meant); see `MirroredShift`. Files of the face model imply "port".
        norm: "instance", or "batch" for weights trained so; recognised by the counters beside its
            statistics. Files of old PyTorch have statistics without counters for both: "instance"
            is assumed then, and a note says so. In evaluation "batch" uses the statistics of the
            training. The public test script stays in training mode with one picture at a time;
            with norm="instance" the same weights compute that.
        channel_order: of the pictures the weights were trained on.

    Source: Yan et al., ECCV 2018 (arXiv 1801.09392); Zhaoyi-Yan/Shift-Net_pytorch.
    """

    multiple = 8
    minimum = MINIMUM
    layouts = LAYOUTS
    needs_all = True

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
        """Return the generator's input, (N, in_channels, H, W), from [-1, 1] and a hole."""
        return stacked(image, 1 - hole) if self.in_channels == 4 else image

    def generate(self, image: Tensor, hole: Tensor) -> Tensor:
        """Return the picture in [-1, 1] for (N, 3, H, W) in [0, 1] and (N, 1, H, W)."""
        result: Tensor = self.generator(self.prepared(erase(signed(image), hole), hole), hole)
        return result

    def _fill(self, image: Tensor, hole: Tensor, *, seed: int) -> Tensor:
        return unsigned(self.generate(image, hole))
