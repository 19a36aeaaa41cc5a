"""The mean of the weights over the last steps, which completes better than the last ones."""

from __future__ import annotations

import copy

import torch

from inpaint_ops.models import InpaintingModel


class Average:
    """Exponential moving average of the networks that complete pictures.

    After step n the weights move by 1 - min(decay, (1 + n) / (10 + n)) towards the current ones:
    the random ones of the start are forgotten early. Buffers are those of the current networks.

    Args:
        model: whose networks are averaged.
        decay: in (0, 1).

    Attributes:
        model: a view that completes with the mean.
        steps: that were averaged.
    """

    def __init__(self, model: InpaintingModel, decay: float) -> None:
        self._source, self._decay, self.steps = model, decay, 0
        self.model = copy.copy(model)
        self.model._modules = {
            name: copy.deepcopy(model.get_submodule(name)) for name in model.completion_networks
        }
        self.model.requires_grad_(False)

    @torch.no_grad()
    def update(self) -> None:
        """Take in the current weights."""
        self.steps += 1
        share = 1 - min(self._decay, (1 + self.steps) / (10 + self.steps))
        for name in self._source.completion_networks:
            ours, theirs = self.model.get_submodule(name), self._source.get_submodule(name)
            torch._foreach_lerp_(list(ours.parameters()), list(theirs.parameters()), share)
            for mine, current in zip(ours.buffers(), theirs.buffers()):
                mine.copy_(current)
