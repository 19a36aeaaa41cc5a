"""Calls of operators that are noted, and references to their results."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

_numbers = itertools.count()


class Step:
    """One call of an operator.

    Attributes:
        number: of the call; a step comes after all that it depends on.
        func: torch's overload; None: there is nothing to call, the results are given.
        args, kwargs: of the call, with a `Ref` in place of each tensor that is not there yet.
        inputs: the tensors among the arguments, in order, those of lists too.
        likes: tensors of torch's device "meta" that are like the results.
        results: while they are kept.
    """

    __slots__ = ("args", "func", "inputs", "kwargs", "likes", "number", "results")

    def __init__(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        self.number = next(_numbers)
        self.func = func
        self.args, self.kwargs = list(args), dict(kwargs)
        self.inputs = list(tensors_in((*self.args, *self.kwargs.values())))
        self.likes: list[Any] = []
        self.results: list[Any] | None = None

    def arguments(self, of: Callable[[Ref | Tensor], Tensor]) -> tuple[list[Any], dict[str, Any]]:
        """The arguments with each tensor replaced."""
        kwargs = {name: replaced(value, of) for name, value in self.kwargs.items()}
        return [replaced(value, of) for value in self.args], kwargs


class Ref:
    """Result `place` of a step.

    Attributes:
        like: a tensor of torch's device "meta" like it.
        is_shared: whether another result is a view of it, or it is one.
    """

    __slots__ = ("is_shared", "like", "place", "step")

    def __init__(self, step: Step, place: int, like: Tensor, is_shared: bool = False) -> None:
        self.step, self.place, self.like, self.is_shared = step, place, like, is_shared

    @property
    def shape(self) -> torch.Size:
        """The shape of the tensor."""
        return self.like.shape

    def dim(self) -> int:
        """The number of axes."""
        return self.like.dim()


def like(x: Ref | Tensor) -> Tensor:
    """Return a tensor of torch's device "meta" like x."""
    if isinstance(x, Ref):
        return x.like
    return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device="meta")


def like_or_self(x: Ref | Tensor) -> Tensor:
    """Return a tensor of x's shape, strides and dtype, on whatever device."""
    return x.like if isinstance(x, Ref) else x


def tensors_in(values: Sequence[Any]) -> Iterator[Ref | Tensor]:
    """Each tensor among some arguments, those of lists too."""
    for value in values:
        if isinstance(value, (Ref, Tensor)):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from tensors_in(value)


def replaced(value: Any, of: Callable[[Any], Any]) -> Any:
    """Return an argument with each tensor replaced."""
    if isinstance(value, (Ref, Tensor)):
        return of(value)
    if isinstance(value, (list, tuple)):
        return type(value)([replaced(one, of) for one in value])
    return value
