"""Computation of what changed since the last time, from what was kept of it.

A `Memory` keeps the results of a network's steps, and which of their pixels are right. The next
time the same steps are noted, changes of their arguments are followed forward (`changes`): what
they reach is right no longer. Then needs are followed backward as in `compute`, less what is right
and there. Pixels that are missing are computed into the results that were kept.

Last bits of tiled algorithms depend on where tiles lie: a memory lays them where the first hole
wants them, and leaves them there.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

from inpaint_ops.needed.changes import Change, changes_of_results
from inpaint_ops.needed.compute import Plan, empty, results_of, steps_before
from inpaint_ops.needed.constant import Constant, difference
from inpaint_ops.needed.needs import ALL, Need, axis_of, merged, needs_of_inputs
from inpaint_ops.needed.step import Ref, Step, like_or_self, replaced
from inpaint_ops.ops.partly import PARTLY, partly_of

_IMAGE = 4


class Memory:
    """What is kept of one network's computations; for one thread at a time."""

    def __init__(self) -> None:
        self._kept: list[_Kept] = []
        # Of the steps noted since `remembering` began, in order.
        self._found: dict[Step, tuple[int, _Kept]] = {}
        # The same with all results where everything is computed anew; None: it is not.
        self._anew: dict[Step, tuple[int, list[Any]]] | None = None

    def forget(self) -> None:
        """Free everything."""
        self._kept = []
        self.begin()

    def begin(self, anew: bool = False) -> None:
        """Expect the first step; compute everything `anew`: see `remembering`."""
        self._found, self._anew = {}, {} if anew else None

    def end(self) -> None:
        """Free what belongs to steps that were not noted again."""
        if self._found:
            del self._kept[len(self._found) :]
        self.begin()

    def compute(self, x: Ref, need: Need) -> Tensor:
        """Return a result that holds its needed pixels at least; see `compute.compute`."""
        steps = steps_before(x.step, given=True)
        if self._anew is not None:
            return self._compute_anew(steps, x, self._anew)
        for step in steps:
            if step not in self._found:
                self._find(step)
        plans = self._plans(steps, x, need)
        for step, (plan, needs) in zip(steps, plans):
            _refill(step, self._found[step][1], plan, needs, self._value)
        # What is kept is written to later.
        return self._value(x).clone()

    def _value(self, x: Ref | Tensor) -> Tensor:
        if not isinstance(x, Ref):
            return x
        kept = self._found[x.step][1]
        return empty(x) if kept.results is None else kept.results[x.place]

    def _find(self, step: Step) -> None:
        """Find what is kept of a step, and which of its pixels are right still."""
        place = len(self._found)
        signature = self._signature(step)
        old = self._kept[place] if place < len(self._kept) else None
        if old is None or old.signature != signature:
            old = _Kept(step, signature)
            self._kept[place:] = [old, *self._kept[place + 1 :]]
        elif step.func is None:
            old.take(step)
        else:
            changes: list[Change] = []
            for i, one in enumerate(step.inputs):
                if isinstance(one, Ref):
                    changes.append(self._found[one.step][1].changes[one.place])
                else:
                    changes.append(old.constants[i].renew(one))
            old.lose(changes_of_results(step, changes, old.anchor))
        self._found[step] = place, old

    def _signature(self, step: Step, found: Any = None) -> Any:
        """All about a step but the values of its tensors."""
        found = self._found if found is None else found

        def of(x: Ref | Tensor) -> Any:
            like = like_or_self(x)
            where = (found[x.step][0], x.place) if isinstance(x, Ref) else None
            return where, like.shape, like.stride(), like.dtype

        values = (*step.args, *step.kwargs.items())
        typed = [_typed(replaced(value, of)) for value in values]
        return step.func, typed, [(like.shape, like.stride(), like.dtype) for like in step.likes]

    def _plans(self, steps: Sequence[Step], x: Ref, need: Need) -> list[tuple[Plan, list[Need]]]:
        """How each step is computed, and the needs of its results."""
        needs: dict[tuple[Step, int], Need] = {(x.step, x.place): need}
        plans = []
        for step in reversed(steps):
            of_results = [needs.get((step, place)) for place in range(len(step.likes))]
            plan, of_inputs = _plan(step, self._found[step][1], of_results)
            plans.append((plan, of_results))
            for one, of_input in zip(step.inputs, of_inputs):
                if isinstance(one, Ref):
                    key = one.step, one.place
                    needs[key] = merged(needs.get(key), of_input)
        return plans[::-1]

    def _compute_anew(
        self, steps: Sequence[Step], x: Ref, found: dict[Step, tuple[int, list[Any]]]
    ) -> Tensor:
        """A result, all of it, of nothing that is kept but the places of tiles."""

        def value(x: Ref | Tensor) -> Tensor:
            given: Tensor = found[x.step][1][x.place] if isinstance(x, Ref) else x
            return given

        for step in steps:
            if step in found:
                continue
            place = len(found)
            old = self._kept[place] if place < len(self._kept) else None
            known = old is not None and old.signature == self._signature(step, found)
            anchor = old.anchor if known and old is not None else None
            results = step.results
            if results is None:
                plan = Plan(ALL, anchor or (0, 0))
                results = results_of(step, plan, value)
            found[step] = place, results
        return value(x)


