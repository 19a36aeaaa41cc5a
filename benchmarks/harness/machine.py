"""Name of the machine, and its rates, which set the floor of a kernel's time."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from inpaint_ops.benchmarks.harness.case import Work
from inpaint_ops.benchmarks.harness.timing import thread_count
from inpaint_ops.ops import native as ops_native

_COPY_BYTES = 256 * 1024 * 1024
_PACKAGES = ("inpaint-ops", "torch", "numpy", "opencv-python-headless", "scikit-image")


@dataclass(frozen=True)
class Peaks:
    """Measured ceilings of one thread count.

    Args:
        threads: torch threads.
        gflops: multiply-adds in float32, counted as 2, in 1e9 a second.
        gflops_from: "registers" (multiply-adds on registers only) or "torch.mm" (a lower bound,
            for builds without the extension).
        copy_gb: bytes read plus bytes written by a copy of 256 MiB, in 1e9 a second.
    """

    threads: int
    gflops: float
    gflops_from: str
    copy_gb: float

    def floor(self, work: Work) -> float:
        """Return the seconds of the work at these rates, arithmetic and traffic overlapped."""
        return max(work.flops / (self.gflops * 1e9), work.moved / (self.copy_gb * 1e9))


def measure_peaks(threads: int, *, seconds: float = 1.0, fewer: Sequence[Peaks] = ()) -> Peaks:
    """Measure both rates, each within about `seconds`.

    More threads can reach the rates of fewer. So `fewer`, peaks measured before, are lower bounds
    where other programs keep a thread waiting now.
    """
    gflops, source = _fma_peak(threads, seconds)
    copy_gb = _copy_rate(threads, seconds)
    gflops = max([gflops, *(peak.gflops for peak in fewer)])
    copy_gb = max([copy_gb, *(peak.copy_gb for peak in fewer)])
    return Peaks(threads, gflops, source, copy_gb)


def _fma_peak(threads: int, seconds: float) -> tuple[float, str]:
    native = ops_native.extension() if ops_native.status().available else None
    measure = getattr(native, "fma_peak", None)
    if measure is not None:
        # The best of many short runs: an interruption can only lower it.
        return max(float(measure(seconds / 10, threads)) for _ in range(10)), "registers"
    size = 1536
    a, b = torch.rand(size, size), torch.rand(size, size)
    out = torch.empty(size, size)
    best = _best(lambda: torch.mm(a, b, out=out), threads, seconds)
    return 2 * size**3 / best / 1e9, "torch.mm"


def _copy_rate(threads: int, seconds: float) -> float:
    source = torch.ones(_COPY_BYTES, dtype=torch.uint8)
    target = torch.empty_like(source)
    return 2 * _COPY_BYTES / _best(lambda: target.copy_(source), threads, seconds) / 1e9


def _best(call: Any, threads: int, seconds: float) -> float:
    with thread_count(threads):
        call()
        times: list[float] = []
        while len(times) < 3 or sum(times) < seconds:
            begun = time.perf_counter()
            call()
            times.append(time.perf_counter() - begun)
    return min(times)


def available_cpus() -> int:
    """Return the number of processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def busy_processors(seconds: float = 0.5) -> float | None:
    """Watch how many processors work while this thread sleeps; None where that is unknown."""
    before = _processor_ticks()
    time.sleep(seconds)
    after = _processor_ticks()
    if before is None or after is None or after[1] == before[1]:
        return None
    return round((os.cpu_count() or 1) * (after[0] - before[0]) / (after[1] - before[1]), 2)


def _processor_ticks() -> tuple[int, int] | None:
    """Return working and all ticks of all processors since the start of the system."""
    try:
        first = Path("/proc/stat").read_text(encoding="ascii").partition("\n")[0]
    except OSError:
        return None
    # User, nice, system, idle, waiting for disks, and six more: see proc(5).
    ticks = [int(number) for number in first.split()[1:9]]
    return sum(ticks) - ticks[3] - ticks[4], sum(ticks)


def environment() -> dict[str, Any]:
    """Return the facts that a reader of the numbers needs later."""
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "cpu": _cpu_name(),
        "cpus": available_cpus(),
        "instruction_set": ops_native.status().instruction_set or "none (no extension)",
        "torch_instruction_set": torch.backends.cpu.get_cpu_capability(),
        "platform": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: v for name in _PACKAGES if (v := version(name)) is not None},
        "commit": _commit(),
        "load_at_start": _load(),
    }


def version(package: str) -> str | None:
    """Return the version of an installed package, None if there is none."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown"
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"


def _load() -> float | None:
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def _commit() -> str | None:
    """Return the commit of a checkout; None for an installed copy, wherever it lies."""
    here = Path(__file__).resolve()
    try:
        # An installed copy may lie inside somebody else's checkout, which does not track it.
        _git(here.parent, "ls-files", "--error-unmatch", here.name)
        return _git(here.parent, "describe", "--always", "--dirty", "--abbrev=12")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments],
        capture_output=True,
        text=True,
        timeout=10,
        check=True,
    )
    return done.stdout.strip()
