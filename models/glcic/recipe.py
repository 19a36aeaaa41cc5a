"""Training of GLCIC: completion, discriminator, both."""

from __future__ import annotations

import torch
from torch import Tensor

from inpaint_ops.losses import discriminator_loss, generator_loss, l2_loss
from inpaint_ops.models.blocks.pictures import arranged, composite, cut_squares, hole_squares
from inpaint_ops.models.glcic.model import GLCIC
from inpaint_ops.models.training import Phase, TrainingRecipe, cut_off, without_gradients


class GLCICRecipe(TrainingRecipe):
    """Three phases: completion by L2, discriminator alone, both (discriminator first). Adadelta.

    Pictures are `global_size` squares (for scenes: shorter side resized to between 256 and 384
    pixels, then cropped; holes with sides of 96 to 128). The local crop is a `local_size` square
    around each sample's hole, moved to lie inside the picture, the same for real and fake. Known
    pixels are put back before the discriminator sees a completion. The pixel loss is a mean over
    all pixels, of which those outside the hole count 0; it and `adversarial` are those of the
    public port, the paper's reduction is not known.

    Deviations from otenim's port: its discriminator sees completions without the known pixels put
    back and real crops from another place, and its update includes gradients left over from the
    generator's.

    Source: Iizuka et al., SIGGRAPH 2017, section 4; otenim/GLCIC-PyTorch: train.py;
    open-mmlab/mmagic: mmagic/models/editors/global_local.
    """

    phases = (
        Phase("completion", 90_000, 96, {"rate": 1.0}),
        Phase("discriminator", 10_000, 96, {"rate": 1.0}),
        Phase("joint", 400_000, 96, {"rate": 1.0, "adversarial": 0.0004}),
    )
    model: GLCIC
    hole_kind = "box"

    @property
    def trained(self) -> tuple[str, ...]:
        """As `TrainingRecipe.trained`."""
        alone = {"completion": ("generator",), "discriminator": ("discriminator",)}
        return alone.get(self.phase.name, ("discriminator", "generator"))

    def build_optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Return Adadelta for each network that the phase trains."""
        return {
            name: torch.optim.Adadelta(
                self.model.get_submodule(name).parameters(), lr=self.numbers["rate"]
            )
            for name in self.trained
        }

    def prepare(self) -> None:
        """Set training mode of networks that the phase trains; others keep their statistics."""
        self.model.eval()
        for name in self.optimizers:
            self.model.get_submodule(name).train()

    def update(self, image: Tensor, hole: Tensor) -> dict[str, Tensor]:
        """Do one step of each network that the phase trains."""
        model, losses = self.model, {}
        with torch.set_grad_enabled("generator" in self.optimizers):
            prediction = model.generator(model.inputs(image, hole))
        if "discriminator" in self.optimizers:
            fake = composite(image, cut_off(prediction), hole)
            judged = discriminator_loss(self._judge(image, hole), self._judge(fake, hole))
            self.descend("discriminator", judged)
            losses["discriminator"] = judged
        if "generator" in self.optimizers:
            total = losses["reconstruction"] = l2_loss(prediction, image, hole)
            with without_gradients(model.discriminator):
                if "adversarial" in self.numbers:
                    fake = composite(image, prediction, hole)
                    losses["adversarial"] = generator_loss(self._judge(fake, hole))
                    total = total + self.numbers["adversarial"] * losses["adversarial"]
                self.descend("generator", total)
        return losses

    def _judge(self, image: Tensor, hole: Tensor) -> Tensor:
        discriminator, side = self.model.discriminator, self.model.local_size
        local = arranged(cut_squares(image, hole_squares(hole, side), side))
        logits: Tensor = discriminator(local, image)
        return logits
