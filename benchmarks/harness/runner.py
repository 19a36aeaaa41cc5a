"""Run of a case: every contestant is checked, then those that were right are timed."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from inpaint_ops.benchmarks.harness.accuracy import LIMIT, Error
from inpaint_ops.benchmarks.harness.case import Case, Missing, Problem, Target
from inpaint_ops.benchmarks.harness.machine import Peaks
from inpaint_ops.benchmarks.harness.timing import Timing, interleave, thread_count

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

Times = Callable[[Mapping[str, Callable[[], Any]]], dict[str, Timing]]

OURS = "ours"
EAGER = "eager"
COMPILED = "compiled"


@dataclass
class Entry:
    """One contestant at one thread count.

    Args:
        status: "ok", "wrong" (result refused, not timed), "error" (raised) or "missing".
        detail: the reason, for the other statuses.
        timing: of status "ok".
        quality: figures for information.
        errors: of each part of the result against float64.
    """

    status: str
    detail: str = ""
    timing: Timing | None = None
    quality: dict[str, float] = field(default_factory=dict)
    errors: dict[str, Error] = field(default_factory=dict)

    @property
    def failed(self) -> bool:
        """True where the exit code must tell."""
        return self.status in ("wrong", "error")


@dataclass
class Result:
    """One case at one thread count."""

    case: Case
    threads: int
    entries: dict[str, Entry]
    floor: float | None = None
    floor_set_by: str = ""
    pictures: dict[str, npt.NDArray[np.uint8]] = field(default_factory=dict)

    def timing(self, name: str) -> Timing | None:
        """Return the timing of a contestant, or None."""
        entry = self.entries.get(name)
        return None if entry is None else entry.timing

    def ratio(self, name: str) -> tuple[float, float] | None:
        """Return how many times as fast as a contestant ours is, by medians and by minima."""
        ours, other = self.timing(OURS), self.timing(name)
        if ours is None or other is None:
            return None
        return other.median / ours.median, other.minimum / ours.minimum

    def floor_reached(self, name: str) -> float | None:
        """Return floor over median: 1 where the machine could not be faster."""
        timing = self.timing(name)
        return None if timing is None or self.floor is None else self.floor / timing.median

    def error_ratios(self) -> dict[str, tuple[float, float]]:
        """Return our errors in multiples of eager's, by part: largest, root mean square."""
        if OURS not in self.entries or EAGER not in self.entries:
            return {}
        eager = self.entries[EAGER].errors
        return {
            name: error.times(eager[name])
            for name, error in self.entries[OURS].errors.items()
            if name in eager
        }

    def verdict(self) -> str:
        """Return the verdict on the target by the ratio of medians, empty without a target."""
        target = self.case.target
        if target is None:
            return ""
        ratio = self.ratio(target.against)
        return verdict(target, None if ratio is None else ratio[0])


def verdict(target: Target, ratio: float | None) -> str:
    """Return the verdict on a ratio."""
    if ratio is None:
        return "not measured"
    if ratio >= target.aim:
        return "aim reached"
    return "must reached" if ratio >= target.must else "below must"


def run_case(
    case: Case,
    setup: Callable[[Case], Problem],
    peaks: Mapping[int, Peaks],
    *,
    seconds: float | None,
    with_compile: bool = True,
    min_rounds: int = 3,
    settle: Callable[[], Any] | None = None,
) -> Iterator[Result]:
    """Yield one result for each thread count in `peaks`.

    Args:
        case: the case to run.
        setup: builds it, once for all thread counts.
        peaks: thread count to rates for the floor.
        seconds: for the timing of one thread count, times the case's `time_share`; checks
            and warm-up come on top. None: only checks.
        with_compile: run "eager" under torch.compile as well.
        min_rounds, settle: see `interleave`.

    Raises:
        Unavailable: from `setup`.
    """
    problem = setup(case)
    times: Times | None = None
    if seconds is not None:
        seconds *= case.time_share
        times = partial(interleave, seconds=seconds, min_rounds=min_rounds, settle=settle)
    for threads, peak in peaks.items():
        with thread_count(threads):
            implementations = dict(problem.implementations)
            if with_compile and case.compile and EAGER in implementations:
                implementations[COMPILED] = compiled(problem)
            yield _run(case, problem, implementations, peak, times)


def _run(
    case: Case,
    problem: Problem,
    implementations: Mapping[str, Callable[..., Any] | Missing],
    peak: Peaks,
    times: Times | None,
) -> Result:
    result = Result(case, peak.threads, {}, pictures=dict(problem.shown))
    calls: dict[str, Callable[[], Any]] = {}
    for name, implementation in implementations.items():
        result.entries[name] = _checked(name, implementation, problem, result)
        if result.entries[name].status == "ok" and not isinstance(implementation, Missing):
            calls[name] = partial(problem.run, implementation)
    if _errs_too_much(result):
        calls.pop(OURS, None)
    for name, timing in times(calls).items() if times else ():
        result.entries[name].timing = timing
    set_floor(result, problem, peak)
    return result


def set_floor(result: Result, problem: Problem, peak: Peaks) -> None:
    """Put the least time the machine needs into the result."""
    if problem.work is not None:
        result.floor = peak.floor(problem.work)
        arithmetic = problem.work.flops / (peak.gflops * 1e9)
        result.floor_set_by = "arithmetic" if arithmetic >= result.floor else "traffic"


def _errs_too_much(result: Result) -> bool:
    """Refuse ours where it errs more than `LIMIT` times as much as eager."""
    ratios = result.error_ratios()
    worst = max(ratios, key=lambda name: max(ratios[name]), default="")
    if not worst or max(ratios[worst]) <= LIMIT:
        return False
    ours = result.entries[OURS]
    ours.status = "wrong"
    ours.detail = f"{worst} errs {max(ratios[worst]):.1f} times as much as eager, limit {LIMIT:g}"
    return True


def _checked(
    name: str, implementation: Callable[..., Any] | Missing, problem: Problem, result: Result
) -> Entry:
    if isinstance(implementation, Missing):
        return Entry("missing", implementation.reason)
    try:
        outcome = problem.run(implementation)
    except Exception as error:  # a contestant's failure must not end the report
        text = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:200]}"
        return Entry("missing" if name == COMPILED else "error", text)
    wrong = problem.check(outcome)
    if wrong is not None:
        return Entry("wrong", wrong)
    if problem.picture is not None:
        result.pictures[name] = problem.picture(outcome)
    quality = {} if problem.quality is None else problem.quality(outcome)
    errors = {}
    if problem.errors is not None and name in (OURS, EAGER):
        errors = problem.errors(outcome)
    return Entry("ok", quality=quality, errors=errors)


def compiled(problem: Problem) -> Callable[..., Any] | Missing:
    """Return the public formula under torch.compile."""
    implementation = problem.implementations[EAGER]
    if isinstance(implementation, Missing):
        return implementation
    # A fresh start for each case and thread count: earlier shapes would make it compile for
    # shapes in general, and the generated code holds the thread count.
    torch.compiler.reset()
    try:
        if problem.compiled is None:
            function = torch.compile(implementation, dynamic=False)
        else:
            function = problem.compiled()
    except RuntimeError as error:
        return Missing(str(error))

    def call(*inputs: Any) -> Any:
        # The compiler's own remarks on code it cannot take in one piece.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return function(*inputs)

    return call
