"""The page of an evaluation: tables and pictures in one file that loads nothing else."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from inpaint_ops.evaluation.groups import ALL, INSIDE, TOUCHES
from inpaint_ops.evaluation.measures import Measure
from inpaint_ops.evaluation.results import Results, Row, Shown

_STYLE = """
:root { color-scheme: light dark; --line: #8886; --best: #2a9d4a33; --soft: #8882; }
body { font: 15px/1.45 system-ui, sans-serif; margin: 1.5rem auto; max-width: 110rem;
  padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin: 1.6rem 0 .4rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; text-align: right; border-bottom: 1px solid var(--line);
  white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
td.best { background: var(--best); font-weight: 600; }
thead small { font-weight: 400; }
.rows { display: grid; gap: 1.2rem; }
.row h3 { font-size: .95rem; margin: 0 0 .3rem; font-weight: 600; overflow-wrap: anywhere; }
.pictures { display: flex; gap: .5rem; overflow-x: auto; }
figure { margin: 0; flex: 0 0 auto; width: clamp(9rem, 18vw, 22rem); }
figure img { width: 100%; display: block; background: var(--soft); }
figure p { aspect-ratio: 1; margin: 0; padding: .6rem; background: var(--soft);
  overflow: auto; box-sizing: border-box; }
figcaption { font-size: .85rem; padding-top: .2rem; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; background: var(--soft); padding: .7rem; }
"""
# Nothing may be loaded, and no script runs.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_NONE = "–"


def page(results: Results, summary: Sequence[Mapping[str, Any]]) -> str:
    """Return the page as HTML.

    Args:
        results: of `evaluate`.
        summary: what `results.summary()` returns.
    """
    count = len({row.index for row in results.rows})
    parts = [
        f"<h1>{_counted(count, 'picture')}, {_counted(len(results.models), 'model')}</h1>",
        "<h2>All holes</h2>",
        _whole_table(results, summary),
        *(
            f"<h2>{escape(measure.title)} by the share of missing pixels</h2>"
            + _bin_table(results, summary, name, measure)
            for name, measure in results.summary_columns.items()
        ),
    ]
    if results.faults:
        listed = "".join(f"<li>{escape(text)}</li>" for text in results.faults)
        parts.append(f"<h2>Left out: cannot be read</h2><ul>{listed}</ul>")
    if results.shown:
        rows = "".join(_pictures(results, one) for one in results.shown)
        parts.append(f'<h2>Pictures</h2><div class="rows">{rows}</div>')
    facts = escape(json.dumps(results.facts, indent=2, ensure_ascii=False))
    parts.append(f"<h2>Settings</h2><pre>{facts}</pre>")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>Evaluation</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body>\n</html>\n"
    )


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _whole_table(results: Results, summary: Sequence[Mapping[str, Any]]) -> str:
    columns = results.summary_columns
    rows = {one["model"]: one for one in summary if (one["bin"], one["border"]) == (ALL, ALL)}
    head = ["model", "pictures", "failed", *(_titled(one) for one in columns.values())]
    best = {name: _best([row[name] for row in rows.values()], one) for name, one in columns.items()}
    body = []
    for model, row in rows.items():
        cells = [f"<td>{escape(model)}</td>", f"<td>{row['pictures']}</td><td>{row['failed']}</td>"]
        cells += [_cell(row[name], one, best[name]) for name, one in columns.items()]
        body.append("".join(cells))
    return _table(head, body)


def _bin_table(
    results: Results, summary: Sequence[Mapping[str, Any]], name: str, measure: Measure
) -> str:
    """Return the table of one measure: models in rows; bins, each with its borders, in columns."""
    values = {(one["bin"], one["border"], one["model"]): one for one in summary}
    there = list(dict.fromkeys((one["bin"], one["border"]) for one in summary))
    # Where all holes of a bin are at the border, or all inside, one column says it.
    columns = [
        (share, border)
        for share, border in there
        if border == ALL or {(share, TOUCHES), (share, INSIDE)}.issubset(there)
    ]
    words = {ALL: "", TOUCHES: " at the border", INSIDE: " inside"}
    head = ["model"]
    for share, border in columns:
        count = max(values[share, border, model]["pictures"] for model in results.models)
        head.append(f"{share}{words[border]}<br><small>{count}</small>")
    best = {
        column: _best([values[(*column, model)][name] for model in results.models], measure)
        for column in columns
    }
    body = [
        f"<td>{escape(model)}</td>"
        + "".join(_cell(values[(*c, model)][name], measure, best[c]) for c in columns)
        for model in results.models
    ]
    return _table(head, body)


def _table(head: Sequence[str], body: Sequence[str]) -> str:
    titles = "".join(f"<th>{title}</th>" for title in head)
    rows = "".join(f"<tr>{row}</tr>" for row in body)
    return (
        f'<div class="scroll"><table><thead><tr>{titles}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _titled(measure: Measure) -> str:
    return f"{escape(measure.title)} {'↑' if measure.is_better_high else '↓'}"


def _text(value: float | None, measure: Measure) -> str:
    return _NONE if value is None else f"{value:.{measure.digits}f}"


def _best(values: Sequence[float | None], measure: Measure) -> str | None:
    """Return the best value as it is printed, so that what looks equal is marked alike."""
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return None
    return _text((max if measure.is_better_high else min)(known), measure)


def _cell(value: float | None, measure: Measure, best: str | None) -> str:
    text = _text(value, measure)
    mark = ' class="best"' if text == best else ""
    return f"<td{mark}>{text}</td>"


def _pictures(results: Results, shown: Shown) -> str:
    rows = {row.model: row for row in results.rows if row.index == shown.index}
    one = next(iter(rows.values()))
    about = f"{escape(one.picture)}: {100 * one.ratio:.1f} % missing"
    figures = [_figure(shown.damaged, "input"), _figure(shown.truth, "truth")]
    figures += [_filled(rows[model], shown.filled.get(model)) for model in results.models]
    return f'<div class="row"><h3>{about}</h3><div class="pictures">{"".join(figures)}</div></div>'


def _filled(row: Row, picture: bytes | None) -> str:
    if picture is None:
        why = escape(row.note)
        return f"<figure><p>{why}</p><figcaption>{escape(row.model)}</figcaption></figure>"
    value = row.values.get("psnr_hole")
    rest = "" if value is None else f", {value:.2f} dB in the hole"
    return _figure(picture, f"{row.model}{rest}")


def _figure(picture: bytes, caption: str) -> str:
    text, content = escape(caption), base64.b64encode(picture).decode("ascii")
    return (
        f'<figure><img alt="{text}" src="data:image/jpeg;base64,{content}">'
        f"<figcaption>{text}</figcaption></figure>"
    )
