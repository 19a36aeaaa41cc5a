"""Report in a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from inpaint_ops.benchmarks.report import peers, tables
from inpaint_ops.benchmarks.report.report import Report

_STYLES = {"": "", "win": "green", "loss": "red", "fail": "bold red"}


def show(report: Report, console: Console) -> None:
    """Print environment, tables and remarks."""
    environment = report.environment
    console.print(
        f"{environment['cpu']}, kernels {environment['instruction_set']}, "
        f"torch {environment['versions'].get('torch')}",
        highlight=False,
    )
    for line in tables.machine_lines(report):
        console.print(line, highlight=False)
    if tables.busy_line(report):
        console.print(tables.busy_line(report), style="yellow", highlight=False)
    for op in report.ops:
        kind = tables.summary if tables.compared(report, op) else tables.details
        table = kind(report, op)
        console.print(_rich(table))
        memory = tables.memory(report, op)
        if memory is not None:
            console.print(_rich(memory))
    accuracy = tables.accuracy(report)
    if accuracy is not None:
        console.print(_rich(accuracy))
    ahead = peers.table(report)
    if ahead is not None:
        console.print(_rich(ahead))
    for line in tables.remarks(report):
        console.print(escape(line), style="red" if line.startswith("FAILED") else "dim")


def _rich(table: tables.Table) -> RichTable:
    shown = RichTable(title=escape(table.title), title_justify="left")
    for column in table.columns:
        text = column in tables.TEXT_COLUMNS
        shown.add_column(column, justify="left" if text else "right", overflow="fold")
    for row in table.rows:
        shown.add_row(
            *(f"[{_STYLES[c.tone]}]{escape(c.text)}[/]" if c.tone else escape(c.text) for c in row)
        )
    return shown
