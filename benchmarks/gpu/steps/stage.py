"""The first stage of DeepFill v2 in every precision, against the public formula.

17 layers pass rounding errors on, so a bound for one operator says nothing here. In bfloat16 the
public formula in PyTorch is off by 0.34 of the largest value, ours by 0.16. So ours is judged by
the formula's error in the same precision, times a margin.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from inpaint_ops.benchmarks.gpu.steps.task import Outcome, Settings, on_kernels, precision
from inpaint_ops.benchmarks.harness.accuracy import LIMIT, Error
from inpaint_ops.benchmarks.harness.case import Case, Missing, load

# Multiples of the formula's errors that ours may reach: by the maximum, by the root mean square. In
# half precision ours rounds less often. In float32 the two only add up in another order.
MARGINS = {
    "fp16": (2.0, 1.25),
    "bf16": (2.0, 1.25),
    "tf32": (4.0, 4.0),
    "fp32": (LIMIT, LIMIT),
}


def check(name: str, settings: Settings, case: Case | None = None) -> Outcome:
    """Compare the stage, or another network of a case, in one precision."""
    if case is None:
        (case,) = (one for one in load("gated_conv2d").CASES if one.id == "stage-1-512x512")
    problem = load(case.op).setup(case)
    ours, eager = (problem.implementations[key] for key in ("ours", "eager"))
    assert not isinstance(ours, Missing)
    assert not isinstance(eager, Missing)
    with precision(name) as dtype, torch.no_grad():
        given = [_moved(x, settings.device, dtype) for x in problem.inputs]
        with precision("fp32"):
            exact = eager(*(x.double() for x in given))
        with on_kernels(settings):
            mine = Error.of(ours(*given), exact)
        theirs = Error.of(eager(*given), exact)
    times = mine.times(theirs)
    wrong = [
        f"its {what} error is {one:.2g} times the formula's, allowed {margin:g}"
        for what, one, margin in zip(("largest", "root mean square"), times, MARGINS[name])
        if not one <= margin
    ]
    return {
        "status": "wrong" if wrong else "ok",
        "detail": "; ".join(wrong),
        "error": mine.maximum / mine.scale,
        "formula": theirs.maximum / theirs.scale,
        "times": times,
    }


def _moved(x: Any, device: torch.device, dtype: torch.dtype) -> Tensor:
    tensor: Tensor = x.detach().to(device, dtype)
    return tensor
