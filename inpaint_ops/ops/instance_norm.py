"""instance_norm: every channel of every sample to mean 0 and variance 1, and what follows it."""

from collections.abc import Sequence
from typing import Any, overload

import torch
from torch import Tensor

from inpaint_ops import checks
from inpaint_ops.ops import derivatives, dispatch, tensors
from inpaint_ops.ops.convolution import formulas, spec
from inpaint_ops.ops.overrides import call, has_override, inside, tracing

_OP = "instance_norm"


def instance_norm(
    x: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    eps: float = 1e-5,
    activation: str = "identity",
    residual: Tensor | None = None,
) -> Tensor:
    """activation((x - mean) / sqrt(variance + eps) * weight + bias) + residual in one go.

    Mean and variance (divided by the number of pixels) are those of the image itself, in training
    and afterwards. A channel of one value, also an image of one pixel, gives `bias`. The backward
    pass keeps x and forms the rest again.

    Args:
        x: (N, C, H, W) with at least one pixel, float16, bfloat16, float32 or float64, any layout;
            contiguous and channels_last images are taken without a copy.
        weight: (C,) or None for ones, dtype and device of x.
        bias: (C,) or None for zeros.
        eps: added to the variance, positive.
        activation: "identity", "relu", "leaky_relu" (slope 0.2), "elu", "silu", "tanh", "sigmoid".
        residual: (N, C, H, W), added last; dtype and device of x.

    Returns:
        (N, C, H, W), dtype and memory format of x. Half precision is summed in float32. Under
        autocast everything runs in float32 and the result has the dtype of x.

    Raises:
        TypeError: wrong type or dtype.
        ValueError: wrong shape, range or device.

    Source: Ulyanov et al., arXiv 1607.08022; torch.nn.functional.instance_norm, which refuses
    images of one pixel.
    """
    if (has_override(x, weight, bias, residual) or tracing()) and not inside():
        return call(instance_norm, locals())
    checks.check_image(_OP, "x", x)
    if x.shape[2] * x.shape[3] == 0:
        raise ValueError(f"{_OP}: x must hold a pixel, got {tuple(x.shape)}")
    checks.check_finite(_OP, "eps", eps)
    if eps <= 0:
        raise ValueError(f"{_OP}: eps must be positive, got {eps}")
    checks.check_choice(_OP, "activation", activation, spec.ACTIVATIONS)
    dtype = x.dtype
    optional = []
    for name, value in (("weight", weight), ("bias", bias), ("residual", residual)):
        if value is not None and not isinstance(value, Tensor):
            raise TypeError(f"{_OP}: {name} must be a Tensor or None, got {type(value).__name__}")
        optional.append(value)
    if tensors.autocast_is_on(x.device):
        (x,) = tensors.autocast_to_float32(x.device, x)
        optional = [v if v is None else v.to(x.dtype) for v in optional]
    for name, value in zip(("weight", "bias", "residual"), optional):
        if value is None:
            continue
        checks.check_same(_OP, f"x and {name}", x, value)
        shape = tuple(x.shape) if name == "residual" else (x.shape[1],)
        if tuple(value.shape) != shape:
            raise ValueError(f"{_OP}: {name} must have shape {shape}, got {tuple(value.shape)}")
    y: Tensor = _operator(x, *optional, float(eps), activation)[0]
    return y.to(dtype)


