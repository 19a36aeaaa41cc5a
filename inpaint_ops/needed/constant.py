"""Tensors that no step makes: whether, and where, they have changed."""

from __future__ import annotations

import torch
from torch import Tensor

from inpaint_ops.needed.changes import Change
from inpaint_ops.needed.needs import ALL
from inpaint_ops.ops.weight_state import Snapshot

_IMAGE = 4
# Elements up to which a tensor is copied, whatever it is.
_FEW = 1 << 14
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class Constant:
    """What is needed to see later whether, and where, a tensor has changed.

    Images are copied and compared pixel by pixel; larger weights have their fingerprint, by the
    library's rule (`ops/weight_state.py`).
    """

    __slots__ = ("_copy", "_snapshot")

    def __init__(self, x: Tensor) -> None:
        image = x.dim() == _IMAGE and x.shape[2] * x.shape[3] >= x.shape[1]
        self._copy = x.detach().clone() if image or x.numel() <= _FEW else None
        self._snapshot = Snapshot(x) if self._copy is None else None

    def renew(self, x: Tensor) -> Change:
        """Return the change to the tensor x, and stand for that."""
        if self._snapshot is not None and self._snapshot.holds(x):
            return None
        change = ALL if self._copy is None else difference(self._copy, x)
        if change is not None:
            self.__init__(x)  # type: ignore[misc]
        return change


def difference(old: Tensor, new: Tensor) -> Change:
    """Return where the bits of two tensors of one shape and dtype differ."""
    as_bits = _BITS.get(old.element_size())
    if as_bits is None or old.shape != new.shape or old.dtype != new.dtype:
        return ALL
    differs = old.detach().view(as_bits) != new.detach().view(as_bits)
    if not differs.any():
        return None
    return differs.any(1).view(torch.uint8) if old.dim() == _IMAGE else ALL
