"""Training of Shift-Net: pixels, guidance of the shift, a critic, and features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer

from inpaint_ops.layers import GuidanceLoss
from inpaint_ops.losses import (
    discounted_l1,
    discriminator_loss,
    generator_loss,
    l1_loss,
    perceptual_loss,
    style_loss,
)
from inpaint_ops.models.blocks.pictures import erase, signed
from inpaint_ops.models.shift_net.model import ShiftNet
from inpaint_ops.models.training import (
    Phase,
    TrainingRecipe,
    adam,
    cut_off,
    without_gradients,
)

Box = tuple[int, int, int, int]


class ShiftNetRecipe(TrainingRecipe):
    """Two generator passes, the true picture for the guidance and the damaged one; critic first.

    Phase "joint" has the terms of the paper and the Torch7 version. Phase "public" has those of the
    PyTorch version's defaults: losses on features (a `FeatureNetwork` with options
    `feature_network`) and a guidance target that is not masked. Where all samples share one
    rectangular hole, l1 is discounted towards its middle, and critic and features see it alone.

    Source: Zhaoyi-Yan/Shift-Net: train.lua; Zhaoyi-Yan/Shift-Net_pytorch:
    models/shift_net/shiftnet_model.py.
    """

    model: ShiftNet
    hole_kind = "center"
    # "public" is the other version of the same training.
    sequence = ("joint",)
    phases = (
        Phase(
            "joint",
            None,
            1,
            {
                "learning_rate": 2e-4,
                "l1": 100.0,
                "guidance": 1.0,
                "adversarial": 0.2,
                "critic": 1.0,
            },
        ),
        Phase(
            "public",
            None,
            1,
            {
                "learning_rate": 2e-4,
                "l1": 100.0,
                "discounted_l1": 400.0,
                "guidance": 1.0,
                "adversarial": 0.2,
                "style": 10.0,
                "content": 1.0,
                "critic": 0.5,
            },
        ),
    )
    feature_network: ClassVar[Mapping[str, Any]] = {
        "name": "vgg16",
        "layers": ("pool1", "pool2", "pool3"),
        "rule": "plain",
    }
    feature_losses = ("style", "content")

    def build_optimizers(self) -> dict[str, Optimizer]:
        """Return Adam (0.5, 0.999) for generator and discriminator."""
        rate, model = self.numbers["learning_rate"], self.model
        return {
            "generator": adam(model.generator.parameters(), rate, (0.5, 0.999)),
            "discriminator": adam(model.discriminator.parameters(), rate, (0.5, 0.999)),
        }

    def update(self, image: Tensor, hole: Tensor) -> dict[str, Tensor]:
        """Update the critic, then the generator."""
        model, numbers, truth = self.model, self.numbers, signed(image)
        public = self.phase.name == "public"
        guidance = GuidanceLoss(mask_target=not public)
        damaged = model.prepared(erase(truth, hole), hole)
        made, features, wanted = model.generator(damaged, hole, model.prepared(truth, hole))
        guidance.set_target(wanted)
        box = _shared_box(hole) if public else None
        real, fake = (x if box is None else _cut(x, box) for x in (truth, made))

        judge = model.discriminator
        critic = discriminator_loss(judge(real, logits=True), judge(cut_off(fake), logits=True))
        self.descend("discriminator", numbers["critic"] * critic)
        losses = {"l1": l1_loss(made, truth), "guidance": guidance(features, hole)}
        if box is not None:
            losses["discounted_l1"] = discounted_l1(made, truth, box)
        if self.features is not None:
            made_maps, true_maps = self._features(fake), self._features(real)
            losses["style"] = style_loss(made_maps, true_maps, distance="l2")
            losses["content"] = perceptual_loss(made_maps, true_maps, distance="l2")
        with without_gradients(judge):
            losses["adversarial"] = generator_loss(judge(fake, logits=True))
            total = torch.stack([numbers[name] * value for name, value in losses.items()]).sum()
            self.descend("generator", total)
        return {**losses, "critic": critic, "generator": total}

    def _features(self, image: Tensor) -> Mapping[str, Tensor]:
        assert self.features is not None
        if self.model.channel_order == "bgr":
            image = image.flip(1)
        maps: Mapping[str, Tensor] = self.features(image)
        return maps


def _shared_box(hole: Tensor) -> Box | None:
    """Return (top, left, height, width) if all samples miss the same rectangle.

    Its sides are 32 pixels or more.
    """
    if not torch.equal(hole, hole[:1].expand_as(hole)):
        return None
    rows, columns = (hole[0, 0].amax(axis).nonzero().flatten() for axis in (1, 0))
    if not len(rows):
        return None
    top, left = int(rows[0]), int(columns[0])
    box = (top, left, int(rows[-1]) + 1 - top, int(columns[-1]) + 1 - left)
    # The critic needs 32 pixels a side to give a score.
    whole = bool(_cut(hole, box).all()) and min(box[2:]) >= 32
    return box if whole else None


def _cut(x: Tensor, box: Box) -> Tensor:
    top, left, height, width = box
    return x[:, :, top : top + height, left : left + width]
