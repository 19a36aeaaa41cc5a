"""Time and memory of calls on a GPU, by the device's own clock.

On the CPU, where the check rehearses, by the host's, and once.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

Call = Callable[[], Any]

_ROUNDS = 5
_MOST_CALLS = 50
# Seconds from which on a call is taken once.
_LONG = 0.25
# What a device does in a second of `torch.cuda._sleep`, from above: sleeping longer does no harm.
_CYCLES = 2.0e9
# Longest sleep that fills the queue before a sample.
_LONGEST_SLEEP = 0.05


def is_lost(error: BaseException) -> bool:
    """Whether an exception says that every further call of this process will fail on the device."""
    accelerator = getattr(torch, "AcceleratorError", ())
    text = str(error)
    words = ("CUDA error", "illegal", "misaligned address", "device-side assert", "launch failure")
    return isinstance(error, accelerator) or any(word in text for word in words)


def settle(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure(
    calls: Mapping[str, Call], device: torch.device, seconds: float
) -> dict[str, dict[str, Any]]:
    """Times of the calls in microseconds, taken in turns; an exception has its text instead.

    "device" is the time on the device alone, of calls that were all in its queue before the first
    began; "call" that of the host and the device together, as a program sees it. Both are medians
    over rounds A B C, A B C. A call that waits for the device has its waits in both.
    """
    found: dict[str, dict[str, Any]] = {}
    plans: dict[str, _Plan] = {}
    for name, call in calls.items():
        try:
            plans[name] = _planned(call, device, seconds)
        except Exception as error:  # a contestant's failure must not hide the others
            if is_lost(error):
                raise
            found[name] = {"missing": f"{type(error).__name__}: {str(error)[:200]}"}
            _free(device)
    samples: dict[str, list[tuple[float, float]]] = {name: [] for name in plans}
    for done in range(_ROUNDS):
        for name, plan in plans.items():
            if done < plan.rounds:
                samples[name].append(_sample(calls[name], plan, device))
    for name in calls:
        if name in samples:
            kinds = zip(("device", "call"), zip(*samples[name]))
            found[name] = {kind: round(1e6 * statistics.median(t), 2) for kind, t in kinds}
    return {name: found[name] for name in calls}


@dataclass(frozen=True)
class _Plan:
    """How a call is timed.

    Args:
        calls: in one sample.
        rounds: samples.
        host: seconds that the host has to do for a call.
        whole: seconds of a call.
    """

    calls: int
    rounds: int
    host: float
    whole: float


def _planned(call: Call, device: torch.device, seconds: float) -> _Plan:
    begun = time.perf_counter()
    call()
    settle(device)
    if device.type == "cuda" and time.perf_counter() - begun < _LONG:
        call()
        settle(device)
    begun = time.perf_counter()
    call()
    host = time.perf_counter() - begun
    settle(device)
    whole = time.perf_counter() - begun
    calls = max(1, min(int(seconds / _ROUNDS / max(whole, 1e-7)), _MOST_CALLS))
    rounds = _ROUNDS if whole < _LONG and device.type == "cuda" else 1
    return _Plan(calls, rounds, host, whole)


def _sample(call: Call, plan: _Plan, device: torch.device) -> tuple[float, float]:
    """Seconds on the device, and of the host and the device together."""
    # A long call was timed when it was planned, as a program sees it.
    whole = plan.whole if plan.whole >= _LONG else _sample_of_host(call, plan.calls, device)
    if device.type != "cuda":
        return whole, whole
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    # While the device sleeps, the host puts every call into the queue.
    sleep = min(_LONGEST_SLEEP, 1.5 * plan.host * plan.calls)
    torch.cuda._sleep(int(sleep * _CYCLES))
    start.record()
    for _ in range(plan.calls):
        call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3 / plan.calls, whole


def _sample_of_host(call: Call, times: int, device: torch.device) -> float:
    begun = time.perf_counter()
    for _ in range(times):
        call()
    settle(device)
    return (time.perf_counter() - begun) / times


def peak_memory(call: Call, device: torch.device) -> int | None:
    """Bytes that one call adds to what is allocated, results included; None on the CPU."""
    if device.type != "cuda":
        return None
    _free(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    held = call()
    settle(device)
    peak = torch.cuda.max_memory_allocated(device) - before
    del held
    return peak


def _free(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()
