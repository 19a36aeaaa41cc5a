"""Training of the patch-based GAN: L1 and one adversary for each head."""

from __future__ import annotations

import torch
from torch import Tensor

from inpaint_ops.losses import discriminator_loss, generator_loss, l1_loss
from inpaint_ops.models.blocks.pictures import composite, signed
from inpaint_ops.models.patch_gan.model import PatchGAN
from inpaint_ops.models.training import (
    Phase,
    TrainingRecipe,
    adam,
    cut_off,
    without_gradients,
)


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
    hole_kind = "box"

    def build_optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Return Adam for both networks."""
        return {
            name: adam(
                self.model.get_submodule(name).parameters(),
                self.numbers[f"{name}_rate"],
                (0.5, 0.999),
            )
            for name in ("discriminator", "generator")
        }

    def update(self, image: Tensor, hole: Tensor) -> dict[str, Tensor]:
        """Do one step of each network."""
        model, numbers = self.model, self.numbers
        target = signed(image)
        prediction = model.generator(model.inputs(image, hole))
        completed = composite(target, prediction, hole)
        pairs = zip(model.discriminator(target), model.discriminator(cut_off(completed)))
        judged = [discriminator_loss(real, fake) for real, fake in pairs]
        self.descend("discriminator", judged[0] + judged[1])
        reconstruction = l1_loss(prediction, target)
        with without_gradients(model.discriminator):
            whole, patches = (generator_loss(fake) for fake in model.discriminator(completed))
            total = (
                numbers["reconstruction"] * reconstruction
                + numbers["global_adversarial"] * whole
                + numbers["patch_adversarial"] * patches
            )
            self.descend("generator", total)
        return {
            "global_discriminator": judged[0],
            "patch_discriminator": judged[1],
            "reconstruction": reconstruction,
            "global_adversarial": whole,
            "patch_adversarial": patches,
        }
