"""Calls recorded for autograd: what an operator needs besides its backward pass."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from inpaint_ops import checks
from inpaint_ops.ops.batching import mapped

Gradients = Callable[[Any, Sequence[Any], Any], Sequence[Any]]
SetupContext = Callable[[Any, Sequence[Any], Sequence[Any]], None]
# Of lists of tensors among values, None for anything else; None if there is no list.
Lengths = Sequence[int | None] | None


class _Call:
    """A call whose arguments and results are flat, as autograd's functions want them."""

    def __init__(self, call: Callable[..., Any], args: Sequence[Any]) -> None:
        self.lengths = lengths_of(args)
        self.result_lengths: Lengths = None
        self._call = call

    def __call__(self, flat: Sequence[Any]) -> Any:
        results = self._call(*nested_by(flat, self.lengths))
        if isinstance(results, Tensor):
            return results
        self.result_lengths = lengths_of(results)
        return tuple(flat_by(results, self.result_lengths))


def applied(apply: Callable[..., Any], call: Callable[..., Any], args: Sequence[Any]) -> Any:
    """Return the results of the call, recorded by the `apply` of a function of autograd."""
    own = _Call(call, args)
    results = apply(own, *flat_by(args, own.lengths))
    return nested_by(results, own.result_lengths)


def plain_apply(function: Any) -> Callable[..., Any]:
    """Return the `apply` of a function of autograd, for calls outside of transforms.

    Function's own asks for transforms, and whether tensors outlived one, each time.
    """
    apply: Callable[..., Any] = super(torch.autograd.Function, function).apply
    return apply


def ordinary_function(name: str, gradients: Gradients, setup: SetupContext) -> Any:
    """Return the function of autograd that records ordinary calls."""

    def forward(ctx: Any, call: _Call, *flat: Any) -> Any:
        result = call(flat)
        setup(ctx, nested_by(flat, call.lengths), result)
        ctx.lengths = call.lengths
        return result

    return function_of(name, forward=forward, backward=_backward(gradients))


def transformed_function(
    name: str, gradients: Gradients, setup: SetupContext, shared: Collection[int] | None
) -> Any:
    """Return the function for torch.func's transforms, in the form they ask for.

    A call of it costs more than one of the ordinary function. `shared`: see `batching.mapped`.
    """

    def forward(call: _Call, *flat: Any) -> Any:
        return call(flat)

    def setup_context(ctx: Any, inputs: Sequence[Any], output: Any) -> None:
        call, *flat = inputs
        setup(ctx, nested_by(flat, call.lengths), output)
        ctx.lengths = call.lengths

    def vmap(info: Any, dims: Sequence[Any], *inputs: Any) -> Any:
        return mapped(public(name), transformed, info, dims, inputs, shared)

    transformed: Any = function_of(
        name,
        forward=forward,
        setup_context=setup_context,
        backward=_backward(gradients),
        vmap=vmap,
    )
    return transformed


def _backward(gradients: Gradients) -> Callable[..., Any]:
    def backward(ctx: Any, grad: Tensor | None, *_: Any) -> tuple[Any, ...]:
        grads = gradients(ctx, nested_by(ctx.needs_input_grad[1:], ctx.lengths), grad)
        return None, *flat_by(grads, ctx.lengths)

    return backward


def function_of(name: str, **methods: Callable[..., Any]) -> Any:
    """Return a function of autograd with those static methods."""
    static = {key: staticmethod(method) for key, method in methods.items()}
    return type(name, (torch.autograd.Function,), static)


def public(name: str) -> str:
    """Return the operator that users know, of it or of its backward pass."""
    return name.removesuffix("_backward")


def is_needed(tensors: Iterable[Tensor | None]) -> bool:
    """Return whether one of the tensors asks for gradients."""
    if not torch.is_grad_enabled():
        return False
    for tensor in tensors:  # noqa: SIM110 - a generator costs as much as all of this
        if tensor is not None and tensor.requires_grad:
            return True
    return False


def may_be_recorded(tensors: Iterable[Tensor | None]) -> bool:
    """Return whether a call may be differentiated; inside transforms tensors do not show it.

    Not so for calls of traces: each is asked anew when the trace runs.
    """
    if is_needed(tensors):
        return not (checks.tracing() is not None or torch.compiler.is_exporting())
    active: bool = torch._C._are_functorch_transforms_active()
    return active


def tensors_of(args: Sequence[Any]) -> list[Tensor]:
    """Return all tensors among the arguments, those of lists too."""
    tensors: list[Tensor] = []
    for arg in args:
        if isinstance(arg, Tensor):
            tensors.append(arg)
        elif type(arg) is list and arg and isinstance(arg[0], Tensor):
            tensors += arg
    return tensors


def lengths_of(values: Sequence[Any]) -> Lengths:
    """Return the lengths of the lists of tensors among the values."""
    if list not in map(type, values):
        return None
    lengths = [
        len(value) if type(value) is list and value and isinstance(value[0], Tensor) else None
        for value in values
    ]
    return lengths if any(lengths) else None


def flat_by(values: Sequence[Any], lengths: Lengths) -> Sequence[Any]:
    """Return the values with lists of those lengths replaced by what they hold."""
    if lengths is None:
        return values
    flat: list[Any] = []
    for value, length in zip(values, lengths):
        flat += [value] if length is None else value
    return flat


def nested_by(flat: Sequence[Any], lengths: Lengths) -> Sequence[Any]:
    """Return the inverse of `flat_by`."""
    if lengths is None:
        return flat
    rest = iter(flat)
    return [
        next(rest) if length is None else [next(rest) for _ in range(length)] for length in lengths
    ]
