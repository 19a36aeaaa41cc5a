"""Weights in the form the CPU kernels read: packed for a call, or kept while they do not change.

Three rules say what is kept:

* **Asked for twice.** A weight is packed into memory that all layers share, until the same form is
  wanted again of the same values. A weight that has changed once must be asked for five times: a
  step of a training asks a few times, and changes it then.
* **One form for one use.** A weight's results and its gradients have a form each. Where another
  size of picture takes another algorithm, the new form takes the place of the old one.
* **Twice the weights.** All kept forms together take at most twice the memory of all weights that
  are in use, those that are read in place too, or 16 MiB if that is more. What has no room is
  packed at every call. A weight that is alone has room for its forms.

None of them decides about an algorithm, so none changes a bit of a result.
"""

from __future__ import annotations

import sys
import threading
import weakref
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from inpaint_ops.ops import tensors
from inpaint_ops.ops.convolution.plan import Form
from inpaint_ops.ops.native import extension
from inpaint_ops.ops.weight_state import Snapshot, storage_key

# Calls in vain, of the same values, before a form is kept: of a new weight, and of one that has
# changed before.
_CALLS, _CALLS_CHANGED = 1, 4
# Memory that the kept forms may take, in that of the weights; and what they may take at least.
_MOST_KEPT, _LEAST_KEPT = 2, 16 << 20
# Shared memory that stays between calls: tiles of 6 x 6 of a 3x3 layer of 512 channels fit. That of
# weights which have changed before, as in a training, stays whatever its size, until somebody
# releases it: the next step takes it again, and pages from the system cost more than the packing.
_MOST_SPARE = 40 << 20


def _references(held: list[Any]) -> int:
    """Return how many references there are to the only item of a list."""
    return sys.getrefcount(held[0])


# Where the list has the only one: releases of Python count differently.
_ALONE = _references([object()])


class Held(NamedTuple):
    """Bytes that packed weights take.

    Args:
        weights: of the weights themselves, as float32, each once.
        kept: of the forms that are kept.
        spare: of the memory for the forms that are not.
    """

    weights: int
    kept: int
    spare: int


@dataclass
class _Entry:
    # None: the weight was written to, and nothing is kept of it.
    snapshot: Snapshot | None
    version: int | None
    # Of the weight's storage: the entry goes with it.
    storage: weakref.ref[torch.UntypedStorage]
    # Values of the storage, and of the weight.
    size: tuple[int, int]
    # Calls in vain before a form is kept.
    calls: int
    kept: dict[Any, Any] = field(default_factory=dict)
    # The form that was last made and not kept, of each use, and how often in a row.
    seen: dict[Any, Any] = field(default_factory=dict)


