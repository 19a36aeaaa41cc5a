"""fused_conv2d: convolution with padding, upsampling, bias and activation in one pass."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from inpaint_ops import checks
from inpaint_ops.ops import dispatch, recording, tensors, triton
from inpaint_ops.ops.convolution import cpu, cpu_backward, formulas, spec
from inpaint_ops.ops.convolution.spec import Geometry, Gradients

_OP = "fused_conv2d"


def fused_conv2d(  # noqa: PLR0913 - the options of a convolution
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] | str = 0,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
    padding_mode: str = "zeros",
    activation: str = "identity",
    upsample: int = 1,
    algorithm: str = "auto",
) -> Tensor:
    """Convolution y = activation(weight * pad(upsample(x)) + bias), fused into one pass.

    On the CPU kernels larger than 1x1 are summed in Winograd tiles of 5 x 5 or 6 x 6 inputs where
    that measures faster (`inpaint-ops doctor` lists the kinds of layers). All outputs of a tile, 3
    to 5 a side, then err in proportion to the largest of its inputs: among values of one size 1 to
    4 times as much as a direct sum, beside one value of 1e6 300,000 times as much, even where no
    window holds that value; a NaN reaches them all. ``algorithm="direct"`` avoids this for a call,
    ``with inpaint_ops.backend("direct")`` for many; docs/numerics.md has the bound. Of x and y the
    backward pass keeps x and, for an activation, y (SiLU: the pre-activation). Second derivatives
    raise.

    Args:
        x: (N, C, H, W), float16, bfloat16, float32 or float64, any layout; channels_last and,
            in float32, contiguous images are taken and made without a copy.
        weight: (filters, C / groups, kh, kw), dtype and device of x.
        bias: (filters,).
        stride: pixels, vertically and horizontally, as for dilation and padding.
        padding: on both sides, after the upsampling; "same": out = ceil(in / stride), TensorFlow's
            rule, the odd pixel after.
        dilation: distance between taps.
        groups: channels and filters fall into so many independent groups.
        padding_mode: "zeros", "reflect" (without the edge) or "replicate".
        activation: "identity", "relu", "leaky_relu" (slope 0.2), "elu", "silu", "tanh", "sigmoid".
        upsample: 2 repeats every pixel twice along both axes first (nearest).
        algorithm: "auto", or "direct": never Winograd's, in this call and in its backward pass.

    Returns:
        (N, filters, Ho, Wo), dtype of x; channels_last if x or the weight is. Half precision is
        summed in float32. Under autocast everything runs in float32 and the result has the dtype
        of x.

    Raises:
        TypeError: wrong type or dtype.
        ValueError: wrong shape, range or device.
    """
    dtype = x.dtype if isinstance(x, Tensor) else None
    x, weight, bias = spec.check_tensors(_OP, x, weight, bias)
    g = spec.check_geometry(
        _OP,
        x,
        weight,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        padding_mode=padding_mode,
        upsample=upsample,
    )
    checks.check_choice(_OP, "activation", activation, spec.ACTIVATIONS)
    spec.check_algorithm(_OP, algorithm)
    spec.check_bias(_OP, bias, weight.shape[0])
    keep = spec.needs_pre_activation(activation) and recording.may_be_recorded((x, weight, bias))
    y: Tensor = _operator(x, weight, bias, g, activation, keep, algorithm)[0]
    return y if y.dtype == dtype else y.to(dtype)


def _fake(
    x: Tensor, weight: Tensor, bias: Tensor | None, g: Geometry, _: str, keep: bool, __: str
) -> tuple[Tensor, Tensor]:
    return spec.results_like(x, weight, g.out_size(x, weight), gated=False, keep=keep)


def _cpu(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    g: Geometry,
    activation: str,
    keep: bool,
    algorithm: str,
) -> tuple[Tensor, Tensor]:
    if x.dtype == torch.float64:
        return _reference(x, weight, bias, g, activation, keep, algorithm)
    direct = spec.asked_for_direct(algorithm)
    return cpu.forward(x, weight, bias, g, activation, gated=False, keep=keep, direct=direct)


def _cuda(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    g: Geometry,
    activation: str,
    keep: bool,
    algorithm: str,
) -> Any:
    return triton.kernels(_OP).forward(x, weight, bias, *g, activation, keep)


def _reference(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    g: Geometry,
    activation: str,
    keep: bool,
    algorithm: str,
) -> tuple[Tensor, Tensor]:
    sums = formulas.convolve(*formulas.widened(x, weight, bias), g)
    return formulas.finished(sums, x, weight, activation, gated=False, keep=keep)


def _backward_fake(
    grad: Tensor, x: Tensor, weight: Tensor, saved: Tensor, *options: Any
) -> Gradients:
    _, _, wanted, _ = options
    return spec.gradients_like(x, weight, wanted, weight.shape[0])


def _backward_cpu(
    grad: Tensor, x: Tensor, weight: Tensor, saved: Tensor, *options: Any
) -> Gradients:
    if x.dtype == torch.float64:
        return _backward_reference(grad, x, weight, saved, *options)
    g, activation, wanted, algorithm = options
    grad_sums, grad_bias = cpu_backward.finish_backward(
        grad, saved, activation, gated=False, bias=wanted[2]
    )
    grads = cpu_backward.convolve_backward(
        grad_sums, x, weight, g, wanted, spec.asked_for_direct(algorithm)
    )
    return spec.settled_gradients(x, weight, (*grads, grad_bias))


def _backward_cuda(grad: Tensor, x: Tensor, weight: Tensor, saved: Tensor, *options: Any) -> Any:
    g, activation, wanted, _ = options
    return triton.kernels(_OP).backward(grad, x, weight, saved, *g, activation, wanted)


def _backward_reference(
    grad: Tensor, x: Tensor, weight: Tensor, saved: Tensor, *options: Any
) -> Gradients:
    g, activation, wanted, _ = options
    grad_sums = formulas.finish_backward(grad, saved, activation, gated=False)
    widened = tensors.compute_dtype(x), tensors.compute_dtype(weight)
    grads = formulas.convolve_backward(grad_sums, *widened, g, wanted)
    grad_bias = grad_sums.sum((0, 2, 3)) if wanted[2] else None
    return spec.settled_gradients(x, weight, (*grads, grad_bias))


def _setup_context(ctx: Any, inputs: Sequence[Any], output: Sequence[Tensor]) -> None:
    x, weight, _, ctx.geometry, ctx.activation, keep, ctx.algorithm = inputs
    saved = spec.saved_result(_OP, x, output, ctx.activation, gated=False, keep=keep)
    ctx.save_for_backward(x, weight, saved)


def _backward(ctx: Any, needs: Sequence[bool], grad: Tensor) -> tuple[Any, ...]:
    wanted = list(needs[:3])
    options = (ctx.geometry, ctx.activation, wanted, ctx.algorithm)
    grads = _backward_operator(grad, *ctx.saved_tensors, *options)
    return (*spec.wanted_gradients(wanted, grads), None, None, None, None)


_operator = dispatch.register(
    _OP,
    f"(Tensor x, Tensor weight, Tensor? bias, {spec.GEOMETRY_SCHEMA}, str activation, bool keep, "
    "str algorithm) -> (Tensor, Tensor)",
    cpu=_cpu,
    reference=_reference,
    fake=_fake,
    cuda=_cuda,
    cuda_means="triton and cuDNN",
    group=dispatch.Group(3, spec.geometry, len(Geometry._fields)),
)
_backward_operator = dispatch.register(
    f"{_OP}_backward",
    f"(Tensor grad, Tensor x, Tensor weight, Tensor saved, {spec.GEOMETRY_SCHEMA}, "
    "str activation, bool[] wanted, str algorithm) -> (Tensor, Tensor, Tensor)",
    cpu=_backward_cpu,
    reference=_backward_reference,
    fake=_backward_fake,
    cuda=_backward_cuda,
    group=dispatch.Group(4, spec.geometry, len(Geometry._fields)),
)
_operator.differentiate(_backward, _setup_context)
_backward_operator.forbid_derivative()
