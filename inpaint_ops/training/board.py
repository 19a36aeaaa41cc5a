"""Curves and pictures for TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from inpaint_ops.data import Samples
from inpaint_ops.models import InpaintingModel


class Board:
    """Writes curves and pictures.

    Args:
        folder: is made.
        step: that the run goes on from; what the folder holds after it is hidden.

    Raises:
        ImportError: tensorboard is not installed.
    """

    def __init__(self, folder: Path, step: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as exc:
            raise ImportError(
                "train: tensorboard is not installed: pip install 'inpaint-ops[train]'"
            ) from exc
        self._writer: Any = SummaryWriter(str(folder), purge_step=step + 1 if step else None)

    def add(self, step: int, phase: str, values: Mapping[str, float]) -> None:
        """Add points of the curves of a phase."""
        for name, value in values.items():
            self._writer.add_scalar(f"{phase}/{name}", value, step)

    def add_pictures(self, step: int, sheet: Tensor) -> None:
        """Add a (3, H, W) picture in [0, 1]."""
        self._writer.add_image("samples", sheet, step)

    def close(self) -> None:
        """Write out what is left."""
        self._writer.close()


def contact_sheet(
    model: InpaintingModel, looks: Samples, count: int, device: torch.device
) -> Tensor:
    """Return a row for each of the first pictures: complete, with its hole in grey, completed.

    Args:
        model: completes them.
        looks: pictures and holes; those of epoch 0 are taken.
        count: of the rows, at most all pictures.
        device: of the model.

    Returns:
        (3, rows * height, 3 * width) float32 in [0, 1], on the CPU.
    """
    model = model.as_trained()
    rows = []
    for index in range(min(count, len(looks))):
        sample = looks[0, index]
        image, hole = sample.image[None], sample.hole[None]
        completed = model.complete(image.to(device), hole.to(device)).cpu()
        seen = torch.where(hole, torch.full_like(image, 0.5), image)
        rows.append(torch.cat((image[0], seen[0], completed[0]), 2))
    return torch.cat(rows, 1)
