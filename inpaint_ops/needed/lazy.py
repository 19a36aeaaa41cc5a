"""Tensors that are not computed yet: operators called on them are noted, as steps.

`LazyTensor` has the shape, dtype and strides of what it stands for. What torch's dispatcher brings
is noted where it can be computed later, and computed at once where it cannot: where the result's
shape or Python's next branch depends on values, where numbers are drawn, where no shape is known
without values. To compute a step at once is to compute all that it depends on whole, so that
anything works, if slowly.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

_numbers = itertools.count()
# Operators with one of these tags are computed at once.
_AT_ONCE = frozenset(
    {
        torch.Tag.data_dependent_output,
        torch.Tag.dynamic_output_shape,
        torch.Tag.nondeterministic_seeded,
    }
)


class Step:
    """One call of an operator.

    Attributes:
        number: of the call; a step comes after all that it depends on.
        func: torch's overload; None: there is nothing to call, the results are given.
        args, kwargs: of the call, with a `Ref` in place of each `LazyTensor`.
        inputs: the tensors among the arguments, in order, those of lists too.
        likes: tensors of torch's device "meta" that are like the results.
        results: while they are kept.
    """

    __slots__ = ("args", "func", "inputs", "kwargs", "likes", "number", "results")

    def __init__(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        self.number = next(_numbers)
        self.func = func
        self.args = [_replaced(value, _ref) for value in args]
        self.kwargs = {name: _replaced(value, _ref) for name, value in kwargs.items()}
        self.inputs = list(_tensors_in((*self.args, *self.kwargs.values())))
        self.likes: list[Any] = []
        self.results: list[Any] | None = None

    def arguments(self, of: Callable[[Ref | Tensor], Tensor]) -> tuple[list[Any], dict[str, Any]]:
        """The arguments with each tensor replaced."""
        kwargs = {name: _replaced(value, of) for name, value in self.kwargs.items()}
        return [_replaced(value, of) for value in self.args], kwargs


class Ref:
    """Result `place` of a step, and a tensor of torch's device "meta" like it."""

    __slots__ = ("like", "place", "step")

    def __init__(self, step: Step, place: int, like: Tensor) -> None:
        self.step, self.place, self.like = step, place, like

    @property
    def shape(self) -> torch.Size:
        """The shape of the tensor."""
        return self.like.shape

    def dim(self) -> int:
        """The number of axes."""
        return self.like.dim()


class LazyTensor(Tensor):
    """A tensor without memory that stands for the result of a step."""

    ref: Ref

    @staticmethod
    def __new__(cls, ref: Ref, device: torch.device) -> LazyTensor:
        """Return a tensor of that device, like the result."""
        make: Any = torch.Tensor._make_wrapper_subclass  # type: ignore[attr-defined]
        like = ref.like
        lazy: LazyTensor = make(
            cls,
            like.shape,
            strides=like.stride(),
            storage_offset=like.storage_offset(),
            dtype=like.dtype,
            device=device,
        )
        lazy.ref = ref
        return lazy

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        """Note the call, or compute its result."""
        return _record(func, args, kwargs or {})

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"LazyTensor({tuple(self.shape)}, {self.dtype})"


def lazy(x: Tensor) -> LazyTensor:
    """Return a tensor that stands for x, so that what is computed from it is noted."""
    step = Step(None, (), {})
    step.results = [x.detach()]
    step.likes = [like(x)]
    return LazyTensor(Ref(step, 0, step.likes[0]), x.device)


def like(x: Ref | Tensor) -> Tensor:
    """Return a tensor of torch's device "meta" like x."""
    if isinstance(x, Ref):
        return x.like
    return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device="meta")


def _tensors_in(values: Sequence[Any]) -> Iterator[Ref | Tensor]:
    for value in values:
        if isinstance(value, (Ref, Tensor)):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _tensors_in(value)


def _replaced(value: Any, of: Callable[[Any], Any]) -> Any:
    if isinstance(value, (Ref, Tensor)):
        return of(value)
    if isinstance(value, (list, tuple)):
        return type(value)([_replaced(one, of) for one in value])
    return value


def _ref(x: Tensor) -> Ref | Tensor:
    return x.ref if isinstance(x, LazyTensor) else x


def _record(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    if func._schema.is_mutable:
        return _without_mutation(func, args, kwargs)
    if not _AT_ONCE.isdisjoint(func.tags):
        return _at_once(func, args, kwargs)
    step = Step(func, args, kwargs)
    try:
        likes = _likes(step)
    except (NotImplementedError, RuntimeError):
        return _at_once(func, args, kwargs)
    several = isinstance(likes, (list, tuple))
    step.likes = list(likes) if several else [likes]
    if not all(isinstance(one, Tensor) for one in step.likes):
        return _at_once(func, args, kwargs)
    device = next(x.device for x in _lazies_in((*args, *kwargs.values())))
    results = [LazyTensor(Ref(step, i, one), device) for i, one in enumerate(step.likes)]
    return type(likes)(results) if several else results[0]


def _lazies_in(values: Sequence[Any]) -> Iterator[LazyTensor]:
    return (x for x in _tensors_in(values) if isinstance(x, LazyTensor))


def _at_once(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    from inpaint_ops.needed.steps import computed

    whole = {name: _replaced(value, computed) for name, value in kwargs.items()}
    return func(*[_replaced(value, computed) for value in args], **whole)


def _without_mutation(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """What ``relu_`` and its like do to a tensor that no other shares its memory with."""
    changed = args[0] if args else None
    name = func._schema.name.split("::")[1]
    packet = getattr(torch.ops.aten, name.removesuffix("_"), None)
    overload = getattr(packet, func._overloadname, None)
    plain = name.endswith("_") and overload is not None and torch.Tag.pointwise in overload.tags
    result = None
    if plain and isinstance(changed, LazyTensor) and changed.ref.step.func not in _VIEWS:
        result = _record(overload, args, kwargs)
    if not isinstance(result, LazyTensor) or result.shape != changed.shape:
        raise NotImplementedError(
            f"inpaint_ops.needed: {func} changes a tensor in place, which cannot be computed in "
            "part"
        )
    changed.ref = result.ref
    return changed


_aten = torch.ops.aten
# Their results share the memory of their argument.
_VIEWS = frozenset(
    {
        _aten.view.default,
        _aten._unsafe_view.default,
        _aten.slice.Tensor,
        _aten.select.int,
        _aten.expand.default,
        _aten.permute.default,
        _aten.transpose.int,
        _aten.unsqueeze.default,
        _aten.squeeze.dim,
        _aten.detach.default,
        _aten.alias.default,
        _aten.split.Tensor,
        _aten.split_with_sizes.default,
    }
)


def _likes(step: Step) -> Any:
    """The results on torch's device "meta", which have no values."""
    args, kwargs = step.arguments(like)
    if kwargs.get("device") is not None:
        kwargs["device"] = torch.device("meta")
    return step.func(*args, **kwargs)
