"""Checkpoints of a run: folders that are there as a whole or not at all.

A checkpoint is written under a hidden name, brought to the disk, then renamed. A process that is
killed leaves a hidden folder, which the next one removes.
"""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from inpaint_ops.atomic import make_folder, write_atomically
from inpaint_ops.checkpoints import read_checkpoint
from inpaint_ops.models import InpaintingModel, save_weights
from inpaint_ops.program import reason
from inpaint_ops.training.average import Average

_NAME = "step_"
_WEIGHTS, _AVERAGE, _STATE = "weights.safetensors", "ema.safetensors", "state.pt"


class Checkpoints:
    """The checkpoints in a folder.

    Args:
        folder: is made.
        keep: number of the last ones that are kept.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self.keep = folder, keep

    def all(self) -> list[Path]:
        """Return the whole ones, the oldest first."""
        found = self.folder.glob(f"{_NAME}*") if self.folder.is_dir() else ()
        return sorted(path for path in found if path.is_dir())

    def sweep(self) -> None:
        """Remove what was left of writing and removing."""
        if self.folder.is_dir():
            for path in self.folder.glob(f".{_NAME}*"):
                shutil.rmtree(path, ignore_errors=True)

    def save(
        self, step: int, model: InpaintingModel, average: Average | None, state: Mapping[str, Any]
    ) -> Path:
        """Write a checkpoint, then remove the oldest.

        Args:
            step: steps that were done; its name.
            model: whose weights are written.
            average: whose weights are written beside them.
            state: of tensors, numbers, texts, lists and dicts.

        Raises:
            OSError: it cannot be written, with the last one that is whole.
        """
        final = self.folder / f"{_NAME}{step:09d}"
        if final.is_dir():
            return final
        part = self.folder / f".{final.name}.part"
        try:
            make_folder(self.folder)
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir()
            save_weights(model, part / _WEIGHTS)
            if average is not None:
                save_weights(average.model, part / _AVERAGE)
                state = {**state, "averaged": average.steps}
            # In memory first: torch's writer hides the system's errors.
            buffer = io.BytesIO()
            torch.save(dict(state), buffer)
            with write_atomically(part / _STATE) as stream:
                stream.write(buffer.getbuffer())
            _to_disk(part)
            part.rename(final)
            _to_disk(self.folder)
        except OSError as exc:
            shutil.rmtree(part, ignore_errors=True)
            before = self.all()
            last = f"{before[-1]} is whole" if before else "there is none before it"
            raise OSError(
                f"{final}: the checkpoint could not be written: {_why(exc)}; {last}; "
                "--resume goes on from there"
            ) from exc
        for old in self.all()[: -self.keep]:
            hidden = old.with_name(f".{old.name}.old")
            old.rename(hidden)
            shutil.rmtree(hidden, ignore_errors=True)
        return final

    def load(self, path: Path, model: InpaintingModel, average: Average | None) -> dict[str, Any]:
        """Fill a model and its average; return the state.

        Raises:
            OSError: a file is missing.
            ValueError: a file is damaged, or of another method.
        """
        _fill(model, path / _WEIGHTS)
        try:
            state: dict[str, Any] = torch.load(path / _STATE, map_location="cpu", weights_only=True)
        except OSError:
            raise
        except Exception as exc:
            raise ValueError(
                f"{path / _STATE}: is damaged: {reason(exc)}; remove {path}, and "
                "--resume takes the one before"
            ) from exc
        if average is not None:
            _fill(average.model, path / _AVERAGE)
            average.steps = int(state["averaged"])
        return state


def _why(exc: OSError) -> str:
    """Return the system's reason alone: the name is a hidden one."""
    return (exc.strerror or str(exc)).lower()


def _fill(model: InpaintingModel, path: Path) -> None:
    try:
        model.load_state_dict(dict(read_checkpoint(path).content))
    except RuntimeError as exc:
        raise ValueError(f"{path}: does not fit the model: {reason(exc)}") from exc


def _to_disk(folder: Path) -> None:
    """Bring the names in a folder to the disk, where the system can."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
