"""Which pixels of its arguments each operator needs for the pixels of its results that are needed.

A need is a map, bytes (N, H, W), not 0 = needed, of a tensor (N, C, H, W); `ALL`; or None: nothing.
A rule takes a step and the needs of its results, and returns those of `Step.inputs`. An operator
without a rule needs all of its arguments: instance norms, matches, linear layers, torch's own
convolutions, whose algorithms may read anything.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from inpaint_ops.needed.step import Ref, Step


class Everything(Enum):
    """The need of a whole tensor."""

    ALL = "all"


ALL = Everything.ALL
Need = Tensor | Everything | None
Rule = Callable[[Step, Sequence[Need]], Sequence[Need]]

_aten = torch.ops.aten
_IMAGE = 4
_PAIR = 2


def merged(first: Need, second: Need) -> Need:
    """Return the need of both."""
    if first is None or second is ALL:
        return second
    if second is None or first is ALL:
        return first
    assert isinstance(first, Tensor)
    assert isinstance(second, Tensor)
    return first | second


def needs_of_inputs(step: Step, needs: Sequence[Need]) -> Sequence[Need]:
    """Return the need of each of `step.inputs`."""
    if all(need is None for need in needs):
        return [None] * len(step.inputs)
    if step.func is _aten.where.self:
        return _chosen(step, needs[0])
    rule = rule_of(step)
    maps = any(isinstance(need, Tensor) for need in needs)
    if rule is None or not maps or any(need is ALL for need in needs):
        return [ALL] * len(step.inputs)
    return rule(step, needs)


def rule_of(step: Step) -> Rule | None:
    """Return the rule of a step's operator, if it has one and its tensors are images."""
    rule = _RULES.get(step.func)
    if rule is None:
        return same_pixels if torch.Tag.pointwise in step.func.tags else None
    lazies = [x for x in step.inputs if isinstance(x, Ref)]
    images = all(x.dim() == _IMAGE for x in (*lazies[:1], *step.likes[:1]))
    return rule if images else None


def _chosen(step: Step, need: Need) -> Sequence[Need]:
    """Of `torch.where` by a condition that is known: each argument where it is taken alone."""
    condition, first, second = step.inputs
    shape = step.likes[0].shape
    known = isinstance(condition, Tensor) and condition.dim() == len(shape) == _IMAGE
    if not known or any(x.dim() == _IMAGE and x.shape[2:] != shape[2:] for x in step.inputs):
        return [ALL] * len(step.inputs)
    assert isinstance(condition, Tensor)
    if need is ALL:
        need = torch.ones((shape[0], *shape[2:]), dtype=torch.uint8)
    assert isinstance(need, Tensor)
    taken = [condition.any(1), ~condition.all(1)]
    found: list[Need] = []
    for x, where in zip((first, second), taken):
        one = need & where.view(torch.uint8)
        if x.dim() != _IMAGE:
            found.append(ALL)
        else:
            found.append(one if x.shape[0] == shape[0] else one.amax(0, keepdim=True))
    return [None, *found]


def same_pixels(step: Step, needs: Sequence[Need]) -> list[Need]:
    """Of pointwise operators; arguments are expanded to the shape of the result."""
    need = needs[0]
    assert isinstance(need, Tensor)
    n, height, width = need.shape
    found: list[Need] = []
    for x in step.inputs:
        if x.dim() != _IMAGE or x.shape[2:] != (height, width):
            found.append(ALL)
        elif x.shape[0] == n:
            found.append(need)
        else:
            found.append(need.amax(0, keepdim=True))
    return found


def _first_alone(step: Step, needs: Sequence[Need]) -> list[Need]:
    """Of operators on each pixel by itself, by statistics that are given."""
    return [needs[0], *(ALL for _ in step.inputs[1:])]


def batch_norm(step: Step, needs: Sequence[Need]) -> list[Need]:
    """As above, unless the statistics are those of the argument."""
    names = [argument.name for argument in step.func._schema.arguments]
    training = step.args[names.index("training")] if "training" in names else False
    return [ALL] * len(step.inputs) if training else _first_alone(step, needs)


def copied(step: Step, needs: Sequence[Need]) -> list[Need]:
    """Of operators that copy, or change the dtype, or do nothing where no shape changes."""
    same = step.inputs[0].shape == step.likes[0].shape
    return [needs[0] if same else ALL]


def concatenation(step: Step, needs: Sequence[Need]) -> list[Need]:
    """Of concatenation."""
    need, dim = needs[0], axis_of(step, 1)
    assert isinstance(need, Tensor)
    if dim == 1:
        return [need] * len(step.inputs)
    # Axes of the map are those of the tensor without its channels.
    sizes = [x.shape[dim] for x in step.inputs]
    return list(need.split(sizes, max(dim - 1, 0)))


def axis_of(step: Step, place: int, default: int = 0) -> int:
    """Return the axis of images that an operator runs along, its argument at a place."""
    dim = step.args[place] if len(step.args) > place else step.kwargs.get("dim", default)
    return int(dim) % _IMAGE


def sliced(step: Step, needs: Sequence[Need]) -> list[Need]:
    """Of slices."""
    x, need, dim = step.inputs[0], needs[0], axis_of(step, 1)
    assert isinstance(need, Tensor)
    if dim == 1:
        return [need]
    given = [*step.args[2:], None, None, None][:3]
    start, end, stride = given[0], given[1], given[2] or 1
    whole = torch.zeros((x.shape[0], *x.shape[2:]), dtype=torch.uint8)
    places = [slice(None)] * whole.dim()
    places[max(dim - 1, 0)] = slice(start, end, stride)
    whole[tuple(places)] = need
    return [whole]


