"""Which pixels of an operator's results may have changed, for those of its arguments that have.

The rules of `needs` the other way round. A change is written as a need is: a map, `ALL`, or None:
nothing. What a rule there reads, a rule here must spread: pixels that are kept depend on it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from inpaint_ops.needed import needs
from inpaint_ops.needed.needs import ALL, Need, merged
from inpaint_ops.needed.step import Step, like_or_self
from inpaint_ops.ops.partly import PARTLY

Change = Need
_IMAGE = 4


def changes_of_results(
    step: Step, changes: Sequence[Change], anchor: tuple[int, int] | None
) -> Sequence[Change]:
    """Return the change of each result.

    Args:
        step: whose tensors are those after the change.
        changes: of each of `step.inputs`.
        anchor: for which results are kept, see `Wanted`; None: none are.
    """
    if all(change is None for change in changes):
        return [None] * len(step.likes)
    if step.func in PARTLY:
        return _partly(step, changes, anchor)
    if step.func is torch.ops.aten.where.self:
        return [_chosen(step, changes)]
    spread = _SPREAD.get(needs.rule_of(step))
    return [ALL] * len(step.likes) if spread is None else spread(step, changes)


def _partly(
    step: Step, changes: Sequence[Change], anchor: tuple[int, int] | None
) -> Sequence[Change]:
    touched: Change = ALL
    if anchor is not None and not any(change is ALL for change in changes):
        args = step.arguments(like_or_self)[0]
        found = PARTLY[step.func].touched(list(changes), anchor, *args)
        touched = ALL if found is None else found
    return [_fitted(touched, like) for like in step.likes]


def _fitted(change: Change, like: Tensor) -> Change:
    """The change of one of several results whose pixels are in the same places."""
    if change is None or change is ALL:
        return change
    assert isinstance(change, Tensor)
    if like.dim() != _IMAGE or like.shape[2:] != change.shape[1:]:
        return ALL
    if like.shape[0] == change.shape[0]:
        return change
    return change.amax(0, keepdim=True) if like.shape[0] == 1 else ALL


def _chosen(step: Step, changes: Sequence[Change]) -> Change:
    """Of `torch.where`: each argument where a known condition takes it."""
    condition, shape = step.inputs[0], step.likes[0].shape
    known = isinstance(condition, Tensor) and condition.dim() == len(shape) == _IMAGE
    if not known or condition.shape[2:] != shape[2:]:
        return _merged_pixels(step, changes)[0]
    assert isinstance(condition, Tensor)
    found = _expanded(changes[0], shape)
    for change, where in zip(changes[1:], (condition.any(1), ~condition.all(1))):
        wide = ALL if isinstance(change, Tensor) and change.shape[1:] != shape[2:] else change
        taken = where.view(torch.uint8).expand(shape[0], *shape[2:])
        one = _expanded(wide, shape)
        found = merged(found, taken if one is ALL else one if one is None else one & taken)
    return found


def _expanded(change: Change, shape: torch.Size) -> Change:
    if not isinstance(change, Tensor):
        return change
    return change.expand(shape[0], *shape[2:])


def _merged_pixels(step: Step, changes: Sequence[Change]) -> list[Change]:
    """Of pointwise operators; arguments are expanded to the shape of the result."""
    shape = step.likes[0].shape
    found: Change = None
    for x, change in zip(step.inputs, changes):
        if change is None:
            continue
        fits = x.dim() == len(shape) == _IMAGE and x.shape[2:] == shape[2:]
        found = merged(found, _expanded(change, shape) if fits else ALL)
    return [found] * len(step.likes)


def _first(step: Step, changes: Sequence[Change]) -> list[Change]:
    """Of operators on each pixel of their first argument by itself."""
    alone = all(change is None for change in changes[1:])
    return [_fitted(changes[0] if alone else ALL, like) for like in step.likes]


def _batch_norm(step: Step, changes: Sequence[Change]) -> list[Change]:
    own = needs.batch_norm(step, [None] * len(step.likes))[0] is ALL
    return [ALL] * len(step.likes) if own else _first(step, changes)


def _softmax(step: Step, changes: Sequence[Change]) -> list[Change]:
    return _first(step, changes) if needs.axis_of(step, 1) == 1 else [ALL]


def _concatenation(step: Step, changes: Sequence[Change]) -> list[Change]:
    dim = needs.axis_of(step, 1)
    if dim == 1:
        found: Change = None
        for change in changes:
            found = merged(found, change)
        return [found]
    maps = [_map(change, x.shape) for x, change in zip(step.inputs, changes)]
    return [torch.cat(maps, max(dim - 1, 0))]


def _map(change: Change, shape: torch.Size) -> Tensor:
    if isinstance(change, Tensor):
        return change
    size = (shape[0], *shape[2:])
    return torch.full(size, int(change is ALL), dtype=torch.uint8)


def _split(step: Step, changes: Sequence[Change]) -> list[Change]:
    return [changes[0] if needs.axis_of(step, 2) == 1 else ALL] * len(step.likes)


def _sliced(step: Step, changes: Sequence[Change]) -> list[Change]:
    return list(changes) if needs.axis_of(step, 1) == 1 else _done(step, changes)


def _padded(step: Step, changes: Sequence[Change]) -> list[Change]:
    change, sides = changes[0], step.args[1]
    if not isinstance(change, Tensor) or len(sides) > _IMAGE:
        return [ALL]
    return [F.pad(change, list(sides))]


def _interpolated(step: Step, changes: Sequence[Change]) -> list[Change]:
    change = changes[0]
    if not isinstance(change, Tensor):
        return [ALL]
    # Neighbours of weight 0 are read, too.
    near = F.max_pool2d(change[:, None].float(), 3, 1, 1)[:, 0]
    return _done(step, [near])


def _done(step: Step, changes: Sequence[Change]) -> list[Change]:
    """Of operators whose weights are not negative: the operator's own result of the map."""
    change = changes[0]
    if not isinstance(change, Tensor):
        return [ALL] * len(step.likes)
    results = step.func(change[:, None].double(), *step.args[1:], **step.kwargs)
    image = results[0] if isinstance(results, (list, tuple)) else results
    return [(image[:, 0] > 0).to(torch.uint8)] * len(step.likes)


def _nothing(step: Step, changes: Sequence[Change]) -> list[Change]:
    return [None] * len(step.likes)


# By the rule of `needs`.
_SPREAD: dict[needs.Rule | None, Callable[[Step, Sequence[Change]], Sequence[Change]]] = {
    needs.same_pixels: _merged_pixels,
    needs.copied: _first,
    needs.concatenation: _concatenation,
    needs.sliced: _sliced,
    needs.split: _split,
    needs.constant_padding: _padded,
    needs.flipped: _done,
    needs.moved: _done,
    needs.interpolated: _interpolated,
    needs.pooled: _done,
    needs.batch_norm: _batch_norm,
    needs.softmax: _softmax,
    needs.only_shape: _nothing,
}
