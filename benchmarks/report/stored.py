"""Report read back from its JSON, so that a run can be made in pieces."""

from __future__ import annotations

import json
from typing import Any

from inpaint_ops.benchmarks.harness.accuracy import Error
from inpaint_ops.benchmarks.harness.case import OPS, Case, load
from inpaint_ops.benchmarks.harness.machine import Peaks
from inpaint_ops.benchmarks.harness.memory import Memory
from inpaint_ops.benchmarks.harness.runner import Entry, Result
from inpaint_ops.benchmarks.harness.timing import Timing
from inpaint_ops.benchmarks.report.report import SCHEMA, Report


def restore(text: str) -> Report:
    """Return the report that `Report.to_json` wrote, without its pictures.

    Cases that the benchmarks no longer hold are left out.

    Raises:
        ValueError: the text is no report of this version.
    """
    content = json.loads(text)
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise ValueError(f"expected a report of schema {SCHEMA}")
    cases = {(op, case.id): case for op in OPS for case in load(op).CASES}
    report = Report(content["environment"], content["settings"])
    report.peaks = {peak["threads"]: Peaks(**peak) for peak in content["peaks"]}
    for stored in content["results"]:
        case = cases.get((stored["op"], stored["case"]))
        if case is not None:
            report.results.append(_result(case, stored))
    for stored in content["memory"]:
        case = cases.get((stored["op"], stored["case"]))
        if case is not None:
            report.memory.append(_memory(case, stored))
    report.skipped = [(row["op"], row["case"], row["reason"]) for row in content["skipped"]]
    return report


def _result(case: Case, stored: dict[str, Any]) -> Result:
    entries = {name: _entry(entry) for name, entry in stored["contestants"].items()}
    floor_set_by = stored["floor_set_by"] or ""
    return Result(case, stored["threads"], entries, stored["floor_seconds"], floor_set_by)


def _entry(stored: dict[str, Any]) -> Entry:
    entry = Entry(stored["status"], stored.get("detail", ""), quality=stored.get("quality", {}))
    entry.errors = {name: Error(**error) for name, error in stored.get("errors", {}).items()}
    if "seconds" in stored:
        seconds = {name: value for name, value in stored["seconds"].items() if name != "iqr"}
        entry.timing = Timing(**seconds)
    return entry


def _memory(case: Case, stored: dict[str, Any]) -> Memory:
    return Memory(case, stored["contestant"], stored["extra_bytes"], stored.get("detail", ""))
