"""Gradients of a convolution's gradients, by convolutions.

With sums p = w * x + b and a result y = f(p), the backward pass from g takes s = g f'(p) to

    gradient of x = C'(s, w),  of w = C''(s, x),  of b = sum of s,

C' and C'' the adjoints of w * x in x and in w, each linear in both of its arguments. Where a, c and
d reach these three, t = w * a + c * x + d reaches s. So what reaches g is t f'(p), what reaches x
is C'(s, c), what reaches w is C''(s, a), and what reaches p, t g f''(p), goes through w * x + b.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from inpaint_ops.ops import derivatives, dispatch, tensors
from inpaint_ops.ops.convolution import formulas, spec

# Weight and bias, among the arguments and among what `second` finds saved.
SHARED = derivatives.Shared((1, 2), (1, 3))
# Their second derivative is zero.
_STRAIGHT = ("identity", "relu", "leaky_relu")


def is_curved(activation: str, *, gated: bool) -> bool:
    """Return whether what reaches the gradients depends on the bias: the forward pass keeps it."""
    return gated or activation not in _STRAIGHT


class Sums:
    """A convolution without activation, and its backward pass."""

    def __init__(
        self, forward: Callable[..., Tensor], operator: dispatch.Registered, ctx: Any
    ) -> None:
        """Make it of `forward`, from (x, weight, bias), by an operator whose backward takes ctx."""
        assert operator.pullback is not None
        self.forward, self._pullback = forward, operator.pullback
        self._options = {**vars(ctx), "activation": "identity"}

    def backward(
        self, grad: Tensor, x: Tensor, weight: Tensor, wanted: Sequence[bool]
    ) -> Sequence[Tensor | None]:
        """Return the gradients of x, weight and bias."""
        saved = (x, weight, spec.empty_gradient(x), None)
        ctx = SimpleNamespace(**{**self._options, "saved_tensors": saved})
        return self._pullback(ctx, wanted, grad.to(x.dtype))[:3]


def second(
    plain: Sums, ctx: Any, grad: Tensor, reached: Sequence[Tensor | None], *, gated: bool
) -> tuple[Tensor | None, list[Tensor | None]]:
    """Return what reaches grad and the saved x, weight, result and bias; see `derivatives.Second`.

    Args:
        plain: the convolution.
        ctx: `saved_tensors` are these four, the bias None unless `is_curved`; `activation`.
        grad: gradient of the result.
        reached: what reached the gradients of x, weight and bias.
        gated: whether the second half of the sums is a gate.
    """
    x, weight, saved = spec.saved_tensors(ctx)
    bias = ctx.saved_tensors[3]
    curved = is_curved(ctx.activation, gated=gated)
    needs_sums = spec.needs_pre_activation(ctx.activation, gated)
    if curved and torch.is_grad_enabled():
        # Recorded, as a function of its arguments.
        saved = plain.forward(x, weight, bias)
        saved = saved if needs_sums else formulas.activate(saved, ctx.activation)

    def finish_backward(grad: Tensor, saved: Tensor) -> Tensor:
        return formulas.finish_backward(grad, saved, ctx.activation, gated)

    grad_sums = finish_backward(grad, saved)
    of_x, of_weight, of_bias = reached
    to_sums = grad_sums.new_zeros(())
    to_x = to_weight = to_bias = None
    if of_x is not None:
        to_sums = to_sums + plain.forward(of_x, weight, None)
        to_weight = plain.backward(grad_sums, of_x, weight, (False, True, False))[1]
    if of_weight is not None:
        to_sums = to_sums + plain.forward(x, of_weight, None)
        to_x = plain.backward(grad_sums, x, of_weight, (True, False, False))[0]
    if of_bias is not None:
        to_sums = to_sums + of_bias[:, None, None]
    to_sums = to_sums.to(grad_sums.dtype).expand_as(grad_sums)
    if ctx.activation == "identity" and not gated:
        return to_sums.to(grad.dtype), [to_x, to_weight, None, None]
    to_grad, to_saved = derivatives.vjp(finish_backward, (grad, saved), to_sums)
    if curved:
        if not needs_sums:
            wide = tensors.compute_dtype(saved)
            to_saved = to_saved * formulas.derivative_of_result(wide, ctx.activation)
        more = plain.backward(to_saved, x, weight, (True, True, bias is not None))
        to_x, to_weight = _sum(to_x, more[0]), _sum(to_weight, more[1])
        to_bias = more[2]
    return to_grad, [to_x, to_weight, None, to_bias]


def _sum(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    if a is None or b is None:
        return b if a is None else a
    return a + b