def _fake(x: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    moments = (x.shape[0], x.shape[1])
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    return (
        torch.empty_like(x, memory_format=tensors.memory_format(x)),
        x.new_empty(moments, dtype=dtype),
        x.new_empty(moments, dtype=dtype),
    )


def _fused(x: Tensor) -> bool:
    return x.dtype != torch.float64 and x.numel() > 0


def _planes_of(x: Tensor) -> bool:
    """Return whether the kernel takes x as planes; gradients and residual follow it."""
    return tensors.memory_format(x) == torch.contiguous_format


@overload
def _packed(x: Tensor, planes: bool) -> Tensor: ...
@overload
def _packed(x: Tensor | None, planes: bool) -> Tensor | None: ...
def _packed(x: Tensor | None, planes: bool) -> Tensor | None:
    """Return (N, C, H, W) in float32, packed in one of the two layouts, a copy if it is not yet."""
    if x is None:
        return None
    return tensors.compute_dtype(x).contiguous() if planes else tensors.packed_image(x)


@overload
def _vector(x: Tensor) -> Tensor: ...
@overload
def _vector(x: Tensor | None) -> Tensor | None: ...
def _vector(x: Tensor | None) -> Tensor | None:
    return None if x is None else tensors.compute_dtype(x).contiguous()


def _memory(x: Tensor) -> Tensor:
    """float32 of the shape and the layout of x."""
    return torch.empty_like(x, dtype=torch.float32, memory_format=tensors.memory_format(x))


def _cpu(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    eps: float,
    activation: str,
) -> tuple[Tensor, Tensor, Tensor]:
    if not _fused(x):
        return _reference(x, weight, bias, residual, eps, activation)
    y, planes = _memory(x), _planes_of(x)
    mean, inverse = (x.new_empty(x.shape[:2], dtype=torch.float32) for _ in range(2))
    tensors.native().instance_norm(
        _packed(x, planes),
        _vector(weight),
        _vector(bias),
        _packed(residual, planes),
        eps,
        planes,
        activation,
        y,
        mean,
        inverse,
        tensors.threads(),
    )
    return y.to(x.dtype), mean, inverse


def _reference(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    eps: float,
    activation: str,
) -> tuple[Tensor, Tensor, Tensor]:
    n, c, _, _ = x.shape
    if n == 0:
        return _fake(x)
    # As torch.nn.functional.instance_norm does: one image of N C channels through batch norm.
    planes, mean, inverse = torch.ops.aten.native_batch_norm(
        _planes(x), _repeated(weight, n), _repeated(bias, n), None, None, True, 0.0, eps
    )
    y = formulas.activate(planes.view(x.shape), activation)
    if residual is not None:
        y = y + tensors.compute_dtype(residual)
    y = spec.settled(y, x, tensors.memory_format(x))
    return y, mean.view(n, c), inverse.view(n, c)


def _formula(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    eps: float,
    activation: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """The same step by step: aten's batch norm has wrong gradients of its forward mode."""
    wide = tensors.compute_dtype(x)
    mean = wide.mean((2, 3), keepdim=True)
    centred = wide - mean
    inverse = (centred.square().mean((2, 3), keepdim=True) + eps).rsqrt()
    y = centred * inverse
    if weight is not None:
        y = y * tensors.compute_dtype(weight)[:, None, None]
    if bias is not None:
        y = y + tensors.compute_dtype(bias)[:, None, None]
    y = formulas.activate(y, activation)
    if residual is not None:
        y = y + tensors.compute_dtype(residual)
    return y.to(x.dtype), mean.flatten(1), inverse.flatten(1)


def _planes(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    return tensors.compute_dtype(x).contiguous().view(1, n * c, h, w)


def _repeated(x: Tensor | None, times: int) -> Tensor | None:
    return None if x is None else tensors.compute_dtype(x).repeat(times)


def _backward_fake(grad: Tensor, x: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    return (
        torch.empty_like(x, memory_format=tensors.memory_format(x)),
        x.new_empty((x.shape[1],)),
        x.new_empty((x.shape[1],)),
    )


def _backward_cpu(
    grad: Tensor,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor,
    inverse: Tensor,
    activation: str,
) -> tuple[Tensor, Tensor, Tensor]:
    if not _fused(x):
        return _backward_reference(grad, x, weight, bias, mean, inverse, activation)
    grad_x, planes = _memory(x), _planes_of(x)
    grad_weight, grad_bias = (x.new_empty(x.shape[:2], dtype=torch.float64) for _ in range(2))
    tensors.native().instance_norm_backward(
        _packed(grad, planes),
        _packed(x, planes),
        _vector(weight),
        _vector(bias),
        _vector(mean),
        _vector(inverse),
        planes,
        activation,
        grad_x,
        grad_weight,
        grad_bias,
        tensors.threads(),
    )
    return grad_x.to(x.dtype), grad_weight.sum(0).to(x.dtype), grad_bias.sum(0).to(x.dtype)


def _backward_reference(
    grad: Tensor,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor,
    inverse: Tensor,
    activation: str,
) -> tuple[Tensor, Tensor, Tensor]:
    n, c, _, _ = x.shape
    if n == 0:
        return torch.empty_like(x), x.new_zeros((c,)), x.new_zeros((c,))
    g = tensors.compute_dtype(grad)
    if activation != "identity":
        normal = tensors.compute_dtype(x) - mean[:, :, None, None]
        normal = normal * inverse[:, :, None, None]
        if weight is not None:
            normal = normal * tensors.compute_dtype(weight)[:, None, None]
        if bias is not None:
            normal = normal + tensors.compute_dtype(bias)[:, None, None]
        g = g * formulas.derivative(normal, activation)
    scale = _repeated(weight, n)
    planes, grad_weight, grad_bias = torch.ops.aten.native_batch_norm_backward(
        _planes(g),
        _planes(x),
        mean.new_ones(n * c) if scale is None else scale,
        None,
        None,
        mean.flatten(),
        inverse.flatten(),
        True,
        0.0,  # eps is part of `inverse`
        [True, True, True],
    )
    grad_x = spec.settled(planes.view(x.shape), x, tensors.memory_format(x))
    sums = (v.view(n, c).sum(0).to(x.dtype) for v in (grad_weight, grad_bias))
    return (grad_x, *sums)


def _setup_context(ctx: Any, inputs: Sequence[Any], output: Sequence[Any]) -> None:
    x, weight, bias, _, ctx.eps, ctx.activation = inputs
    _, mean, inverse = output
    ctx.save_for_backward(x, weight, bias, mean, inverse)


def _backward(ctx: Any, needs: Sequence[bool], grad: Tensor) -> tuple[Any, ...]:
    grads: Sequence[Tensor | None] = (None, None, None)
    if any(needs[:3]):
        grads = _backward_operator(grad, *ctx.saved_tensors, ctx.activation)
    wanted = (g if need else None for need, g in zip(needs, grads))
    return (*wanted, grad if needs[3] else None, None, None)


def _second(
    ctx: Any, grad: Tensor, reached: Sequence[Any]
) -> tuple[Tensor | None, list[Tensor | None]]:
    *of_arguments, of_residual = reached[:4]
    saved = ctx.saved_tensors[:3]
    there = [i for i, one in enumerate(saved) if one is not None]

    def formula(*inputs: Tensor) -> Tensor:
        arguments: list[Tensor | None] = [None] * 3
        for i, one in zip(there, inputs):
            arguments[i] = one
        x, weight, bias = arguments
        assert x is not None
        return _formula(x, weight, bias, None, ctx.eps, ctx.activation)[0]

    to_saved: list[Tensor | None] = [None] * 5
    to_grad: Tensor | None = of_residual
    if any(one is not None for one in of_arguments):
        inputs = [saved[i] for i in there]
        more, *to_inputs = derivatives.second_by_formula(
            formula, inputs, grad, [of_arguments[i] for i in there]
        )
        to_grad = more if of_residual is None else more + of_residual
        for i, one in zip(there, to_inputs):
            to_saved[i] = one
    return to_grad, to_saved


_operator = dispatch.register(
    _OP,
    "(Tensor x, Tensor? weight, Tensor? bias, Tensor? residual, float eps, str activation) "
    "-> (Tensor, Tensor, Tensor)",
    cpu=_cpu,
    reference=_reference,
    fake=_fake,
)
_backward_operator = dispatch.register(
    f"{_OP}_backward",
    "(Tensor grad, Tensor x, Tensor? weight, Tensor? bias, Tensor mean, Tensor inverse, "
    "str activation) -> (Tensor, Tensor, Tensor)",
    cpu=_backward_cpu,
    reference=_backward_reference,
    fake=_backward_fake,
)
_operator.differentiate(
    _backward,
    _setup_context,
    formula=_formula,
    second=_second,
    shared=derivatives.Shared((1, 2), (1, 2)),
)
_backward_operator.forbid_derivative()
