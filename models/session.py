"""Filling one picture again and again while its hole changes."""

from __future__ import annotations

import threading

from torch import Tensor

from inpaint_ops import checks
from inpaint_ops.models.method import InpaintingModel
from inpaint_ops.needed import Memory, remembering
from inpaint_ops.progress import Progress


class Session:
    """A picture whose hole changes, as strokes of a brush are added and taken away.

    `fill` does as ``model.complete``, and keeps every layer's result. The next `fill` computes of
    each layer what the hole needs and the last fill did not compute, or what changed: pixels that
    see one that was known and is missing now, or the other way round. The result is what computing
    everything gives but for rounding: tiles of Winograd's algorithms lie where the session's first
    hole wanted them, and last bits depend on that and on nothing else. What works as in `complete`
    with less gain: layers that see the whole picture (instance normalisation, attention) and what
    comes after them are computed again.

    Something is kept on the CPU and where `complete` computes what a hole needs; else `fill` is
    `complete`. Changed weights are noticed. The memory is that of all results of all layers: 0.5 GB
    for DeepFill v2 at 512 x 512, until `forget` or until nobody holds the session. Several threads
    may share a session: they take turns.

    Args:
        model: the method.
        image: of `InpaintingModel.complete`; the session has its own copy.

    Raises:
        TypeError: wrong type or dtype.
        ValueError: wrong shape.
    """

    def __init__(self, model: InpaintingModel, image: Tensor) -> None:
        if not isinstance(model, InpaintingModel):
            raise TypeError(
                f"Session: model must be an InpaintingModel, got {type(model).__name__}"
            )
        checks.check_image("Session", "image", image)
        self.model = model
        self.image = image.detach().clone()
        self._memory = Memory()
        self._turn = threading.Lock()

    def __repr__(self) -> str:
        return f"Session({self.model.name}, image {tuple(self.image.shape)} {self.image.dtype})"

    def fill(
        self,
        hole: Tensor,
        *,
        sketch: Tensor | None = None,
        edges: Tensor | None = None,
        seed: int = 0,
        progress: Progress = None,
    ) -> Tensor:
        """Fill the missing pixels.

        Args:
            hole: of `InpaintingModel.complete`; any, whatever the last one was.
            sketch: of `InpaintingModel.complete`.
            edges: likewise.
            seed: likewise.
            progress: likewise.

        Returns:
            As `InpaintingModel.complete`.

        Raises:
            TypeError: wrong type or dtype.
            ValueError: wrong shape, device, range or option.
        """
        with self._turn, remembering(self._memory):
            return self.model.complete(
                self.image, hole, sketch=sketch, edges=edges, seed=seed, progress=progress
            )

    def forget(self) -> None:
        """Free what is kept; the next `fill` is a first one."""
        with self._turn:
            self._memory.forget()
