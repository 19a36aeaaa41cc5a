"""Time and memory of calls on a GPU, by the device's own clock.

On the CPU, where the check rehearses, by the host's, and once.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

Call = Callable[[], Any]

_ROUNDS = 5
_MOST_CALLS = 50
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
    repeats: dict[str, tuple[int, float]] = {}
    for name, call in calls.items():
        try:
            repeats[name] = _repeats(call, device, seconds)
            found[name] = {"device": [], "call": []}
        except Exception as error:  # a contestant's failure must not hide the others
            if is_lost(error):
                raise
            found[name] = {"missing": f"{type(error).__name__}: {str(error)[:200]}"}
            _free(device)
    for _ in range(_ROUNDS if device.type == "cuda" else 1):
        for name, (times, host) in repeats.items():
            on_device, whole = _sample(calls[name], times, host, device)
            found[name]["device"].append(on_device)
            found[name]["call"].append(whole)
    for name in repeats:
        found[name] = {
            kind: round(1e6 * statistics.median(values), 2) for kind, values in found[name].items()
        }
    return found


def _repeats(call: Call, device: torch.device, seconds: float) -> tuple[int, float]:
    """Calls in a sample, and the host's seconds for one."""
    if device.type == "cuda":
        call()
        call()
    settle(device)
    begun = time.perf_counter()
    call()
    host = time.perf_counter() - begun
    settle(device)
    whole = time.perf_counter() - begun
    times = int(seconds / _ROUNDS / max(whole, 1e-7))
    return max(1, min(times, _MOST_CALLS)), host


def _sample(call: Call, times: int, host: float, device: torch.device) -> tuple[float, float]:
    whole = _sample_of_host(call, times, device)
    if device.type != "cuda":
        return whole, whole
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    # While the device sleeps, the host puts every call into the queue.
    torch.cuda._sleep(int(min(_LONGEST_SLEEP, 1.5 * host * times) * _CYCLES))
    start.record()
    for _ in range(times):
        call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3 / times, whole


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
