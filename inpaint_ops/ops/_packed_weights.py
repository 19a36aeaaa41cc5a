"""Weights in the form the CPU kernels read, kept while they do not change."""

from __future__ import annotations

import sys
import threading
import weakref
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from inpaint_ops.ops import _common
from inpaint_ops.ops._conv_cores import CORES


class Form(NamedTuple):
    """What a packed form depends on besides the weight.

    Args:
        core: one of `_conv_cores.CORES`.
        stride: of the convolution.
        gated: whether the filters are features and gates.
        flipped: for the gradient of the input: filters and channels exchanged, taps reversed.
        doubled: for that of an image behind its doubling: taps are the sums of two by two
            neighbours.
        step: stride of a transposed convolution, whose weight is (channels, filters, kh, kw);
            0: an ordinary one.
        padding: of the transposed convolution.
    """

    core: str
    stride: tuple[int, int] = (1, 1)
    gated: bool = False
    flipped: bool = False
    step: int = 0
    padding: tuple[int, int] = (0, 0)
    doubled: bool = False


def _removed(forms: dict[Any, Any], variant: Any) -> tuple[Any, int]:
    """What is removed, or None, and its count of references: nobody can come by it any more."""
    form = forms.pop(variant, None)
    return form, sys.getrefcount(form)


# Releases of Python count differently.
_ALONE = _removed({0: object()}, 0)[1]


@dataclass
class _Entry:
    weight: weakref.ref[Tensor]
    state: tuple[Any, ...]
    sample: Any
    packed: dict[Any, Any] = field(default_factory=dict)
    # Forms of the state before, whose memory is used again: at each step of a training.
    outdated: dict[Any, Any] = field(default_factory=dict)

    def is_of(self, weight: Tensor, state: tuple[Any, ...], address: int) -> bool:
        """Whether the forms are those of the weight as it is now."""
        same = self.weight() is weight and self.state == state
        return same and bool(self.sample.matches(address))

    def spare(self, variant: Any, current: bool) -> Any:
        """Memory of an outdated form, if no other thread reads it; the form is forgotten."""
        form, references = _removed(self.outdated if current else self.packed, variant)
        return form if references == _ALONE else None


class _PackedWeights:
    """Packed forms of weights that are still alive, dropped when the weight changes.

    A change is seen by the version counter, by the address, and by a sample of 1024 values spread
    over the weight: ``weight.data`` edits bypass the counter, and averaged copies of a model are
    often updated that way.
    """

    def __init__(self) -> None:
        self._entries: dict[int, _Entry] = {}
        self._views: dict[int, tuple[weakref.ref[Tensor], dict[tuple[int, int], Tensor]]] = {}
        self._lock = threading.Lock()

    def of(self, weight: Tensor, form: Form) -> Any:
        """The packed form."""
        native = _common.native()
        variant = (form, native.instruction_set())
        key = id(weight)
        address = weight.data_ptr()
        version = None if weight.is_inference() else weight._version
        state = (version, address, weight.dtype, weight.shape, weight.stride())
        entry = self._entries.get(key)
        spare = None
        if entry is not None:
            current = entry.is_of(weight, state, address)
            packed = entry.packed.get(variant) if current else None
            if packed is not None:
                return packed
            with self._lock:
                spare = entry.spare(variant, current)
        # Before the packing, so that a change during it is seen by the next call.
        sample = native.WeightSample(address, weight.shape, weight.stride(), weight.element_size())
        taps = _common.compute_dtype(weight.detach())
        packed = native.pack_weight(
            _sums_of_neighbours(taps) if form.doubled else taps,
            CORES.index(form.core),
            form.stride,
            form.gated,
            form.flipped,
            form.step,
            form.padding,
            torch.get_num_threads(),
            spare,
        )
        with self._lock:
            entry = self._entries.get(key)
            if entry is None or not entry.is_of(weight, state, address):
                outdated = {} if entry is None else entry.packed
                reference = weakref.ref(weight, lambda gone: self._forget(key, gone))
                entry = _Entry(reference, state, sample, outdated=outdated)
                self._entries[key] = entry
            entry.packed[variant] = packed
        return packed

    def channels(self, weight: Tensor, begin: int, end: int) -> Tensor:
        """A view of some of the weight's channels, kept with it so that packed forms are too."""
        if (begin, end) == (0, weight.shape[1]):
            return weight
        key = id(weight)
        view = weight.detach()[:, begin:end]
        with self._lock:
            kept = self._views.get(key)
            if kept is None or kept[0]() is not weight:
                kept = (weakref.ref(weight, lambda gone: self._forget(key, gone)), {})
                self._views[key] = kept
            known = kept[1].get((begin, end))
            if known is None or not _same_memory(known, view):
                known = kept[1][begin, end] = view
        return known

    def _forget(self, key: int, gone: weakref.ref[Tensor]) -> None:
        # No lock: this may run inside `of`, when a collection frees a weight.
        entry = self._entries.get(key)
        if entry is not None and entry.weight is gone:
            self._entries.pop(key, None)
        kept = self._views.get(key)
        if kept is not None and kept[0] is gone:
            self._views.pop(key, None)

    def __len__(self) -> int:
        return len(self._entries)


def _sums_of_neighbours(taps: Tensor) -> Tensor:
    """(..., kh + 1, kw + 1): tap t is the sum of taps t - 1 and t, along both axes."""
    padded = F.pad(taps, (1, 1, 1, 1))
    rows = padded[:, :, :-1] + padded[:, :, 1:]
    return rows[..., :-1] + rows[..., 1:]


def _same_memory(a: Tensor, b: Tensor) -> bool:
    return (a.data_ptr(), a.dtype, a.shape, a.stride()) == (
        b.data_ptr(),
        b.dtype,
        b.shape,
        b.stride(),
    )


packed_weights = _PackedWeights()
