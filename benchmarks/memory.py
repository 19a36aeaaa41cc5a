"""Peak memory: what one call adds to the high-water mark of a fresh process.

``python -m inpaint_ops.benchmarks.memory OP CASE CONTESTANT THREADS`` is that process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from inpaint_ops.benchmarks.case import Case, Missing, Unavailable, load

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Memory:
    """Extra memory of one contestant in one case; `extra` is in bytes, None if not measured."""

    case: Case
    contestant: str
    extra: int | None
    detail: str = ""


def measure(case: Case, contestant: str, *, threads: int = 1, timeout: float = 600.0) -> Memory:
    """Runs the contestant once in a process of its own."""
    # -m would put the working directory first, and with it a source tree without the extension.
    settings = {**os.environ, "PYTHONSAFEPATH": "1"}
    command = [sys.executable, "-m", "inpaint_ops.benchmarks.memory"]
    command += [case.op, case.id, contestant, str(threads)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout, check=False, env=settings
        )
    except subprocess.TimeoutExpired:
        return Memory(case, contestant, None, f"more than {timeout:.0f} s")
    try:
        answer = json.loads(done.stdout.splitlines()[-1])
        return Memory(case, contestant, answer["extra"], answer["detail"])
    except (IndexError, KeyError, ValueError):
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        return Memory(case, contestant, None, f"exit code {done.returncode}: {last[:200]}")


def probe(case: Case, contestant: str) -> tuple[int | None, str]:
    """The extra bytes of one call in this process, or None and the reason."""
    try:
        problem = load(case.op).setup(case)
    except Unavailable as reason:
        return None, str(reason)
    implementation = problem.implementations.get(contestant, Missing("no such contestant"))
    if isinstance(implementation, Missing):
        return None, implementation.reason
    # Buffers that the first product of a process allocates, whoever makes it.
    torch.mm(torch.ones(64, 64), torch.ones(64, 64))
    _forget_peak()
    before = peak()
    problem.run(implementation)
    return peak() - before, ""


def peak() -> int:
    """High-water mark of this process's resident memory, in bytes."""
    # On Linux ru_maxrss starts at the mark of the parent (kept across exec), VmHWM at zero.
    if _STATUS.exists():
        for line in _STATUS.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource

    mark = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return mark if sys.platform == "darwin" else mark * 1024


def _forget_peak() -> None:
    # Otherwise what setup needed for a moment would hide as much of the call's own need.
    with suppress(OSError):
        _CLEAR.write_text("5", encoding="ascii")


def main(arguments: list[str]) -> int:
    """Prints one line of JSON."""
    op, case_id, contestant, threads = arguments
    torch.set_num_threads(int(threads))
    case = next(case for case in load(op).CASES if case.id == case_id)
    extra, detail = probe(case, contestant)
    print(json.dumps({"extra": extra, "detail": detail}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
