"""Choice between the fused kernel and cuDNN followed by one elementwise pass, layer by layer.

What was measured decides (`tables`); where nothing was, a rule does. The fused kernel spares the
passes around the product, whose time does not depend on the depth of the sums; cuDNN multiplies
faster, and gains with the depth. So layers up to a depth are fused, and up to a greater one where
cuDNN needs a pass before its product too (masks, borders) or a slow product (transposed and
doubled layers).

The depths are those with the least sum over the layers of the ten methods with 1, 4 and 16 images,
by the times that ``benchmarks.gpu.roofline`` predicts from data sheets and the kernels' machine
code: no measurements (docs/how/gpu_choices.md). INPAINT_OPS_CONV=fused or =library overrides all.
"""

import os
from collections.abc import Callable, Mapping
from typing import NamedTuple

from torch import Tensor

from inpaint_ops.kernels import tables, tuning
from inpaint_ops.kernels.convolution import fused
from inpaint_ops.kernels.convolution.fused import Problem
from inpaint_ops.kernels.launch import architecture


class Limits(NamedTuple):
    """Greatest depth that is fused.

    Args:
        plain: of a layer of which cuDNN needs the product and one pass.
        before: where it needs a pass before the product.
        saved: where its product is slow.
        few: where outputs are so few that cuDNN's blocks are mostly empty.
    """

    plain: int
    before: int
    saved: int
    few: int = 0


# Memory slow beside the processors: the passes that are spared count for more.
_SLOW_MEMORY = Limits(1728, 1728, 1728, 1728)
# By precision and architecture. No chip of gfx942 and sm_120 is in the roofline: those that are
# most like them stand for them.
_HOPPER = Limits(600, 2400, 864, 1728)
_LIMITS = {
    "half": {
        "sm_80": Limits(320, 1728, 864, 1728),
        "sm_86": Limits(320, 1728, 1200, 1728),
        "sm_89": _SLOW_MEMORY,
        "sm_90": _HOPPER,
        "sm_100": Limits(0, 1200, 0),
        "sm_120": _SLOW_MEMORY,
        "gfx942": _HOPPER,
    },
    "tf32": {
        "sm_86": _SLOW_MEMORY,
        "sm_89": _SLOW_MEMORY,
        "sm_100": Limits(0, 0, 0),
        "sm_120": _SLOW_MEMORY,
    },
    # Without matrix units the products are the bound nearly everywhere.
    "ieee": {
        "sm_86": Limits(320, 1728, 1200, 1728),
        "sm_89": _SLOW_MEMORY,
        "sm_120": _SLOW_MEMORY,
    },
}
_ELSEWHERE = {"tf32": Limits(144, 600, 256), "ieee": Limits(0, 48, 0)}
_FEW_OUTPUTS = 4

RowOf = Callable[[Tensor, Problem, tuning.Trial], str | None]


def row_of(x: Tensor, problem: Problem, trial: tuning.Trial) -> str | None:
    """Row of the fused kernel that takes a layer; None: the library multiplies.

    Args:
        x: input, of which the device counts.
        problem: what counts of the layer.
        trial: gives the call to time for a row, or for None.

    Raises:
        ValueError: INPAINT_OPS_CONV is not "auto", "fused" or "library", or a table is broken.
    """
    forced = os.environ.get("INPAINT_OPS_CONV", "auto")
    if forced not in ("auto", "fused", "library"):
        raise ValueError(f"INPAINT_OPS_CONV: must be auto, fused or library, got {forced!r}")
    if forced == "library":
        return None
    arch, keys = architecture(x.device), problem.keys
    rows = fused.rows_of(problem, arch)
    entry = tables.find(keys, x.device) or {}
    if forced == "auto":
        # The classes beside stand in for what is not measured; where it can be, it is.
        known = _decides(tables.find(keys[:2], x.device) or {}, rows)
        entry = tuning.measured(keys, rows, x.device, trial, known) or entry
    row = entry["row"] if entry.get("row") in rows else fused.pick_row(problem, arch)
    if forced == "fused":
        return row
    fuses = entry["choice"] == "fused" if _decides(entry, rows) else predicted(problem, arch)
    return row if fuses else None


def _decides(entry: Mapping[str, str], rows: list[str]) -> bool:
    """Whether an entry of a table still means something: rows come and go."""
    if entry.get("choice") == "fused":
        return entry["row"] in rows
    return entry.get("choice") == "library"


def predicted(problem: Problem, arch: str) -> bool:
    """Whether the fused kernel takes a layer that was not measured.

    Args:
        problem: what counts of the layer.
        arch: member of `launch.ARCHITECTURES`.
    """
    precision = problem.precision
    limits = _LIMITS[precision].get(arch) or _ELSEWHERE[precision]
    limit = limits.plain
    if problem.kind == "partial" or problem.reading.padding_mode != "zeros":
        limit = max(limit, limits.before)
    if problem.saves:
        limit = max(limit, limits.saved)
    if problem.outputs <= _FEW_OUTPUTS:
        limit = max(limit, limits.few)
    return problem.depth <= limit
