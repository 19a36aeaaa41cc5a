"""Computation of noted steps: needs backwards, then the steps in order, each as far as needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from inpaint_ops.needed.needs import ALL, Need, merged, needs_of_inputs
from inpaint_ops.needed.step import Ref, Step, like_or_self
from inpaint_ops.ops.partly import PARTLY, Wanted, partly_of


class Plan(NamedTuple):
    """How a step is computed.

    Args:
        need: of its first result; None: it is left out.
        anchor: of `Wanted`.
    """

    need: Need
    anchor: tuple[int, int] = (0, 0)


def compute(x: Ref, need: Need, whole: bool) -> Tensor:
    """Return a result that holds its needed pixels at least.

    Args:
        x: the result.
        need: of it.
        whole: compute all pixels nevertheless, with tiles where the need asks for them.
    """
    last = x.step
    if last.results is None:
        steps = steps_before(last)
        plans = _plans(steps, x, need)
        if whole:
            plans = [plan if plan.need is None else plan._replace(need=ALL) for plan in plans]
        uses = _uses(steps)
        for step, plan in zip(steps, plans):
            step.results = _results(step, plan)
            for one in step.inputs:
                if isinstance(one, Ref) and one.step in uses:
                    uses[one.step] -= 1
                    if not uses[one.step]:
                        one.step.results = None
        value: Tensor = _there(last)[x.place]
        if plans[-1].need is not ALL:
            # Nobody may take it for the whole result.
            last.results = None
        return value
    given: Tensor = _there(last)[x.place]
    return given


def _there(step: Step) -> list[Any]:
    assert step.results is not None
    return step.results


def empty(x: Ref) -> Tensor:
    """Return memory that holds anything, for a result of which nothing is needed."""
    return torch.empty_strided(x.shape, x.like.stride(), dtype=x.like.dtype)


def _value(x: Ref | Tensor) -> Tensor:
    if not isinstance(x, Ref):
        return x
    value: Tensor = empty(x) if x.step.results is None else x.step.results[x.place]
    return value


def _results(step: Step, plan: Plan) -> list[Any] | None:
    return None if plan.need is None else results_of(step, plan, _value)


def results_of(
    step: Step, plan: Plan, value: Callable[[Any], Tensor], into: Tensor | None = None
) -> list[Any]:
    """Return a step's results by a plan with a need.

    Args:
        step: the step.
        plan: of it.
        value: the values of its arguments.
        into: of `Wanted`.
    """
    args, kwargs = step.arguments(value)
    if isinstance(plan.need, Tensor) or plan.anchor != (0, 0):
        pixels = plan.need if isinstance(plan.need, Tensor) else None
        return list(PARTLY[step.func].compute(Wanted(pixels, plan.anchor, into), *args))
    results = step.func(*args, **kwargs)
    return list(results) if isinstance(results, (list, tuple)) else [results]


def steps_before(last: Step, given: bool = False) -> list[Step]:
    """Return a step and those that it depends on, in order; computed ones only if `given`."""
    found = {last}
    waiting = [last]
    while waiting:
        for x in waiting.pop().inputs:
            if isinstance(x, Ref) and x.step not in found and (given or x.step.results is None):
                found.add(x.step)
                waiting.append(x.step)
    return sorted(found, key=lambda step: step.number)


def _uses(steps: Sequence[Step]) -> dict[Step, int]:
    """How often the results of each step are read by the others."""
    uses = dict.fromkeys(steps, 0)
    for step in steps:
        for x in step.inputs:
            if isinstance(x, Ref) and x.step in uses:
                uses[x.step] += 1
    return uses


def _plans(steps: Sequence[Step], x: Ref, need: Need) -> list[Plan]:
    """The plans of the steps for a need of the last one's result."""
    needs: dict[tuple[Step, int], Need] = {(x.step, x.place): need}
    plans: list[Plan] = []
    for step in reversed(steps):
        of_results = [needs.get((step, place)) for place in range(len(step.likes))]
        plan, of_inputs = _plan(step, of_results)
        plans.append(plan)
        for one, of_input in zip(step.inputs, of_inputs):
            if isinstance(one, Ref):
                key = one.step, one.place
                needs[key] = merged(needs.get(key), of_input)
    return plans[::-1]


def _plan(step: Step, needs: Sequence[Need]) -> tuple[Plan, Sequence[Need]]:
    """The plan of a step, and the needs of its inputs."""
    if all(need is None for need in needs):
        return Plan(None), [None] * len(step.inputs)
    partly, pixels = partly_of(step.func), needs[0]
    if partly is None or pixels is ALL:
        return Plan(ALL), needs_of_inputs(step, needs)
    if pixels is None:
        shape = step.likes[0].shape
        pixels = torch.zeros((shape[0], *shape[2:]), dtype=torch.uint8)
    assert isinstance(pixels, Tensor)
    reads = partly.reads(pixels, *step.arguments(like_or_self)[0])
    if reads is None:
        return Plan(ALL), [ALL] * len(step.inputs)
    found: list[Need] = [ALL if one is None else one for one in reads.maps]
    return Plan(pixels if reads.share < 1 else ALL, reads.anchor), found[: len(step.inputs)]
