"""Report as one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from html import escape
from typing import TYPE_CHECKING

from inpaint_ops.benchmarks.harness.runner import Result
from inpaint_ops.benchmarks.report import peers, plots, tables
from inpaint_ops.benchmarks.report.report import METHOD, Report, seconds_text

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_STYLE = """
:root { color-scheme: light; --line: #dcdfe4; --soft: #5b6470; --win: #00714f; --loss: #b3261e; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 72rem; padding: 2rem 1.25rem 4rem; background: #fff;
  color: #16191d; font: 16px/1.5 system-ui, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.7rem; margin: 0 0 .25rem; }
h2 { font-size: 1.25rem; margin: 3rem 0 .75rem; padding-top: 1rem;
  border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.75rem 0 .5rem; }
p { max-width: 46rem; }
.fail { color: var(--loss); font-weight: 600; }
.facts { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1.25rem;
  margin: 1rem 0; font-size: .9rem; }
.facts dt { color: var(--soft); }
.facts dd { margin: 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .82rem; }
caption { text-align: left; padding: .4rem 0; font-weight: 600; }
th, td { padding: .3rem .6rem; border-bottom: 1px solid var(--line); text-align: right;
  white-space: nowrap; font-variant-numeric: tabular-nums; }
th { color: var(--soft); font-weight: 600; white-space: normal; vertical-align: bottom; }
.text { text-align: left; }
.win { color: var(--win); }
.loss { color: var(--loss); }
.plot { max-width: none; }
img { max-width: 100%; height: auto; display: block; }
.photos { display: grid; grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr));
  gap: .75rem; margin: 0 0 1.5rem; }
.photos img { width: 100%; }
figure { margin: 0; }
figcaption { font-size: .75rem; color: var(--soft); }
details { margin: 1rem 0; }
summary { cursor: pointer; }
"""


_QUALITY = (
    "PSNR and SSIM, taken inside the hole, are for information: a blur often scores higher than "
    "a texture that looks right but is not the original. Look at the pictures."
)


def render(report: Report) -> str:
    """Return the page."""
    return "\n".join(_parts(report)) + "\n"


def _parts(report: Report) -> Iterator[str]:
    yield '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>inpaint_ops benchmarks</title>\n<style>{_STYLE}</style>\n</head>\n<body>"
    yield "<h1>inpaint_ops benchmarks</h1>"
    yield f"<p>{escape(METHOD)}</p>"
    if report.interrupted:
        yield '<p class="fail">This run was interrupted: cases are missing.</p>'
    if tables.busy_line(report):
        yield f'<p class="fail">{escape(tables.busy_line(report))}</p>'
    yield _facts(report)
    for line in tables.remarks(report):
        if line.startswith("FAILED"):
            yield f'<p class="fail">{escape(line)}</p>'
    ahead = peers.table(report)
    if ahead is not None:
        yield f"<h2>Who is ahead</h2>\n{_table(ahead)}"
    accuracy = tables.accuracy(report)
    if accuracy is not None:
        yield f"<h2>Accuracy of convolutions</h2>\n{_table(accuracy)}"
    for op in report.ops:
        yield from _section(report, op)
    others = [line for line in tables.remarks(report) if not line.startswith("FAILED")]
    if others:
        yield "<h2>Not measured</h2>\n<ul>"
        yield from (f"<li>{escape(line)}</li>" for line in others)
        yield "</ul>"
    yield "</body>\n</html>"


def _facts(report: Report) -> str:
    environment = report.environment
    facts = {
        "Date": environment["date"],
        "Processor": f"{environment['cpu']}, {environment['cpus']} usable",
        "Instruction set": f"{environment['instruction_set']}"
        f" (torch: {environment['torch_instruction_set']})",
        "System": f"{environment['platform']}, Python {environment['python']}",
        "Versions": ", ".join(f"{k} {v}" for k, v in environment["versions"].items()),
        "Commit": environment["commit"] or "unknown (not a checkout)",
        "Measured ceilings": "; ".join(tables.machine_lines(report)),
        "Load before the run": environment["load_at_start"],
    }
    rows = "\n".join(f"<dt>{k}</dt><dd>{escape(str(v))}</dd>" for k, v in facts.items())
    return f'<dl class="facts">\n{rows}\n</dl>'


def _section(report: Report, op: str) -> Iterator[str]:
    results = report.of(op)
    yield f'<h2 id="{escape(op)}">{escape(op)}</h2>'
    bars = plots.speedup_bars(report, op)
    if bars:
        yield _svg_image(bars, f"{op}: how many times as fast ours is, by case and thread count")
    if tables.compared(report, op):
        yield _table(tables.summary(report, op))
    memory = tables.memory(report, op)
    if memory is not None:
        yield _table(memory)
    for name, svg in plots.curves(report, op):
        yield f"<h3>{escape(name)}</h3>"
        yield _svg_image(svg, f"{name}: time and extra memory against size")
    if any(result.pictures for result in results):
        yield f"<p>{escape(_QUALITY)}</p>"
    for result in results:
        if result.pictures and result.threads == results[0].threads:
            yield _photos(result)
    every = _table(tables.details(report, op))
    yield f"<details><summary>Every contestant</summary>{every}</details>"


def _table(table: tables.Table) -> str:
    left = [column in tables.TEXT_COLUMNS for column in table.columns]
    head = "".join(
        f"<th{_classes('', text)}>{escape(column)}</th>"
        for column, text in zip(table.columns, left)
    )
    rows = []
    for row in table.rows:
        cells = (f"<td{_classes(c.tone, text)}>{escape(c.text)}</td>" for c, text in zip(row, left))
        rows.append(f"<tr>{''.join(cells)}</tr>")
    body = "\n".join(rows)
    return (
        f'<div class="scroll"><table><caption>{escape(table.title)}</caption>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>"
    )


def _classes(tone: str, text: bool) -> str:
    names = " ".join(filter(None, [tone, "text" if text else ""]))
    return f' class="{names}"' if names else ""


def _photos(result: Result) -> str:
    figures = []
    for name, pixels in result.pictures.items():
        timing = result.timing(name)
        caption = name if timing is None else f"{name}, {seconds_text(timing.median)}"
        figures.append(
            f'<figure><img alt="{escape(name)}" src="{_jpeg(pixels)}">'
            f"<figcaption>{escape(caption)}</figcaption></figure>"
        )
    return f'<h3>{escape(result.case.id)}</h3>\n<div class="photos">{"".join(figures)}</div>'


def _jpeg(pixels: npt.NDArray[np.uint8]) -> str:
    from matplotlib.image import imsave

    stream = io.BytesIO()
    # PNG would make the page ten times as large.
    imsave(stream, pixels, format="jpeg", pil_kwargs={"quality": 92, "subsampling": 0})
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"


def _svg_image(svg: str, description: str) -> str:
    # As an image, so that the identifiers inside several plots cannot clash.
    data = base64.b64encode(svg.encode()).decode()
    source = f"data:image/svg+xml;base64,{data}"
    return f'<p class="plot"><img alt="{escape(description)}" src="{source}"></p>'
