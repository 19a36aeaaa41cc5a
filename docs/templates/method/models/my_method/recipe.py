"""Training of my_method."""

from __future__ import annotations

import torch
from torch import Tensor

from inpaint_ops.losses import discriminator_loss, generator_loss, l1_loss
from inpaint_ops.models.blocks.pictures import composite, signed
from inpaint_ops.models.my_method.model import MyMethod
from inpaint_ops.models.training import (
    Phase,
    TrainingRecipe,
    adam,
    cut_off,
    without_gradients,
)


class MyMethodRecipe(TrainingRecipe):
    """Discriminator, then generator: which losses, which weights, and who says so.

    Source: the paper, its section; owner/repository: train.py.
    """

    phases = (
        Phase(
            "joint",
            iterations=100_000,
            batch=16,
            numbers={"rate": 1e-4, "reconstruction": 1.0, "adversarial": 0.01},
        ),
    )
    model: MyMethod

    def build_optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Adam for both networks."""
        return {
            name: adam(self.model.get_submodule(name).parameters(), self.numbers["rate"])
            for name in ("discriminator", "generator")
        }

    def update(self, image: Tensor, hole: Tensor) -> dict[str, Tensor]:
        """One step of each network."""
        model, target = self.model, signed(image)
        prediction = model.generate(image, hole)
        completed = composite(target, prediction, hole)
        judged = discriminator_loss(
            model.discriminator(target), model.discriminator(cut_off(completed))
        )
        self.descend("discriminator", judged)
        reconstruction = l1_loss(prediction, target)
        with without_gradients(model.discriminator):
            adversarial = generator_loss(model.discriminator(completed))
            total = self.numbers["reconstruction"] * reconstruction
            self.descend("generator", total + self.numbers["adversarial"] * adversarial)
        return {
            "discriminator": judged,
            "reconstruction": reconstruction,
            "adversarial": adversarial,
        }
