"""Matrix products that the library forms for the matching kernels, and their strips."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor

# Bytes that the strips of scores of one call may take together, where rows allow it.
STRIP_BYTES = 1 << 28


def product(a: Tensor, b: Tensor) -> Tensor:
    """Batched a @ b in float32; halves are multiplied on tensor cores and never summed as such."""
    if a.dtype == torch.float32:
        return torch.bmm(a, b)
    if a.device.type == "cuda" and torch.version.hip is None:
        return torch.bmm(a, b, out_dtype=torch.float32)
    return torch.bmm(a.float(), b.float())


def without_autocast(function: Callable[..., Any]) -> Callable[..., Any]:
    """Autocast, in force inside an operator too, would round the float32 products."""

    @wraps(function)
    def wrapper(first: Tensor, *arguments: Any) -> Any:
        with torch.autocast(first.device.type, enabled=False):
            return function(first, *arguments)

    return wrapper
