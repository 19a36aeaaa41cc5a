"""The check on a GPU as one HTML file that needs nothing else."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from typing import Any

_STYLE = """
body { margin: 0 auto; max-width: 76rem; padding: 2rem 1.25rem 4rem; background: #fff;
  color: #16191d; font: 16px/1.5 system-ui, "Segoe UI", Roboto, sans-serif; }
h2 { margin: 2.5rem 0 .75rem; padding-top: 1rem; border-top: 1px solid #dcdfe4; }
.fail { color: #b3261e; font-weight: 600; }
.win { color: #00714f; }
.loss { color: #b3261e; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .82rem; }
caption { text-align: left; padding: .4rem 0; font-weight: 600; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid #dcdfe4; text-align: right;
  white-space: nowrap; font-variant-numeric: tabular-nums; }
th { color: #5b6470; vertical-align: bottom; }
td:first-child, th:first-child, .text { text-align: left; }
"""
_METHOD = (
    "Times are microseconds by the device's own clock, medians of five rounds in which the "
    "contestants took turns, of calls that were all in the device's queue before the first began; "
    "in brackets the time of a call with the host's part. A ratio is the other's time over ours. "
    "Memory is what one call adds to what is allocated. 'library+epilogue' is ours with cuDNN's "
    "product and one pass after it, 'fused' ours with everything in one kernel; 'ours' chooses."
)
Cell = str | tuple[str, str]  # a text, or a class and a text


def render(content: Mapping[str, Any]) -> str:
    """Return the page for what `check.summary` gives."""
    return "\n".join(_parts(content)) + "\n"


def _parts(content: Mapping[str, Any]) -> Iterator[str]:
    yield '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>inpaint_ops on a GPU</title>\n<style>{_STYLE}</style>\n</head>\n<body>"
    yield f"<h1>inpaint_ops on a GPU</h1>\n<p>{escape(_METHOD)}</p>"
    facts = content["environment"]
    yield _table("", ("", ""), [(key, str(value)) for key, value in facts.items()])
    steps = content["steps"]
    for step in steps.values():
        yield from (f'<p class="fail">{escape(line)}</p>' for line in step["failures"])
    for name, step in steps.items():
        yield f'<h2 id="{escape(name)}">{escape(name)}</h2>'
        if step["not_run"]:
            yield f"<p>No time was left for {len(step['not_run'])} cases.</p>"
        yield from _step(name, step["cases"])
    yield "</body>\n</html>"


def _step(name: str, cases: Mapping[str, Any]) -> Iterator[str]:
    if name == "layers":
        yield from _sums(cases)
    if name == "matching":
        yield from _memory(cases)
    if name == "tuning":
        yield _table("Rows", ("case", "key", "microseconds", "library"), _tuned(cases))
    elif any("times" in one for one in cases.values()):
        yield _timed(cases)
    else:
        rows = [
            (key, _status(one), f"{max(errors.values()):.2g}" if errors else "", one["detail"])
            for key, one in cases.items()
            if (errors := one.get("errors", {})) is not None and "detail" in one
        ]
        yield _table("", ("case", "", "largest error", "what"), rows)


def _status(one: Mapping[str, Any]) -> Cell:
    return "ok" if one["status"] == "ok" else ("fail", one["status"])


def _tuned(cases: Mapping[str, Any]) -> Iterator[Sequence[Cell]]:
    for key, one in cases.items():
        times = one.get("times", {})
        text = ", ".join(f"{row} {t:g}" for row, t in sorted(times.items(), key=lambda p: p[1]))
        yield key, one.get("keys", [one.get("detail", "")])[0], text, str(one.get("library", ""))


def _timed(cases: Mapping[str, Any]) -> str:
    names = list(dict.fromkeys(who for one in cases.values() for who in one.get("times", {})))
    others = [who for who in names if who != "ours"]
    head = ("case", "", *names, *(f"ours x {who}" for who in others), "floor", "memory MB", "what")
    rows = []
    for key, one in cases.items():
        times = one.get("times", {})
        row: list[Cell] = [key, _status(one)]
        row += [_time(times.get(who, {})) for who in names]
        row += [_ratio(times.get(who, {}), times.get("ours", {})) for who in others]
        floor = (one.get("roofline") or {}).get("floor")
        row.append("" if floor is None else f"{floor:.1f}")
        memory = [times[who]["bytes"] for who in times if times[who].get("bytes")]
        row.append(" / ".join(f"{value / 1e6:.0f}" for value in memory))
        row.append(("text", one.get("detail", "")))
        rows.append(row)
    return _table("", head, rows)


def _time(entry: Mapping[str, Any]) -> str:
    if "device" not in entry:
        return ""
    return f"{entry['device']:.1f} ({entry['call']:.0f})"


def _ratio(other: Mapping[str, Any], ours: Mapping[str, Any]) -> Cell:
    if "device" not in other or not ours.get("device"):
        return ""
    ratio = other["device"] / ours["device"]
    return ("win" if ratio >= 1 else "loss"), f"{ratio:.2f}"


def _sums(cases: Mapping[str, Any]) -> Iterator[str]:
    """Sums over the layers of a method that every contestant ran, and geometric means of ratios."""
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for one in cases.values():
        times = one.get("times", {})
        if times and all(entry.get("device") for entry in times.values()):
            key = (one["method"], one["precision"], one["batch"], one["backward"])
            groups.setdefault(key, []).append(times)
    rows: list[Sequence[Cell]] = []
    names: list[str] = []
    for (method, precision, batch, backward), found in groups.items():
        names = list(found[0])
        way = "forward-backward" if backward else "forward"
        row: list[Cell] = [f"{method} {precision} n{batch} {way}", str(len(found))]
        row += [f"{sum(times[who]['device'] for times in found):.0f}" for who in names]
        row += [
            f"{_mean(t[who]['device'] / t['ours']['device'] for t in found):.2f}" for who in names
        ]
        rows.append(row)
    means = (f"mean {who} / ours" for who in names)
    if rows:
        yield _table("Sums over distinct layers", ("method", "layers", *names, *means), rows)


def _memory(cases: Mapping[str, Any]) -> Iterator[str]:
    """Megabytes of a call as the side of the maps grows, one line for each contestant."""
    curves: dict[tuple[str, ...], dict[int, float]] = {}
    for name, one in cases.items():
        sizes = one.get("sizes", {})
        way = "forward-backward" if "forward-backward" in name else "forward"
        for who, entry in one.get("times", {}).items():
            if entry.get("bytes"):
                side = sizes.get("grid", sizes.get("map", 0))
                key = (one["op"], one["precision"], way, who)
                curves.setdefault(key, {})[side] = entry["bytes"] / 1e6
    sides = sorted({side for curve in curves.values() for side in curve})
    rows = [
        (" ".join(key), *(f"{curve[side]:.1f}" if side in curve else "" for side in sides))
        for key, curve in sorted(curves.items())
    ]
    if rows:
        head = ("side of the maps", *(str(side) for side in sides))
        yield _table("Memory of a call, MB", head, rows)


def _mean(values: Iterable[float]) -> float:
    logarithms = [math.log(max(value, 1e-9)) for value in values]
    return math.exp(math.fsum(logarithms) / len(logarithms))


def _table(caption: str, head: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    lines = ['<div class="scroll"><table>']
    if caption:
        lines.append(f"<caption>{escape(caption)}</caption>")
    lines.append("<tr>" + "".join(f"<th>{escape(text)}</th>" for text in head) + "</tr>")
    for row in rows:
        cells = []
        for cell in row:
            kind, text = ("", cell) if isinstance(cell, str) else cell
            opening = f'<td class="{kind}">' if kind else "<td>"
            cells.append(f"{opening}{escape(text)}</td>")
        lines.append("<tr>" + "".join(cells) + "</tr>")
    lines.append("</table></div>")
    return "\n".join(lines)
