"""Models without memory for their weights: names and shapes alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

if TYPE_CHECKING:
    from inpaint_ops.models.method import InpaintingModel


def shapes_of(cls: type[InpaintingModel], options: Mapping[str, Any]) -> InpaintingModel:
    """A model on the meta device; raises what its constructor raises."""
    with torch.device("meta"), _WithoutValues():
        return cls(**options)


class _WithoutValues(TorchFunctionMode):
    """Gives initial values of meta tensors their shapes only, which needs none of torch's compiler.

    What is not named here runs as always: that imports much the first time, and changes nothing.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        options = kwargs or {}
        name = getattr(func, "__name__", "")
        dims = [x.dim() if isinstance(x, Tensor) else None for x in args[:2]]
        if name.endswith("normal_") or name == "normalize":
            return args[0] if args else options["tensor"]
        if name == "randn_like" or (name in ("__truediv__", "div") and dims[1:] == [0]):
            return torch.empty(args[0].shape, dtype=args[0].dtype, device="meta")
        if name in ("__matmul__", "matmul", "dot") and dims[1:] == [1]:
            return torch.empty(args[0].shape[:-1], dtype=args[0].dtype, device="meta")
        return func(*args, **options)
