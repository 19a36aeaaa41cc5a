"""The benchmark of ``make demo``: representative cases, told as one table and one picture."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from inpaint_ops.benchmarks.harness import machine
from inpaint_ops.benchmarks.harness.case import Case, Unavailable, load
from inpaint_ops.benchmarks.harness.machine import Peaks
from inpaint_ops.benchmarks.harness.runner import EAGER, OURS, Result, run_case
from inpaint_ops.benchmarks.report import plots, tables
from inpaint_ops.benchmarks.report.report import Report, ratio_text, seconds_text

# No case begins later than this many seconds after the first.
BUDGET = 75.0
# Timed rounds of one case; checks and warm-up come on top.
_SECONDS = 1.5
_WIDTH = 100


@dataclass(frozen=True)
class Row:
    """A case of the benchmarks and its name for readers."""

    text: str
    op: str
    case: str

    def find(self) -> Case:
        """Return the case.

        Raises:
            StopIteration: the benchmarks hold no such case.
        """
        return next(case for case in load(self.op).CASES if case.id == self.case)


ROWS = (
    Row("whole network: DeepFill v2, 256x256", "models", "deepfill_v2-256"),
    Row(
        "gated convolution 3x3, 96 channels, 128x128",
        *("gated_conv2d", "forward-gated-96-96-128x128-k3-elu"),
    ),
    Row(
        "partial convolution 3x3, 192 to 64 channels, 256x256",
        *("partial_conv2d", "forward-partial-192-64-256x256-k3"),
    ),
    Row(
        "transposed convolution 4x4, 256 to 128 channels, 64x64",
        *("fused_conv_transpose2d", "forward-transposed-256-128-64x64-k4-s2"),
    ),
    Row(
        "contextual attention, 96 channels, 64x64",
        *("contextual_attention", "forward-sharp-c96-64x64"),
    ),
    Row(
        "shift connection, 128 channels, 64x64",
        *("shift_connection", "forward-n1-c128-64x64"),
    ),
    Row(
        "nearest 3x3 patches, 256 channels, 64x64",
        *("nearest_patch", "cosine-3x3-c256-64x64"),
    ),
    Row(
        "whole network: partial-convolution U-Net, 256x256",
        *("models", "partial_conv_unet-256"),
    ),
)


def run(out: Path, rows: Sequence[Row] = ROWS, budget: float = BUDGET) -> int:
    """Measure, print the table and write ``speed.png``.

    Args:
        out: an existing folder for the picture.
        rows: what to measure, the most telling first.
        budget: seconds after which no other row is begun.

    Returns:
        0, or 1 if a result was wrong or a contestant raised.
    """
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH)
    report = Report(machine.environment(), settings={})
    # The average load of the last minute is that of the build and of the photos.
    report.environment["load_at_start"] = machine.busy_processors()
    threads = torch.get_num_threads()
    texts: list[str] = []
    console.print("Operators and networks against the public formulas in eager PyTorch, a minute:")
    for text, result in _measured(rows, threads, budget, console):
        texts.append(text)
        report.results.append(result)
    console.print(_table(report, texts))
    environment = report.environment
    machine_text = (
        f"{environment['cpu']}, {threads} thread{'s' if threads > 1 else ''}, "
        f"kernels {environment['instruction_set']}, "
        f"PyTorch {environment['versions'].get('torch')}, float32, medians"
    )
    console.print(machine_text, highlight=False)
    for line in filter(None, [tables.busy_line(report), *report.failures()]):
        console.print(line, highlight=False, markup=False)
    ratios = [result.ratio(EAGER) for result in report.results]
    bars = [(text, ratio[0]) for text, ratio in zip(texts, ratios) if ratio is not None]
    if bars:
        plots.save_ratios(out / "speed.png", bars, machine_text)
        console.print(str(out / "speed.png"), highlight=False, soft_wrap=True)
    return 1 if report.failures() else 0


def _measured(
    rows: Sequence[Row], threads: int, budget: float, console: Console
) -> Iterator[tuple[str, Result]]:
    begun = time.monotonic()
    # Nobody asks for the machine's ceilings here, and measuring them takes seconds.
    peaks = {threads: Peaks(threads, math.inf, "not measured", math.inf)}
    for number, row in enumerate(rows):
        if time.monotonic() - begun > budget:
            names = "; ".join(left.text for left in rows[number:])
            console.print(f"not measured, the time is up: {names}", highlight=False)
            return
        try:
            results = run_case(
                row.find(), load(row.op).setup, peaks, seconds=_SECONDS, with_compile=False
            )
            for result in results:
                yield row.text, result
        except Unavailable as reason:
            console.print(f"{row.text}: not run: {reason}", highlight=False, markup=False)


def _table(report: Report, texts: Sequence[str]) -> Table:
    table = Table()
    table.add_column("", overflow="fold")
    for column in ("PyTorch", "inpaint_ops", "times as fast"):
        table.add_column(column, justify="right")
    for text, result in zip(texts, report.results):
        times = (result.timing(name) for name in (EAGER, OURS))
        ratio = result.ratio(EAGER)
        table.add_row(
            text,
            *(seconds_text(None if t is None else t.median) for t in times),
            ratio_text(None if ratio is None else ratio[0]),
        )
    return table


__all__ = ["BUDGET", "ROWS", "Row", "run"]
