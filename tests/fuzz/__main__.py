"""Command line: runs cases, shrinks what fails, and writes a script for each failure."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from fuzz import engine, shrink


def main() -> int:
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=20000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--ops", nargs="*", default=[], help="operators and layers; all")
    parser.add_argument(
        "--skip", nargs="*", default=[], help="checks to leave out: edit, layout, threads, same"
    )
    parser.add_argument("--most", type=int, default=10, help="failures after which to stop")
    parser.add_argument("--out", type=Path, default=Path("build/fuzz"), help="folder of scripts")
    options = parser.parse_args()
    outcome = engine.run(
        options.cases,
        options.seed,
        ops=options.ops,
        skip=options.skip,
        jobs=options.jobs,
        first=options.first,
        most=options.most,
    )
    seen: set[tuple[str, str]] = set()
    for found in outcome.found:
        print(f"case {found.number}, {found.case.get('op')}: {found.error}\n{found.output}")
        which = (found.case.get("op", ""), shrink.kind(found.error))
        if not found.case or which in seen:
            continue
        seen.add(which)
        small, error = shrink.shrink(found.case, found.error, options.skip)
        text = shrink.script(found, small, error, options.seed)
        print(f"{shrink.write(options.out, found, text)}:\n{text}", flush=True)
    total = sum(outcome.done.values())
    rate = total / max(outcome.seconds, 1e-9)
    print(f"seed {options.seed}: {total} cases in {outcome.seconds:.0f} s, {rate:.0f} a second")
    print(f"in each instruction set: {outcome.done}; {len(outcome.found)} failures")
    return 1 if outcome.found else 0


if __name__ == "__main__":
    sys.exit(main())
