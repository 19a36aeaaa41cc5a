"""Training of DeepFill v2: l1 and the hinge loss of a critic."""

from __future__ import annotations

import torch
from torch import Tensor

from inpaint_ops.losses import discriminator_loss, generator_loss, l1_loss
from inpaint_ops.models.blocks.pictures import composite, signed, stacked, unsigned
from inpaint_ops.models.deepfill_v2.model import DeepFillV2
from inpaint_ops.models.training import (
    Phase,
    TrainingRecipe,
    adam,
    cut_off,
    without_gradients,
)


class DeepFillV2Recipe(TrainingRecipe):
    """L1 over all pixels of both stages, and the hinge loss on the second one; critic first.

    Source: JiahuiYu/generative_inpainting v2.0.0: inpaint_model.py, inpaint.yml.
    """

    model: DeepFillV2
    phases = (Phase("joint", None, 16, {"learning_rate": 1e-4, "l1": 1.0, "adversarial": 1.0}),)

    def build_optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Return Adam (0.5, 0.999) for generator and critic."""
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

    def _losses(
        self, truth: Tensor, first: Tensor, second: Tensor, filled: Tensor, hole: Tensor
    ) -> dict[str, Tensor]:
        """Return the generator's losses; on its own, so that it compiles as one graph."""
        adversarial = generator_loss(self._judge(filled, hole), "hinge")
        l1 = l1_loss(first, truth) + l1_loss(second, truth)
        total = self.numbers["l1"] * l1 + self.numbers["adversarial"] * adversarial
        return {"l1": l1, "adversarial": adversarial, "generator": total}

    def update(self, image: Tensor, hole: Tensor) -> dict[str, Tensor]:
        """Update the critic, then the generator."""
        model, truth = self.model, signed(image)
        first, second = model.generate(image, hole)
        filled = composite(truth, second, hole)
        both = self._judge(torch.cat([truth, cut_off(filled)]), torch.cat([hole, hole]))
        real, fake = both.chunk(2)
        critic = discriminator_loss(real, fake, "hinge") / 2
        self.descend("discriminator", critic)
        with without_gradients(model.discriminator):
            losses = self._losses(truth, first, second, filled, hole)
            self.descend("generator", losses["generator"])
        return {**losses, "critic": critic}
