"""Plots of a report: SVG text for the page, a PNG for the demo."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from inpaint_ops.benchmarks.harness.runner import COMPILED, EAGER, OURS, Result
from inpaint_ops.benchmarks.report.report import Report, ratio_text

# Okabe and Ito's palette: told apart by colour-blind readers.
_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")
_FIXED = {OURS: "#0072b2", EAGER: "#d55e00", COMPILED: "#e69f00", "floor": "#777777"}
_STYLE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "axes.axisbelow": True,
    "svg.hashsalt": "inpaint_ops",
}


def speedup_bars(report: Report, op: str) -> str:
    """Draw how many times as fast ours is: a bar for each case, thread count and contestant.

    The scale is logarithmic and bars start at 1, so half as fast looks as long as twice as fast.
    """
    results = report.of(op)
    others = _others(results)
    bars = [
        (result, name, found[0])
        for case in dict.fromkeys(result.case.id for result in results)
        for name in others
        for result in results
        if result.case.id == case and (found := result.ratio(name)) is not None
    ]
    if not bars:
        return ""
    groups = len({result.case.id for result, _, _ in bars})
    threads = sorted({result.threads for result in results})
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(9, 1.0 + 0.19 * len(bars) + 0.12 * groups))
        axes = figure.subplots()
        place, ticks = 0.0, list[tuple[float, str]]()
        for result, name, ratio in bars:
            if not ticks or ticks[-1][1] != result.case.id:
                place += 0.6
                ticks.append((place, result.case.id))
            shade = 1.0 if result.threads == threads[0] else 0.55
            _bar(axes, place, result, name, ratio, {"color": _colour(name, others), "alpha": shade})
            place += 1
        _finish_bars(axes, ticks, place)
        _add_legend(axes)
        return _svg(figure)


def save_ratios(path: Path, bars: Sequence[tuple[str, float]], title: str) -> None:
    """Write a PNG of how many times as fast ours is: one bar for each (text, ratio)."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(9, 1.0 + 0.35 * len(bars)), dpi=150, layout="constrained")
        axes = figure.subplots()
        for place, (_, ratio) in enumerate(bars):
            axes.barh(place, ratio - 1, left=1, color=_FIXED[OURS])
            _annotate(axes, place, ratio)
        _finish_bars(axes, [(place, text) for place, (text, _) in enumerate(bars)], len(bars) - 0.4)
        axes.set_ylim(len(bars) - 0.4, -0.6)
        axes.set_xlim(left=0.9 * min(1, *(ratio for _, ratio in bars)))
        axes.set_xlabel("times as fast as the public formula in eager PyTorch")
        axes.set_title(title, loc="left", fontsize=8)
        FigureCanvasAgg(figure).print_png(str(path))


def _bar(
    axes: Any, place: float, result: Result, name: str, ratio: float, look: dict[str, Any]
) -> None:
    plural = "s" if result.threads > 1 else ""
    label = f"{name}, {result.threads} thread{plural}"
    axes.barh(place, ratio - 1, left=1, label=label, **look)
    _annotate(axes, place, ratio)
    target = result.case.target
    if target is not None and target.against == name:
        for level, dash in ((target.must, "-"), (target.aim, ":")):
            axes.plot([level, level], [place - 0.5, place + 0.5], dash, color="black", lw=1.5)


def _annotate(axes: Any, place: float, ratio: float) -> None:
    win = ratio >= 1
    axes.annotate(
        ratio_text(ratio),
        (ratio, place),
        xytext=(3 if win else -3, 0),
        textcoords="offset points",
        ha="left" if win else "right",
        va="center",
        fontsize=7,
    )


def _finish_bars(axes: Any, ticks: Sequence[tuple[float, str]], end: float) -> None:
    axes.axvline(1, color="black", lw=1)
    axes.set_xscale("log")
    _plain_log_ticks(axes.xaxis, lambda value: f"{value:g}x")
    left, right = axes.get_xlim()
    axes.set_xlim(min(left, 0.7) / 1.2, max(right, 2) * 1.3)
    axes.set_ylim(end, -0.4)
    axes.set_yticks([place for place, _ in ticks], [name for _, name in ticks])
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)


