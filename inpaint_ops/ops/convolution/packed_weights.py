"""Weights in the form the CPU kernels read, kept while they do not change."""

from __future__ import annotations

import sys
import threading
import weakref
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from inpaint_ops.ops import tensors
from inpaint_ops.ops.convolution.plan import Form
from inpaint_ops.ops.weight_state import Snapshot, storage_key


def _removed(forms: dict[Any, Any], variant: Any) -> tuple[Any, int]:
    """Remove a form and return it, or None, with the references to it: nobody gets new ones."""
    form = forms.pop(variant, None)
    return form, sys.getrefcount(form)


# Releases of Python count differently.
_ALONE = _removed({0: object()}, 0)[1]


@dataclass
class _Entry:
    snapshot: Snapshot
    # Of the weight's storage: the entry goes with it.
    storage: weakref.ref[torch.UntypedStorage]
    packed: dict[Any, Any] = field(default_factory=dict)
    # Forms of the values before, whose memory is used again: at each step of a training.
    outdated: dict[Any, Any] = field(default_factory=dict)

    def spare(self, variant: Any, current: bool) -> Any:
        """Memory of an outdated form, if no other thread reads it; the form is forgotten."""
        form, references = _removed(self.outdated if current else self.packed, variant)
        return form if references == _ALONE else None


class _PackedWeights:
    """Packed forms of weights, made again when the weight has changed: see `weight_state`.

    They are kept by place, storage and layout, not by tensor: views of one memory share their
    forms. References are to storages, since one to a tensor would forbid
    `torch.utils.swap_tensors`.
    """

    def __init__(self) -> None:
        self._entries: dict[Any, _Entry] = {}
        self._lock = threading.Lock()

    def of(self, weight: Tensor, form: Form) -> Any:
        """Return the packed form of a weight as it is now."""
        native = tensors.native()
        variant = (form, native.instruction_set())
        key = place(weight)
        entry = self._entries.get(key)
        spare = None
        if entry is not None:
            current = entry.snapshot.holds(weight)
            packed = entry.packed.get(variant) if current else None
            if packed is not None:
                return packed
            with self._lock:
                spare = entry.spare(variant, current)
        # Before the packing, so that a change during it is seen by the next call.
        snapshot = Snapshot(weight)
        taps = tensors.compute_dtype(weight.detach())
        packed = native.pack_weight(
            _sums_of_neighbours(taps) if form.summed else taps,
            form.algorithm,
            form.stride,
            form.gated,
            form.flipped,
            form.step,
            form.padding,
            tensors.threads(),
            spare,
        )
        with self._lock:
            entry = self._entries.get(key)
            if entry is None or not entry.snapshot.equals(snapshot):
                outdated = {} if entry is None else entry.packed
                storage = weight.untyped_storage()
                reference = weakref.ref(storage, lambda gone: self._forget(key, gone))
                entry = _Entry(snapshot, reference, outdated=outdated)
                self._entries[key] = entry
            entry.packed[variant] = packed
        return packed

    def _forget(self, key: Any, gone: weakref.ref[torch.UntypedStorage]) -> None:
        # No lock: this may run inside `of`, when a collection frees a weight.
        entry = self._entries.get(key)
        if entry is not None and entry.storage is gone:
            self._entries.pop(key, None)

    def clear(self) -> None:
        """Forget all packed forms; the next call of a layer makes its own again."""
        with self._lock:
            self._entries.clear()

    def __len__(self) -> int:
        return len(self._entries)


def place(weight: Tensor) -> Any:
    """Return what tells a weight from all others that live at the same time."""
    layout = (weight.storage_offset(), weight.dtype, weight.shape, weight.stride())
    return (storage_key(weight), *layout)


def _sums_of_neighbours(taps: Tensor) -> Tensor:
    """(..., kh + 1, kw + 1): tap t is the sum of taps t - 1 and t, along both axes."""
    padded = F.pad(taps, (1, 1, 1, 1))
    rows = padded[:, :, :-1] + padded[:, :, 1:]
    return rows[..., :-1] + rows[..., 1:]


packed_weights = _PackedWeights()
