"""gated_conv2d: features times the sigmoid of their gates, out of one convolution."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from inpaint_ops import _triton
from inpaint_ops._backend import backend, current_backend
from inpaint_ops.ops import _common, _conv, _conv_cpu, _conv_gradients

_OP = "gated_conv2d"


def gated_conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] | str = 0,
    dilation: int | tuple[int, int] = 1,
    padding_mode: str = "zeros",
    activation: str = "elu",
    upsample: int = 1,
) -> Tensor:
    """Gated convolution y = activation(f) * sigmoid(g), [f | g] = weight * pad(upsample(x)) + bias.

    Features and gates are multiplied while they are still in registers; f and g are stored only
    when a gradient will be wanted (2 n channels in float32: recomputing them would cost a third of
    forward and backward together). Cores, rounding and NaN as in `fused_conv2d`. Second derivatives
    raise.

    Args:
        x: (N, C, H, W), float16, bfloat16, float32 or float64, any layout; channels_last and,
            in float32, contiguous images are taken and made without a copy.
        weight: (2 n, C, kh, kw), the n filters of the features first, dtype and device of x.
        bias: (2 n,).
        stride: pixels, vertically and horizontally, as for dilation and padding.
        padding: on both sides, after the upsampling; "same": out = ceil(in / stride), TensorFlow's
            rule, the odd pixel behind.
        dilation: distance between taps.
        padding_mode: "zeros", "reflect" (without the edge) or "replicate".
        activation: "identity", "relu", "leaky_relu" (slope 0.2), "elu", "silu", "tanh", "sigmoid".
        upsample: 2 repeats every pixel twice along both axes first (nearest).

    Returns:
        (N, n, Ho, Wo), dtype of x; channels_last if x or the weight is. Half precision is summed in
        float32. Under autocast everything runs in float32 and the result has the dtype of x.

    Raises:
        TypeError: wrong type or dtype.
        ValueError: wrong shape, range or device.

    Source: Yu et al., ICCV 2019 (arXiv 1806.03589), section 3.1; JiahuiYu/generative_inpainting:
    inpaint_ops.py (gen_conv, gen_deconv).
    """
    dtype = x.dtype if isinstance(x, Tensor) else None
    x, weight, bias = _conv.check_tensors(_OP, x, weight, bias)
    if weight.shape[0] % 2:
        raise ValueError(
            f"{_OP}: weight must have an even number of filters, got {tuple(weight.shape)}"
        )
    g = _conv.check_geometry(
        _OP,
        x,
        weight,
        stride=stride,
        padding=padding,
        dilation=dilation,
        padding_mode=padding_mode,
        upsample=upsample,
    )
    _common.check_choice(_OP, "activation", activation, _conv.ACTIVATIONS)
    _conv.check_bias(_OP, bias, weight.shape[0])
    differentiable = [t for t in (x, weight, bias) if t is not None and t.requires_grad]
    keep = torch.is_grad_enabled() and bool(differentiable)
    y: Tensor = _operator(x, weight, bias, *g.flat(), activation, keep)[0]
    return y if y.dtype == dtype else y.to(dtype)


def _fake(x: Tensor, weight: Tensor, bias: Tensor | None, *rest: Any) -> tuple[Tensor, Tensor]:
    *where, _, keep = rest
    size = _conv.geometry(*where).out_size(x, weight)
    filters = weight.shape[0]
    z = _conv.filters_like(x, filters, size) if keep else _conv.empty_gradient(x)
    return _conv.result_like(x, weight, filters // 2, size), z


def _cpu(x: Tensor, weight: Tensor, bias: Tensor | None, *rest: Any) -> tuple[Tensor, Tensor]:
    if x.dtype == torch.float64:
        return _reference(x, weight, bias, *rest)
    *where, activation, keep = rest
    y, z = _fake(x, weight, bias, *rest)
    y = _conv_cpu.forward(
        x,
        weight,
        bias,
        _conv.geometry(*where),
        gated=True,
        activation=activation,
        y=y,
        z=z if keep else None,
    )
    return y, z


def _cuda(x: Tensor, weight: Tensor, bias: Tensor | None, *rest: Any) -> tuple[Tensor, Tensor]:
    result: tuple[Tensor, Tensor] = _triton.kernels(_OP).forward(x, weight, bias, *rest)
    return result


def _reference(x: Tensor, weight: Tensor, bias: Tensor | None, *rest: Any) -> tuple[Tensor, Tensor]:
    *where, activation, keep = rest
    z = _conv.convolve(
        _common.compute_dtype(x),
        _common.compute_dtype(weight),
        None if bias is None else _common.compute_dtype(bias),
        _conv.geometry(*where),
    )
    y = _conv.settled(_conv.finish(z, activation, True), x, _conv.memory_format(x, weight))
    kept = _conv.kept_sums(z, x, keep)
    return y, kept


def _backward_fake(
    grad: Tensor, x: Tensor, weight: Tensor, z: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    return _conv.gradients_like(x, weight, rest[-1])


def _backward_cpu(
    grad: Tensor, x: Tensor, weight: Tensor, z: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    if x.dtype == torch.float64:
        return _backward_reference(grad, x, weight, z, *rest)
    *where, activation, wanted = rest
    grad_z, grad_bias = _conv_gradients.finish_backward(
        grad, z, activation, gated=True, from_result=False, bias=wanted[2]
    )
    grads = _conv_gradients.convolve_backward(grad_z, x, weight, _conv.geometry(*where), wanted)
    return _conv.settled_gradients(x, weight, (*grads, grad_bias))


def _backward_cuda(
    grad: Tensor, x: Tensor, weight: Tensor, z: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    kernels = _triton.kernels(_OP)
    result: tuple[Tensor, Tensor, Tensor] = kernels.backward(grad, x, weight, z, *rest)
    return result


def _backward_reference(
    grad: Tensor, x: Tensor, weight: Tensor, z: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    *where, activation, wanted = rest
    grad_z = _conv.gate_backward(_common.compute_dtype(grad), _common.compute_dtype(z), activation)
    grads = _conv.convolve_backward(
        grad_z,
        _common.compute_dtype(x),
        _common.compute_dtype(weight),
        _conv.geometry(*where),
        wanted,
    )
    grad_bias = grad_z.sum((0, 2, 3)) if wanted[2] else None
    return _conv.settled_gradients(x, weight, (*grads, grad_bias))


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, weight, _, *where, activation, keep = inputs
    ctx.mark_non_differentiable(output[1])
    if not keep:
        raise RuntimeError(f"{_OP}: the operator was called without `keep`, so it has no gradient")
    ctx.save_for_backward(x, weight, output[1])
    ctx.rest = (*where, activation)
    ctx.backend = current_backend()


def _autograd_backward(ctx: Any, grad: Tensor, _: Tensor | None) -> tuple[Any, ...]:
    needs: Sequence[bool] = ctx.needs_input_grad[:3]
    with backend(ctx.backend):
        grads = _backward_operator(grad, *ctx.saved_tensors, *ctx.rest, list(needs))
    return (*_conv.wanted_gradients(needs, grads), *(None for _ in ctx.rest), None)


_operator = _common.register(
    _OP,
    f"(Tensor x, Tensor weight, Tensor? bias, {_conv.GEOMETRY_SCHEMA}, str activation, bool keep) "
    "-> (Tensor, Tensor)",
    cpu=_cpu,
    reference=_reference,
    fake=_fake,
    cuda=_cuda,
    cuda_means="triton and cuDNN",
)
_backward_operator = _common.register(
    f"{_OP}_backward",
    f"(Tensor grad, Tensor x, Tensor weight, Tensor z, {_conv.GEOMETRY_SCHEMA}, "
    "str activation, bool[] wanted) -> (Tensor, Tensor, Tensor)",
    cpu=_backward_cpu,
    reference=_backward_reference,
    fake=_backward_fake,
    cuda=_backward_cuda,
)
_common.register_autograd(_OP, _autograd_backward, _setup_context)
_common.forbid_second_derivative(_OP)
