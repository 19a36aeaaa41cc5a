"""Cases and problems small enough for tests of the benchmarks."""

import sys
from types import ModuleType

import pytest
import torch

from inpaint_ops.benchmarks.harness import case
from inpaint_ops.benchmarks.harness.case import Case, Problem, Unavailable, Work
from inpaint_ops.benchmarks.harness.machine import Peaks

PEAKS = {1: Peaks(1, 100.0, "registers", 10.0)}
TINY = Case("nearest_patch", "tiny", {"map": 12, "channels": 3, "patch": 3, "stride": 1})


def only(monkeypatch, op, cases, **replaced):
    """Leaves an operator's benchmark with these cases, and no other operator."""
    module = case.load(op)
    monkeypatch.setattr(module, "CASES", cases)
    for name, value in replaced.items():
        monkeypatch.setattr(module, name, value)
    return module


def doubling(**implementations):
    """A problem whose right result is twice its input."""
    x = torch.arange(4.0)
    return Problem(
        inputs=(x,),
        implementations=implementations,
        check=lambda y: None if torch.equal(y, 2 * x) else "not doubled",
        work=Work(flops=8.0, moved=32.0),
    )


def stand_in(monkeypatch, fill):
    module = ModuleType("inpaint_ops.exemplar")
    module.fill_exemplar = fill
    monkeypatch.setitem(sys.modules, "inpaint_ops.exemplar", module)


def photo_problem():
    small = Case(
        "exemplar", "small", {"photo": "chelsea.png", "side": 64, "hole": "box", "seed": 0}
    )
    try:
        return case.load("exemplar").setup(small)
    except Unavailable as reason:
        pytest.skip(str(reason))
