"""Calls of the convolution operators that the extension takes as a whole.

A layer of a few pixels spends its time between Python and C++, not on sums. So the public functions
first ask the extension (csrc/python/conv_calls.cpp), which knows calls again by the sizes, strides
and options of their arguments, and makes results, looks up packed weights, runs the kernels and
records for autograd in one crossing. It declines, and the public function goes on as if it had not
asked, where anything watches (`shortcut`), for tensors other than float32 of the CPU, and for calls
of which `make` makes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from inpaint_ops.backends import ALGORITHMS, current_backend
from inpaint_ops.ops import dispatch, native, recording, shortcut
from inpaint_ops.ops.convolution import cpu, cpu_backward, second, spec
from inpaint_ops.ops.convolution.plan import Convolution, Plan, plan
from inpaint_ops.ops.convolution.spec import Geometry
from inpaint_ops.ops.extension_objects import ConvCall, ConvCalls

# Of x, weight, bias and the options, in the order of the public function.
Make = Callable[..., ConvCall | None]

_every: list[ConvCalls] = []


def register(operator: dispatch.Registered, make: Make) -> Callable[..., Tensor | None]:
    """Return the function that takes calls of an operator, or returns None.

    Args:
        operator: with a backward pass, which goes on where the extension's declines.
        make: the call from the arguments of the public function, which it checks; raises what that
            would raise.
    """
    module = native.extension() if shortcut.AVAILABLE else None
    if module is None:
        return _declined
    calls = module.ConvCalls(make)
    calls.record_by(recording.plain_apply(_function(operator, module.ConvCalls)))
    _every.append(calls)
    return calls.function()


def _declined(*_: Any) -> Tensor | None:
    return None


def _function(operator: dispatch.Registered, native_calls: type[ConvCalls]) -> Any:
    """Return the function of autograd for a call and its three tensors."""
    by_kernels = native_calls.backward()

    def backward(ctx: Any, grad: Tensor | None) -> tuple[Any, ...]:
        if shortcut.AVAILABLE and not torch.compiler.is_dynamo_compiling():
            grads: tuple[Any, ...] | None = by_kernels(ctx, grad)
            if grads is not None:
                return grads
        for name, value in ctx.call.context().items():
            setattr(ctx, name, value)
        rest = operator.gradients(ctx, ctx.needs_input_grad[1:], grad)
        return None, *rest[:3]

    return recording.function_of(operator.name, forward=native_calls.forward(), backward=backward)


def forget() -> None:
    """Forget all calls; each is made anew when it is met."""
    for calls in _every:
        calls.forget()


def layout_of(tensor: Tensor) -> tuple[Sequence[int], Sequence[int]]:
    """Return shape and strides."""
    return tuple(tensor.shape), tuple(tensor.stride())


def are_known(x: Tensor, bias: Tensor | None) -> bool:
    """Return whether the extension can take calls with these tensors, on the backend in force."""
    packed = bias is None or bias.is_contiguous()
    return packed and x.numel() > 0 and current_backend() in ALGORITHMS


def call_of(
    chosen: Plan, y: Tensor, sums: Tensor | None, what: Convolution, context: dict[str, Any]
) -> ConvCall | None:
    """Return a call without a backward pass of the extension's.

    Args:
        chosen: the plan.
        y: a result.
        sums: those before activation and gate, if a backward pass starts from them.
        what: the convolution.
        context: what the backward pass of the operator finds in its ctx besides saved tensors.
    """
    module = native.extension()
    if module is None or chosen.kernels is None:
        return None
    return module.ConvCall(
        chosen.kernels,
        chosen.form,
        layout_of(y),
        None if sums is None else layout_of(sums),
        what.gated,
        what.activation,
        second.is_curved(what.activation, gated=what.gated),
        {**context, "backend": current_backend(), "lengths": None},
    )


def add_gradients(
    call: ConvCall,
    found: cpu_backward.InputPlan | None,
    read: Tensor,
    sums: Tensor,
    x: Tensor,
    weight: Tensor,
    g: Geometry,
    algorithm: str,
) -> None:
    """Add the backward pass, if the extension's kernels form each gradient at one go.

    Args:
        call: gets it.
        found: the plan of the gradient of x.
        read: what the weight's gradient reads by `g`: x or, of a transposed convolution, the
            gradient of the sums.
        sums: like the gradient of the sums.
        x: image.
        weight: the weight, packed.
        g: geometry.
        algorithm: one of `spec.ALGORITHMS`: what may be taken.
    """
    if found is None or found.plan.kernels is None or not weight.is_contiguous():
        return
    other = x if read is sums else sums
    shapes = cpu.shapes_of(cpu.parts_of(read, g), weight, (other.shape[2], other.shape[3]))
    chosen = plan(Convolution(g, kind="weight_gradient"), shapes, algorithm)
    grad_x = spec.gradients_like(x, weight, (True, False, False), 0)[0]
    call.set_gradients(
        found.plan.kernels,
        found.plan.form,
        layout_of(grad_x),
        found.padded,
        g.upsample,
        layout_of(weight),
        sums.shape[1],
        chosen.algorithm,
        g.stride,
        (g.padding[0], g.padding[2]),
        g.dilation,
        g.padding_mode,
        shapes.tensors,
        read is sums,
    )
