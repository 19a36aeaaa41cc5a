"""Training of the PartialConv U-Net: pixel, perceptual, style and variation losses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from inpaint_ops import losses
from inpaint_ops.models.blocks.pictures import composite, erase
from inpaint_ops.models.partial_conv_unet.model import PartialConvUNet
from inpaint_ops.models.partial_conv_unet.networks import PartialConvUNetwork
from inpaint_ops.models.training import Phase, TrainingRecipe, adam

Maps = dict[str, Tensor]

_WEIGHTS = {"valid": 1.0, "hole": 6.0, "perceptual": 0.05, "style": 120.0, "variation": 0.1}


class PartialConvUNetRecipe(TrainingRecipe):
    """L1 in and outside the hole, perceptual and style losses, variation around the hole.

    After "train" comes "finetune" at a lower rate. It freezes the statistics of the encoder's batch
    normalisations, which see the zeros of the holes in training; their scales and shifts go on
    learning, as in naoto0804's code. Pixel losses and variation are taken in the range of the
    network, the variation, as in the paper, in the hole grown by one pixel.

    Source: Liu et al., ECCV 2018 (arXiv 1804.07723), sections 3.3 and 4, with the authors' erratum
    (means over all pixels); naoto0804/pytorch-inpainting-with-partial-conv: loss.py, opt.py.
    """

    model: PartialConvUNet
    hole_kind = "irregular"
    phases = (
        Phase("train", 500_000, 16, {"learning_rate": 2e-4, **_WEIGHTS}),
        Phase("finetune", 500_000, 16, {"learning_rate": 5e-5, **_WEIGHTS}),
    )
    feature_losses = ("perceptual", "style")
    feature_network: ClassVar[Mapping[str, Any]] = {
        "name": "vgg16",
        "layers": ("pool1", "pool2", "pool3"),
        "rule": "imagenet",
    }
    variation_rule = "dilated"

    def build_optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Return Adam for the generator."""
        return {"generator": adam(self.model.generator.parameters(), self.numbers["learning_rate"])}

    def prepare(self) -> None:
        """Set training mode; in phase "finetune" not of the encoder's normalisations."""
        super().prepare()
        if self.phase.name == "finetune":
            # The network may be inside a wrapper.
            for module in self.model.generator.modules():
                if isinstance(module, PartialConvUNetwork):
                    module.encoder.eval()

    def terms(self, made: Tensor, truth: Tensor, hole: Tensor) -> dict[str, Tensor]:
        """Return the losses by name, of pictures (N, 3, H, W) in the range of the network."""
        filled = composite(truth, made, hole)
        terms = {
            "valid": losses.l1_loss(made, truth, 1 - hole),
            "hole": losses.l1_loss(made, truth, hole),
        }
        if self.features is not None:
            terms.update(self._feature_terms(made, filled, truth))
        terms["variation"] = losses.total_variation(filled, hole, rule=self.variation_rule)
        return terms

    def _feature_terms(self, made: Tensor, filled: Tensor, truth: Tensor) -> dict[str, Tensor]:
        pictures = self.model.unnormalised(torch.cat((made, filled)))
        with torch.no_grad():
            wanted = self._maps(self.model.unnormalised(truth))
        mapped = self._maps(pictures)
        both = [{name: x.chunk(2)[i] for name, x in mapped.items()} for i in (0, 1)]
        return {
            "perceptual": _over(losses.perceptual_loss, both, wanted),
            "style": _over(losses.style_loss, both, wanted),
        }

    def _maps(self, picture: Tensor) -> Maps:
        assert self.features is not None
        maps = self.features(picture)
        return {name: maps[name] for name in self.feature_network["layers"]}

    def update(self, image: Tensor, hole: Tensor) -> dict[str, Tensor]:
        """Do one step of the generator."""
        truth = self.model.normalised(image)
        made, _ = self.model.generator(erase(truth, hole), hole == 0)
        terms = self.terms(made, truth, hole)
        total = torch.stack([self.numbers[n] * value for n, value in terms.items()]).sum()
        self.descend("generator", total)
        return {**terms, "generator": total}


def _over(loss: Callable[[Maps, Maps], Tensor], made: list[Maps], wanted: Maps) -> Tensor:
    """Return the sum of a loss over the raw prediction and the one with known pixels put back."""
    return loss(made[0], wanted) + loss(made[1], wanted)
