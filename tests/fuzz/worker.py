"""Runs cases in a process of its own, so that one that crashes takes nothing else along.

Before each case its number goes to a file: whoever started the process finds there what killed it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import warnings
from typing import Any

import torch
from support import poisoned

from fuzz import case as cases


def numbered(number: int, names: list[str], seed: int, isas: list[str]) -> cases.Case:
    """The case of a number: entries take turns, and each takes the instruction sets in turn."""
    name = names[number % len(names)]
    turn = number // len(names)
    return cases.draw(name, seed, turn, isas[turn % len(isas)])


def attempt(case: cases.Case, skip: list[str]) -> str | None:
    """What is wrong with a case, or None."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            cases.replay(case, skip)
    except cases.Failure as failure:
        return f"Failure: {failure}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def poison() -> None:
    """Memory that the package asks for uninitialised arrives full of NaN."""
    torch.empty = poisoned(torch.empty)
    torch.empty_like = poisoned(torch.empty_like)
    torch.Tensor.new_empty = poisoned(torch.Tensor.new_empty)


def _serve(skip: list[str]) -> None:
    """Answers cases, one a line, for shrinking."""
    for line in sys.stdin:
        print(json.dumps({"error": attempt(json.loads(line), skip)}), flush=True)


def _run(options: Any, names: list[str], isas: list[str]) -> None:
    progress = os.open(options.progress, os.O_WRONLY | os.O_CREAT)
    done = dict.fromkeys(isas, 0)
    for number in range(options.first, options.end, options.step):
        os.pwrite(progress, b"%20d" % number, 0)
        try:
            case = numbered(number, names, options.seed, isas)
            error = attempt(case, options.skip)
        except Exception as mistake:  # of the fuzzer itself
            case, error = {}, f"drawing: {type(mistake).__name__}: {mistake}"
        done[case.get("run", {}).get("isa", isas[0])] += 1
        if error:
            print(json.dumps({"number": number, "case": case, "error": error}), flush=True)
    print(json.dumps({"done": done}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--end", type=int, default=0)
    parser.add_argument("--step", type=int, default=1)
    parser.add_argument("--ops", nargs="*", default=[])
    parser.add_argument("--skip", nargs="*", default=[])
    parser.add_argument("--isas", nargs="*", default=[])
    parser.add_argument("--progress", default=os.devnull)
    parser.add_argument("--serve", action="store_true")
    options = parser.parse_args()
    poison()
    isas = options.isas or cases.instruction_sets()
    if options.serve:
        return _serve(options.skip)
    return _run(options, options.ops or list(cases.entries()), isas)


if __name__ == "__main__":
    main()
