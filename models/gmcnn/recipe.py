"""Training of GMCNN: pixels first, then texture and critics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from inpaint_ops import losses
from inpaint_ops.layers import IDMRFLoss
from inpaint_ops.models.blocks.pictures import (
    arranged,
    composite,
    cut_squares,
    hole_squares,
    signed,
    unsigned,
)
from inpaint_ops.models.gmcnn.model import GMCNN
from inpaint_ops.models.training import (
    Phase,
    TrainingRecipe,
    adam,
    cut_off,
    without_gradients,
)

_PIXELS = {"learning_rate": 1e-5, "reconstruction": 1.4, "auto_encoding": 1.2}


class GMCNNRecipe(TrainingRecipe):
    """Confidence-driven l1 in the hole, l1 outside; in phase "finetune" ID-MRF and two critics.

    The critics take five steps on the hinge loss before each step of the generator, all on the
    same batch and prediction. The local critic and the ID-MRF loss see a square of the model's
    `local_size` in the middle of each sample's hole.

    Source: Wang et al., NeurIPS 2018 (arXiv 1810.08771), section 3; shepnerd/inpainting_gmcnn:
    pytorch/model/net.py, pytorch/options/train_options.py. (The paper used WGAN-GP and a learning
    rate of 1e-4, unverified.)
    """

    model: GMCNN
    hole_kind = "box"
    phases = (
        Phase("pretrain", None, 16, _PIXELS),
        Phase(
            "finetune",
            None,
            16,
            {**_PIXELS, "texture": 0.05, "adversarial": 1e-3, "critic_steps": 5},
        ),
    )
    feature_losses = ("texture",)
    # `layer_weights` are those of the ID-MRF loss.
    feature_network: ClassVar[Mapping[str, Any]] = {
        "name": "vgg19",
        "layers": ("relu3_1", "relu4_1"),
        "rule": "centred",
    }
    layer_weights: ClassVar[Mapping[str, float]] = {"relu3_1": 1.0, "relu4_1": 2.0}

    @property
    def trained(self) -> tuple[str, ...]:
        """As `TrainingRecipe.trained`."""
        return ("generator",) if self.phase.name == "pretrain" else self.model.networks

    def build_optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Return Adam (0.5, 0.9) for the generator, and for the critics in phase "finetune"."""
        rate, model = self.numbers["learning_rate"], self.model
        made = {"generator": adam(model.generator.parameters(), rate, (0.5, 0.9))}
        if self.phase.name == "finetune":
            made["discriminator"] = adam(model.discriminator.parameters(), rate, (0.5, 0.9))
        return made

    def update(self, image: Tensor, hole: Tensor) -> dict[str, Tensor]:
        """Update the critics if the phase has them, then the generator."""
        truth = signed(image)
        made = self.model.generate(image, hole)
        terms = {
            "reconstruction": losses.confidence_l1(made, truth, hole, losses.confidence_mask(hole)),
            "auto_encoding": losses.l1_loss(made, truth, 1 - hole, per=1 - hole),
        }
        if self.phase.name == "pretrain":
            return self._descend(terms, {})
        filled = composite(truth, made, hole)
        side = self.model.local_size
        corners = hole_squares(hole, side)
        squares = [arranged(cut_squares(x, corners, side)) for x in (truth, filled)]
        critic = made.new_zeros(())
        for _ in range(int(self.numbers["critic_steps"])):
            critic = self._judge(truth, cut_off(filled), [cut_off(x) for x in squares])
        with without_gradients(self.model.discriminator):
            logits = self.model.discriminator(filled, squares[1])
            whole, local = (losses.generator_loss(x, "hinge") for x in logits)
            terms["adversarial"] = whole + local
            if self.features is not None:
                terms["texture"] = self._texture(squares[1], squares[0])
            return self._descend(terms, {"critic": critic})

    def _descend(self, terms: dict[str, Tensor], others: dict[str, Tensor]) -> dict[str, Tensor]:
        total = torch.stack([self.numbers[n] * value for n, value in terms.items()]).sum()
        self.descend("generator", total)
        return {**terms, **others, "generator": total}

    def _judge(self, truth: Tensor, filled: Tensor, squares: list[Tensor]) -> Tensor:
        """Do one step of the critics; `squares` are those of truth and filled."""
        real = self.model.discriminator(truth, squares[0])
        fake = self.model.discriminator(filled, squares[1])
        whole, local = (losses.discriminator_loss(*pair, "hinge") for pair in zip(real, fake))
        loss: Tensor = whole + local
        self.descend("discriminator", loss)
        return loss

    def _texture(self, made: Tensor, truth: Tensor) -> Tensor:
        assert self.features is not None
        texture = IDMRFLoss(self.features, self.layer_weights)
        loss: Tensor = texture(unsigned(made), unsigned(truth))
        return loss
