"""What the command measures: its arguments, and the cases that they mean."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from inpaint_ops.benchmarks.harness import machine
from inpaint_ops.benchmarks.harness.case import OPS, Case, load
from inpaint_ops.benchmarks.peers.invite import PEERS
from inpaint_ops.program import reason


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Return the options, with defaults that follow from others put in.

    Raises:
        SystemExit: from argparse, which has printed its text.
    """
    parser = argparse.ArgumentParser(
        prog="inpaint-ops bench",
        description="Measure the kernels against the public formulas and the machine's floor.",
    )
    parser.add_argument("--all", action="store_true", help="every case, and torch.compile: hours")
    parser.add_argument("--quick", action="store_true", help="few cases: a minute")
    parser.add_argument("--ops", type=_ops, help="every case of these; comma-separated")
    parser.add_argument("--only", default="", metavar="TEXT", help="cases with this in their name")
    parser.add_argument(
        "--peers",
        type=_peers,
        nargs="?",
        const=list(PEERS),
        metavar="NAMES",
        help="cases that other engines can run, with these; comma-separated, of "
        f"{', '.join(PEERS)}; without names: all",
    )
    parser.add_argument(
        "--base",
        metavar="REF",
        help="compare with ours at another commit of this checkout, and with nothing else",
    )
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
    parser.add_argument(
        "--processor-time",
        action="store_true",
        help="time of the processor instead of the clock's: for a busy machine, one thread alone",
    )
    parser.add_argument("--list", action="store_true", help="print the cases and stop")
    parser.add_argument(
        "--json",
        action="store_true",
        help="print benchmark.json, or the list, alone; the rest goes to standard error",
    )
    parser.add_argument(
        "--seconds",
        type=_positive,
        help="timing of one case at one thread count; default: 2, or 0.5 with --quick",
    )
    options = parser.parse_args(argv)
    if options.processor_time:
        options.threads = [1]
    available = machine.available_cpus()
    options.threads = [n for n in options.threads if n <= available] or [available]
    if options.seconds is None:
        options.seconds = 0.5 if options.quick else 2.0
    if options.peers is not None and options.base is not None:
        parser.error("--base compares with nothing else: leave --peers out")
    if not options.list:
        try:
            options.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            parser.error(f"--out: {reason(error)}")
    options.whole = bool(options.all or options.ops or options.only)
    options.ops = options.ops or list(OPS)
    return options


def cases(options: argparse.Namespace) -> list[Case]:
    """Return the cases that are asked for."""
    found = [case for op in options.ops for case in load(op).CASES if options.only in case.id]
    if options.quick:
        found = [case for case in found if case.quick]
    elif not options.whole:
        found = [case for case in found if case.quick or case.usual]
    if options.peers is not None:
        found = [case for case in found if case.peers and not case.once]
    if options.base is not None:
        found = [case for case in found if not case.once]
    if options.whole and not options.quick:
        return found
    # Memory of the promised cases only: each process takes seconds to start.
    return [replace(c, memory=c.quick and c.target is not None and c.memory) for c in found]


def settings(options: argparse.Namespace) -> dict[str, Any]:
    """Return what the report says of the options."""
    alone = options.base is not None or options.peers is not None
    return {
        "ops": options.ops,
        "only": options.only,
        "quick": options.quick,
        "all": options.all,
        "threads": options.threads,
        "seconds": None if options.no_timing else options.seconds,
        "compile": options.whole and not (options.no_compile or options.quick or alone),
        "memory": not (options.no_memory or options.no_timing or alone),
        "clock": "processor" if options.processor_time else "wall",
        "peers": options.peers or [],
        "base": options.base,
    }


def _peers(text: str) -> list[str]:
    return _known(text, PEERS)


def _known(text: str, known: Collection[str]) -> list[str]:
    names = text.split(",")
    unknown = [name for name in names if name not in known]
    if unknown:
        raise argparse.ArgumentTypeError(f"unknown {', '.join(unknown)}, known: {', '.join(known)}")
    return names


def _ops(text: str) -> list[str]:
    return _known(text, OPS)


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
