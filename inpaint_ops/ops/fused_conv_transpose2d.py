"""fused_conv_transpose2d: transposed convolution, bias and activation in one pass."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from inpaint_ops import _triton
from inpaint_ops._backend import backend, current_backend
from inpaint_ops.ops import _common, _conv, _conv_cpu, _conv_gradients
from inpaint_ops.ops._conv import Geometry, Pair

_OP = "fused_conv_transpose2d"


def fused_conv_transpose2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: int = 2,
    padding: int = 1,
    activation: str = "identity",
) -> Tensor:
    """Transposed convolution y = activation(sum_i x_i weight at stride i + bias), fused.

    On the CPU the outputs of each remainder modulo the stride are one small convolution of x: no
    zeros are stuffed in, none multiplied. Cores, rounding and NaN as in `fused_conv2d`. Of x and y
    the backward pass keeps x and, for an activation, y (SiLU: the sums before it). Second
    derivatives raise.

    Args:
        x: (N, C, H, W), float16, bfloat16, float32 or float64, any layout; channels_last and,
            in float32, contiguous images are taken and made without a copy.
        weight: (C, filters, kh, kw), dtype and device of x.
        bias: (filters,).
        stride: pixels between the places of neighbouring inputs.
        padding: pixels cut off each side of the result.
        activation: "identity", "relu", "leaky_relu" (slope 0.2), "elu", "silu", "tanh", "sigmoid".

    Returns:
        (N, filters, (H - 1) stride - 2 padding + kh, likewise), dtype of x; channels_last if x or
        the weight is. Half precision is summed in float32. Under autocast everything runs in
        float32 and the result has the dtype of x.

    Raises:
        TypeError: wrong type or dtype.
        ValueError: wrong shape, range or device.
    """
    dtype = x.dtype if isinstance(x, Tensor) else None
    x, weight, bias = _conv.check_tensors(_OP, x, weight, bias)
    _common.check_int(_OP, "stride", stride)
    _common.check_int(_OP, "padding", padding, 0)
    _common.check_choice(_OP, "activation", activation, _conv.ACTIVATIONS)
    if weight.shape[0] != x.shape[1]:
        raise ValueError(
            f"{_OP}: weight must have {x.shape[1]} input channels, got {tuple(weight.shape)}"
        )
    _conv.check_bias(_OP, bias, weight.shape[1])
    if x.shape[2] < 1 or x.shape[3] < 1 or min(_out_size(x, weight, stride, padding)) < 1:
        raise ValueError(
            f"{_OP}: padding must leave something of the result, got {padding} for x of "
            f"{tuple(x.shape)} and weight of {tuple(weight.shape)}"
        )
    keep = activation == "silu" and torch.is_grad_enabled()
    y: Tensor = _operator(x, weight, bias, stride, padding, activation, keep)[0]
    return y if y.dtype == dtype else y.to(dtype)


def _out_size(x: Tensor, weight: Tensor, stride: int, padding: int) -> Pair:
    high, wide = ((x.shape[i] - 1) * stride - 2 * padding + weight.shape[i] for i in (2, 3))
    return high, wide


def _fake(x: Tensor, weight: Tensor, bias: Tensor | None, *rest: Any) -> tuple[Tensor, Tensor]:
    stride, padding, _, keep = rest
    size = _out_size(x, weight, stride, padding)
    z = _conv.filters_like(x, weight.shape[1], size) if keep else _conv.empty_gradient(x)
    return _conv.result_like(x, weight, weight.shape[1], size), z


def _cpu(x: Tensor, weight: Tensor, bias: Tensor | None, *rest: Any) -> tuple[Tensor, Tensor]:
    stride, padding, activation, keep = rest
    if x.dtype == torch.float64 or keep or x.numel() == 0:
        return _reference(x, weight, bias, *rest)
    y, z = _fake(x, weight, bias, *rest)
    # One pixel without padding is a matrix product; a stride beyond the kernel leaves outputs
    # without taps.
    product = x.shape[2] == x.shape[3] == 1 and padding == 0
    if not product and stride <= min(weight.shape[2:]):
        _conv_cpu.transposed_forward(
            x, weight, bias, stride=stride, padding=padding, activation=activation, y=y
        )
        return y, z
    wide = _common.compute_dtype(x.detach())
    sums = _conv.convolve_transposed(
        wide, _common.compute_dtype(weight.detach()), None, stride, padding
    )
    sums = _conv_cpu.finish(sums, bias, activation)
    return _conv.settled(sums, x, _conv.memory_format(x, weight)), z


def _cuda(x: Tensor, weight: Tensor, bias: Tensor | None, *rest: Any) -> tuple[Tensor, Tensor]:
    result: tuple[Tensor, Tensor] = _triton.kernels(_OP).forward(x, weight, bias, *rest)
    return result


def _reference(x: Tensor, weight: Tensor, bias: Tensor | None, *rest: Any) -> tuple[Tensor, Tensor]:
    stride, padding, activation, keep = rest
    z = _conv.convolve_transposed(
        _common.compute_dtype(x),
        _common.compute_dtype(weight),
        None if bias is None else _common.compute_dtype(bias),
        stride,
        padding,
    )
    y = _conv.settled(_conv.activate(z, activation), x, _conv.memory_format(x, weight))
    kept = _conv.kept_sums(z, x, keep)
    return y, kept


def _gradients_like(
    x: Tensor, weight: Tensor, wanted: Sequence[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    grad_x, grad_weight, _ = _conv.gradients_like(x, weight, (wanted[0], wanted[1], False))
    grad_bias = weight.new_empty((weight.shape[1],)) if wanted[2] else _conv.empty_gradient(x)
    return grad_x, grad_weight, grad_bias


def _backward_fake(
    grad: Tensor, x: Tensor, weight: Tensor, kept: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    return _gradients_like(x, weight, rest[-1])


def _backward_cpu(
    grad: Tensor, x: Tensor, weight: Tensor, kept: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    if x.dtype == torch.float64:
        return _backward_reference(grad, x, weight, kept, *rest)
    stride, padding, activation, wanted = rest
    if activation == "identity":
        grad_z = _common.compute_dtype(grad.detach())
        grad_z = grad_z.contiguous(memory_format=torch.channels_last)
        grad_bias = _conv_gradients.bias_gradient(grad_z) if wanted[2] else None
    else:
        grad_z, grad_bias = _conv_gradients.finish_backward(
            grad,
            kept,
            activation,
            gated=False,
            from_result=activation != "silu",
            bias=wanted[2],
        )
    grad_x = None
    if wanted[0]:
        # The gradient of the input is the plain convolution with the same weight.
        grad_x = torch.empty(x.shape, memory_format=torch.channels_last)
        g = Geometry((stride, stride), (padding,) * 4, (1, 1))
        grad_x = _conv_cpu.forward(
            grad_z, weight, None, g, gated=False, activation="identity", y=grad_x
        )
    grad_weight = None
    if wanted[1]:
        # x and its gradient change places in the plain convolution's weight gradient.
        image = _common.compute_dtype(x.detach())
        g = Geometry((stride, stride), (padding,) * 4, (1, 1))
        grad_weight = _conv_gradients.weight_gradient(image, grad_z, weight, g)
    return _conv.settled_gradients(x, weight, (grad_x, grad_weight, grad_bias))


def _weight_gradient(
    grad_z: Tensor, x: Tensor, weight: Tensor, stride: int, padding: int
) -> Tensor:
    x = _common.compute_dtype(x.detach())
    if grad_z.shape[1] > 1:
        x = x.contiguous(memory_format=torch.channels_last)
    _, result, _ = torch.ops.aten.convolution_backward(
        grad_z,
        x,
        _common.compute_dtype(weight.detach()),
        None,
        [stride] * 2,
        [padding] * 2,
        [1, 1],
        True,
        [0, 0],
        1,
        [False, True, False],
    )
    gradient: Tensor = result
    return gradient


def _backward_cuda(
    grad: Tensor, x: Tensor, weight: Tensor, kept: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    kernels = _triton.kernels(_OP)
    result: tuple[Tensor, Tensor, Tensor] = kernels.backward(grad, x, weight, kept, *rest)
    return result


def _backward_reference(
    grad: Tensor, x: Tensor, weight: Tensor, kept: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    stride, padding, activation, wanted = rest
    grad_z, kept = _common.compute_dtype(grad), _common.compute_dtype(kept)
    if activation == "silu":
        grad_z = grad_z * _conv.derivative(kept, activation)
    elif activation != "identity":
        grad_z = grad_z * _conv.derivative_of_result(kept, activation)
    wide = _common.compute_dtype(weight)
    grad_x = None
    if wanted[0]:
        plain = Geometry((stride, stride), (padding,) * 4, (1, 1))
        grad_x = _conv.convolve(grad_z, wide, None, plain)
    grad_weight = _weight_gradient(grad_z, x, weight, stride, padding) if wanted[1] else None
    grad_bias = grad_z.sum((0, 2, 3)) if wanted[2] else None
    return _conv.settled_gradients(x, weight, (grad_x, grad_weight, grad_bias))


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, weight, _, stride, padding, activation, _ = inputs
    y, z = output
    ctx.mark_non_differentiable(z)
    if activation == "identity":
        kept = x.new_empty((0,))
    elif activation == "silu":
        kept = z
    else:
        kept = y
    ctx.save_for_backward(x, weight, kept)
    ctx.rest = (stride, padding, activation)
    ctx.backend = current_backend()


def _autograd_backward(ctx: Any, grad: Tensor, _: Tensor | None) -> tuple[Any, ...]:
    needs: Sequence[bool] = ctx.needs_input_grad[:3]
    with backend(ctx.backend):
        grads = _backward_operator(grad, *ctx.saved_tensors, *ctx.rest, list(needs))
    return (*_conv.wanted_gradients(needs, grads), *(None for _ in ctx.rest), None)


_operator = _common.register(
    _OP,
    "(Tensor x, Tensor weight, Tensor? bias, SymInt stride, SymInt padding, str activation, "
    "bool keep) -> (Tensor, Tensor)",
    cpu=_cpu,
    reference=_reference,
    fake=_fake,
    cuda=_cuda,
    cuda_means="triton and cuDNN",
)
_backward_operator = _common.register(
    f"{_OP}_backward",
    "(Tensor grad, Tensor x, Tensor weight, Tensor kept, SymInt stride, SymInt padding, "
    "str activation, bool[] wanted) -> (Tensor, Tensor, Tensor)",
    cpu=_backward_cpu,
    reference=_backward_reference,
    fake=_backward_fake,
    cuda=_backward_cuda,
)
_common.register_autograd(_OP, _autograd_backward, _setup_context)
_common.forbid_second_derivative(_OP)
