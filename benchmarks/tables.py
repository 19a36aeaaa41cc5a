"""The tables of a report as plain rows; the terminal and the page only dress them."""

from __future__ import annotations

from dataclasses import dataclass

from inpaint_ops.benchmarks.report import (
    Report,
    bytes_text,
    ratio_text,
    seconds_text,
    target_text,
)
from inpaint_ops.benchmarks.runner import COMPILED, EAGER, OURS, Result

# Average number of running programs before the run.
_BUSY = 0.7
# Set flush left.
TEXT_COLUMNS = ("case", "contestant", "must / aim")


@dataclass(frozen=True)
class Cell:
    """Text and how it is to be seen: "" or "win", "loss", "fail"."""

    text: str
    tone: str = ""


@dataclass(frozen=True)
class Table:
    """One table."""

    title: str
    columns: tuple[str, ...]
    rows: list[list[Cell]]


def summary(report: Report, op: str) -> Table:
    """One row for each case and thread count of an operator with a public formula."""
    results = report.of(op)
    others = [EAGER]
    if any(result.timing(COMPILED) for result in results):
        others.append(COMPILED)
    columns = (
        *("case", "threads", *others, "ours"),
        *(f"vs {name} (minima)" for name in others),
        *("floor", "floor reached", "must / aim"),
    )
    rows = []
    for result in results:
        reached = result.floor_reached(OURS)
        rows.append(
            [
                Cell(result.case.id),
                Cell(str(result.threads)),
                *(_time(result, name) for name in (*others, OURS)),
                *(_ratio(result, name) for name in others),
                Cell(seconds_text(result.floor)),
                Cell("–" if reached is None else f"{100 * reached:.0f} %"),
                Cell(target_text(result), _target_tone(result)),
            ]
        )
    return Table(f"{op}: median time, and how many times as fast ours is", columns, rows)


def details(report: Report, op: str) -> Table:
    """One row for each contestant."""
    results = report.of(op)
    quality = list(
        dict.fromkeys(q for r in results for entry in r.entries.values() for q in entry.quality)
    )
    columns = (
        *("case", "threads", "contestant", "median", "IQR", "minimum", "samples"),
        *("ours as fast (minima)", "extra memory", *quality),
    )
    rows = []
    for result in results:
        for name, entry in result.entries.items():
            timing = entry.timing
            figures = ["–"] * 4
            if timing is not None:
                times = (timing.median, timing.iqr, timing.minimum)
                figures = [*(seconds_text(t) for t in times), str(timing.samples)]
            rows.append(
                [
                    Cell(result.case.id),
                    Cell(str(result.threads)),
                    Cell(name),
                    *(Cell(text) for text in figures),
                    Cell("") if name == OURS else _ratio(result, name),
                    Cell(bytes_text(report.extra_memory(result.case, name))),
                    *(_figure(entry.quality.get(q)) for q in quality),
                ]
            )
    return Table(f"{op}: every contestant", columns, rows)


def remarks(report: Report) -> list[str]:
    """What is missing or wrong, each once."""
    lines = [f"FAILED: {line}" for line in report.failures()]
    for op, case_id, reason in report.skipped:
        lines.append(f"{op} {case_id}: not run: {reason}")
    for result in report.results:
        for name, entry in result.entries.items():
            if entry.status == "missing":
                lines.append(f"{result.case.op} {result.case.id}: {name}: {entry.detail}")
    for memory in report.memory:
        if memory.extra is None:
            where = f"{memory.case.op} {memory.case.id}"
            lines.append(f"{where}: memory of {memory.contestant}: {memory.detail}")
    return list(dict.fromkeys(lines))


def busy_line(report: Report) -> str:
    """A warning where other programs were running; empty otherwise."""
    load = report.environment.get("load_at_start")
    if load is None or load < _BUSY:
        return ""
    return f"Other programs kept {load:g} processors busy before this run: do not trust the times."


def machine_lines(report: Report) -> list[str]:
    """The measured ceilings."""
    return [
        f"{peak.threads} thread{'s' if peak.threads > 1 else ''}: multiply-adds "
        f"{peak.gflops:.1f} GFLOP/s ({_source(peak.gflops_from)}), copy {peak.copy_gb:.1f} GB/s"
        for peak in report.peaks.values()
    ]


def _figure(value: float | None) -> Cell:
    return Cell("–" if value is None else f"{value:.3g}")


def _source(name: str) -> str:
    if name == "registers":
        return "measured on registers"
    return f"{name}: a lower bound, the extension is missing"


def _time(result: Result, name: str) -> Cell:
    entry = result.entries.get(name)
    if entry is None:
        return Cell("–")
    if entry.failed:
        return Cell(entry.status, "fail")
    return Cell(seconds_text(None if entry.timing is None else entry.timing.median))


def _ratio(result: Result, name: str) -> Cell:
    ratio = result.ratio(name)
    if ratio is None:
        return Cell("–")
    text = f"{ratio_text(ratio[0])} ({ratio_text(ratio[1])})"
    return Cell(text, "win" if ratio[0] >= 1 else "loss")


def _target_tone(result: Result) -> str:
    found = result.verdict()
    return {"": "", "not measured": "", "below must": "loss"}.get(found, "win")
