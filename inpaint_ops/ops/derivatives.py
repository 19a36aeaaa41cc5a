"""Derivatives beyond the first pass backward: gradients of gradients, and forward mode.

A backward pass that autograd records (``create_graph=True``, torch.func) is the function
G(grad, saved) -> gradients of the call. Its values are those of the kernels. What flows back
through it comes from the operator's `second`, made of torch's and our own operators, which autograd
records in turn: so there is a derivative of every order.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from inpaint_ops.backends import backend
from inpaint_ops.ops.batching import mapped
from inpaint_ops.ops.recording import Lengths, flat_by, function_of, nested_by

# From (ctx, which arguments need a gradient, gradient of the result): gradients of the arguments.
Gradients = Callable[[Any, Sequence[Any], Any], Sequence[Any]]
# From (ctx, grad, gradients that reached those of the arguments): gradients of grad and of each
# saved tensor. Saved results count as functions of the saved arguments, which take their part.
Second = Callable[[Any, Tensor, Sequence[Any]], tuple[Tensor | None, Sequence[Tensor | None]]]


class Shared(NamedTuple):
    """Places of tensors without an axis of samples: of weights and biases, not of images.

    Args:
        arguments: among the arguments of the operator, those in lists counted one by one.
        saved: among the tensors that its forward pass saves.
    """

    arguments: tuple[int, ...]
    saved: tuple[int, ...]


SHARED_NOTHING = Shared((), ())


class Pullback:
    """The backward pass of an operator, recorded where autograd asks for it.

    `ctx` is what the forward pass left: `saved_tensors`, `backend`, `lengths` of lists among the
    arguments, and the operator's own.
    """

    def __init__(
        self, name: str, gradients: Gradients, second: Second, shared: Shared = SHARED_NOTHING
    ) -> None:
        self._name, self._shared = name, shared
        self._gradients, self._second = gradients, second
        self._function = function_of(
            f"{name}_gradients",
            forward=_forward,
            setup_context=_setup_context,
            backward=_backward,
            vmap=self._vmap,
        )

    def __call__(self, ctx: Any, needs: Sequence[Any], grad: Tensor) -> Sequence[Any]:
        """Return the gradients of the arguments, None for those that need none."""
        if _is_legacy_batch(grad):
            return _one_by_one(lambda one: self(ctx, needs, one[0]), [grad], ctx.lengths)
        if not torch.is_grad_enabled():
            return self._gradients(ctx, needs, grad)
        call = _Pass(self._gradients, self._second, ctx, needs)
        return call.spread(self._function.apply(call, grad, *ctx.saved_tensors))

    def _vmap(self, info: Any, dims: Sequence[Any], *inputs: Any) -> Any:
        alone = inputs[0].needs_any(self._shared.arguments)
        # The gradient of the result stands before the saved tensors.
        shared = None if alone else [i + 1 if i >= 0 else i for i in self._shared.saved]
        return mapped(self._name, self._function, info, dims, inputs, shared)


class _Pass:
    """One backward pass, as a function of flat tensors."""

    def __init__(
        self, gradients: Gradients, second: Second, ctx: Any, needs: Sequence[Any]
    ) -> None:
        self._gradients, self._second, self._needs = gradients, second, needs
        self._options = {k: v for k, v in vars(ctx).items() if k != "saved_tensors"}
        self._lengths = ctx.lengths
        self._places: list[int] = []
        self._count = 0

    def _ctx(self, saved: Sequence[Any]) -> SimpleNamespace:
        return SimpleNamespace(saved_tensors=tuple(saved), **self._options)

    def needs_any(self, places: Collection[int]) -> bool:
        """Return whether one of these arguments needs a gradient."""
        needs = flat_by(self._needs, self._lengths)
        return any(needs[i] for i in places)

    def run(self, grad: Tensor, saved: Sequence[Any]) -> tuple[Tensor, ...]:
        """Return the gradients there are."""
        flat = flat_by(self._gradients(self._ctx(saved), self._needs, grad), self._lengths)
        self._count = len(flat)
        self._places = [i for i, one in enumerate(flat) if one is not None]
        # Autograd wants a result that is not the argument itself.
        there = (flat[i] for i in self._places)
        return tuple(one.view_as(one) if one is grad else one for one in there)

    def spread(self, gradients: Sequence[Any]) -> Sequence[Any]:
        """Return the gradients of all arguments, in the lists that the operator takes."""
        flat: list[Any] = [None] * self._count
        for i, one in zip(self._places, gradients):
            flat[i] = one
        return nested_by(flat, self._lengths)

    def again(self, grad: Tensor, saved: Sequence[Any], reached: Sequence[Any]) -> Sequence[Any]:
        """Return the gradients of grad and of the saved tensors."""
        if any(map(_is_legacy_batch, reached)):
            return _one_by_one(lambda one: self.again(grad, saved, one), reached, None)
        ctx = self._ctx(saved)
        with backend(ctx.backend):
            of_grad, of_saved = self._second(ctx, grad, self.spread(reached))
        return of_grad, *of_saved


def _forward(call: _Pass, grad: Tensor, *saved: Any) -> Any:
    return call.run(grad, saved)


def _setup_context(ctx: Any, inputs: Sequence[Any], output: Any) -> None:
    ctx.call, grad, *saved = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(grad, *saved)


def _backward(ctx: Any, *reached: Any) -> Any:
    grad, *saved = ctx.saved_tensors
    if all(one is None for one in reached):
        return None, None, *(None for _ in saved)
    return None, *ctx.call.again(grad, saved, reached)


def _is_legacy_batch(x: Tensor | None) -> bool:
    """Whether x is a batch of ``is_grads_batched``, of torch's older vmap."""
    batched: bool = x is not None and torch._C._functorch.is_legacy_batchedtensor(x)
    return batched


