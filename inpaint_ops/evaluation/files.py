"""The files of an evaluation, each written whole or not at all."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from inpaint_ops.atomic import make_folder, write_atomically
from inpaint_ops.evaluation.page import page
from inpaint_ops.evaluation.results import Results

PICTURES, SUMMARY, FACTS, PAGE = "pictures.csv", "summary.csv", "summary.json", "index.html"


def check_folder(out: str | os.PathLike[str], overwrite: bool = False) -> None:
    """Check that results may be written to a folder, before they are measured.

    Raises:
        FileExistsError: there are results, and overwrite is not given.
        OSError: the folder cannot be made.
    """
    folder = Path(out)
    make_folder(folder)
    there = [name for name in (PICTURES, SUMMARY, FACTS, PAGE) if (folder / name).exists()]
    if there and not overwrite:
        raise FileExistsError(
            f"{folder / there[0]}: exists already; use --overwrite, or overwrite=True"
        )


def write_results(
    results: Results, out: str | os.PathLike[str], *, overwrite: bool = False
) -> None:
    """Write ``pictures.csv``, ``summary.csv``, ``summary.json`` and ``index.html``.

    Args:
        results: of `evaluate`.
        out: folder, made if it is missing.
        overwrite: replace the files of an earlier evaluation.

    Raises:
        OSError: as `check_folder`, or a file cannot be written; what was there stays then.
    """
    check_folder(out, overwrite)
    summary = results.summary()
    report = {
        **results.facts,
        "models": {**dict.fromkeys(results.models), **results.facts.get("models", {})},
        "skipped": results.faults,
        "summary": summary,
    }
    about = ("model", "bin", "border", "pictures", "failed")
    files = {
        PICTURES: _picture_table(results),
        SUMMARY: _csv((*about, *results.summary_columns), summary),
        FACTS: json.dumps(report, indent=2) + "\n",
        PAGE: page(results, summary),
    }
    for name, text in files.items():
        with write_atomically(Path(out) / name) as stream:
            # Names of files that are no Unicode stay readable.
            stream.write(text.encode("utf-8", "backslashreplace"))


def _picture_table(results: Results) -> str:
    about = ("index", "picture", "model", "height", "width", "ratio", "bin", "border")
    rows = [
        {
            "index": row.index,
            "picture": row.picture,
            "model": row.model,
            "height": row.size[0],
            "width": row.size[1],
            "ratio": row.ratio,
            "bin": row.share,
            "border": row.border,
            **row.values,
            "seconds": row.seconds,
            "failed": int(row.failed),
            "note": row.note,
        }
        for row in results.rows
    ]
    return _csv((*about, *results.columns, "seconds", "failed", "note"), rows)


def _csv(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a table; what is None or missing is empty."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()
