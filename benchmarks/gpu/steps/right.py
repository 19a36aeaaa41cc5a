"""Right or wrong: every operator, dtype and direction against float64 on the CPU."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor

from inpaint_ops import ops, reference
from inpaint_ops.benchmarks.gpu import goldens
from inpaint_ops.benchmarks.gpu.steps.problems import CONVOLUTIONS, Problem, problems
from inpaint_ops.benchmarks.gpu.steps.task import (
    Outcome,
    Settings,
    Task,
    multiplied_by,
    on_kernels,
    precision,
)

# Errors relative to the largest value, as in the project's tests; those of float32 are for sums of
# up to 64 terms. The factors of TF32 have as many bits as float16.
BOUNDS = {"fp32": 1e-5, "tf32": 2e-3, "fp16": 2e-3, "bf16": 1.6e-2}
# Part of the matches that may be others: rounding decides between two that score alike.
_OTHER_MATCHES = 2e-3

Results = dict[str, Tensor]


def tasks(settings: Settings) -> Iterator[Task]:
    """Every operator and precision, then the public implementations' numbers, then a network."""
    listed = problems(settings.small)
    for name in ("bf16",) if settings.small else ("bf16", "fp16", "fp32", "tf32"):
        for problem in listed:
            if name == "tf32" and problem.op not in CONVOLUTIONS:
                continue
            for way in ("fused", "library") if problem.op in CONVOLUTIONS else ("",):
                title = "-".join(filter(None, (problem.op, problem.id, way, name)))
                yield Task(title, partial(check, problem, name, way, settings))
    for op, path in goldens.files():
        if not settings.small or path.stem == "shift_s1":
            yield Task(f"golden-{path.stem}", partial(_golden, op, path, settings))
    if not settings.small:
        from inpaint_ops.benchmarks.gpu.steps import stage

        for name in ("bf16", "fp16", "tf32", "fp32"):
            yield Task(f"deepfill_v2-stage-1-{name}", partial(stage.check, name, settings))


def check(problem: Problem, name: str, way: str, settings: Settings) -> Outcome:
    """Compare one call: results, and gradients where it has any."""
    with precision(name) as dtype, multiplied_by(way), on_kernels(settings):
        rounded = {
            key: t.to(dtype) if t.is_floating_point() else t for key, t in problem.tensors.items()
        }
        there = {key: t.to(settings.device) for key, t in rounded.items()}
        function = getattr(ops, problem.op)
        got = _results(function, there, problem)
        # Kernels that keep nothing for a backward pass are programs of their own.
        with torch.no_grad():
            forward = _results(function, there, problem, leaves=()) if problem.leaves else {}
    exact = _exact(problem, dtype)
    errors, wrong = _compare(got, exact, name, problem)
    if forward:
        results = {key: exact[key] for key in forward}
        more, others = _compare(forward, results, name, problem)
        errors |= {f"{key} without gradients": error for key, error in more.items()}
        wrong += [f"without gradients, {text}" for text in others]
    return {
        "status": "wrong" if wrong else "ok",
        "detail": "; ".join(wrong),
        "errors": errors,
        "bound": bound(name, problem.terms),
    }


def _compare(
    got: Results, exact: Results, name: str, problem: Problem
) -> tuple[dict[str, float], list[str]]:
    """Error of each result, and sentences on what is wrong."""
    allowed = bound(name, problem.terms)
    errors: dict[str, float] = {}
    wrong = []
    others: Tensor | None = None
    for key, want in exact.items():
        mine = got[key].detach().cpu()
        if mine.shape != want.shape:
            wrong.append(f"{key} has shape {tuple(mine.shape)}, expected {tuple(want.shape)}")
        elif not want.is_floating_point():
            others = mine != want
            errors[key] = float(others.double().mean())
            if errors[key] > _OTHER_MATCHES:
                wrong.append(f"{key}: {100 * errors[key]:.2g} % are other matches")
        else:
            errors[key] = relative_error(mine, want, _elsewhere(others, want, problem))
            if not errors[key] <= allowed:
                wrong.append(f"{key} is off by {errors[key]:.2g}, allowed {allowed:.2g}")
    return errors, wrong


def bound(name: str, terms: int) -> float:
    """Error allowed in a precision for sums of so many terms, relative to the largest value."""
    if name == "fp32":
        return BOUNDS[name] * math.sqrt(max(1.0, terms / 64))
    # Sums are formed in float32: what is rounded are the factors and, a few times, the result.
    return 2 * BOUNDS[name]


def _results(
    function: Callable[..., Any],
    tensors: Mapping[str, Tensor],
    problem: Problem,
    leaves: Sequence[str] | None = None,
) -> Results:
    names = problem.leaves if leaves is None else leaves
    held = {key: tensors[key].detach().requires_grad_() for key in names}
    outcome = function(**{**tensors, **held}, **problem.options)
    results = outcome if isinstance(outcome, tuple) else (outcome,)
    # Matches first: they tell where values have to agree.
    numbered = sorted(enumerate(results), key=lambda pair: pair[1].is_floating_point())
    found = {f"result {i}": one.detach() for i, one in numbered}
    if held:
        y = results[0]
        generator = torch.Generator().manual_seed(1)
        gradient = torch.randn(y.shape, generator=generator).to(torch.bfloat16)
        given = gradient.to(y.device, y.dtype)
        grads = torch.autograd.grad(y, list(held.values()), given)
        found.update({f"gradient of {key}": g for key, g in zip(held, grads)})
    return found


@lru_cache(maxsize=256)
def _exact(problem: Problem, dtype: torch.dtype) -> Results:
    """Results in float64 of the inputs as the dtype rounds them, kept for the other ways."""
    wide = {
        name: t.to(dtype).double() if t.is_floating_point() else t
        for name, t in problem.tensors.items()
    }
    return _results(getattr(reference, problem.op), wide, problem)


def _elsewhere(others: Tensor | None, want: Tensor, problem: Problem) -> Tensor | None:
    """Places of a value that do not depend on another match, None where that is all of them."""
    if others is None or not others.any() or problem.op == "contextual_attention":
        return None
    same = ~others
    if want.shape == same.shape:
        return same
    if problem.op == "shift_connection" and want.shape[-2:] == same.shape[-2:]:
        return same.reshape(same.shape[0], -1, *same.shape[-2:])[:, :1].expand_as(want)
    return None


def relative_error(got: Tensor, want: Tensor, where: Tensor | None = None) -> float:
    """Largest difference relative to the largest value."""
    if want.numel() == 0:
        return 0.0
    off = (got.double() - want).abs()
    scale = max(want.abs().max().item(), 1e-12)
    if where is not None:
        off = torch.where(where, off, 0)
    return off.max().item() / scale


def _golden(op: str, path: Any, settings: Settings) -> Outcome:
    with precision("fp32"), on_kernels(settings):
        wrong = goldens.replay(op, path, settings.device)
    return {"status": "wrong" if wrong else "ok", "detail": wrong or ""}
