"""The one rule for "has this weight changed?": its bytes have another fingerprint.

All that is made of weights and kept beside them asks here: packed forms
(`ops/convolution/packed_weights.py`), spectrally normalised and folded weights (`models/blocks`).

Version counters and addresses are not enough. Edits through ``weight.data``, through a NumPy array
over the same memory, and of tensors made in inference mode change neither. Reading a weight costs
less than using it, so every byte is read at every call, on all threads.

A change of a single value always changes the 64-bit fingerprint. Another change goes unseen with a
probability of 2^-64, or of at most 2^-31 where its parts were made to cancel each other. The
probability is over keys that each process draws (csrc/base/fingerprint.cpp).
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from inpaint_ops import checks
from inpaint_ops.ops import native

# Storages that a `frozen` block promises not to change, and the number of the block.
_promises: dict[int, int] = {}
# Storages of tensors made of frozen weights inside a block. They are kept alive there, so that no
# other storage gets their key.
_adopted: dict[int, list[torch.UntypedStorage]] = {}
_numbers = itertools.count(1)
_lock = threading.Lock()


def storage_key(tensor: Tensor) -> int:
    """Return a number that no other storage has while this one lives."""
    key: int = tensor.untyped_storage()._cdata
    return key


def _promise(tensor: Tensor) -> int | None:
    """Return the number of the `frozen` block that holds a tensor, or None."""
    return _promises.get(storage_key(tensor)) if _promises else None


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Promise that no parameter and no buffer of a model changes inside a ``with`` block.

    Each weight is then checked for changes once in the block, at its first use, not at every call.
    A change that breaks the promise may go unnoticed until the block ends. This saves time where
    the same layers run many times on small pictures; results have the same bits. The promise holds
    for all threads of the process.

    Args:
        model: any module; its parameters and buffers at the moment of entry.

    Raises:
        TypeError: model is no module.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"frozen: model must be an nn.Module, got {type(model).__name__}")
    tensors = [*model.parameters(), *model.buffers()]
    # Kept alive, so that no other storage gets the key of one that is replaced.
    storages = {storage_key(tensor): tensor.untyped_storage() for tensor in tensors}
    number = next(_numbers)
    with _lock:
        own = set(storages) - set(_promises)
        _promises.update(dict.fromkeys(own, number))
        _adopted[number] = []
    try:
        yield
    finally:
        with _lock:
            own.update(storage._cdata for storage in _adopted.pop(number))
            for key in own:
                if _promises.get(key) == number:
                    del _promises[key]


class Snapshot:
    """Address, layout and fingerprint of a CPU tensor; it does not keep the tensor alive."""

    __slots__ = ("_address", "_fingerprint", "_layout", "_memory", "_promise")

    def __init__(self, tensor: Tensor) -> None:
        module = native.extension()
        assert module is not None
        self._address = tensor.data_ptr()
        self._layout = (tensor.dtype, tensor.shape, tensor.stride())
        self._memory = module.WeightMemory(tensor.shape, tensor.stride(), tensor.element_size())
        self._promise = _promise(tensor)
        self._fingerprint = self._read()

    def holds(self, tensor: Tensor) -> bool:
        """Return whether a tensor lies at the same place, in the same layout, with equal bytes."""
        if tensor.data_ptr() != self._address:
            return False
        if (tensor.dtype, tensor.shape, tensor.stride()) != self._layout:
            return False
        promise = _promise(tensor)
        if promise is not None and promise == self._promise:
            return True
        if self._read() != self._fingerprint:
            return False
        self._promise = promise
        return True

    def _read(self) -> int:
        fingerprint: int = self._memory.fingerprint(self._address, torch.get_num_threads())
        return fingerprint

    def equals(self, other: Snapshot) -> bool:
        """Return whether another snapshot is of the same place and the same bytes."""
        mine = (self._address, self._layout, self._fingerprint)
        return mine == (other._address, other._layout, other._fingerprint)


class Kept:
    """Tensors made of weights without gradients, made again when one of the weights has changed.

    Args:
        exposed: True if others can reach the tensors and edit them; then these are checked, too.
    """

    def __init__(self, *, exposed: bool = False) -> None:
        self._exposed = exposed
        self._kept: tuple[list[Snapshot | None], list[Snapshot], tuple[Tensor, ...]] | None = None
        self._settings: tuple[float, ...] = ()

    def of(
        self,
        sources: Sequence[Tensor | None],
        make: Callable[[], tuple[Tensor, ...]],
        settings: tuple[float, ...] = (),
    ) -> tuple[Tensor, ...]:
        """Return the tensors of `make`; the kept ones if neither sources nor settings changed.

        Tensors without memory of their own (on other devices, while something traces or transforms
        the call) are never kept.

        Args:
            sources: the weights that `make` reads.
            make: makes the tensors.
            settings: numbers that the tensors depend on besides.
        """
        traced = torch.compiler.is_compiling() or checks.tracing() is not None
        if traced or not all(s is None or _readable(s) for s in sources):
            return make()
        kept = self._kept if self._settings == settings else None
        if kept is not None and _same(kept[0], sources) and _same(kept[1], kept[2]):
            _adopt(sources, kept[2])
            return kept[2]
        # Taken before `make`, so that the next call notices a change during it.
        before = [None if s is None else Snapshot(s) for s in sources]
        made = make()
        if all(_readable(tensor) for tensor in made):
            results = [Snapshot(tensor) for tensor in made] if self._exposed else []
            self._kept, self._settings = (before, results, made), settings
            _adopt(sources, made)
        return made

    def __getstate__(self) -> dict[str, bool]:
        return {"_exposed": self._exposed}

    def __setstate__(self, state: dict[str, bool]) -> None:
        self.__init__(exposed=state["_exposed"])  # type: ignore[misc]


def _same(snapshots: Sequence[Snapshot | None], tensors: Sequence[Tensor | None]) -> bool:
    """Return whether all snapshots hold; a snapshot None demands that the tensor is None."""
    if not snapshots:
        return True
    return len(snapshots) == len(tensors) and all(
        tensor is None if snapshot is None else tensor is not None and snapshot.holds(tensor)
        for snapshot, tensor in zip(snapshots, tensors)
    )


def _readable(tensor: Tensor) -> bool:
    """Return whether a tensor is ordinary CPU memory that the extension can read."""
    if type(tensor) not in (Tensor, nn.Parameter) or not tensor.is_cpu:
        return False
    if tensor.layout != torch.strided or not native.status().available:
        return False
    try:
        return tensor.data_ptr() != 0
    except RuntimeError:  # inside a function transform
        return False


def _adopt(sources: Sequence[Tensor | None], made: Sequence[Tensor]) -> None:
    """Extend the promise that holds for all sources to the tensors made of them."""
    if not _promises:
        return
    promises = {_promise(source) for source in sources if source is not None}
    number = promises.pop() if len(promises) == 1 else None
    if number is None:
        return
    with _lock:
        block = _adopted.get(number)
        if block is None:
            return
        for tensor in made:
            if storage_key(tensor) not in _promises:
                _promises[storage_key(tensor)] = number
                block.append(tensor.untyped_storage())
