"""Peak memory and time of one call in a fresh process.

That process is ``python -m inpaint_ops.benchmarks.harness.memory OP CASE CONTESTANT THREADS``.
With ``--judge`` at the end it checks the result too.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from inpaint_ops.benchmarks.harness.case import Case, Missing, Unavailable, load
from inpaint_ops.benchmarks.harness.runner import COMPILED, compiled

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Memory:
    """Extra memory of one contestant in one case.

    Args:
        case, contestant: of the call.
        extra: bytes that the call adds to the high-water mark, None if not measured.
        detail: the reason, if not measured.
        seconds: time of the call, the first one of its process.
        wrong: reason to refuse the result, where it was checked.
    """

    case: Case
    contestant: str
    extra: int | None
    detail: str = ""
    seconds: float | None = None
    wrong: str | None = None


def measure(
    case: Case,
    contestant: str,
    *,
    threads: int = 1,
    timeout: float = 600.0,
    judge: bool = False,
) -> Memory:
    """Run the contestant once in a process of its own; `judge` has the result checked."""
    # -m would put the working directory first, and with it a source tree without the extension.
    settings = {**os.environ, "PYTHONSAFEPATH": "1"}
    command = [sys.executable, "-m", "inpaint_ops.benchmarks.harness.memory"]
    command += [case.op, case.id, contestant, str(threads)]
    command += ["--judge"] if judge else []
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout, check=False, env=settings
        )
    except subprocess.TimeoutExpired:
        return Memory(case, contestant, None, f"more than {timeout:.0f} s")
    try:
        answer = json.loads(done.stdout.splitlines()[-1])
        return Memory(case, contestant, **answer)
    except (IndexError, TypeError, ValueError):
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        return Memory(case, contestant, None, f"exit code {done.returncode}: {last[:200]}")


def probe(case: Case, contestant: str, *, judge: bool = False) -> dict[str, Any]:
    """Measure extra bytes and seconds of one call in this process, or say why there are none.

    A compiled formula is measured at its second call: the first one compiles.
    """
    try:
        problem = load(case.op).setup(case)
    except Unavailable as reason:
        return {"extra": None, "detail": str(reason)}
    implementation = problem.implementations.get(contestant, Missing("no such contestant"))
    if contestant == COMPILED:
        implementation = compiled(problem)
    if isinstance(implementation, Missing):
        return {"extra": None, "detail": implementation.reason}
    # Buffers that the first product of a process allocates, whoever makes it.
    torch.mm(torch.ones(64, 64), torch.ones(64, 64))
    if contestant == COMPILED:
        problem.run(implementation)
        _give_back()
    _forget_peak()
    before, begun = peak(), time.perf_counter()
    outcome = problem.run(implementation)
    seconds, extra = time.perf_counter() - begun, peak() - before
    wrong = problem.check(outcome) if judge else None
    return {"extra": extra, "detail": "", "seconds": seconds, "wrong": wrong}


def peak() -> int:
    """Return the high-water mark of this process's resident memory, in bytes."""
    # On Linux ru_maxrss starts at the mark of the parent (kept across exec), VmHWM at zero.
    if _STATUS.exists():
        for line in _STATUS.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource

    mark = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return mark if sys.platform == "darwin" else mark * 1024


def _forget_peak() -> None:
    # Otherwise memory that setup needed for a moment would hide as much of the call's own need.
    with suppress(OSError):
        _CLEAR.write_text("5", encoding="ascii")


def _give_back() -> None:
    # Memory that an earlier call freed, but the allocator kept, would cost this call nothing.
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def main(arguments: list[str]) -> int:
    """Print one line of JSON."""
    op, case_id, contestant, threads, *judge = arguments
    torch.set_num_threads(int(threads))
    case = next(case for case in load(op).CASES if case.id == case_id)
    print(json.dumps(probe(case, contestant, judge=bool(judge))))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
