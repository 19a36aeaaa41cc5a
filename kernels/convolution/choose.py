"""Choice between the fused kernel and cuDNN followed by one elementwise pass, layer by layer.

What was measured decides (`tables`); where nothing was, a rule does. The fused kernel moves the
fewest bytes; cuDNN multiplies faster. Let kappa = kh kw C be the
products of one sum. For n outputs a pixel the unfused way writes and reads the pre-activation once
more, 4 n elements a pixel, against 4 n kappa operations: pixels and n cancel. Fusing wins where
kappa (1 / r - 1) / e < 2 ridge / 0.85, with r the speed of the fused product relative to cuDNN's,
e the part of the peak that cuDNN reaches, and ridge the operations in the time of one byte of
memory traffic. The same bound holds for partial convolutions and for TF32.

With r = 0.6 to 0.7 the bound on kappa is 625 to 970 on an H100 and 380 to 590 on an A100. These are
predictions from data sheets and published ratios, not measurements; the environment variable
INPAINT_OPS_CONV=fused or =library overrides them.
"""

import os
from collections.abc import Callable, Mapping

from torch import Tensor

from inpaint_ops.kernels import tables, tuning
from inpaint_ops.kernels.convolution import fused
from inpaint_ops.kernels.convolution.fused import Problem
from inpaint_ops.kernels.launch import architecture

# Greatest kappa that is fused: 432 are all 3 x 3 layers of up to 48 channels, and the 5 x 5 and
# 7 x 7 stems. On an A100 that is a tie; on the consumer chips, with memory still slower against
# their matrix units, too.
_SHALLOW = {"sm_80": 256, "sm_86": 256, "sm_89": 256, "sm_120": 256}
_SHALLOW_ELSEWHERE = 432
# Above this kappa the products dominate whatever else is saved.
_DEEP = 1728
# Below this many results a launch costs more than the products.
_FEW_RESULTS = 2_000_000
# Without matrix units (float32 without TF32) a byte is worth a tenth of the operations.
_SHALLOW_FLOAT32 = 48
_FEW_FILTERS = 4

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
    entry = _valid(tables.find(keys, x.device), rows)
    if forced == "auto":
        entry = tuning.measured(keys, rows, x.device, trial, entry is not None) or entry
    row = fused.pick_row(problem, arch) if entry is None else entry["row"]
    if forced == "fused":
        return row
    fuses = predicted(problem, arch) if entry is None else entry["choice"] == "fused"
    return row if fuses else None


def _valid(entry: Mapping[str, str] | None, rows: list[str]) -> Mapping[str, str] | None:
    """An entry of a table if it still means something: rows come and go."""
    if entry is None or entry["row"] not in rows or entry["choice"] not in ("fused", "library"):
        return None
    return entry


def predicted(problem: Problem, arch: str) -> bool:
    """Whether the fused kernel takes a layer that was not measured.

    Args:
        problem: what counts of the layer.
        arch: member of `launch.ARCHITECTURES`.
    """
    depth = problem.depth
    if problem.outputs <= _FEW_FILTERS and depth <= _DEEP:
        return True  # the library pads few filters to a whole block too, and writes them twice
    if problem.precision == "ieee":
        return depth <= _SHALLOW_FLOAT32
    if depth > _DEEP:
        return False
    few = problem.results < _FEW_RESULTS
    return problem.saves or few or depth <= _SHALLOW.get(arch, _SHALLOW_ELSEWHERE)
