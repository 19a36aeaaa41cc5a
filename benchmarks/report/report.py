"""Everything that one run measured, and its JSON form."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from inpaint_ops.benchmarks.harness.case import Case
from inpaint_ops.benchmarks.harness.machine import Peaks
from inpaint_ops.benchmarks.harness.memory import Memory
from inpaint_ops.benchmarks.harness.runner import Entry, Result

# Raised when a field changes its meaning or goes.
SCHEMA = 1

METHOD = (
    "The contestants of a case take turns (A B C A B C ...), other engines and other commits in a "
    "process each, after each result was checked in float64 and a warm-up; a ratio is the other's "
    "time over ours, of the medians and of the minima, and the floor is the time the arithmetic or "
    "the memory traffic alone would take at the rates measured on this machine. Cases marked 'one "
    "run' take minutes: a single call in a process of its own. Extra memory is what one call adds "
    "to the high-water mark of a fresh process. Errors of convolutions are those against float64 "
    "divided by eager float32's, the larger quotient of the largest and of the root mean square; "
    "above 8 a result is refused."
)


@dataclass
class Report:
    """One run.

    Args:
        environment: see `machine.environment`.
        settings: options of the run.
        peaks: thread count to measured rates.
        results: in the order they were measured.
        memory: in the order they were measured.
        skipped: cases that could not run: operator, case, reason.
        interrupted: the run was cut short.
    """

    environment: dict[str, Any]
    settings: dict[str, Any]
    peaks: dict[int, Peaks] = field(default_factory=dict)
    results: list[Result] = field(default_factory=list)
    memory: list[Memory] = field(default_factory=list)
    skipped: list[tuple[str, str, str]] = field(default_factory=list)
    interrupted: bool = False

    @property
    def ops(self) -> list[str]:
        """Operators in the order they were measured."""
        return list(dict.fromkeys(result.case.op for result in self.results))

    def of(self, op: str) -> list[Result]:
        """Return the results of one operator."""
        return [result for result in self.results if result.case.op == op]

    def extra_memory(self, case: Case, contestant: str) -> int | None:
        """Return bytes, or None if not measured."""
        wanted = (case.op, case.id, contestant)
        for entry in self.memory:
            if (entry.case.op, entry.case.id, entry.contestant) == wanted:
                return entry.extra
        return None

    def has(self, case: Case) -> bool:
        """Return True if the case was measured or skipped."""
        wanted = (case.op, case.id)
        found = {(r.case.op, r.case.id) for r in self.results}
        return wanted in found or wanted in {row[:2] for row in self.skipped}

    def failures(self) -> list[str]:
        """Return a line for each contestant whose result was refused or that raised."""
        return [
            f"{r.case.op} {r.case.id}, {r.threads} threads, {name}: {entry.status}: {entry.detail}"
            for r in self.results
            for name, entry in r.entries.items()
            if entry.failed
        ]

    def to_json(self) -> str:
        """Return the report without its pictures."""
        content = {
            "schema": SCHEMA,
            "method": METHOD,
            "environment": self.environment,
            "settings": self.settings,
            "interrupted": self.interrupted,
            "peaks": [asdict(peak) for peak in self.peaks.values()],
            "results": [_result(result) for result in self.results],
            "memory": [_memory(entry) for entry in self.memory],
            "skipped": [dict(zip(("op", "case", "reason"), row)) for row in self.skipped],
            "failures": self.failures(),
        }
        return json.dumps(content, indent=1) + "\n"


def _result(result: Result) -> dict[str, Any]:
    ratios = {name: result.ratio(name) for name in result.entries}
    return {
        "op": result.case.op,
        "case": result.case.id,
        "sizes": dict(result.case.sizes),
        "dtype": result.case.dtype,
        "threads": result.threads,
        "floor_seconds": result.floor,
        "floor_set_by": result.floor_set_by or None,
        "target": None if result.case.target is None else asdict(result.case.target),
        "verdict": result.verdict() or None,
        "contestants": {
            name: _entry(entry, result.floor_reached(name), result.worst_error(entry))
            for name, entry in result.entries.items()
        },
        "ours_faster_than": {
            name: {"by_medians": ratio[0], "by_minima": ratio[1]}
            for name, ratio in ratios.items()
            if ratio is not None and name != "ours"
        },
        "error_over_eager": {
            name: {"by_maximum": ratio[0], "by_rms": ratio[1]}
            for name, ratio in result.error_ratios().items()
        },
    }


def _entry(
    entry: Entry, floor_reached: float | None, error_over_eager: float | None
) -> dict[str, Any]:
    content: dict[str, Any] = {"status": entry.status}
    if entry.detail:
        content["detail"] = entry.detail
    if entry.timing is not None:
        timing = entry.timing
        content["seconds"] = {
            "median": timing.median,
            "iqr": timing.iqr,
            "quartile_1": timing.quartile_1,
            "quartile_3": timing.quartile_3,
            "minimum": timing.minimum,
            "samples": timing.samples,
        }
        content["floor_reached"] = floor_reached
    if entry.quality:
        content["quality"] = entry.quality
    if entry.errors:
        content["errors"] = {name: asdict(error) for name, error in entry.errors.items()}
        content["error_over_eager"] = error_over_eager
    return content


def _memory(entry: Memory) -> dict[str, Any]:
    content: dict[str, Any] = {
        "op": entry.case.op,
        "case": entry.case.id,
        "contestant": entry.contestant,
        "extra_bytes": entry.extra,
    }
    if entry.detail:
        content["detail"] = entry.detail
    return content


def seconds_text(value: float | None) -> str:
    """Write three digits in the unit that fits."""
    if value is None:
        return "–"
    for unit, scale in (("s", 1.0), ("ms", 1e-3)):
        if value >= scale:
            return f"{value / scale:.3g} {unit}"
    return f"{value / 1e-6:.3g} µs"


def bytes_text(value: int | None) -> str:
    """Write MB or GB; the process itself moves by a few tenths of a MB."""
    if value is None:
        return "–"
    return f"{value / 1e9:.2f} GB" if value >= 1e9 else f"{value / 1e6:.1f} MB"


def ratio_text(value: float | None) -> str:
    """Write three digits, two below 0.1."""
    if value is None:
        return "–"
    if value < 0.1:
        return f"{value:.2g}x"
    return f"{value:.2f}x" if value < 10 else f"{value:.1f}x"


def target_text(result: Result) -> str:
    """Write both levels and the verdict; empty without a target."""
    target = result.case.target
    if target is None:
        return ""
    return f"{target.must:g}x / {target.aim:g}x: {result.verdict()}"