def split(step: Step, needs: Sequence[Need]) -> list[Need]:
    """Of splits."""
    if axis_of(step, 2) != 1:
        return [ALL]
    need: Need = None
    for one in needs:
        need = merged(need, one)
    return [need]


def constant_padding(step: Step, needs: Sequence[Need]) -> list[Need]:
    """Of padding by a number."""
    need, sides = needs[0], step.args[1]
    assert isinstance(need, Tensor)
    if len(sides) > 2 * _PAIR:
        return [ALL]
    return [F.pad(need, [-side for side in sides])]


def flipped(step: Step, needs: Sequence[Need]) -> list[Need]:
    """Of flips."""
    need = needs[0]
    assert isinstance(need, Tensor)
    dims = {dim % _IMAGE for dim in step.args[1]} - {1}
    return [need.flip([max(dim - 1, 0) for dim in dims]) if dims else need]


def moved(step: Step, needs: Sequence[Need]) -> list[Need]:
    """Of operators that move pixels: where each comes from is what they make of numbers."""
    x, need = step.inputs[0], needs[0]
    assert isinstance(need, Tensor)
    n, _, height, width = x.shape
    numbers = torch.arange(height * width, dtype=torch.float64).view(1, 1, height, width)
    moved = step.func(numbers, *step.args[1:], **step.kwargs)[0, 0].long()
    found = torch.zeros((n, height * width), dtype=torch.uint8)
    for one, wanted in zip(found, need):
        one[moved[wanted != 0]] = 1
    return [found.view(n, height, width)]


def interpolated(step: Step, needs: Sequence[Need]) -> list[Need]:
    """Of bilinear interpolation: pixels with a weight, and their neighbours, whose may be 0."""
    x, need = step.inputs[0], needs[0]
    assert isinstance(need, Tensor)
    with torch.enable_grad():
        image = torch.zeros((x.shape[0], 1, *x.shape[2:]), dtype=torch.float64, requires_grad=True)
        y = step.func(image, *step.args[1:], **step.kwargs)
    (weights,) = torch.autograd.grad(y, image, need[:, None].double())
    read = F.max_pool2d((weights != 0).double(), 3, 1, 1)
    return [read[:, 0].to(torch.uint8)]


def pooled(step: Step, needs: Sequence[Need]) -> list[Need]:
    """Of pooling by windows without dilation."""
    x, need = step.inputs[0], needs[0]
    assert isinstance(need, Tensor)
    kernel, stride, padding, *rest = [*step.args[1:], None, None][: len(step.args) + 1]
    kernel, stride = _pair(kernel), _pair(stride or kernel)
    dilation = _pair(rest[0]) if rest and isinstance(rest[0], (list, tuple)) else (1, 1)
    if any(one is True for one in rest[:2]) or dilation != (1, 1):
        return [ALL]
    py, px = _pair(padding or 0)
    ones = torch.ones((1, 1, *kernel))
    spread = F.conv_transpose2d(need[:, None].float(), ones, stride=stride)[:, 0]
    height, width = x.shape[2:]
    bottom, right = height - (spread.shape[1] - py), width - (spread.shape[2] - px)
    return [(F.pad(spread, (-px, right, -py, bottom)) > 0).to(torch.uint8)]


def _pair(value: Any) -> tuple[int, int]:
    values = list(value) if isinstance(value, (list, tuple)) else [value]
    return (values[0], values[-1])


def softmax(step: Step, needs: Sequence[Need]) -> list[Need]:
    """Of softmax over channels."""
    return [needs[0] if axis_of(step, 1) == 1 else ALL]


def only_shape(step: Step, needs: Sequence[Need]) -> list[Need]:
    """Of operators that read no values."""
    return [None] * len(step.inputs)


def _rules(*rows: tuple[Rule, Sequence[str]]) -> dict[Any, Rule]:
    """Rules by overload; a release of torch may lack some."""
    found: dict[Any, Rule] = {}
    for rule, names in rows:
        for name in names:
            packet, _, overload = name.partition(".")
            operator = getattr(getattr(_aten, packet, None), overload or "default", None)
            if operator is not None:
                found[operator] = rule
    return found


_RULES = _rules(
    (
        copied,
        (
            "alias",
            "clone",
            "contiguous",
            "detach",
            "expand",
            "lift_fresh",
            "_to_copy",
            "to.dtype",
            "view",
            "_unsafe_view",
            "_reshape_alias",
        ),
    ),
    (concatenation, ("cat",)),
    (sliced, ("slice.Tensor",)),
    (split, ("split.Tensor", "split_with_sizes")),
    (constant_padding, ("constant_pad_nd",)),
    (flipped, ("flip",)),
    (
        moved,
        (
            "reflection_pad2d",
            "replication_pad2d",
            "upsample_nearest2d",
            "upsample_nearest2d.vec",
            "_upsample_nearest_exact2d",
            "_upsample_nearest_exact2d.vec",
        ),
    ),
    (
        interpolated,
        (
            "upsample_bilinear2d",
            "upsample_bilinear2d.vec",
            "_upsample_bilinear2d_aa",
            "_upsample_bilinear2d_aa.vec",
        ),
    ),
    (pooled, ("avg_pool2d", "max_pool2d_with_indices")),
    (
        batch_norm,
        ("native_batch_norm", "_native_batch_norm_legit_no_training", "_native_batch_norm_legit"),
    ),
    (softmax, ("_softmax", "_log_softmax")),
    (only_shape, ("zeros_like", "ones_like", "full_like", "empty_like", "new_zeros", "new_ones")),
    (only_shape, ("new_full", "new_empty")),
)
