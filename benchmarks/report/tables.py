"""Tables of a report as plain rows; the terminal and the page only dress them."""

from __future__ import annotations

from dataclasses import dataclass

from inpaint_ops.benchmarks.harness.accuracy import AIM, LIMIT
from inpaint_ops.benchmarks.harness.runner import BASE, COMPILED, EAGER, OURS, Result
from inpaint_ops.benchmarks.report.report import (
    Report,
    bytes_text,
    ratio_text,
    seconds_text,
    target_text,
)

# Average number of running programs before the run.
_BUSY = 0.7
# Set flush left.
TEXT_COLUMNS = (
    *("case", "contestant", "must / aim"),
    *("operator", "result", "largest in", "mean square in"),
)


@dataclass(frozen=True)
class Cell:
    """Text and its tone: "" or "win", "loss", "fail"."""

    text: str
    tone: str = ""


@dataclass(frozen=True)
class Table:
    """One table."""

    title: str
    columns: tuple[str, ...]
    rows: list[list[Cell]]


def summary(report: Report, op: str) -> Table:
    """Return one row for each case and thread count of an operator with a public formula."""
    results = report.of(op)
    others = [EAGER] if any(EAGER in result.entries for result in results) else []
    others += [name for name in (COMPILED, BASE) if any(result.timing(name) for result in results)]
    judged = any(result.error_ratios() for result in results)
    columns = (
        *("case", "threads", *others, "ours"),
        *(f"vs {name} (minima)" for name in others),
        *("floor", "floor reached", "must / aim"),
        *(["error / eager's"] if judged else []),
    )
    rows = []
    for result in results:
        reached = result.floor_reached(OURS)
        rows.append(
            [
                Cell(result.case.id),
                Cell(_threads(result)),
                *(_time(result, name) for name in (*others, OURS)),
                *(_ratio(result, name) for name in others),
                Cell(seconds_text(result.floor)),
                Cell("–" if reached is None else f"{100 * reached:.0f} %"),
                Cell(target_text(result), _target_tone(result)),
                *([_error(result)] if judged else []),
            ]
        )
    return Table(f"{op}: median time, and how many times as fast ours is", columns, rows)


def compared(report: Report, op: str) -> bool:
    """Return True if an operator has a public formula or another commit to be compared with."""
    return any({EAGER, BASE} & set(result.entries) for result in report.of(op))


def details(report: Report, op: str) -> Table:
    """Return one row for each contestant."""
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
                    Cell(_threads(result)),
                    Cell(name),
                    *(Cell(text) for text in figures),
                    Cell("") if name == OURS else _ratio(result, name),
                    Cell(bytes_text(report.extra_memory(result.case, name))),
                    *(_figure(entry.quality.get(q)) for q in quality),
                ]
            )
    return Table(f"{op}: every contestant", columns, rows)


def memory(report: Report, op: str) -> Table | None:
    """Return one row for each case whose peak memory was measured in a fresh process."""
    entries = [entry for entry in report.memory if entry.case.op == op and entry.extra is not None]
    names = list(dict.fromkeys(entry.contestant for entry in entries))
    if not entries:
        return None
    rows = []
    for case in dict.fromkeys(entry.case.id for entry in entries):
        found = {e.contestant: e.extra for e in entries if e.case.id == case}
        ours, eager = found.get(OURS), found.get(EAGER)
        quotient = "–" if not ours or not eager else f"{ours / eager:.2f}"
        row = [case, *(bytes_text(found.get(name)) for name in names), quotient]
        rows.append([Cell(text) for text in row])
    columns = ("case", *names, "ours / eager")
    return Table(f"{op}: extra memory of one call", columns, rows)


def accuracy(report: Report) -> Table | None:
    """Return the largest errors over all layers in multiples of eager's, a row for each part."""
    rows = []
    for op in report.ops:
        ratios = {(r.case.id, r.threads): r.error_ratios() for r in report.of(op)}
        for part in dict.fromkeys(part for found in ratios.values() for part in found):
            of_part = {key: found[part] for key, found in ratios.items() if part in found}
            row = [Cell(op), Cell(part), Cell(str(len({case for case, _ in of_part})))]
            for norm in (0, 1):
                worst = max(of_part, key=lambda key: of_part[key][norm])
                row += [_error_cell(of_part[worst][norm]), Cell(worst[0])]
            above = {case for (case, _), both in of_part.items() if max(both) > AIM}
            rows.append([*row, Cell(str(len(above)))])
    if not rows:
        return None
    columns = (
        *("operator", "result", "cases", "largest", "largest in", "mean square", "mean square in"),
        f"cases above {AIM:g}",
    )
    title = f"Error against float64 over that of eager float32 (limit {LIMIT:g}, aim {AIM:g})"
    return Table(title, columns, rows)


def remarks(report: Report) -> list[str]:
    """Return a line for everything that is missing or wrong, each once."""
    lines = [f"FAILED: {line}" for line in report.failures()]
    for op, case_id, reason in report.skipped:
        lines.append(f"{op} {case_id}: not run: {reason}")
    for result in report.results:
        where = f"{result.case.op} {result.case.id}"
        lines += [
            f"{where}: {name}: {entry.detail}"
            for name, entry in result.entries.items()
            if entry.status == "missing"
        ]
    lines += [
        f"{kept.case.op} {kept.case.id}: memory of {kept.contestant}: {kept.detail}"
        for kept in report.memory
        if kept.extra is None
    ]
    return list(dict.fromkeys(lines))


def busy_line(report: Report) -> str:
    """Return a warning where other programs were running, or what was done about it; or nothing."""
    if report.settings.get("clock") == "processor":
        return "Times are those that the processor spent on a contestant, not the clock's."
    load = report.environment.get("load_at_start")
    if load is None or load < _BUSY:
        return ""
    return f"Other programs kept {load:g} processors busy before this run: do not trust the times."


def machine_lines(report: Report) -> list[str]:
    """Return a line on the measured ceilings of each thread count."""
    return [
        f"{peak.threads} thread{'s' if peak.threads > 1 else ''}: multiply-adds "
        f"{peak.gflops:.1f} GFLOP/s ({_source(peak.gflops_from)}), copy {peak.copy_gb:.1f} GB/s"
        for peak in report.peaks.values()
    ]


def _threads(result: Result) -> str:
    return f"{result.threads}, one run" if result.case.once else str(result.threads)


def _error(result: Result) -> Cell:
    ratios = result.error_ratios()
    return _error_cell(max(map(max, ratios.values()))) if ratios else Cell("–")


def _error_cell(ratio: float) -> Cell:
    return Cell(f"{ratio:.2f}", "fail" if ratio > LIMIT else "win" if ratio <= AIM else "")


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
