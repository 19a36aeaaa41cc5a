"""What a recipe uses of a model."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import nn


class Trainable(Protocol):
    """The parts of an `InpaintingModel` that every recipe uses."""

    @property
    def name(self) -> str:
        """The name of the method, for messages."""

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights."""

    @property
    def channel_order(self) -> str:
        """The order of channels that the networks take: "rgb" or "bgr"."""

    @property
    def networks(self) -> tuple[str, ...]:
        """The names of the submodules that hold weights."""

    @property
    def hint_names(self) -> tuple[str, ...]:
        """The names of the lines that the networks take."""

    def train(self, mode: bool = True) -> Any:
        """As `torch.nn.Module.train`."""

    def get_submodule(self, target: str) -> nn.Module:
        """As `torch.nn.Module.get_submodule`."""