def _one_by_one(
    function: Callable[[list[Any]], Sequence[Any]],
    values: Sequence[Any],
    lengths: Lengths,
) -> Sequence[Any]:
    """Results of a function of single samples, in batches of torch's older vmap.

    That vmap drops the graph of functions of autograd, and has no rule for lists of tensors. torch
    has no public way to take its batches apart, `torch._vmap_internals`.
    """
    level = torch._C._vmapmode_increment_nesting() - 1
    torch._C._vmapmode_decrement_nesting()
    parts = [torch._remove_batch_dim(x, level, 1, 0) if _is_legacy_batch(x) else x for x in values]
    count = next(len(p) for p, x in zip(parts, values) if _is_legacy_batch(x))
    each = []
    for k in range(count):
        one = [p[k] if _is_legacy_batch(x) else p for p, x in zip(parts, values)]
        each.append(flat_by(function(one), lengths))
    stacked = (None if some[0] is None else torch.stack(some) for some in zip(*each))
    flat = [None if one is None else torch._add_batch_dim(one, 0, level) for one in stacked]
    return nested_by(flat, lengths)


def vjp(function: Callable[..., Any], inputs: Sequence[Tensor], reached: Any) -> tuple[Tensor, ...]:
    """Return the gradients of a function's inputs from those of its result, recorded in turn."""
    if torch._C._are_functorch_transforms_active():

        def product(*inputs: Tensor) -> Tensor:
            results = function(*inputs)
            pairs = [(results, reached)] if isinstance(results, Tensor) else zip(results, reached)
            return sum(((a * b).sum() for a, b in pairs), start=inputs[0].new_zeros(()))

        # torch.func.vjp, which would do, fails inside vmap where an input has no part in a result.
        gradients: tuple[Tensor, ...] = torch.func.grad(product, tuple(range(len(inputs))))(*inputs)
        return gradients
    recorded = torch.is_grad_enabled()
    with torch.enable_grad():
        leaves = [_leaf(x, recorded) for x in inputs]
        return torch.autograd.grad(
            function(*leaves),
            leaves,
            reached,
            create_graph=recorded,
            allow_unused=True,
            materialize_grads=True,
        )


def _leaf(x: Tensor, recorded: bool) -> Tensor:
    """A tensor to differentiate in, whatever else x is a function of."""
    if recorded:
        view = x.view_as(x)
        # A tensor of a transform that is over loses its gradient with the view.
        if view.requires_grad:
            return view
    return x.detach().requires_grad_()


def second_by_formula(
    formula: Callable[..., Tensor],
    inputs: Sequence[Tensor],
    grad: Tensor,
    reached: Sequence[Tensor | None],
) -> tuple[Tensor, ...]:
    """Return the gradients of grad and of the inputs, through the formula's own gradients.

    Args:
        formula: the operator's first result from the inputs, by differentiable operators.
        inputs: tensors of the call.
        grad: gradient of the result.
        reached: what reached the gradient of each input; None: nothing did.
    """
    chosen = [i for i, one in enumerate(reached) if one is not None]

    def gradients(grad: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
        def of_chosen(*some: Tensor) -> Tensor:
            values = list(inputs)
            for i, one in zip(chosen, some):
                values[i] = one
            return formula(*values)

        return vjp(of_chosen, [inputs[i] for i in chosen], grad)

    return vjp(gradients, [grad, *inputs], tuple(reached[i] for i in chosen))


def have_tangents(tensors: Sequence[Tensor]) -> bool:
    """Return whether a derivative in forward mode comes with one of the tensors."""
    level = forward_ad._current_level
    if level < 0:
        return False
    return any(torch._VF._unpack_dual(x, level=level)[1] is not None for x in tensors)


def are_pushed_forward(tensors: Sequence[Tensor]) -> bool:
    """Return the same inside transforms of torch.func, where tensors do not show it."""
    stack = torch._C._functorch.get_interpreter_stack() or ()
    forward = torch._C._functorch.TransformType.Jvp
    levels = {one.level() for one in stack if one.key() == forward}
    return bool(levels) and any(_is_wrapped(x, levels) for x in tensors)


def _is_wrapped(x: Tensor, levels: Container[int]) -> bool:
    """Whether x belongs to one of those transforms of torch.func."""
    while torch._C._functorch.is_functorch_wrapped_tensor(x):
        if torch._C._functorch.maybe_get_level(x) in levels:
            return True
        x = torch._C._functorch.get_unwrapped(x)
    return False
