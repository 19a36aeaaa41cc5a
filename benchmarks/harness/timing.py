"""Paired timing: the contestants take turns, so a slow spell of the machine hits all of them."""

from __future__ import annotations

import gc
import math
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch

Call = Callable[[], Any]


class GoneError(Exception):
    """What runs in another process can no longer run."""


@runtime_checkable
class Sampled(Protocol):
    """A call that takes its own time: it runs in another process, and the way there costs too."""

    def __call__(self) -> Any:
        """Run once."""

    def sample(self, repeats: int) -> float:
        """Run so many times and return the seconds of one.

        Raises:
            GoneError: it cannot run any more; the others go on.
        """


# "processor": times are those that the processor spent on the process. On a busy machine they say
# more than the clock's, for one thread: of several, waiting counts.
CLOCK_VARIABLE = "INPAINT_OPS_BENCH_CLOCK"

# A sample shorter than this drowns in the jitter of clock and scheduler.
_SHORTEST_SAMPLE = 2e-3
# Untimed calls: packed weights are kept from the fifth on at the latest, plans and memory sooner. A
# slow call is not worth so many; two show what is made once.
_WARM_UP, _LEAST_WARM_UP, _WARM_UP_SECONDS = 5, 2, 1.0


@dataclass(frozen=True)
class Timing:
    """Seconds of a call: median, quartiles, minimum and the number of samples."""

    median: float
    quartile_1: float
    quartile_3: float
    minimum: float
    samples: int

    @property
    def iqr(self) -> float:
        """Distance between the quartiles."""
        return self.quartile_3 - self.quartile_1

    @classmethod
    def of(cls, samples: list[float]) -> Timing:
        """Sum up at least one sample."""
        if len(samples) == 1:
            return cls(samples[0], samples[0], samples[0], samples[0], 1)
        low, middle, high = statistics.quantiles(samples, n=4, method="inclusive")
        return cls(middle, low, high, min(samples), len(samples))


def interleave(
    calls: Mapping[str, Call],
    *,
    seconds: float,
    min_rounds: int = 3,
    max_rounds: int = 100,
    settle: Call | None = None,
    pause: float = 0.0,
) -> dict[str, Timing]:
    """Time the calls in rounds A B C, A B C, ... after warm-up calls of each.

    One that is gone has no timing.

    Args:
        calls: name to call.
        seconds: time after which no new round begins, once `min_rounds` are done.
        min_rounds: least number of rounds, however long they take.
        max_rounds: largest number of rounds.
        settle: waits for a device that works on its own, so that all of its work is timed.
        pause: seconds to wait before each sample, where calls run in several processes: the threads
            of one may wait in a loop for a while after its call. A short call then runs once
            untimed, to wake those of its own.
    """
    repeats: dict[str, int] = {}
    samples: dict[str, list[float]] = {}
    for name, call in calls.items():
        with suppress(GoneError):
            repeats[name] = _repeats(call, settle)
            samples[name] = []
    with _no_garbage_collection():
        begun = time.perf_counter()
        for done in range(max_rounds):
            if done >= min_rounds and time.perf_counter() - begun >= seconds:
                break
            for name in list(samples):
                try:
                    if pause:
                        time.sleep(pause)
                        if repeats[name] > 1:
                            _sample(calls[name], 1, settle)
                    samples[name].append(_sample(calls[name], repeats[name], settle))
                except GoneError:
                    del samples[name]
    return {name: Timing.of(values) for name, values in samples.items()}


def clock() -> Callable[[], float]:
    """Return the function that reads the seconds of a sample."""
    processor = os.environ.get(CLOCK_VARIABLE) == "processor"
    return time.process_time if processor else time.perf_counter


def _sample(call: Call, repeats: int, settle: Call | None) -> float:
    if isinstance(call, Sampled):
        return call.sample(repeats)
    now = clock()
    begun = now()
    for _ in range(repeats):
        call()
    if settle is not None:
        settle()
    return (now() - begun) / repeats


def _repeats(call: Call, settle: Call | None) -> int:
    """Warm up; return how many calls make a sample."""
    begun = time.perf_counter()
    for done in range(1, _WARM_UP + 1):
        seconds = _sample(call, 1, settle)
        if done >= _LEAST_WARM_UP and time.perf_counter() - begun >= _WARM_UP_SECONDS:
            break
    return max(1, math.ceil(_SHORTEST_SAMPLE / max(seconds, 1e-7)))


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextmanager
def thread_count(threads: int) -> Iterator[None]:
    """Set torch to so many threads inside a block."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
