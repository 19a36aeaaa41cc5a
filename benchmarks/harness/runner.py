"""Run of a case: every contestant is checked, then those that were right are timed."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import torch

from inpaint_ops.benchmarks.harness.accuracy import LIMIT, Error
from inpaint_ops.benchmarks.harness.case import Case, Missing, Problem, Target
from inpaint_ops.benchmarks.harness.machine import Peaks
from inpaint_ops.benchmarks.harness.timing import Timing, interleave, thread_count

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

Calls = dict[str, Callable[[], Any]]
Times = Callable[[Calls], dict[str, Timing]]

OURS = "ours"
EAGER = "eager"
COMPILED = "compiled"
# Ours at another commit.
BASE = "base"

# Seconds between the samples of calls in several processes.
PAUSE = 0.01


@dataclass
class Entry:
    """One contestant at one thread count.

    Args:
        status: "ok", "wrong" (result refused, not timed), "error" (raised) or "missing".
        detail: the reason, for the other statuses; how another engine is set.
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

    def error_ratios(self, contestant: str = OURS) -> dict[str, tuple[float, float]]:
        """Return errors in multiples of eager's, by part: largest, root mean square."""
        entry = self.entries.get(contestant)
        return {} if entry is None else self._over_eager(entry)

    def worst_error(self, entry: Entry) -> float | None:
        """Return the largest error of an entry in multiples of eager's, None if not known."""
        return max(map(max, self._over_eager(entry).values()), default=None)

    def _over_eager(self, entry: Entry) -> dict[str, tuple[float, float]]:
        eager = self.entries[EAGER].errors if EAGER in self.entries else {}
        return {
            part: error.times(eager[part]) for part, error in entry.errors.items() if part in eager
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


class Guests(Protocol):
    """Contestants that run elsewhere."""

    def __call__(self, result: Result) -> Mapping[str, Callable[[], Any]]:
        """Put their entries into a result and return the calls of those that can be timed."""


def run_case(
    case: Case,
    setup: Callable[[Case], Problem],
    peaks: Mapping[int, Peaks],
    *,
    seconds: float | None,
    with_compile: bool = True,
    min_rounds: int = 3,
    settle: Callable[[], Any] | None = None,
    invite: Callable[[Problem], AbstractContextManager[Guests | None]] | None = None,
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
        invite: gives the problem to guests, which take part inside the context.

    Raises:
        Unavailable: from `setup`.
    """
    problem = setup(case)
    times: Times | None = None
    if seconds is not None:
        seconds *= case.time_share
        times = partial(
            interleave,
            seconds=seconds,
            min_rounds=min_rounds,
            settle=settle,
            pause=PAUSE if invite else 0.0,
        )
    with nullcontext() if invite is None else invite(problem) as guests:
        for threads, peak in peaks.items():
            with thread_count(threads):
                implementations = dict(problem.implementations)
                if with_compile and case.compile and EAGER in implementations:
                    implementations[COMPILED] = compiled(problem)
                yield _run(case, problem, implementations, peak, times, guests)


def _run(
    case: Case,
    problem: Problem,
    implementations: Mapping[str, Callable[..., Any] | Missing],
    peak: Peaks,
    times: Times | None,
    guests: Guests | None,
) -> Result:
    result = Result(case, peak.threads, {}, pictures=dict(problem.shown))
    calls: Calls = {}
    with_errors = problem.limited or guests is not None
    for name, implementation in implementations.items():
        result.entries[name] = _checked(name, implementation, problem, result, with_errors)
        if result.entries[name].status == "ok" and not isinstance(implementation, Missing):
            calls[name] = partial(problem.run, implementation)
    if problem.limited and _errs_too_much(result):
        calls.pop(OURS, None)
    if guests is not None:
        calls.update(guests(result))
    for name, timing in _timings(calls, times).items():
        result.entries[name].timing = timing
        if timing is None:
            result.entries[name] = Entry("missing", "its process ended while it was timed")
    set_floor(result, problem, peak)
    return result


def _timings(calls: Calls, times: Times | None) -> dict[str, Timing | None]:
    if times is None:
        return {}
    found = times(calls)
    return {name: found.get(name) for name in calls}


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
    name: str,
    implementation: Callable[..., Any] | Missing,
    problem: Problem,
    result: Result,
    with_errors: bool,
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
    if with_errors and problem.errors is not None and name in (OURS, EAGER):
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
