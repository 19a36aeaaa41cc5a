"""Who is ahead on which layer: ours, and the engines that a user could take instead."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

from inpaint_ops.benchmarks.harness.accuracy import LIMIT
from inpaint_ops.benchmarks.harness.runner import OURS, Result
from inpaint_ops.benchmarks.report.report import Report, ratio_text, seconds_text
from inpaint_ops.benchmarks.report.tables import Cell, Table

_COLUMNS = (
    *("op", "case", "threads", "contestant", "status", "setting_or_reason"),
    *("median_s", "minimum_s", "over_ours_by_medians", "over_ours_by_minima"),
    *("error_over_eager", "largest_error", "processor", "instruction_set", "torch", "commit"),
)


def contestants(report: Report) -> list[str]:
    """Return eager and the other engines, in the order of their first entry."""
    names = dict.fromkeys(name for result in report.results for name in result.entries)
    return [name for name in names if name != OURS]


def table(report: Report) -> Table | None:
    """Return a row for each case and thread count, or None where no engine was asked."""
    if not report.settings.get("peers"):
        return None
    names = contestants(report)
    rows = []
    for result in report.results:
        first = ahead(result)
        tone = {"": "", OURS: "win"}.get(first, "loss")
        ours = result.timing(OURS)
        rows.append(
            [
                Cell(f"{result.case.op} {result.case.id}"),
                Cell(str(result.threads)),
                Cell(seconds_text(None if ours is None else ours.median)),
                Cell(_error_text(result, OURS)),
                *(_cell(result, name) for name in names),
                Cell(first or "–", tone),
            ]
        )
    columns = ("case", "threads", "ours", "error of ours", *names, "ahead")
    environment = report.environment
    title = (
        "Who is ahead: time of each over ours (minima), its error in multiples of eager's. "
        f"{environment['cpu']}, ours with {environment['instruction_set']}, torch with "
        f"{environment['torch_instruction_set']}. Ahead is the fastest of those that err at most "
        f"{LIMIT:g} times as much as eager"
    )
    return Table(title, columns, rows)


def ahead(result: Result) -> str:
    """Return the fastest that errs at most `LIMIT` times as much as eager; empty if none is timed.

    Where errors are not known, the judge of the case has let pass whoever is timed.
    """
    timed = {
        name: entry.timing.median
        for name, entry in result.entries.items()
        if entry.timing is not None and (result.worst_error(entry) or 0.0) <= LIMIT
    }
    return min(timed, key=lambda name: timed[name], default="")


def _cell(result: Result, name: str) -> Cell:
    entry, ratio = result.entries.get(name), result.ratio(name)
    if entry is None:
        return Cell("")
    if ratio is None:
        return Cell("–" if entry.status == "ok" else entry.status)
    text = f"{ratio_text(ratio[0])} ({ratio_text(ratio[1])}), err {_error_text(result, name)}"
    exact = (result.worst_error(entry) or 0.0) <= LIMIT
    return Cell(text, ("win" if ratio[0] >= 1 else "loss") if exact else "")


def _error_text(result: Result, name: str) -> str:
    entry = result.entries.get(name)
    worst = None if entry is None else result.worst_error(entry)
    return "–" if worst is None else f"{worst:.2g}" if worst < 100 else f"{worst:.0f}"


def to_csv(report: Report) -> str:
    """Return a line for each contestant of each case and thread count."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for result in report.results:
        writer.writerows(_lines(report, result))
    return stream.getvalue()


def _lines(report: Report, result: Result) -> Iterator[list[object]]:
    environment = report.environment
    for name, entry in result.entries.items():
        timing = entry.timing
        yield [
            *(result.case.op, result.case.id, result.threads, name, entry.status, entry.detail),
            *(("", "") if timing is None else (timing.median, timing.minimum)),
            *(result.ratio(name) or ("", "")),
            result.worst_error(entry),
            max((error.maximum for error in entry.errors.values()), default=""),
            *(environment[key] for key in ("cpu", "instruction_set")),
            *(environment["versions"].get("torch"), environment["commit"]),
        ]
