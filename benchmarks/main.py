"""``inpaint-ops bench`` and ``python -m inpaint_ops.benchmarks``."""

from __future__ import annotations

import argparse
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from rich.console import Console

from inpaint_ops.atomic import write_atomically
from inpaint_ops.benchmarks import base
from inpaint_ops.benchmarks import options as choices
from inpaint_ops.benchmarks.harness import machine, timing
from inpaint_ops.benchmarks.harness.case import Case, Unavailable, load
from inpaint_ops.benchmarks.harness.memory import Memory, measure
from inpaint_ops.benchmarks.harness.once import run_once
from inpaint_ops.benchmarks.harness.runner import COMPILED, OURS, Result, run_case
from inpaint_ops.benchmarks.peers.invite import PEERS, Party, versions
from inpaint_ops.benchmarks.report import page, peers, terminal
from inpaint_ops.benchmarks.report.report import Report, bytes_text, ratio_text, seconds_text
from inpaint_ops.benchmarks.report.stored import restore
from inpaint_ops.program import reason

# Without a terminal rich would fold the tables to 80 columns.
_PIPE_WIDTH = 170
_JSON, _PAGE, _TABLE = "benchmark.json", "benchmark.html", "peers.csv"


# Takes the arguments of `run_case`.
Elsewhere = Callable[..., Iterator[Result]]


def run(argv: list[str]) -> int:
    """Measure, print and write ``benchmark.json`` and ``benchmark.html``.

    Args:
        argv: arguments without the program's name.

    Returns:
        0, 1 if a result was wrong or a contestant raised, 2 for wrong usage, 130 if interrupted or
        terminated (the results until then are written).
    """
    try:
        options = choices.parse(argv)
    except SystemExit as exit_:  # argparse has printed its text
        return exit_.code if isinstance(exit_.code, int) else 2
    probe = Console(stderr=options.json)
    console = probe if probe.is_terminal else Console(width=_PIPE_WIDTH, stderr=options.json)
    cases = choices.cases(options)
    if options.list:
        _list(cases, console, as_json=options.json)
        return 0
    if options.processor_time:
        os.environ[timing.CLOCK_VARIABLE] = "processor"
    report = Report(environment=machine.environment(), settings=choices.settings(options))
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
    except Unavailable as error:
        console.print(str(error), highlight=False, markup=False)
        return 2
    terminal.show(report, console)
    files = {_JSON: report.to_json(), _PAGE: page.render(report)}
    if report.settings["peers"]:
        files[_TABLE] = peers.to_csv(report)
    for name, text in files.items():
        _write(options.out / name, text)
        console.print(str(options.out / name), highlight=False, soft_wrap=True)
    if options.json:
        print(files[_JSON], end="")
    if report.interrupted:
        return 130
    return 1 if report.failures() else 0


def _list(cases: Sequence[Case], console: Console, *, as_json: bool) -> None:
    if as_json:
        found = [{"op": one.op, "case": one.id, "sizes": dict(one.sizes)} for one in cases]
        print(json.dumps(found, indent=1))
        return
    for case in cases:
        sizes = ", ".join(f"{key} {value}" for key, value in case.sizes.items())
        console.print(f"{case.op}  {case.id}  ({sizes})", highlight=False, soft_wrap=True)


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
    with ExitStack() as stack:
        elsewhere = _elsewhere(report, options, console, stack)
        _measure_all(report, cases, options, console, elsewhere)


def _elsewhere(
    report: Report, options: argparse.Namespace, console: Console, stack: ExitStack
) -> Elsewhere | None:
    """Return how contestants in other processes take part, if any do."""
    if options.base is not None:
        console.print(f"building {options.base}, once", highlight=False, markup=False)
        tree = stack.enter_context(base.built(options.base))
        report.environment["base_commit"] = tree.commit
        return stack.enter_context(base.Pair(tree)).run_case
    if options.peers is not None:
        known = {name: PEERS[name] for name in options.peers}
        report.environment["versions"] |= versions(known.values())
        return partial(run_case, with_compile=False, invite=stack.enter_context(Party(known)).given)
    return None


def _measure_all(
    report: Report,
    cases: Sequence[Case],
    options: argparse.Namespace,
    console: Console,
    elsewhere: Elsewhere | None,
) -> None:
    for number, case in enumerate(cases, 1):
        console.print(f"[dim]{number}/{len(cases)}[/] {case.op} {case.id}", highlight=False)
        if report.has(case):
            console.print("    kept")
            continue
        try:
            _measure_case(report, case, options, console, elsewhere)
        except Unavailable as reason:
            report.skipped.append((case.op, case.id, str(reason)))
            console.print(f"    not run: {reason}", highlight=False, markup=False)
        # A run takes an hour. Whatever ends it, the results until then are kept.
        _write(options.out / _JSON, report.to_json())


def _measure_case(
    report: Report,
    case: Case,
    options: argparse.Namespace,
    console: Console,
    elsewhere: Elsewhere | None,
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
        run = elsewhere or partial(run_case, with_compile=settings["compile"])
        for result in run(
            case,
            setup,
            peaks,
            seconds=settings["seconds"],
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