class _PackedWeights:
    """Packed forms of weights, made again when the weight has changed: see `weight_state`.

    They are kept by place, storage and layout, not by tensor: views of one memory share their
    forms. References are to storages, since one to a tensor would forbid
    `torch.utils.swap_tensors`.
    """

    def __init__(self) -> None:
        self._entries: dict[Any, _Entry] = {}
        # By storage: weights that are read in place, and how many values they have.
        self._in_place: dict[Any, tuple[weakref.ref[torch.UntypedStorage], int]] = {}
        self._spare: list[Any] = []
        # Of weights and kept forms; None: to be added up.
        self._sums: tuple[int, int] | None = None
        self._gone = 0  # weights that were freed
        self._lock = threading.Lock()

    def of(self, weight: Tensor, form: Form) -> Any:
        """Return the packed form of a weight as it is now, at the begin of the memory returned."""
        variant = (form, tensors.native().instruction_set())
        key = place(weight)
        entry = self._entries.get(key)
        if entry is not None and entry.kept:
            if entry.snapshot is not None and entry.snapshot.holds(weight):
                packed = entry.kept.get(variant)
                if packed is not None:
                    return packed
            else:
                entry.kept = {}
                self._sums = None
        taps = tensors.compute_dtype(weight.detach())
        if form.summed:
            taps = _sums_of_neighbours(taps)
        options = form.options
        size = 4 * tensors.native().packed_floats(taps, *options)
        # Before the packing, so that a change during it is seen by the next call.
        snapshot = self._to_keep(weight, key, variant, size)
        if snapshot is not None:
            packed = tensors.native().pack_weight(
                taps, *options, threads=tensors.threads(), spare=None
            )
            self._keep(key, variant, packed, snapshot)
        else:
            spare = self._taken_spare()
            packed = tensors.native().pack_weight(
                taps, *options, threads=tensors.threads(), spare=spare
            )
            self._give_spare(packed, key, again=packed is spare)
        return packed

    def count(self, weight: Tensor) -> None:
        """Count a weight that is read in place among those in use."""
        key = storage_key(weight)
        with self._lock:
            if key not in self._in_place:
                storage = weight.untyped_storage()
                reference = weakref.ref(storage, lambda gone: self._forget_in_place(key, gone))
                self._in_place[key] = reference, weight.numel()
                self._sums = None

    def _to_keep(self, weight: Tensor, key: Any, variant: Any, size: int) -> Snapshot | None:
        """Return the weight as it is if its form of so many bytes is to be kept, else None.

        Notes that the form was asked for.
        """
        use = _use(variant)
        version = None if weight.is_inference() else weight._version
        with self._lock:
            entry = self._entries.get(key)
            if entry is not None and version != entry.version and not entry.kept:
                # Its bytes need not be read to know that they have changed.
                entry.snapshot, entry.version, entry.calls = None, version, _CALLS_CHANGED
                entry.seen = {use: (variant, 1)}
                return None
            if entry is not None and not self._has_room(entry, use, size):
                return None
        snapshot = Snapshot(weight)
        with self._lock:
            entry = self._entries.get(key)
            if entry is None or (
                entry.snapshot is not None and not entry.snapshot.equals(snapshot)
            ):
                storage = weight.untyped_storage()
                reference = weakref.ref(storage, lambda gone: self._forget(key, gone))
                values = (storage.nbytes() // weight.element_size(), weight.numel())
                calls = _CALLS if entry is None else _CALLS_CHANGED
                entry = _Entry(snapshot, version, reference, values, calls)
                self._entries[key] = entry
                self._sums = None
            # The newer one knows whether a `frozen` block holds the weight now.
            entry.snapshot, entry.version = snapshot, version
            last, count = entry.seen.get(use, (None, 0))
            count = count if last == variant else 0
            entry.seen[use] = (variant, count + 1)
            return snapshot if count >= entry.calls else None

    def _has_room(self, entry: _Entry, use: Any, size: int) -> bool:
        """Return whether a form may be kept, in place of the one for the same use."""
        held = self._held()
        replaced = sum(one.nbytes for variant, one in entry.kept.items() if _use(variant) == use)
        if held.weights <= 4 * entry.size[1]:
            return True
        return bool(held.kept - replaced + size <= max(_MOST_KEPT * held.weights, _LEAST_KEPT))

    def _keep(self, key: Any, variant: Any, packed: Any, snapshot: Snapshot) -> None:
        """Keep a form, unless another thread has met other values of the weight meanwhile."""
        use = _use(variant)
        with self._lock:
            entry = self._entries.get(key)
            known = None if entry is None else entry.snapshot
            if entry is not None and known is not None and known.equals(snapshot):
                others = {v: one for v, one in entry.kept.items() if _use(v) != use}
                entry.kept = {**others, variant: packed}
                self._sums = None

    def _taken_spare(self) -> Any:
        """Return the shared memory, or None if there is none or somebody reads it."""
        with self._lock:
            free = bool(self._spare) and _references(self._spare) == _ALONE
            return self._spare.pop() if free else None

    def _give_spare(self, packed: Any, key: Any, *, again: bool) -> None:
        """Share memory, as soon as its reader has left it; `again`: it was shared before."""
        with self._lock:
            entry = self._entries.get(key)
            changes = entry is not None and entry.calls == _CALLS_CHANGED
            if packed.nbytes <= _MOST_SPARE or changes or again:
                self._spare = [packed]

    def _forget(self, key: Any, gone: weakref.ref[torch.UntypedStorage]) -> None:
        # No lock: this may run inside `of`, when a collection frees a weight.
        entry = self._entries.get(key)
        if entry is not None and entry.storage is gone:
            self._entries.pop(key, None)
            self._sums = None
            self._gone += 1

    def _forget_in_place(self, key: Any, gone: weakref.ref[torch.UntypedStorage]) -> None:
        found = self._in_place.get(key)
        if found is not None and found[0] is gone:
            self._in_place.pop(key, None)
            self._sums = None
            self._gone += 1
            # Another weight may come to lie there, to be counted as well.
            if (module := extension()) is not None:
                module.forget_counted_weights()

    def clear(self) -> None:
        """Forget all packed forms; the next call of a layer makes its own again."""
        with self._lock:
            self._entries.clear()
            self._spare, self._sums = [], None

    def held(self) -> Held:
        """Return how much memory the weights and their packed forms take."""
        with self._lock:
            return self._held()

    def _held(self) -> Held:
        sums = self._sums
        if sums is None:
            gone = self._gone
            sums = self._added_up()
            if gone == self._gone:
                self._sums = sums
        return Held(*sums, sum(one.nbytes for one in self._spare))

    def _added_up(self) -> tuple[int, int]:
        values: dict[Any, int] = {}
        whole: dict[Any, int] = {}
        kept = 0
        # A copy is made in one go. A collection in any other loop may free a weight and its entry.
        for key, entry in self._entries.copy().items():
            storage = key[0]
            whole[storage], own = entry.size
            values[storage] = values.get(storage, 0) + own
            kept += sum(one.nbytes for one in entry.kept.values())
        for storage, (_, count) in self._in_place.copy().items():
            values.setdefault(storage, count)
            whole.setdefault(storage, count)
        # Slices of a weight are no weights besides.
        weights = sum(min(count, whole[storage]) for storage, count in values.items())
        return 4 * weights, kept

    def __len__(self) -> int:
        return len(self._entries)


def _use(variant: Any) -> Any:
    """Return what a form is for, whatever the algorithm and the instruction set."""
    form: Form = variant[0]
    return form._replace(algorithm="")


def place(weight: Tensor) -> Any:
    """Return what tells a weight from all others that live at the same time."""
    layout = (weight.storage_offset(), weight.dtype, weight.shape, weight.stride())
    return (storage_key(weight), *layout)


def _sums_of_neighbours(taps: Tensor) -> Tensor:
    """(..., kh + 1, kw + 1): tap t is the sum of taps t - 1 and t, along both axes."""
    filters, channels, height, width = taps.shape
    sums = taps.new_empty((filters, channels, height + 1, width + 1))
    tensors.native().sum_neighbours(taps, sums, tensors.threads())
    return sums


packed_weights = _PackedWeights()