def _add_legend(axes: Any) -> None:
    axes.set_xlabel("ours is … times as fast (solid mark: must, dotted: aim)")
    handles, labels = axes.get_legend_handles_labels()
    unique = dict(zip(labels, handles))
    axes.legend(
        unique.values(),
        unique.keys(),
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=min(4, len(unique)),
        frameon=False,
        fontsize=8,
    )


def curves(report: Report, op: str) -> list[tuple[str, str]]:
    """Draw time and extra memory against size; return (name of the curve, SVG) of each."""
    results = report.of(op)
    names = dict.fromkeys(r.case.curve for r in results if r.case.curve)
    found = []
    for name in names:
        points = sorted((r for r in results if r.case.curve == name), key=lambda r: r.case.x)
        if len({r.case.x for r in points}) > 1:
            found.append((name, _curve(report, points)))
    return found


def _curve(report: Report, points: list[Result]) -> str:
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(9, 3.2), layout="constrained")
        time_axes, memory_axes = figure.subplots(1, 2)
        contestants = [OURS, *_others(points)]
        for threads, dash in zip(sorted({r.threads for r in points}), ("-", "--", ":", "-.")):
            mine = [r for r in points if r.threads == threads]
            label = f"{{}}, {threads} thread{'s' if threads > 1 else ''}"
            for name in contestants:
                line = [(r.case.x, t.median) for r in mine if (t := r.timing(name)) is not None]
                _line(time_axes, line, dash, name, contestants, label.format(name))
            floor = [(r.case.x, r.floor) for r in mine if r.floor is not None]
            _line(time_axes, floor, dash, "floor", contestants, label.format("floor"))
        cases = {r.case.id: r.case for r in points}.values()
        for name in contestants:
            line = [
                (case.x, extra / 1e6)
                for case in cases
                # Below a tenth of a MB the process's own movements show.
                if (extra := report.extra_memory(case, name)) is not None and extra > 1e5
            ]
            _line(memory_axes, line, "-", name, contestants, name)
        time_axes.set_ylabel("median time, s")
        memory_axes.set_ylabel("extra memory, MB")
        sizes = sorted({r.case.x for r in points})
        for axes in (time_axes, memory_axes):
            axes.set_xscale("log")
            axes.set_yscale("log")
            axes.set_xticks(sizes, [str(size) for size in sizes])
            axes.xaxis.set_minor_formatter(NullFormatter())
            axes.set_xlabel("height = width, pixels")
            if not axes.lines:
                axes.text(0.5, 0.5, "not measured", ha="center", transform=axes.transAxes)
        handles, labels = time_axes.get_legend_handles_labels()
        figure.legend(
            handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=8
        )
        return _svg(figure)


def _line(
    axes: Any,
    line: Sequence[tuple[float, float]],
    dash: str,
    name: str,
    contestants: Sequence[str],
    label: str,
) -> None:
    if line:
        xs, ys = zip(*line)
        colour = _colour(name, contestants)
        axes.plot(xs, ys, dash, marker="o", ms=3, lw=1.4, color=colour, label=label)


def _others(results: Sequence[Result]) -> list[str]:
    names = dict.fromkeys(name for result in results for name in result.entries)
    return [name for name in names if name != OURS]


def _colour(name: str, names: Sequence[str]) -> str:
    if name in _FIXED:
        return _FIXED[name]
    return _COLOURS[list(names).index(name) % len(_COLOURS)]


def _plain_log_ticks(axis: Any, text: Callable[[float], str]) -> None:
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: text(value)))
    axis.set_minor_formatter(NullFormatter())


def _svg(figure: Figure) -> str:
    FigureCanvasSVG(figure)
    stream = io.StringIO()
    figure.savefig(stream, format="svg", bbox_inches="tight", metadata={"Date": None})
    return stream.getvalue()
