"""Training of DeepFill v1: Wasserstein critics with gradient penalty."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.optim import Optimizer

from inpaint_ops.losses import (
    discount_mask,
    discriminator_loss,
    generator_loss,
    gradient_penalty,
    l1_loss,
)
from inpaint_ops.models.blocks.pictures import composite, cut_squares, hole_squares, signed
from inpaint_ops.models.deepfill_v1.model import DeepFillV1
from inpaint_ops.models.training import (
    Phase,
    TrainingRecipe,
    adam,
    cut_off,
    without_gradients,
)


class DeepFillV1Recipe(TrainingRecipe):
    """Several updates of both critics, then one of the generator.

    All of them see the same batch, with new random points for the gradient penalty; the official
    code takes a batch for each. The local critic and the discounted l1 see a square of half the
    side around the middle of each sample's hole; the official code draws that square first and the
    hole in it.

    Source: JiahuiYu/generative_inpainting v1.0.0: inpaint_model.py, inpaint.yml, train.py.
    """

    model: DeepFillV1
    hole_kind = "box"
    phases = (
        Phase(
            "joint",
            None,
            16,
            {
                "learning_rate": 1e-4,
                "l1": 1.2,
                "known": 1.2,
                "coarse": 1.2,
                "discount": 0.9,
                "adversarial": 0.001,
                "global": 1.0,
                "gradient_penalty": 10.0,
                "critic_steps": 5,
            },
        ),
    )

    def build_optimizers(self) -> dict[str, Optimizer]:
        """Return Adam (0.5, 0.9) for the generator and for both critics together."""
        rate, model = self.numbers["learning_rate"], self.model
        critics = [*model.global_critic.parameters(), *model.local_critic.parameters()]
        return {
            "generator": adam(model.generator.parameters(), rate, (0.5, 0.9)),
            "critics": adam(critics, rate, (0.5, 0.9)),
        }

    def update(self, image: Tensor, hole: Tensor) -> dict[str, Tensor]:
        """Update the critics, then the generator."""
        model, numbers = self.model, self.numbers
        if image.shape[2:] != (model.size, model.size):
            raise ValueError(
                f"deepfill_v1.recipe: image must be {model.size} x {model.size}, got "
                f"{image.shape[2]} x {image.shape[3]}"
            )
        truth = signed(image)
        corners = hole_squares(hole, model.size // 2)
        first, second = model.generate(image, hole)
        filled = composite(truth, second, hole)
        for _ in range(int(numbers["critic_steps"])):
            critics = self._critics(truth, cut_off(filled), hole, corners)
            self.descend("critics", critics)

        side = model.size // 2
        weight = discount_mask(side, side, gamma=numbers["discount"], device=image.device)
        known, target = 1 - hole, cut_squares(truth, corners, side)
        inside, outside = (
            [l1_loss(cut_squares(x, corners, side), target, weight) for x in (first, second)],
            [l1_loss(x, truth, known, per=known) for x in (first, second)],
        )
        with without_gradients(model.global_critic, model.local_critic):
            losses = {
                "l1": numbers["coarse"] * inside[0] + inside[1],
                "known": numbers["coarse"] * outside[0] + outside[1],
                "adversarial": numbers["global"]
                * generator_loss(model.global_critic(filled), "wgan")
                + generator_loss(model.local_critic(cut_squares(filled, corners, side)), "wgan"),
            }
            total = torch.stack([numbers[name] * value for name, value in losses.items()]).sum()
            self.descend("generator", total)
        return {**losses, "critic": critics, "generator": total}

    def _critics(
        self, real: Tensor, fake: Tensor, hole: Tensor, corners: list[tuple[int, int]]
    ) -> Tensor:
        model, side = self.model, self.model.size // 2
        squares = (cut_squares(x, corners, side) for x in (real, fake, hole))
        total = real.new_zeros(())
        for critic, (r, f, h) in (
            (model.global_critic, (real, fake, hole)),
            (model.local_critic, tuple(squares)),
        ):
            total = total + discriminator_loss(critic(r), critic(f), "wgan")
            penalty = gradient_penalty(critic, r, f, h, generator=self.random)
            total = total + self.numbers["gradient_penalty"] * penalty
        return total
