"""``inpaint-ops bench`` and ``python -m inpaint_ops.benchmarks``."""

from __future__ import annotations

import argparse
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from inpaint_ops.atomic import write_atomically
from inpaint_ops.benchmarks.harness import machine
from inpaint_ops.benchmarks.harness.case import OPS, Case, Unavailable, load
from inpaint_ops.benchmarks.harness.memory import Memory, measure
from inpaint_ops.benchmarks.harness.once import run_once
from inpaint_ops.benchmarks.harness.runner import COMPILED, OURS, Result, run_case
from inpaint_ops.benchmarks.report import page, terminal
from inpaint_ops.benchmarks.report.report import Report, bytes_text, ratio_text, seconds_text
from inpaint_ops.benchmarks.report.stored import restore
from inpaint_ops.program import reason

# Without a terminal rich would fold the tables to 80 columns.
_PIPE_WIDTH = 170
_JSON, _PAGE = "benchmark.json", "benchmark.html"


def run(argv: list[str]) -> int:
    """Measure, print and write ``benchmark.json`` and ``benchmark.html``.

    Args:
        argv: arguments without the program's name.

    Returns:
        0, 1 if a result was wrong or a contestant raised, 2 for wrong usage, 130 if interrupted or
        terminated (the results until then are written).
    """
    try:
        options = _parse(argv)
    except SystemExit as exit_:  # argparse has printed its text
        return exit_.code if isinstance(exit_.code, int) else 2
    probe = Console()
    console = probe if probe.is_terminal else Console(width=_PIPE_WIDTH)
    cases = [case for case in _cases(options.ops, options.quick) if options.only in case.id]
    if options.list:
        for case in cases:
            sizes = ", ".join(f"{key} {value}" for key, value in case.sizes.items())
            console.print(f"{case.op}  {case.id}  ({sizes})", highlight=False, soft_wrap=True)
        return 0
    report = Report(environment=machine.environment(), settings=_settings(options))
    if options.resume:
        try:
            _take_over(report, restore((options.out / _JSON).read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            console.print(f"--resume: {reason(error)}", highlight=False, markup=False)
            return 2
    try:
        with _terminated_like_interrupted():
            _measure(report, cases, options, console)
    except KeyboardInterrupt:
        report.interrupted = True
    terminal.show(report, console)
    for name, text in ((_JSON, report.to_json()), (_PAGE, page.render(report))):
        _write(options.out / name, text)
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
    parser.add_argument("--only", default="", metavar="TEXT", help="cases with this in their name")
    parser.add_argument("--quick", action="store_true", help="few cases, no compiler: a minute")
    parser.add_argument(
        "--threads", type=_threads, default=[1, 2], help="comma-separated; default: 1,2"
    )
    parser.add_argument("--out", type=Path, default="reports", help="folder; default: reports")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out (slow)")
    parser.add_argument("--no-memory", action="store_true", help="leave peak memory out")
    parser.add_argument("--no-timing", action="store_true", help="only check results and errors")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="keep what benchmark.json in --out holds and measure the rest (its pictures are lost)",
    )
    parser.add_argument("--list", action="store_true", help="print the cases and stop")
    parser.add_argument(
        "--seconds",
        type=_positive,
        help="timing of one case at one thread count; default: 3, or 0.5 with --quick",
    )
    options = parser.parse_args(argv)
    available = machine.available_cpus()
    options.threads = [n for n in options.threads if n <= available] or [available]
    if options.seconds is None:
        options.seconds = 0.5 if options.quick else 3.0
    if not options.list:
        try:
            options.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            parser.error(f"--out: {reason(error)}")
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
        "only": options.only,
        "quick": options.quick,
        "threads": options.threads,
        "seconds": None if options.no_timing else options.seconds,
        "compile": not (options.no_compile or options.quick),
        "memory": not (options.no_memory or options.no_timing),
    }


