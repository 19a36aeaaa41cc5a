"""The implementations of `fused_conv2d` and `gated_conv2d`: one set, with a gate or without.

Each function is what `dispatch.register` takes under its name. The forward operator returns the
result and, if `keep`, the pre-activation, from which a gate's and SiLU's gradients start; every
other activation's starts from the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from inpaint_ops.ops import dispatch, partly, recording, tensors, triton
from inpaint_ops.ops.convolution import calls, cpu, cpu_backward, formulas, second, spec
from inpaint_ops.ops.convolution.plan import Convolution, Plan, in_place, plan
from inpaint_ops.ops.convolution.spec import Geometry, Gradients, Pair
from inpaint_ops.ops.extension_objects import ConvCall


def register(op: str, *, plain: dispatch.Registered | None = None) -> dispatch.Registered:
    """Register the operator with its backward pass; return the forward one.

    Its arguments are x, weight, bias, geometry, activation, keep and algorithm.

    Args:
        op: its name.
        plain: the operator without a gate that a gated one's derivatives are made of; None: it is
            the one without a gate.
    """
    gated = plain is not None
    where = f"{spec.GEOMETRY_SCHEMA}, str activation"
    forward_operator = dispatch.register(
        op,
        f"(Tensor x, Tensor weight, Tensor? bias, {where}, bool keep, str algorithm) "
        "-> (Tensor, Tensor)",
        cpu=partial(_cpu, gated=gated),
        reference=partial(_reference, gated=gated),
        fake=partial(_fake, gated=gated),
        cuda=partial(_cuda, op),
        cuda_means="triton and cuDNN",
        group=dispatch.Group(3, spec.geometry, len(Geometry._fields)),
    )
    backward_operator = dispatch.register(
        f"{op}_backward",
        f"(Tensor grad, Tensor x, Tensor weight, Tensor saved, {where}, bool[] wanted, "
        "str algorithm) -> (Tensor, Tensor, Tensor)",
        cpu=partial(_backward_cpu, gated=gated),
        reference=partial(_backward_reference, gated=gated),
        fake=_backward_fake,
        cuda=partial(_backward_cuda, op),
        group=dispatch.Group(4, spec.geometry, len(Geometry._fields)),
    )
    forward_operator.differentiate(
        partial(_backward, backward_operator),
        partial(_setup_context, op, gated),
        formula=partial(_formula, gated=gated),
        second=partial(_second, plain or forward_operator, gated=gated),
        shared=second.SHARED,
    )
    backward_operator.forbid_derivative()
    forward_operator.compute_partly(
        partial(_reads, gated=gated), partial(_compute, gated=gated), partial(_touched, gated=gated)
    )
    return forward_operator


def call_for(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    g: Geometry,
    activation: str,
    algorithm: str,
    *,
    gated: bool,
) -> ConvCall | None:
    """Return the call that the extension takes as a whole, of arguments that are checked."""
    if not calls.are_known(x, bias) or g.groups != 1:
        return None
    allowed = spec.allowed(algorithm)
    y, sums = _fake(x, weight, bias, g, activation, True, algorithm, gated=gated)
    needs_sums = spec.needs_pre_activation(activation, gated)
    call = calls.call_of(
        _plan(x, weight, g, activation, algorithm, gated),
        y,
        sums if needs_sums else None,
        Convolution(g, gated, activation),
        {"geometry": g, "activation": activation, "algorithm": algorithm},
    )
    if call is not None and recording.is_needed((x, weight, bias)):
        found = cpu_backward.input_plan(sums, x, weight, g, allowed)
        if not cpu_backward.is_whole(sums, x, weight, g):
            calls.add_gradients(call, found, x, sums, x, weight, g, allowed)
    return call


def _fake(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    g: Geometry,
    activation: str,
    keep: bool,
    algorithm: str,
    *,
    gated: bool,
) -> tuple[Tensor, Tensor]:
    return spec.results_like(x, weight, g.out_size(x, weight), gated=gated, keep=keep)


def _cpu(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    g: Geometry,
    activation: str,
    keep: bool,
    algorithm: str,
    *,
    gated: bool,
) -> tuple[Tensor, Tensor]:
    if x.dtype == torch.float64:
        return _reference(x, weight, bias, g, activation, keep, algorithm, gated=gated)
    algorithm = spec.allowed(algorithm)
    return cpu.forward(x, weight, bias, g, activation, gated=gated, keep=keep, algorithm=algorithm)


def _reads(
    wanted: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    g: Geometry,
    activation: str,
    keep: bool,
    algorithm: str,
    *,
    gated: bool,
    anchor: Pair | None,
) -> partly.Reads | None:
    if x.dtype == torch.float64:
        return None
    size = g.out_size(x, weight)
    chosen = _plan(x, weight, g, activation, algorithm, gated)
    found = cpu.reads(chosen, [x], size, wanted, anchor)
    return None if found is None else found._replace(maps=[*found.maps, None, None])


def _touched(
    changed: Sequence[Tensor | None],
    anchor: Pair,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    g: Geometry,
    activation: str,
    keep: bool,
    algorithm: str,
    *,
    gated: bool,
) -> Tensor | None:
    if x.dtype == torch.float64 or any(one is not None for one in changed[1:]):
        return None
    chosen = _plan(x, weight, g, activation, algorithm, gated)
    return cpu.touched(chosen, [x], g.out_size(x, weight), changed, anchor)


def _plan(
    x: Tensor, weight: Tensor, g: Geometry, activation: str, algorithm: str, gated: bool
) -> Plan:
    size = g.out_size(x, weight)
    shapes = cpu.shapes_of(cpu.parts_of(x, g), weight, size, in_place=in_place(weight))
    return plan(Convolution(g, gated, activation), shapes, spec.allowed(algorithm))


def _compute(
    wanted: partly.Wanted,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    g: Geometry,
    activation: str,
    keep: bool,
    algorithm: str,
    *,
    gated: bool,
) -> tuple[Tensor, Tensor]:
    algorithm = spec.allowed(algorithm)
    return cpu.forward(
        x, weight, bias, g, activation, gated=gated, keep=keep, algorithm=algorithm, wanted=wanted
    )


def _cuda(
    op: str,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    g: Geometry,
    activation: str,
    keep: bool,
    algorithm: str,
) -> Any:
    return triton.kernels(op).forward(x, weight, bias, g, activation, keep)


def _reference(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    g: Geometry,
    activation: str,
    keep: bool,
    algorithm: str,
    *,
    gated: bool,
) -> tuple[Tensor, Tensor]:
    pre_activation = formulas.convolve(*formulas.widened(x, weight, bias), g)
    return formulas.finished(pre_activation, x, weight, activation, gated=gated, keep=keep)


def _formula(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    g: Geometry,
    activation: str,
    *_: Any,
    gated: bool,
) -> tuple[Tensor, Tensor]:
    sums = formulas.convolve(*formulas.widened(x, weight, bias), g)
    return formulas.finish(sums, activation, gated).to(x.dtype), spec.empty_gradient(x)


def _backward_fake(
    grad: Tensor, x: Tensor, weight: Tensor, saved: Tensor, *options: Any
) -> Gradients:
    _, _, wanted, _ = options
    return spec.gradients_like(x, weight, wanted, weight.shape[0])


def _backward_cpu(
    grad: Tensor, x: Tensor, weight: Tensor, saved: Tensor, *options: Any, gated: bool
) -> Gradients:
    if x.dtype == torch.float64:
        return _backward_reference(grad, x, weight, saved, *options, gated=gated)
    g, activation, wanted, algorithm = options
    grad_sums, grad_bias = cpu_backward.finish_backward(
        grad, saved, activation, gated=gated, bias=wanted[2]
    )
    grad_x, grad_weight = cpu_backward.convolve_backward(
        grad_sums, x, weight, g, wanted, spec.allowed(algorithm)
    )
    grad_x = cpu_backward.arranged(grad_x, x, weight)
    return spec.settled_gradients(x, weight, (grad_x, grad_weight, grad_bias))


def _backward_cuda(
    op: str, grad: Tensor, x: Tensor, weight: Tensor, saved: Tensor, *options: Any
) -> Any:
    g, activation, wanted, _ = options
    return triton.kernels(op).backward(grad, x, weight, saved, g, activation, wanted)


def _backward_reference(
    grad: Tensor, x: Tensor, weight: Tensor, saved: Tensor, *options: Any, gated: bool
) -> Gradients:
    g, activation, wanted, _ = options
    grad_sums = formulas.finish_backward(grad, saved, activation, gated=gated)
    widened = tensors.compute_dtype(x), tensors.compute_dtype(weight)
    grads = formulas.convolve_backward(grad_sums, *widened, g, wanted)
    grad_bias = grad_sums.sum((0, 2, 3)) if wanted[2] else None
    return spec.settled_gradients(x, weight, (*grads, grad_bias))


def _setup_context(
    op: str, gated: bool, ctx: Any, inputs: Sequence[Any], output: Sequence[Tensor]
) -> None:
    x, weight, bias, ctx.geometry, ctx.activation, keep, ctx.algorithm = inputs
    saved = spec.saved_result(op, output, ctx.activation, gated=gated, keep=keep)
    curved = second.is_curved(ctx.activation, gated=gated)
    ctx.save_for_backward(x, weight, saved, bias if curved else None)


def _backward(
    operator: dispatch.Registered, ctx: Any, needs: Sequence[bool], grad: Tensor
) -> tuple[Any, ...]:
    wanted = list(needs[:3])
    options = (ctx.geometry, ctx.activation, wanted, ctx.algorithm)
    grads = operator(grad, *spec.saved_tensors(ctx), *options)
    return (*spec.wanted_gradients(wanted, grads), None, None, None, None)


def _second(
    plain: dispatch.Registered, ctx: Any, grad: Tensor, reached: Sequence[Any], *, gated: bool
) -> tuple[Tensor | None, list[Tensor | None]]:
    def sums(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        result: Tensor = plain(x, weight, bias, ctx.geometry, "identity", False, ctx.algorithm)[0]
        return result

    convolution = second.Sums(sums, plain, ctx)
    return second.second(convolution, ctx, grad, reached[:3], gated=gated)
