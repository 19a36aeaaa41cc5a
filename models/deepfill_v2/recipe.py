"""Training of DeepFill v2: l1 and the hinge loss of a critic."""

from __future__ import annotations

import torch
from torch import Tensor

from inpaint_ops.losses import discriminator_loss, generator_loss, l1_loss
from inpaint_ops.models.blocks.canny import canny, grey
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

    A model built with sketch=True sees the picture's edges in the hole, as lines that a user could
    draw there; so does its critic. `step` takes them as `sketch`, the map of an edge detector such
    as HED, which the source has in files; values above 0.6 are lines. Without one they are Canny's
    of the whole picture (scikit-image), smoothed by `edge_sigma` pixels: a stand-in of ours.

    Source: JiahuiYu/generative_inpainting v2.0.0: inpaint_model.py, inpaint.yml.
    """

    model: DeepFillV2
    phases = (
        Phase(
            "joint",
            None,
            16,
            {"learning_rate": 1e-4, "l1": 1.0, "adversarial": 1.0, "edge_sigma": 2.0},
        ),
    )

    def build_optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Return Adam (0.5, 0.999) for generator and critic."""
        rate, model = self.numbers["learning_rate"], self.model
        return {
            "generator": adam(model.generator.parameters(), rate, (0.5, 0.999)),
            "discriminator": adam(model.discriminator.parameters(), rate, (0.5, 0.999)),
        }

    def _judge(self, image: Tensor, *planes: Tensor) -> Tensor:
        """Return the critic's scores of pictures, with the hole and the lines in it."""
        if self.model.variant == "zhaoyuzhi":
            image = unsigned(image)
        scores: Tensor = self.model.discriminator(stacked(image, *planes))
        return scores

    def _losses(
        self, truth: Tensor, first: Tensor, second: Tensor, filled: Tensor, *planes: Tensor
    ) -> dict[str, Tensor]:
        """Return the generator's losses; on its own, so that it compiles as one graph."""
        adversarial = generator_loss(self._judge(filled, *planes), "hinge")
        l1 = l1_loss(first, truth) + l1_loss(second, truth)
        total = self.numbers["l1"] * l1 + self.numbers["adversarial"] * adversarial
        return {"l1": l1, "adversarial": adversarial, "generator": total}

    def update(
        self, image: Tensor, hole: Tensor, sketch: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Update the critic, then the generator."""
        model, truth = self.model, signed(image)
        if model.sketch and sketch is None:
            rgb = image if model.channel_order == "rgb" else image.flip(1)
            sketch = canny(model.name, grey(rgb), None, self.numbers["edge_sigma"])
        planes = (hole, *model.lines(hole, sketch))
        first, second = model.generate(image, hole, sketch)
        filled = composite(truth, second, hole)
        twice = [torch.cat([x, x]) for x in planes]
        both = self._judge(torch.cat([truth, cut_off(filled)]), *twice)
        real, fake = both.chunk(2)
        critic = discriminator_loss(real, fake, "hinge") / 2
        self.descend("discriminator", critic)
        with without_gradients(model.discriminator):
            losses = self._losses(truth, first, second, filled, *planes)
            self.descend("generator", losses["generator"])
        return {**losses, "critic": critic}