def _cases(ops: Sequence[str], quick: bool) -> list[Case]:
    cases = [case for op in ops for case in load(op).CASES]
    if quick:
        # Memory of the promised cases only: each process takes seconds to start.
        return [replace(c, memory=c.target is not None and c.memory) for c in cases if c.quick]
    return cases


def _take_over(report: Report, earlier: Report) -> None:
    report.results, report.memory = earlier.results, earlier.memory
    report.skipped, report.peaks = earlier.skipped, earlier.peaks


@contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """Turn a request to end into KeyboardInterrupt."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _write(path: Path, text: str) -> None:
    with write_atomically(path) as stream:
        stream.write(text.encode())


def _measure(
    report: Report, cases: Sequence[Case], options: argparse.Namespace, console: Console
) -> None:
    seconds = 0.3 if options.quick else 1.0
    for threads in options.threads:
        fewer = [peak for peak in report.peaks.values() if peak.threads < threads]
        if threads not in report.peaks:
            report.peaks[threads] = machine.measure_peaks(threads, seconds=seconds, fewer=fewer)
    for number, case in enumerate(cases, 1):
        console.print(f"[dim]{number}/{len(cases)}[/] {case.op} {case.id}", highlight=False)
        if report.has(case):
            console.print("    kept")
            continue
        try:
            _measure_case(report, case, options, console)
        except Unavailable as reason:
            report.skipped.append((case.op, case.id, str(reason)))
            console.print(f"    not run: {reason}", highlight=False, markup=False)
        # A run takes an hour. Whatever ends it, the results until then are kept.
        _write(options.out / _JSON, report.to_json())


def _measure_case(
    report: Report, case: Case, options: argparse.Namespace, console: Console
) -> None:
    settings = report.settings
    setup = load(case.op).setup
    peaks = {threads: report.peaks[threads] for threads in options.threads}
    # A case counts when all its results are there: an interrupted one is measured again.
    results: list[Result] = []
    memories: list[Memory] = []
    if case.once:
        if settings["seconds"] is None:
            raise Unavailable("its only run is a timed one")
        result, memories = run_once(case, setup, peaks[options.threads[-1]])
        results.append(result)
        console.print(f"    {_line(result)}", highlight=False)
    else:
        for result in run_case(
            case,
            setup,
            peaks,
            seconds=settings["seconds"],
            with_compile=settings["compile"],
            # A filler takes seconds and its time hardly varies.
            min_rounds=1 if case.op == "exemplar" else 3,
        ):
            results.append(result)
            console.print(f"    {_line(result)}", highlight=False)
        if settings["memory"] and case.memory:
            memories = _memories(case, results[-1], options.threads[-1])
    report.results += results
    report.memory += memories
    for memory in memories:
        text = (
            f"    extra memory of {memory.contestant}: {bytes_text(memory.extra)} {memory.detail}"
        )
        console.print(text, highlight=False, markup=False)


def _memories(case: Case, result: Result, threads: int) -> list[Memory]:
    """Measure every contestant that took part."""
    names = [name for name, entry in result.entries.items() if entry.status != "missing"]
    return [
        measure(case, name, threads=threads)
        for name in names
        if name != COMPILED or case.compiled_memory
    ]


def _line(result: Result) -> str:
    timing = result.timing(OURS)
    threads = f"{result.threads} thread{'s' if result.threads > 1 else ''}"
    parts = [f"{threads}: ours {seconds_text(None if timing is None else timing.median)}"]
    for name in result.entries:
        ratio = result.ratio(name)
        if ratio is not None and name != OURS:
            parts.append(f"{ratio_text(ratio[0])} as fast as {name}")
    ratios = result.error_ratios()
    if ratios:
        parts.append(f"error {max(map(max, ratios.values())):.2f} times eager's")
    failed = [f"{name} {entry.status}" for name, entry in result.entries.items() if entry.failed]
    return ", ".join([*parts, *failed, *filter(None, [result.verdict()])])


__all__ = ["run"]
