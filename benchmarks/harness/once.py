"""Cases too long for rounds: each contestant runs a single time, in a process of its own."""

from __future__ import annotations

import gc
from collections.abc import Callable

from inpaint_ops.benchmarks.harness.case import Case, Missing, Problem
from inpaint_ops.benchmarks.harness.machine import Peaks
from inpaint_ops.benchmarks.harness.memory import Memory, measure
from inpaint_ops.benchmarks.harness.runner import Entry, Result, set_floor
from inpaint_ops.benchmarks.harness.timing import Timing

# Seconds after which a contestant is given up.
PATIENCE = 1800.0


def run_once(
    case: Case,
    setup: Callable[[Case], Problem],
    peak: Peaks,
) -> tuple[Result, list[Memory]]:
    """Return time, verdict and extra memory of every contestant, from one call each.

    Args:
        case: the case to run.
        setup: builds it, here for the names of the contestants and the floor.
        peak: thread count, and rates for the floor.

    Raises:
        Unavailable: from `setup`.
    """
    problem = setup(case)
    result = Result(case, peak.threads, {})
    set_floor(result, problem, peak)
    missing = {k: v for k, v in problem.implementations.items() if isinstance(v, Missing)}
    names = list(problem.implementations)
    # The contestants need the space.
    del problem
    gc.collect()
    memories = []
    for name in names:
        if name in missing:
            result.entries[name] = Entry("missing", missing[name].reason)
            continue
        memory = measure(case, name, threads=peak.threads, timeout=PATIENCE, judge=True)
        memories.append(memory)
        result.entries[name] = _entry(memory)
    return result, memories


def _entry(memory: Memory) -> Entry:
    if memory.seconds is None:
        return Entry("error", memory.detail)
    if memory.wrong is not None:
        return Entry("wrong", memory.wrong)
    return Entry("ok", timing=Timing.of([memory.seconds]))


__all__ = ["PATIENCE", "run_once"]
