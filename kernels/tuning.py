"""Measurement of the ways to compute a layer, at its first call or for a table.

`measured` is asked when a layer's plan is made and no table has an entry for it. It measures where
INPAINT_OPS_TUNE=1 asks for that, and inside `collecting`, with which the programs make tables. A
measurement waits for the device. So none is taken while a CUDA graph is captured or a program is
traced: `postponed` says so, and the plan is made anew at the next call.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch

from inpaint_ops.kernels import tables
from inpaint_ops.kernels.stopwatch import measure

LIBRARY = "library"
# Of each candidate, where a call asks.
_SECONDS = 0.02
# Devices that are measured without `collecting`.
_TIMED = ("cuda",)

# The call to time for a row of the fused kernel, or for None, the library.
Trial = Callable[[str | None], Callable[[], Any]]


@dataclass(frozen=True)
class Measurement:
    """Microseconds of the candidates for one layer.

    Args:
        keys: of the tables, the layer's own and that of its class.
        times: of each row that ran.
        library: of the library and the pass after it; None if that failed.
    """

    keys: Sequence[str]
    times: Mapping[str, float]
    library: float | None


@dataclass
class _Collection:
    """Measurements of a `collecting` block."""

    seconds: float
    found: list[Measurement] = field(default_factory=list)


_collection: ContextVar[_Collection | None] = ContextVar("collection", default=None)


@contextmanager
def collecting(seconds: float) -> Iterator[list[Measurement]]:
    """Measure every layer whose plan is made in the block, known or not; yield what was found.

    Args:
        seconds: of timing for each candidate.
    """
    collection = _Collection(seconds)
    token = _collection.set(collection)
    try:
        yield collection.found
    finally:
        _collection.reset(token)


def postponed(device: torch.device) -> bool:
    """Whether layers are to be measured at their first call, and it cannot be done now."""
    return _asked() and device.type in _TIMED and _is_recorded(device)


def _asked() -> bool:
    wanted = os.environ.get("INPAINT_OPS_TUNE") or "0"
    if wanted not in ("0", "1"):
        raise ValueError(f"INPAINT_OPS_TUNE: must be 0 or 1, got {wanted!r}")
    # Who multiplies decides on last digits, which are to be the same from run to run there.
    repeatable = torch.are_deterministic_algorithms_enabled()
    return wanted == "1" and tables.may_grow() and not repeatable


def _is_recorded(device: torch.device) -> bool:
    """Whether calls are recorded instead of run, so that nobody may wait for them."""
    return torch.compiler.is_compiling() or (
        device.type == "cuda" and torch.cuda.is_current_stream_capturing()
    )


def measured(
    keys: Sequence[str], rows: Sequence[str], device: torch.device, trial: Trial, known: bool
) -> Mapping[str, str] | None:
    """The entry of a layer after a measurement, None where none was taken.

    Args:
        keys: of the tables, the layer's own and that of its class.
        rows: that can compute it.
        device: where.
        trial: gives the calls to time.
        known: whether tables have an entry.
    """
    collection = _collection.get()
    lazy = not known and _asked() and device.type in _TIMED
    if (collection is None and not lazy) or _is_recorded(device):
        return None
    one = _measure(keys, rows, device, trial, collection.seconds if collection else _SECONDS)
    entries = entries_of([one])
    if collection is not None:
        collection.found.append(one)
    elif entries:
        _keep(device, entries)
    return entries.get(keys[0])


def _measure(
    keys: Sequence[str], rows: Sequence[str], device: torch.device, trial: Trial, seconds: float
) -> Measurement:
    calls = {row: _when_called(trial, row) for row in rows}
    calls[LIBRARY] = _when_called(trial, None)
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        got = measure(calls, device, seconds)
    times = {name: one["device"] for name, one in got.items() if "device" in one}
    library = times.pop(LIBRARY, None)
    return Measurement(keys, times, library)


def _when_called(trial: Trial, row: str | None) -> Callable[[], Any]:
    """The call for a row, prepared at its first: what that raises is the candidate's failure."""
    made: list[Callable[[], Any]] = []

    def call() -> Any:
        if not made:
            made.append(trial(row))
        return made[0]()

    return call


def _keep(device: torch.device, entries: Mapping[str, dict[str, str]]) -> None:
    """Let this process know, and those after it."""
    tables.remember(device, entries)
    path = tables.cache_file(device)
    try:
        tables.store(path, device, entries)
    except OSError as error:
        # Told once, by the text; the call itself has lost nothing.
        warnings.warn(
            f"inpaint_ops: measured choices cannot be kept in {path.parent}: {error}; "
            "INPAINT_OPS_CACHE names another folder",
            RuntimeWarning,
            stacklevel=2,
        )


def drawn(x: torch.Tensor, *shape: int) -> torch.Tensor:
    """Normal numbers in x's dtype and on its device; the user's generators stay as they are."""
    generator = torch.Generator(x.device).manual_seed(0)
    return torch.randn(shape, generator=generator, dtype=x.dtype, device=x.device)


def entries_of(measurements: Iterable[Measurement]) -> tables.Entries:
    """Fastest row and fastest way for each key of measurements."""
    found: dict[str, list[Measurement]] = {}
    for one in measurements:
        if one.times or one.library is not None:
            for key in one.keys[:2]:
                found.setdefault(key, []).append(one)
    return {key: _entry(some) for key, some in found.items()}


def _entry(some: Sequence[Measurement]) -> dict[str, str]:
    """The row, and "fused" or "library", that lose least over some layers of one key."""
    both = [
        {"fused": min(one.times.values()), LIBRARY: one.library}
        for one in some
        if one.times and one.library is not None
    ]
    ran = [one.times for one in some if one.times]
    if not ran:
        return {"row": "", "choice": LIBRARY}
    return {"row": _most_even(ran), "choice": _most_even(both) if both else "fused"}


def _most_even(layers: Sequence[Mapping[str, float]]) -> str:
    """Name of the least geometric mean of slowdowns, among those that ran every layer."""
    everywhere = [name for name in layers[0] if all(name in times for times in layers)]

    def slowdown(name: str) -> float:
        ran = [times for times in layers if name in times]
        return math.fsum(math.log(times[name] / min(times.values())) for times in ran)

    return min(everywhere or list(layers[0]), key=slowdown)
