"""Training of Context Encoders: L2 and an adversary, or L2 alone for AlexNet's form."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from inpaint_ops.losses import discriminator_loss, frame_weight, generator_loss, l2_loss
from inpaint_ops.models.blocks import centre
from inpaint_ops.models.blocks.pictures import composite, resized, resized_hole, signed
from inpaint_ops.models.training import (
    Phase,
    TrainingRecipe,
    adam,
    cut_off,
    without_gradients,
)

_RATES = {"generator_rate": 2e-3, "discriminator_rate": 2e-4}
_WEIGHTS = {"reconstruction": 0.999, "adversarial": 0.001}


def _centre_batch(
    image: Tensor, hole: Tensor, colour: Tensor, overlap: int, frame: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return crops around the holes without their middles, the middles, and their pixel weights.

    The network predicts the middle. Weights are `frame` on its outer `overlap` pixels.
    """
    whole = centre.training_crops(image, hole, colour, overlap)
    seen = whole.clone()
    dropped = centre.inner_square(overlap)
    seen[:, :, dropped, dropped] = colour
    middle = centre.inner_square(0)
    weight = frame_weight(centre.PREDICTED, centre.PREDICTED, border=overlap, value=frame)
    return seen, whole[:, :, middle, middle], weight.to(image)


class RegionRecipe(TrainingRecipe):
    """Discriminator, then generator, on the same batch, from the first step on; Adam, beta1 = 0.5.

    "centre" and "convolutional": squares around each sample's hole as in `ContextEncoder` (128^2
    pictures whose hole is around the middle stay as they are); the middle is dropped and predicted,
    its pixel loss weighs `frame` on the `overlap` known pixels on each side. "random_*": pictures
    are resized; pixel loss over the whole prediction, all weights 1. The discriminator sees
    predictions as they are.

    The adversarial loss is logarithmic. The "convolutional" variant has the least squares of its
    port, but not the port's other numbers and its absolute pixel loss.

    The authors' command trains 500 epochs in batches of 64, with a generator's rate of 2e-3 (the
    port's is 2e-4). Deviation: their generator step reuses the discriminator's scores from before
    its update.

    Source: pathak22/context-encoder: train.lua, train_random.lua.
    """

    phases = (Phase("joint", batch=64, numbers={**_RATES, **_WEIGHTS, "frame": 10.0}),)
    model: Any
    hole_kind = "center"

    def build_optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Return Adam for both networks."""
        predictor, discriminator = self.model.networks
        rates = {discriminator: "discriminator_rate", predictor: "generator_rate"}
        return {
            name: adam(
                self.model.get_submodule(name).parameters(), self.numbers[rate], (0.5, 0.999)
            )
            for name, rate in rates.items()
        }

    def batch(self, image: Tensor, hole: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return the generator's input, its target, and the weight of pixels."""
        model = self.model
        colour = model.colour(image)
        if model.central:
            return _centre_batch(image, hole, colour, model.overlap, self.numbers["frame"])
        size = model.input_size
        target = resized(signed(image), size)
        return composite(target, colour, resized_hole(hole, size)), target, None

    def update(self, image: Tensor, hole: Tensor) -> dict[str, Tensor]:
        """Do one step of each network."""
        if image.shape[0] < 2:
            raise ValueError(
                f"{self.model.name}.recipe: image must hold 2 samples or more, whose code is "
                f"normalised over the batch, got {image.shape[0]}"
            )
        predictor, discriminator = (self.model.get_submodule(n) for n in self.model.networks)
        seen, target, weight = self.batch(image, hole)
        prediction = predictor(seen)
        kind = self.model.adversary
        fake = discriminator(cut_off(prediction))
        judged = discriminator_loss(discriminator(target), fake, kind)
        self.descend(self.model.networks[1], judged)
        losses = {"discriminator": judged, "reconstruction": l2_loss(prediction, target, weight)}
        with without_gradients(discriminator):
            losses["adversarial"] = generator_loss(discriminator(prediction), kind=kind)
            terms = [self.numbers[name] * losses[name] for name in _WEIGHTS]
            self.descend(self.model.networks[0], torch.stack(terms).sum())
        return losses


class AlexNetRecipe(RegionRecipe):
    """L2 in the hole alone: with an adversary the authors' training diverged.

    The optimiser is that of `RegionRecipe`.

    Source: Pathak et al., CVPR 2016 (arXiv 1604.07379), section 4 (recalled, not checked).
    """

    phases = (Phase("reconstruction", numbers={"generator_rate": 2e-3}),)

    @property
    def trained(self) -> tuple[str, ...]:
        """As `TrainingRecipe.trained`."""
        return ("generator",)

    def build_optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Return Adam for the generator."""
        rate = self.numbers["generator_rate"]
        return {"generator": adam(self.model.generator.parameters(), rate, (0.5, 0.999))}

    def update(self, image: Tensor, hole: Tensor) -> dict[str, Tensor]:
        """Do one step of the generator."""
        seen, target, _ = self.batch(image, hole)
        missing = resized_hole(hole, self.model.input_size)
        loss = l2_loss(self.model.generator(seen), target, missing)
        self.descend("generator", loss)
        return {"reconstruction": loss}
