"""Operators that compare positions: time against the public formulas, and memory as sizes grow."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from inpaint_ops.benchmarks.gpu.steps.task import Outcome, Settings, Task, on_kernels, precision
from inpaint_ops.benchmarks.harness.case import Case, Missing, Problem, load
from inpaint_ops.kernels.stopwatch import is_lost, measure, peak_memory

_OURS = "ours"
# Bytes of the formula's matrices beyond which it is not tried.
_MOST_BYTES = 40e9


def _attention(grid: int, backward: bool) -> Case:
    sizes = {"grid": grid, "channels": 96, "fuse": True, "backward": backward, "kind": "soft"}
    return _case("contextual_attention", f"c96-{grid}x{grid}", sizes, backward)


def _shift(side: int, backward: bool) -> Case:
    sizes = {"batch": 1, "map": side, "channels": 256, "backward": backward}
    return _case("shift_connection", f"c256-{side}x{side}", sizes, backward)


def _patch(side: int) -> Case:
    sizes = {"map": side, "channels": 256, "patch": 3, "stride": 1, "metric": "cosine"}
    return _case("nearest_patch", f"c256-3x3-{side}x{side}", sizes, False)


def _mrf(side: int) -> Case:
    sizes = {"map": side, "channels": 256, "mix": 0.5}
    return _case("id_mrf_loss", f"c256-{side}x{side}", sizes, True)


def _case(op: str, name: str, sizes: dict[str, Any], backward: bool) -> Case:
    return Case(op, f"{name}-{'forward-backward' if backward else 'forward'}", sizes)


def _cases() -> list[Case]:
    """The sizes of the methods first, then the curves."""
    first = [_attention(32, False), _attention(64, False), _attention(64, True)]
    first += [_shift(32, False), _shift(32, True), _patch(64), _mrf(32), _mrf(64)]
    curves = [_attention(grid, False) for grid in (128, 256)] + [_attention(128, True)]
    curves += [_shift(64, False), _shift(128, False), _patch(32), _patch(128), _mrf(16), _mrf(128)]
    return first + curves


def _tiny() -> list[Case]:
    cases = [_attention(4, False), _shift(4, True), _patch(6), _mrf(4)]
    return [replace(case, sizes={**case.sizes, "channels": 4}) for case in cases]


def tasks(settings: Settings) -> Iterator[Task]:
    """Every size in every precision."""
    cases = _tiny() if settings.small else _cases()
    names = ("bf16",) if settings.small else ("bf16", "fp32", "fp16", "tf32")
    for name in names:
        for case in cases:
            yield Task(f"{case.op}-{case.id}-{name}", partial(_run, case, name, settings))


def _run(case: Case, name: str, settings: Settings) -> Outcome:
    with precision(name) as dtype:
        problem = moved(load(case.op).setup(case), settings.device, dtype)
        calls: dict[str, Callable[[], Any]] = {}
        times: dict[str, dict[str, Any]] = {}
        for who, one in problem.implementations.items():
            if isinstance(one, Missing):
                times[who] = {"missing": one.reason}
            elif who == _OURS or float(case.sizes.get("grid", 0)) ** 4 * 4 * 8 < _MOST_BYTES:
                calls[who] = partial(_call, problem, one, settings)
            else:
                times[who] = {"missing": f"its matrices would pass {_MOST_BYTES / 1e9:g} GB"}
        times |= measure(calls, settings.device, settings.seconds)
        for who, call in calls.items():
            if "missing" not in times[who]:
                times[who]["bytes"] = _bytes(call, settings)
    broken = [f"{who}: {one['missing']}" for who, one in times.items() if "missing" in one]
    return {
        "status": "error" if "missing" in times[_OURS] else "ok",
        "detail": "; ".join(broken),
        "op": case.op,
        "sizes": dict(case.sizes),
        "precision": name,
        "times": times,
    }


def _call(problem: Problem, implementation: Callable[..., Any], settings: Settings) -> Any:
    with on_kernels(settings):
        return problem.run(implementation)


def _bytes(call: Callable[[], Any], settings: Settings) -> int | None:
    try:
        return peak_memory(call, settings.device)
    except Exception as error:  # its time is there already
        if is_lost(error):
            raise
        return None


def moved(problem: Problem, device: torch.device, dtype: torch.dtype) -> Problem:
    """Return the problem with its floating inputs and gradient in a dtype on a device."""

    def there(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        kind = dtype if value.is_floating_point() else value.dtype
        return value.detach().to(device, kind).requires_grad_(value.requires_grad)

    inputs = tuple(there(value) for value in problem.inputs)
    return replace(problem, inputs=inputs, gradient=there(problem.gradient))
