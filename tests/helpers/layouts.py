"""The same values in other places of memory, and the comparison of bits."""

from __future__ import annotations

import torch
from torch import Tensor


def sliced(t: Tensor) -> Tensor:
    """The same values at an offset, every second of a row, in memory that holds NaN elsewhere."""
    n, c, h, w = t.shape
    wide = torch.full((n, c + 3, h + 2, 2 * w + 1), torch.nan)
    part = wide.to(t.dtype)[:, 2 : 2 + c, 1 : 1 + h, 1 : 1 + 2 * w : 2]
    part.copy_(t)
    return part


def transposed(t: Tensor) -> Tensor:
    """The same values, columns first in memory."""
    return t.transpose(2, 3).contiguous().transpose(2, 3)


LAYOUTS = {
    "channels_last": lambda t: t.contiguous(memory_format=torch.channels_last),
    "sliced": sliced,
    "transposed": transposed,
}


def bits(t: Tensor) -> Tensor:
    """Of a float32 tensor its bits, in which zero has a sign; of another the tensor."""
    if t.dtype != torch.float32:
        return t
    return t.resolve_neg().contiguous().view(torch.int32)


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors hold the same bits."""
    return a.dtype == b.dtype and torch.equal(bits(a), bits(b))
