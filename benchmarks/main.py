"""``inpaint-ops bench`` and ``python -m inpaint_ops.benchmarks``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from inpaint_ops._atomic import write_atomically
from inpaint_ops.benchmarks import machine, page, terminal
from inpaint_ops.benchmarks.case import OPS, Case, Missing, Unavailable, load
from inpaint_ops.benchmarks.memory import measure
from inpaint_ops.benchmarks.report import Report, bytes_text, ratio_text, seconds_text
from inpaint_ops.benchmarks.runner import OURS, Result, run_case

# Without a terminal rich would fold the tables to 80 columns.
_PIPE_WIDTH = 170


def run(argv: list[str]) -> int:
    """Measures, prints and writes ``benchmark.json`` and ``benchmark.html``.

    Args:
        argv: arguments without the program's name.

    Returns:
        0, 1 if a result was wrong or a contestant raised, 2 for wrong usage, 130 if interrupted
        (what was measured by then is written).
    """
    try:
        options = _parse(argv)
    except SystemExit as exit_:  # argparse has printed its text
        return exit_.code if isinstance(exit_.code, int) else 2
    probe = Console()
    console = probe if probe.is_terminal else Console(width=_PIPE_WIDTH)
    cases = _cases(options.ops, options.quick)
    if options.list:
        for case in cases:
            sizes = ", ".join(f"{key} {value}" for key, value in case.sizes.items())
            console.print(f"{case.op}  {case.id}  ({sizes})", highlight=False, soft_wrap=True)
        return 0
    report = Report(environment=machine.environment(), settings=_settings(options))
    try:
        _measure(report, cases, options, console)
    except KeyboardInterrupt:
        report.interrupted = True
    terminal.show(report, console)
    files = {"benchmark.json": report.to_json(), "benchmark.html": page.render(report)}
    for name, text in files.items():
        with write_atomically(options.out / name) as stream:
            stream.write(text.encode())
        console.print(str(options.out / name), highlight=False, soft_wrap=True)
    if report.interrupted:
        return 130
    return 1 if report.failures() else 0


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="inpaint-ops bench",
        description="Measure the kernels against the public formulas and the machine's floor.",
    )
    parser.add_argument("--ops", type=_ops, default=list(OPS), help="comma-separated; default: all")
    parser.add_argument("--quick", action="store_true", help="few cases, no compiler: a minute")
    parser.add_argument(
        "--threads", type=_threads, default=[1, 2], help="comma-separated; default: 1,2"
    )
    parser.add_argument("--out", type=Path, default="reports", help="folder; default: reports")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out (slow)")
    parser.add_argument("--no-memory", action="store_true", help="leave peak memory out")
    parser.add_argument("--list", action="store_true", help="print the cases and stop")
    parser.add_argument(
        "--seconds",
        type=_positive,
        help="timing of one case at one thread count; default: 5, or 0.5 with --quick",
    )
    options = parser.parse_args(argv)
    available = machine.available_cpus()
    options.threads = [n for n in options.threads if n <= available] or [available]
    if options.seconds is None:
        options.seconds = 0.5 if options.quick else 5.0
    if not options.list:
        try:
            options.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            parser.error(f"--out: {error}")
    return options


def _ops(text: str) -> list[str]:
    names = text.split(",")
    unknown = [name for name in names if name not in OPS]
    if unknown:
        raise argparse.ArgumentTypeError(f"unknown {', '.join(unknown)}, known: {', '.join(OPS)}")
    return names


def _threads(text: str) -> list[int]:
    try:
        numbers = sorted({int(part) for part in text.split(",")})
    except ValueError:
        numbers = [0]
    if numbers[0] < 1:
        raise argparse.ArgumentTypeError(f"expected numbers such as 1,2, got {text!r}")
    return numbers


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a positive number of seconds, got {text!r}")
    return value


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    return {
        "ops": options.ops,
        "quick": options.quick,
        "threads": options.threads,
        "seconds": options.seconds,
        "compile": not (options.no_compile or options.quick),
        "memory": not options.no_memory,
    }


def _cases(ops: Sequence[str], quick: bool) -> list[Case]:
    cases = [case for op in ops for case in load(op).CASES]
    if quick:
        # Memory of the promised cases only: each process takes seconds to start.
        return [replace(c, memory=c.target is not None and c.memory) for c in cases if c.quick]
    return cases


def _measure(
    report: Report, cases: Sequence[Case], options: argparse.Namespace, console: Console
) -> None:
    settings = report.settings
    seconds = 0.3 if options.quick else 1.0
    for threads in options.threads:
        fewer = list(report.peaks.values())
        report.peaks[threads] = machine.measure_peaks(threads, seconds=seconds, fewer=fewer)
    for number, case in enumerate(cases, 1):
        console.print(f"[dim]{number}/{len(cases)}[/] {case.op} {case.id}", highlight=False)
        try:
            for result in run_case(
                case,
                load(case.op).setup,
                report.peaks,
                seconds=options.seconds,
                with_compile=settings["compile"],
                # A filler takes seconds and its time hardly varies.
                min_rounds=1 if case.op == "exemplar" else 3,
            ):
                report.results.append(result)
                console.print(f"    {_line(result)}", highlight=False)
        except Unavailable as reason:
            report.skipped.append((case.op, case.id, str(reason)))
            console.print(f"    not run: {reason}", highlight=False, markup=False)
            continue
        if settings["memory"] and case.memory:
            _measure_memory(report, case, options.threads[-1], console)


def _measure_memory(report: Report, case: Case, threads: int, console: Console) -> None:
    # The compiled formula is left out: the compiler's own memory would be in its figure.
    implementations = load(case.op).setup(case).implementations
    for name, implementation in implementations.items():
        if not isinstance(implementation, Missing):
            memory = measure(case, name, threads=threads)
            report.memory.append(memory)
            text = f"    extra memory of {name}: {bytes_text(memory.extra)} {memory.detail}"
            console.print(text, highlight=False, markup=False)


def _line(result: Result) -> str:
    timing = result.timing(OURS)
    threads = f"{result.threads} thread{'s' if result.threads > 1 else ''}"
    parts = [f"{threads}: ours {seconds_text(None if timing is None else timing.median)}"]
    for name in result.entries:
        ratio = result.ratio(name)
        if ratio is not None and name != OURS:
            parts.append(f"{ratio_text(ratio[0])} as fast as {name}")
    failed = [f"{name} {entry.status}" for name, entry in result.entries.items() if entry.failed]
    return ", ".join([*parts, *failed, *filter(None, [result.verdict()])])


__all__ = ["run"]
