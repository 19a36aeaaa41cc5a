"""Applies each mutation, runs the fuzzer and then the tests, and lists what they find."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from fuzz import engine

from mutants.build import ROOT, BuildError, build
from mutants.mutation import Mutation
from mutants.table import ENTRIES, MUTATIONS, TESTS

Record = dict[str, Any]
SEED = 1


def of_file(table: dict[str, tuple[str, ...]], file: str) -> tuple[str, ...]:
    """What belongs to a file: of the beginnings of its name in a table, the longest."""
    return table[max((key for key in table if file.startswith(key)), key=len)]


def by_fuzzer(mutation: Mutation, isa: str, tree: Path, cases: int, skip: list[str]) -> str | None:
    """The first failure in so many cases of the entries that run the file, or None."""
    ops, first = of_file(ENTRIES, mutation.file), 0
    while first < cases:
        run = {"ops": ops, "isas": [isa], "skip": skip, "jobs": 1, "most": 1}
        found = engine.run(cases - first, SEED, first=first, path=str(tree), **run).found
        if not found:
            return None
        # What the kernels do without the mutation is not its doing.
        if not engine.run(1, SEED, first=found[0].number, **run).found:
            return f"fuzz, case {found[0].number}: {found[0].error[:120]}"
        first = found[0].number + 1
    return None


def by_tests(mutation: Mutation, isa: str, tree: Path) -> str | None:
    """The first test that fails, or None."""
    tests = [f"tests/ops/{name}" for name in of_file(TESTS, mutation.file)]
    path = os.pathsep.join([str(tree), str(ROOT / "tests"), str(ROOT / "tests" / "helpers")])
    done = subprocess.run(
        [sys.executable, "-P", "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path, "INPAINT_OPS_INSTRUCTION_SET": isa},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 0:
        return None
    lines = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return f"tests: {lines[0][:120] if lines else f'exit status {done.returncode}'}"


def examine(mutation: Mutation, isa: str, folder: Path, cases: int, skip: list[str]) -> Record:
    """Whether a mutation is found, by what, and how long it took."""
    start = time.monotonic()
    record: Record = {"file": mutation.file, "fault": mutation.fault, "isa": isa}
    try:
        tree = build(mutation, isa, folder)
        found = by_fuzzer(mutation, isa, tree, cases, skip) or by_tests(mutation, isa, tree)
        record |= {"caught": found is not None, "by": found}
    except BuildError as error:
        record |= {"caught": None, "by": f"error: {error}"}
    return {**record, "seconds": round(time.monotonic() - start, 1)}


def _save(path: Path, records: dict[str, Record]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
        json.dump(records, file, indent=1)
    Path(file.name).replace(path)


def main() -> int:
    parser = argparse.ArgumentParser(prog="mutants", description=__doc__)
    parser.add_argument("--isa", default="avx2", help="instruction set that is mutated")
    parser.add_argument("--cases", type=int, default=20000, help="of the fuzzer, at most")
    parser.add_argument("--only", nargs="*", default=[], help="beginnings of names")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "mutants")
    parser.add_argument("--skip", nargs="*", default=[], help="checks of the fuzzer to leave out")
    parser.add_argument("--again", action="store_true", help="forget what was found before")
    options = parser.parse_args()
    path = options.out / "found.json"
    known = json.loads(path.read_text()) if path.exists() and not options.again else {}
    chosen = [m for m in MUTATIONS if not options.only or m.name.startswith(tuple(options.only))]

    def one(mutation: Mutation) -> None:
        if known.get(mutation.name, {}).get("caught") is None:
            folder = options.out / mutation.name
            known[mutation.name] = examine(
                mutation, options.isa, folder, options.cases, options.skip
            )
            _save(path, dict(known))
            subprocess.run(["rm", "-rf", str(folder)], check=False)
        print(_line(mutation.name, known[mutation.name]), flush=True)

    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(one, chosen))
    results = [known[m.name]["caught"] for m in chosen]
    caught = sum(result is True for result in results)
    print(f"{caught} of {len(chosen)} caught, {results.count(None)} errors")
    return 0 if caught >= 0.95 * len(chosen) and None not in results else 1


def _line(name: str, record: Record) -> str:
    said = {True: "caught", False: "SURVIVED", None: "ERROR"}[record["caught"]]
    return f"{said:9} {name:28} {record['seconds']:6.1f} s  {record['by'] or record['fault']}"


if __name__ == "__main__":
    sys.exit(main())
