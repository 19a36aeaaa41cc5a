"""Training of EdgeConnect: edges, colours along true edges, along completed ones, both at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer

from inpaint_ops.losses import (
    discriminator_loss,
    feature_matching_loss,
    generator_loss,
    l1_loss,
    perceptual_loss,
    style_loss,
)
from inpaint_ops.models.blocks.canny import canny
from inpaint_ops.models.blocks.pictures import composite, stacked
from inpaint_ops.models.edge_connect.model import ADVERSARIAL, EdgeConnect
from inpaint_ops.models.edge_connect.networks import Discriminator
from inpaint_ops.models.training import Phase, TrainingRecipe, adam, cut_off, without_gradients

# Layers of VGG-19 for the content and for the style loss.
_CONTENT = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
_STYLE = ("relu2_2", "relu3_4", "relu4_4", "relu5_2")

_RATES = {"learning_rate": 1e-4, "discriminator_share": 0.1}
_EDGE = {"edge_adversarial": 1.0, "feature_matching": 10.0}
_PAINT = {"l1": 1.0, "content": 0.1, "style": 250.0, "adversarial": 0.1}


class EdgeConnectRecipe(TrainingRecipe):
    """One of the four phases: edge, inpaint (true edges), inpaint_edges (completed ones), joint.

    Both losses of a pair are computed before either network is updated, as in the public code. The
    weights are those of its example configuration, which the author recommends over its defaults;
    the learning rates of the later phases are the author's advice. Phases that paint need a
    `FeatureNetwork` with the options `feature_network`.

    Source: knazeri/edge-connect: src/models.py, src/edge_connect.py, config.yml.example.
    """

    model: EdgeConnect
    hole_kind = "irregular"
    phases = (
        Phase("edge", 2_000_000, 8, {**_RATES, **_EDGE}),
        Phase("inpaint", 2_000_000, 8, {**_RATES, **_PAINT}),
        Phase("inpaint_edges", None, 8, {**_RATES, "learning_rate": 1e-5, **_PAINT}),
        Phase("joint", None, 8, {**_RATES, "learning_rate": 1e-6, **_EDGE, **_PAINT}),
    )
    feature_network: ClassVar[Mapping[str, Any]] = {
        "name": "vgg19",
        "layers": (*_CONTENT, *_STYLE),
        "rule": "plain",
    }
    feature_losses = ("content", "style")

    @property
    def _stages(self) -> tuple[str, ...]:
        both = {"edge": ("edge",), "joint": ("edge", "inpaint")}
        return both.get(self.phase.name, ("inpaint",))

    @property
    def trained(self) -> tuple[str, ...]:
        """As `TrainingRecipe.trained`."""
        parts = ("generator", "discriminator")
        return tuple(f"{stage}_{part}" for stage in self._stages for part in parts)

    def build_optimizers(self) -> dict[str, Optimizer]:
        """Return Adam (0, 0.9) for generator and discriminator of each stage, the latter slower."""
        rate, slower = self.numbers["learning_rate"], self.numbers["discriminator_share"]
        optimizers = {}
        for name in self.trained:
            factor = slower if name.endswith("discriminator") else 1.0
            parameters = self.model.get_submodule(name).parameters()
            optimizers[name] = adam(parameters, rate * factor, (0.0, 0.9))
        return optimizers

    def prepare(self) -> None:
        """Set training mode, of the edge generator only in phases that train it."""
        self.model.train()
        self.model.edge_generator.train("edge" in self._stages)

    def _adversarial(
        self, judge: Discriminator, real: Tensor, fake: Tensor
    ) -> tuple[Tensor, Tensor, list[Tensor], list[Tensor]]:
        """Return the discriminator's and the generator's loss, and the maps of fake and of real."""
        kind = ADVERSARIAL[self.model.adversarial]
        _, real_maps = judge(real)
        _, fake_maps = judge(cut_off(fake))
        critic = discriminator_loss(real_maps[-1], fake_maps[-1], kind, sigmoid=True) / 2
        with without_gradients(judge):
            _, maps = judge(fake)
        return critic, generator_loss(maps[-1], kind, sigmoid=True), maps, real_maps

    def _edge_losses(
        self, image: Tensor, hole: Tensor, edges: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        numbers = self.numbers
        drawn = self.model.complete_edges(image, hole, edges)
        brightness = self.model.brightness(image)
        critic, adversarial, fake_maps, real_maps = self._adversarial(
            self.model.edge_discriminator, stacked(brightness, edges), stacked(brightness, drawn)
        )
        matching = feature_matching_loss(fake_maps, real_maps)
        total = numbers["edge_adversarial"] * adversarial + numbers["feature_matching"] * matching
        return drawn, {
            "edge_adversarial": adversarial,
            "feature_matching": matching,
            "edge_critic": critic,
            "edge_generator": total,
        }

    def _paint_losses(self, image: Tensor, hole: Tensor, edges: Tensor) -> dict[str, Tensor]:
        numbers = self.numbers
        painted = self.model.paint(image, hole, edges)
        critic, adversarial, _, _ = self._adversarial(
            self.model.inpaint_discriminator, image, painted
        )
        losses = {"l1": l1_loss(painted, image, per=hole)}
        if self.features is not None:
            losses["content"] = perceptual_loss(
                self._features(painted),
                self._features(image),
                weights=dict.fromkeys(_CONTENT, 1.0),
            )
            losses["style"] = style_loss(
                self._features(painted * hole),
                self._features(image * hole),
                weights=dict.fromkeys(_STYLE, 1.0),
            )
        losses["adversarial"] = adversarial
        total = torch.stack([numbers[name] * value for name, value in losses.items()]).sum()
        return {**losses, "inpaint_critic": critic, "inpaint_generator": total}

    def _features(self, image: Tensor) -> Mapping[str, Tensor]:
        assert self.features is not None
        if self.model.channel_order == "bgr":
            image = image.flip(1)
        maps: Mapping[str, Tensor] = self.features(image)
        return maps

    def update(self, image: Tensor, hole: Tensor, edges: Tensor | None = None) -> dict[str, Tensor]:
        """Compute all losses of the phase, then do all steps."""
        model, losses = self.model, dict[str, Tensor]()
        if edges is None:
            edges = canny(model.name, model.brightness(image), None, model.sigma)
        lines = edges
        if "edge" in self._stages:
            drawn, losses = self._edge_losses(image, hole, edges)
            lines = composite(edges, drawn, hole)
        elif self.phase.name == "inpaint_edges":
            with torch.no_grad():
                drawn = model.complete_edges(image, hole, edges)
            lines = composite(edges, drawn, hole)
        if "inpaint" in self._stages:
            losses.update(self._paint_losses(image, hole, lines))
        self._descend(losses)
        return losses

    def _descend(self, losses: Mapping[str, Any]) -> None:
        # One backward pass for all: networks of different losses share no gradient.
        parts = ("critic", "generator")
        total = sum(losses[f"{stage}_{part}"] for stage in self._stages for part in parts)
        self.descend(tuple(self.optimizers), total)
