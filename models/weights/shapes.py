"""Models without memory for their weights: names and shapes alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from inpaint_ops.models.method import InpaintingModel


def shapes_of(cls: type[InpaintingModel], options: Mapping[str, Any]) -> InpaintingModel:
    """Return a model on the meta device; raises what its constructor raises."""
    with torch.device("meta"), _WithoutValues():
        return cls(**options)


class _WithoutValues(TorchFunctionMode):
    """Skips the drawing of initial values.

    Meta tensors have no values, and PyTorch would import its compiler for them, which takes seconds
    the first time. Initialisers without that cost run as always and change nothing.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        options = kwargs or {}
        if getattr(func, "__name__", "").endswith("normal_"):
            return args[0] if args else options["tensor"]
        return func(*args, **options)
