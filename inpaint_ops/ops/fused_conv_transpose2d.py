"""fused_conv_transpose2d: transposed convolution, bias and activation in one pass."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from inpaint_ops import checks
from inpaint_ops.ops import dispatch, partly, recording, shortcut, tensors, triton
from inpaint_ops.ops.convolution import calls, cpu, cpu_backward, formulas, second, spec
from inpaint_ops.ops.convolution.plan import Convolution, Plan
from inpaint_ops.ops.convolution.spec import Geometry, Gradients, Pair
from inpaint_ops.ops.extension_objects import ConvCall
from inpaint_ops.ops.overrides import call, has_override, inside, tracing

_OP = "fused_conv_transpose2d"


def fused_conv_transpose2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: int = 2,
    padding: int = 1,
    activation: str = "identity",
    algorithm: str = "auto",
) -> Tensor:
    """Transposed convolution y = activation(sum_i x_i weight at stride i + bias), fused.

    On the CPU the outputs of each remainder modulo the stride are one small convolution of x: no
    zeros are stuffed in, none multiplied. Algorithms, rounding and NaN as in `fused_conv2d`. Of x
    and y the backward pass keeps x and, for an activation, y (SiLU: the pre-activation).

    Args:
        x: (N, C, H, W), float16, bfloat16, float32 or float64, any layout; channels_last
            is taken and made without a copy.
        weight: (C, filters, kh, kw), dtype and device of x.
        bias: (filters,).
        stride: pixels between the places of neighbouring inputs.
        padding: pixels cut off each side of the result.
        activation: "identity", "relu", "leaky_relu" (slope 0.2), "elu", "silu", "tanh", "sigmoid".
        algorithm: "auto"; "precise": never Winograd's large tiles; or "direct": never Winograd's at
            all; in this call and in its backward pass.

    Returns:
        (N, filters, (H - 1) stride - 2 padding + kh, likewise), dtype of x; channels_last if x or
        the weight is. Half precision is summed in float32. Under autocast x, weight and bias are
        rounded to its dtype, which is also the result's, as in torch.nn.functional.conv2d.

    Raises:
        TypeError: wrong type or dtype.
        ValueError: wrong shape, range or device.
    """
    if (has_override(x, weight, bias) or tracing()) and not inside():
        return call(fused_conv_transpose2d, locals())
    options = (stride, padding, activation, algorithm)
    if shortcut.AVAILABLE and not torch.compiler.is_dynamo_compiling():
        taken = _taken(x, weight, bias, *options)
        if taken is not None:
            return taken
    x, weight, bias = _checked(x, weight, bias, *options)
    keep = spec.needs_pre_activation(activation) and recording.may_be_recorded((x, weight, bias))
    y: Tensor = _operator(x, weight, bias, stride, padding, activation, keep, algorithm)[0]
    return y


def _checked(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: int,
    padding: int,
    activation: str,
    algorithm: str,
) -> tuple[Tensor, Tensor, Tensor | None]:
    x, weight, bias = spec.check_tensors(_OP, x, weight, bias)
    checks.check_int(_OP, "stride", stride)
    checks.check_int(_OP, "padding", padding, 0)
    checks.check_choice(_OP, "activation", activation, spec.ACTIVATIONS)
    spec.check_algorithm(_OP, algorithm)
    if weight.shape[0] != x.shape[1]:
        raise ValueError(
            f"{_OP}: weight must have {x.shape[1]} input channels, got {tuple(weight.shape)}"
        )
    spec.check_bias(_OP, bias, weight.shape[1])
    size = _out_size(x, weight, stride, padding)
    if x.shape[2] < 1 or x.shape[3] < 1 or min(size) < 1:
        raise ValueError(
            f"{_OP}: padding must leave something of the result, got {padding} for x of "
            f"{tuple(x.shape)} and weight of {tuple(weight.shape)}"
        )
    checks.check_result(_OP, "stride", (x.shape[0], weight.shape[1], *size), stride)
    return x, weight, bias


def _call(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: int,
    padding: int,
    activation: str,
    algorithm: str,
) -> ConvCall | None:
    """The call that the extension takes as a whole."""
    _checked(x, weight, bias, stride, padding, activation, algorithm)
    if not calls.are_known(x, bias) or spec.needs_pre_activation(activation):
        return None
    options = (stride, padding, activation, False, algorithm)
    y = _fake(x, weight, bias, *options)[0]
    chosen = _plan(x, weight, *options)[0]
    g, allowed = _adjoint(stride, padding), spec.allowed(algorithm)
    context = {"stride": stride, "padding": padding, "activation": activation}
    what = Convolution(g, activation=activation)
    call = calls.call_of(chosen, y, None, what, {**context, "algorithm": algorithm})
    recorded = recording.is_needed((x, weight, bias))
    if call is not None and recorded and not cpu_backward.is_whole(x, y, weight, g):
        # The gradient of the input is the plain convolution with the same weight; x and its
        # gradient change places in that one's weight gradient.
        found = cpu_backward.InputPlan(cpu.adjoint_plan(y, x, weight, g, allowed))
        calls.add_gradients(call, found, y, y, x, weight, g, allowed)
    return call


def _out_size(x: Tensor, weight: Tensor, stride: int, padding: int) -> Pair:
    return (
        (x.shape[2] - 1) * stride - 2 * padding + weight.shape[2],
        (x.shape[3] - 1) * stride - 2 * padding + weight.shape[3],
    )


def _adjoint(stride: int, padding: int) -> Geometry:
    """The convolution whose gradient of the input this is."""
    return Geometry((stride, stride), (padding,) * 4, (1, 1))


def _fake(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int, *options: Any
) -> tuple[Tensor, Tensor]:
    _, keep, _ = options
    size, filters = _out_size(x, weight, stride, padding), weight.shape[1]
    y = spec.result_like(x, weight, filters, size)
    return y, spec.pre_activation_like(x, filters, size, keep)


def _cpu(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int, *options: Any
) -> tuple[Tensor, Tensor]:
    if x.dtype == torch.float64:
        return _reference(x, weight, bias, stride, padding, *options)
    return _compute(partly.Wanted(), x, weight, bias, stride, padding, *options)


def _compute(
    wanted: partly.Wanted,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: int,
    padding: int,
    *options: Any,
) -> tuple[Tensor, Tensor]:
    activation, keep, algorithm = options
    y, pre_activation = _fake(x, weight, bias, stride, padding, *options)
    if not y.numel():
        return y, pre_activation
    if not keep:
        y = cpu.taken(wanted, y)
    into, applied = (pre_activation, "identity") if keep else (y, activation)
    g = _adjoint(stride, padding)
    if not _by_kernels(x, weight, bias, g, into, applied, algorithm, wanted):
        widened = tensors.compute_dtype(x), tensors.compute_dtype(weight)
        sums = formulas.convolve_transposed(*widened, None, stride, padding)
        into.copy_(cpu.finish(sums, bias, applied))
    if keep:
        # By our kernel: torch's activations depend on where its threads cut.
        y.copy_(cpu.finish(pre_activation.clone(), None, activation))
    return y, pre_activation


def _by_kernels(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    g: Geometry,
    y: Tensor,
    activation: str,
    algorithm: str,
    wanted: partly.Wanted,
) -> bool:
    """Fill y, unless the sums are a matrix product or the stride leaves outputs without taps."""
    return cpu.transposed(
        x,
        weight,
        bias,
        g,
        y,
        activation=activation,
        kind=_kind(x, g),
        algorithm=spec.allowed(algorithm),
        wanted=wanted,
    )


def _kind(x: Tensor, g: Geometry) -> str:
    product = x.shape[2] == x.shape[3] == 1 and g.padding[0] == 0
    return "scattered" if product else "transposed"


def _reads(
    wanted: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: int,
    padding: int,
    *options: Any,
    anchor: Pair | None,
) -> partly.Reads | None:
    if x.dtype == torch.float64:
        return None
    chosen, out = _plan(x, weight, stride, padding, *options)
    found = cpu.reads(chosen, [x], out, wanted, anchor)
    return None if found is None else found._replace(maps=[*found.maps, None, None])


def _touched(
    changed: Sequence[Tensor | None],
    anchor: Pair,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: int,
    padding: int,
    *options: Any,
) -> Tensor | None:
    if x.dtype == torch.float64 or any(one is not None for one in changed[1:]):
        return None
    chosen, out = _plan(x, weight, stride, padding, *options)
    return cpu.touched(chosen, [x], out, changed, anchor)


def _plan(
    x: Tensor,
    weight: Tensor,
    stride: int,
    padding: int,
    activation: str,
    keep: bool,
    algorithm: str,
) -> tuple[Plan, Pair]:
    """The plan, and the size of the result."""
    g, algorithm = _adjoint(stride, padding), spec.allowed(algorithm)
    applied = "identity" if keep else activation
    chosen = cpu.transposed_plan(x, weight, g, applied, _kind(x, g), algorithm)
    return chosen, _out_size(x, weight, stride, padding)


def _cuda(x: Tensor, weight: Tensor, bias: Tensor | None, *options: Any) -> Any:
    return triton.kernels(_OP).forward(x, weight, bias, *options[:-1])


def _reference(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int, *options: Any
) -> tuple[Tensor, Tensor]:
    activation, keep, _ = options
    sums = formulas.convolve_transposed(*formulas.widened(x, weight, bias), stride, padding)
    return formulas.finished(sums, x, weight, activation, gated=False, keep=keep)


def _formula(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int, *options: Any
) -> tuple[Tensor, Tensor]:
    sums = formulas.convolve_transposed(*formulas.widened(x, weight, bias), stride, padding)
    return formulas.activate(sums, options[0]).to(x.dtype), spec.empty_gradient(x)


def _backward_fake(
    grad: Tensor, x: Tensor, weight: Tensor, saved: Tensor, *options: Any
) -> Gradients:
    _, _, _, wanted, _ = options
    return spec.gradients_like(x, weight, wanted, weight.shape[1])


def _backward_cpu(
    grad: Tensor, x: Tensor, weight: Tensor, saved: Tensor, *options: Any
) -> Gradients:
    if x.dtype == torch.float64:
        return _backward_reference(grad, x, weight, saved, *options)
    stride, padding, activation, wanted, algorithm = options
    g, algorithm = _adjoint(stride, padding), spec.allowed(algorithm)
    grad_sums, grad_bias = cpu_backward.finish_backward(
        grad, saved, activation, gated=False, bias=wanted[2]
    )
    grad_x = grad_weight = None
    if wanted[0]:
        # The gradient of the input is the plain convolution with the same weight.
        into = cpu.channels_last(x, x.shape[1], (x.shape[2], x.shape[3]))
        parts = cpu.parts_of(grad_sums, g)
        grad_x = cpu.convolve(
            parts, weight, None, Convolution(g, backward=True), into, algorithm=algorithm
        )
        grad_x = cpu_backward.arranged(grad_x, x, weight)
    if wanted[1]:
        # x and its gradient change places in the plain convolution's weight gradient.
        image = tensors.compute_dtype(x)
        grad_weight = cpu_backward.weight_gradient(image, grad_sums, weight, g, algorithm)
    return spec.settled_gradients(x, weight, (grad_x, grad_weight, grad_bias))


def _backward_cuda(grad: Tensor, x: Tensor, weight: Tensor, saved: Tensor, *options: Any) -> Any:
    return triton.kernels(_OP).backward(grad, x, weight, saved, *options[:-1])


def _backward_reference(
    grad: Tensor, x: Tensor, weight: Tensor, saved: Tensor, *options: Any
) -> Gradients:
    stride, padding, activation, wanted, _ = options
    grad_sums = formulas.finish_backward(grad, saved, activation, gated=False)
    widened = tensors.compute_dtype(x), tensors.compute_dtype(weight)
    grad_x = grad_weight = None
    if wanted[0]:
        grad_x = formulas.convolve(grad_sums, widened[1], None, _adjoint(stride, padding))
    if wanted[1]:
        grad_weight = formulas.transposed_weight_gradient(grad_sums, *widened, stride, padding)
    grad_bias = grad_sums.sum((0, 2, 3)) if wanted[2] else None
    return spec.settled_gradients(x, weight, (grad_x, grad_weight, grad_bias))


def _setup_context(ctx: Any, inputs: Sequence[Any], output: Sequence[Tensor]) -> None:
    x, weight, bias, ctx.stride, ctx.padding, ctx.activation, keep, ctx.algorithm = inputs
    saved = spec.saved_result(_OP, output, ctx.activation, gated=False, keep=keep)
    curved = second.is_curved(ctx.activation, gated=False)
    ctx.save_for_backward(x, weight, saved, bias if curved else None)


def _backward(ctx: Any, needs: Sequence[bool], grad: Tensor) -> tuple[Any, ...]:
    wanted = list(needs[:3])
    options = (ctx.stride, ctx.padding, ctx.activation, wanted, ctx.algorithm)
    grads = _backward_operator(grad, *spec.saved_tensors(ctx), *options)
    return (*spec.wanted_gradients(wanted, grads), *(None,) * 5)


def _second(
    ctx: Any, grad: Tensor, reached: Sequence[Any]
) -> tuple[Tensor | None, list[Tensor | None]]:
    def sums(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        options = (ctx.stride, ctx.padding, "identity", False, ctx.algorithm)
        result: Tensor = _operator(x, weight, bias, *options)[0]
        return result

    convolution = second.Sums(sums, _operator, ctx)
    return second.second(convolution, ctx, grad, reached[:3], gated=False)


_operator = dispatch.register(
    _OP,
    "(Tensor x, Tensor weight, Tensor? bias, SymInt stride, SymInt padding, str activation, "
    "bool keep, str algorithm) -> (Tensor, Tensor)",
    cpu=_cpu,
    reference=_reference,
    fake=_fake,
    cuda=_cuda,
    cuda_means="triton and cuDNN",
)
_backward_operator = dispatch.register(
    f"{_OP}_backward",
    "(Tensor grad, Tensor x, Tensor weight, Tensor saved, SymInt stride, SymInt padding, "
    "str activation, bool[] wanted, str algorithm) -> (Tensor, Tensor, Tensor)",
    cpu=_backward_cpu,
    reference=_backward_reference,
    fake=_backward_fake,
    cuda=_backward_cuda,
)
_operator.differentiate(
    _backward, _setup_context, formula=_formula, second=_second, shared=second.SHARED
)
_backward_operator.forbid_derivative()
_taken = calls.register(_operator, _call)
_operator.compute_partly(_reads, _compute, _touched)
