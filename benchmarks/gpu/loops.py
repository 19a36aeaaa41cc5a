"""Time of the fused convolution predicted from its machine code: never a measurement.

A program of a row works through the depth in steps. In each the processor's schedulers issue the
instructions of its warps, its matrix units multiply, and its cache delivers the operands: the
longest of the three is the step. What comes before and after the steps is instructions alone.
`budget.json` has these figures for each row, read from the disassembly.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inpaint_ops.kernels.convolution.fused import Problem

STORED = Path(__file__).resolve().parent / "budget.json"
# Of the instructions that a scheduler could issue.
_ISSUE_SHARE = 0.8
# Of the part of the matrix rate that the library reaches. Published figures of such kernels are
# half to three quarters of cuDNN's where the products are the bound; nobody should plan on more.
_MATRIX_SHARE = 0.8
# Bytes that the second-level cache delivers to one multiprocessor in a cycle.
CACHE = 30.0
_SCHEDULERS = 4
# Of a multiprocessor, for float32; elsewhere 128.
_LANES = {"sm_80": 64}
_ELEMENT = {"half": 2, "tf32": 4, "ieee": 4}


@dataclass(frozen=True)
class Processors:
    """What the loop runs on: multiprocessors, and their cycles in a second.

    `share`: of the matrix rate that the library reaches.
    """

    arch: str
    count: int
    clock: float
    share: float

    @property
    def cache(self) -> float:
        """Bytes a second that the second-level cache delivers to all of them."""
        return CACHE * self.count * self.clock


@dataclass(frozen=True)
class Loop:
    """Seconds of a layer's fused kernel on the multiprocessors, by what bounds them."""

    row: str
    instructions: float
    matrix: float
    cache: float

    @property
    def seconds(self) -> float:
        """The greatest of the three."""
        return max(self.instructions, self.matrix, self.cache)

    @property
    def bound(self) -> str:
        """Name of the greatest."""
        names = ("instructions", "matrix", "cache")
        return max(names, key=lambda name: float(getattr(self, name)))


@lru_cache
def budget(path: Path = STORED) -> Any:
    """Figures of all rows by architecture and name."""
    return json.loads(path.read_text(encoding="utf-8"))


def loop(
    problem: Problem,
    row: str,
    chip: Processors,
    *,
    reused: float = 1.0,
    figures: Mapping[str, Any] | None = None,
) -> Loop:
    """Predict a layer in a row.

    Args:
        problem: what counts of the layer.
        row: of the fused kernel.
        chip: what it runs on.
        reused: times that the first-level cache delivers a pixel that the second delivered once;
            1 where it is passed by, as Triton's asynchronous copies do before 3.9.
        figures: `budget` by default.
    """
    from inpaint_ops.kernels.convolution.fused_kernel import CONV

    shape = CONV.row(row, chip.arch)
    blocks = shape.constexprs
    m, n, k = (blocks[f"BLOCK_{axis}"] for axis in "MNK")
    columns = 2 * n if blocks["GATED"] else n
    figures = (figures or budget())[chip.arch]
    name = f"{CONV.name} {row}"
    one = figures[name]
    if problem.reading.linear:
        one = figures.get(f"{name} common", one)
    steps = -(-problem.depth // k)
    cycles = one["cycles"]
    if problem.precision == "ieee":
        # No matrix units: a product each for the lanes of a quarter of the multiprocessor.
        cycles = m * columns * k / shape.warps / (_LANES.get(chip.arch, 128) / _SCHEDULERS)
    programs = problem.reading.phases**2 * -(-problem.pixels // m) * -(-problem.outputs // n)
    # Of programs that fill the processors; the last round is as long as a full one.
    rounds = -(-programs // chip.count) / chip.clock
    warps = shape.warps / _SCHEDULERS
    around = one["instructions"] - one["slots"]
    bytes_of_step = (m / reused + columns) * k * _ELEMENT[problem.precision]
    return Loop(
        row,
        rounds * warps * (one["slots"] * steps + around) / _ISSUE_SHARE,
        rounds * warps * cycles * steps / (_MATRIX_SHARE * chip.share),
        rounds * bytes_of_step * steps / CACHE,
    )