class _Kept:
    """What is kept of a step.

    Attributes:
        signature: all about it but the values of its tensors.
        constants: of its inputs that no step makes, by their place.
        results: whose pixels in `have` are right.
        have: of each result.
        changes: of each result, since the last time.
        anchor: of `Wanted`; None: not computed yet.
    """

    __slots__ = ("anchor", "changes", "constants", "have", "results", "signature")

    def __init__(self, step: Step, signature: Any) -> None:
        self.signature = signature
        self.constants = {
            i: Constant(x) for i, x in enumerate(step.inputs) if isinstance(x, Tensor)
        }
        self.results = None if step.results is None else [x.clone() for x in step.results]
        self.have: list[Need] = [None if step.results is None else ALL] * len(step.likes)
        self.changes: list[Change] = [ALL] * len(step.likes)
        self.anchor: tuple[int, int] | None = None

    def take(self, step: Step) -> None:
        """Take results that are given, of which all is right; copies, for others may edit them."""
        assert step.results is not None
        assert self.results is not None
        self.changes = [difference(*both) for both in zip(self.results, step.results)]
        if any(change is not None for change in self.changes):
            self.results = [x.clone() for x in step.results]

    def lose(self, changes: Sequence[Change]) -> None:
        """Count changed pixels of the results as wrong."""
        self.changes = list(changes)
        self.have = [_without(have, change) for have, change in zip(self.have, changes)]


def _typed(value: Any) -> Any:
    # 1, 1.0 and True are equal and give different dtypes.
    if isinstance(value, (list, tuple)):
        return [_typed(one) for one in value]
    return type(value), value


def _without(need: Need, change: Change) -> Need:
    """A need less what is in another."""
    if need is None or change is ALL:
        return None
    if change is None:
        return need
    assert isinstance(change, Tensor)
    rest = (change == 0).view(torch.uint8)
    if isinstance(need, Tensor):
        rest &= need
    return rest if rest.any() else None


def _plan(step: Step, kept: _Kept, needs: Sequence[Need]) -> tuple[Plan, Sequence[Need]]:
    """How a step is computed for needs of its results, and the needs of its inputs."""
    missing = [_without(*both) for both in zip(needs, kept.have)]
    if step.func is None or all(one is None for one in missing):
        return Plan(None), [None] * len(step.inputs)
    anchor, partly, pixels = kept.anchor, partly_of(step.func), missing[0]
    if partly is None:
        return Plan(ALL), needs_of_inputs(step, needs)
    if pixels is ALL:
        return Plan(ALL, anchor or (0, 0)), [ALL] * len(step.inputs)
    if pixels is None:
        shape = step.likes[0].shape
        pixels = torch.zeros((shape[0], *shape[2:]), dtype=torch.uint8)
    assert isinstance(pixels, Tensor)
    reads = partly.reads(pixels, *step.arguments(like_or_self)[0], anchor=anchor)
    if reads is None:
        return Plan(ALL), [ALL] * len(step.inputs)
    found: list[Need] = [ALL if one is None else one for one in reads.maps]
    # What is right already is not computed again: its inputs may be gone.
    all_of_it = reads.share >= 1 and kept.have[0] is None
    return Plan(ALL if all_of_it else pixels, reads.anchor), found[: len(step.inputs)]


def _refill(step: Step, kept: _Kept, plan: Plan, needs: Sequence[Need], value: Any) -> None:
    """Compute a step's plan; the results then hold what is needed."""
    if plan.need is None:
        return
    missing = _without(needs[0], kept.have[0])
    if isinstance(missing, Tensor) and kept.results is not None and _joins_channels(step):
        _copy_boxes(step, kept.results[0], missing, value)
        kept.have = [merged(kept.have[0], needs[0])]
        return
    old = kept.results if isinstance(plan.need, Tensor) else None
    into = None if old is None else old[0]
    results = results_of(step, plan, value, into)
    if into is not None and results[0] is not into and kept.have[0] is not None:
        assert isinstance(plan.need, Tensor)
        results[0] = torch.where(plan.need[:, None] != 0, results[0], into)
    kept.results = results
    if step.func in PARTLY:
        kept.anchor = plan.anchor
        first = merged(kept.have[0], needs[0])
        kept.have = [first, *(ALL for _ in step.likes[1:])]
    else:
        kept.have = [merged(*both) for both in zip(kept.have, needs)]


def _joins_channels(step: Step) -> bool:
    images = all(x.dim() == _IMAGE for x in step.inputs)
    return images and step.func is torch.ops.aten.cat.default and axis_of(step, 1) == 1


def _copy_boxes(step: Step, y: Tensor, missing: Tensor, value: Any) -> None:
    """Concatenate again where pixels are missing, in boxes: large images take long to copy."""
    rows = missing.any(2).any(0).tolist()
    for is_missing, run in itertools.groupby(range(len(rows)), rows.__getitem__):
        if not is_missing:
            continue
        places = list(run)
        band = slice(places[0], places[-1] + 1)
        columns = missing[:, band].any(1).any(0).nonzero()
        box = (band, slice(int(columns[0]), int(columns[-1]) + 1))
        parts = [value(x)[(..., *box)] for x in step.inputs]
        y[(..., *box)].copy_(torch.cat(parts, 1))


_remembered: ContextVar[Memory | None] = ContextVar("remembered", default=None)


def remembered() -> Memory | None:
    """Return the memory in force."""
    return _remembered.get()


@contextmanager
def remembering(memory: Memory, *, anew: bool = False) -> Iterator[None]:
    """Compute what is noted inside from what a memory keeps, and keep it there.

    Args:
        memory: one for each network and picture.
        anew: compute everything whole, with tiles where the memory lays them, and keep nothing:
            needed pixels have equal bits either way.
    """
    token = _remembered.set(memory)
    memory.begin(anew)
    try:
        yield
        memory.end()
    except BaseException:
        # Who knows how far it came.
        memory.forget()
        raise
    finally:
        _remembered.reset(token)
