"""Formulas of the convolutions in plain PyTorch: float64, other devices, the reference backend."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from inpaint_ops import checks
from inpaint_ops.ops import tensors
from inpaint_ops.ops.convolution import spec
from inpaint_ops.ops.convolution.spec import LEAKY_SLOPE, Geometry, Pair


def upsampled(x: Tensor, factor: int) -> Tensor:
    """Nearest upsampling of an image or a mask."""
    if factor == 1:
        return x
    if x.dtype == torch.bool:
        return upsampled(x.byte(), factor) != 0
    result: Tensor = F.interpolate(x, scale_factor=float(factor), mode="nearest")
    return result


def upsampled_backward(grad: Tensor, factor: int) -> Tensor:
    """The gradient of `upsampled`'s argument from that of its result."""
    if factor == 1:
        return grad
    height, width = grad.shape[2] // factor, grad.shape[3] // factor
    rows = grad.unflatten(3, (width, factor)).sum(4)
    result: Tensor = rows.unflatten(2, (height, factor)).sum(3)
    return result


def prepared(x: Tensor, g: Geometry) -> tuple[Tensor, list[int]]:
    """Upsample and pad as far as aten's convolution cannot; also the padding left to it."""
    x = upsampled(x, g.upsample)
    top, bottom, left, right = g.padding
    if g.padding_mode == "zeros" and top == bottom and left == right:
        return x, [top, left]
    mode = {"zeros": "constant", "reflect": "reflect", "replicate": "replicate"}[g.padding_mode]
    return F.pad(x, (left, right, top, bottom), mode=mode), [0, 0]


def unprepared(grad: Tensor, x: Tensor, g: Geometry) -> Tensor:
    """The gradient of `prepared`'s argument from that of its result."""
    top, bottom, left, right = g.padding
    n, c, h, w = x.shape
    height, width = h * g.upsample, w * g.upsample
    if grad.shape[2:] != (height, width):
        sides = [left, right, top, bottom]
        if g.padding_mode == "zeros":
            grad = grad[:, :, top : top + height, left : left + width]
        elif not grad.is_cpu:
            grad = folded(
                folded(grad, 2, top, height, g.padding_mode), 3, left, width, g.padding_mode
            )
        else:
            like = grad.new_zeros(()).expand(n, c, height, width)
            kind = "reflection" if g.padding_mode == "reflect" else "replication"
            fold = getattr(torch.ops.aten, f"{kind}_pad2d_backward").default
            grad = fold(grad.contiguous(), like, sides)
    return upsampled_backward(grad, g.upsample)


def folded(grad: Tensor, axis: int, before: int, size: int, mode: str) -> Tensor:
    """The gradient along an axis of what a reflected or repeated border was made of.

    On devices aten's own adds by atomics, which deterministic algorithms forbid.
    """
    after = grad.shape[axis] - before - size
    inner = grad.narrow(axis, before, size).clone(memory_format=torch.preserve_format)
    first = grad.narrow(axis, 0, before)
    last = grad.narrow(axis, before + size, after)
    if mode == "reflect":
        inner.narrow(axis, 1, before).add_(first.flip(axis))
        inner.narrow(axis, size - 1 - after, after).add_(last.flip(axis))
    else:
        inner.narrow(axis, 0, 1).add_(first.sum(axis, keepdim=True))
        inner.narrow(axis, size - 1, 1).add_(last.sum(axis, keepdim=True))
    return inner


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, g: Geometry) -> Tensor:
    """Return the sums of a convolution, by aten."""
    image, padding = prepared(x, g)
    image, stride = pixels_read(image, weight, g, padding)
    weight = laid_out(weight)
    result: Tensor = torch.ops.aten.convolution.default(
        image, weight, bias, stride, padding, g.dilation, False, [0, 0], g.groups
    )
    return result


def pixels_read(
    image: Tensor, weight: Tensor, g: Geometry, padding: Sequence[int]
) -> tuple[Tensor, Pair]:
    """The pixels that a 1x1 kernel with a stride reads, and the stride that is left.

    oneDNN (3.12) copies them to a buffer that is too small when it sums the
    weight's gradient from few channels in channels_last: the heap is destroyed.
    """
    if tuple(weight.shape[2:]) != (1, 1) or g.stride == (1, 1) or any(padding):
        return image, g.stride
    return image[:, :, :: g.stride[0], :: g.stride[1]], (1, 1)


def laid_out(weight: Tensor) -> Tensor:
    """The weight as torch's own loops need it, which serve where oneDNN and GPUs do not.

    Of a weight in channels_last and an image whose sample has stride 1 they make a wrong gradient
    if there are groups, and none if there are not (torch 2.13).
    """
    if weight.is_cpu and (weight.dtype == torch.float64 or not torch.backends.mkldnn.enabled):
        return weight.contiguous()
    return weight


def convolve_transposed(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int
) -> Tensor:
    """The sums of a transposed convolution, by aten."""
    result: Tensor
    weight = laid_out(weight)
    if padding == 0 and checks.known(x.shape[2] == 1) and checks.known(x.shape[3] == 1):
        # One pixel: every output has one tap. 4000 -> 512 channels, 4 x 4, of Context Encoders:
        # 16 times as fast as oneDNN's transposed convolution.
        result = (x.flatten(1) @ weight.flatten(1)).unflatten(1, weight.shape[1:])
        return result if bias is None else result + bias.view(1, -1, 1, 1)
    result = torch.ops.aten.convolution.default(
        x, weight, bias, [stride] * 2, [padding] * 2, [1, 1], True, [0, 0], 1
    )
    return result


def transposed_weight_gradient(
    grad: Tensor, x: Tensor, weight: Tensor, stride: int, padding: int
) -> Tensor:
    """The gradient of a transposed convolution's weight, by aten."""
    result: Tensor = torch.ops.aten.convolution_backward.default(
        grad,
        x,
        laid_out(weight),
        None,
        [stride] * 2,
        [padding] * 2,
        [1, 1],
        True,
        [0, 0],
        1,
        [False, True, False],
    )[1]
    return result


def convolve_backward(
    grad: Tensor, x: Tensor, weight: Tensor, g: Geometry, wanted: Sequence[bool]
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of x and weight, by aten."""
    image, padding = prepared(x, g)
    read, stride = pixels_read(image, weight, g, padding)
    grad_image, grad_weight, _ = torch.ops.aten.convolution_backward.default(
        grad,
        read,
        laid_out(weight),
        None,
        stride,
        padding,
        g.dilation,
        False,
        [0, 0],
        g.groups,
        [wanted[0], wanted[1], False],
    )
    if wanted[0] and stride != g.stride:
        every = torch.zeros_like(image, memory_format=tensors.memory_format(image))
        every[:, :, :: g.stride[0], :: g.stride[1]] = grad_image
        grad_image = every
    return (unprepared(grad_image, x, g) if wanted[0] else None), grad_weight


def activate(x: Tensor, activation: str) -> Tensor:
    """Apply the activation of that name."""
    if activation == "relu":
        return x.relu()
    if activation == "leaky_relu":
        return F.leaky_relu(x, LEAKY_SLOPE)
    if activation == "elu":
        return F.elu(x)
    if activation == "silu":
        return x * x.sigmoid()  # F.silu has no derivative in forward mode of its gradient
    if activation == "tanh":
        return x.tanh()
    if activation == "sigmoid":
        return x.sigmoid()
    if activation == "identity":
        return x
    raise ValueError(f"activation must have a formula, got {activation!r}")


def derivative(x: Tensor, activation: str) -> Tensor:
    """Return the activation's derivative at x."""
    one = torch.ones_like(x)
    if activation == "relu":
        return (x > 0).to(x.dtype)
    if activation == "leaky_relu":
        return torch.where(x > 0, one, LEAKY_SLOPE)
    if activation == "elu":
        return torch.where(x > 0, one, x.clamp_max(0).exp())
    if activation == "silu":
        s = x.sigmoid()
        return s + x * s * (1 - s)
    if activation == "tanh":
        return 1 - x.tanh().square()
    if activation == "sigmoid":
        return x.sigmoid() * (1 - x.sigmoid())
    if activation == "identity":
        return one
    raise ValueError(f"activation must have a derivative, got {activation!r}")


def derivative_of_result(y: Tensor, activation: str) -> Tensor:
    """The same from the activation's result; not for `spec.NEED_PRE_ACTIVATION`."""
    if activation == "elu":
        return torch.where(y > 0, torch.ones_like(y), y + 1)
    if activation == "tanh":
        return 1 - y.square()
    if activation == "sigmoid":
        return y * (1 - y)
    if activation in ("identity", "relu", "leaky_relu"):  # the same at y and at x
        return derivative(y, activation)
    raise ValueError(f"activation must have a derivative of its result, got {activation!r}")


def finished(
    sums: Tensor, x: Tensor, weight: Tensor, activation: str, *, gated: bool, keep: bool
) -> tuple[Tensor, Tensor]:
    """Return what an operator returns: the result and, if `keep`, the pre-activation `sums`."""
    y = spec.settled(finish(sums, activation, gated), x, spec.memory_format(x, weight))
    kept = spec.kept_pre_activation(sums, x, keep)
    return (y.clone() if y is kept else y), kept


def finish(pre_activation: Tensor, activation: str, gated: bool) -> Tensor:
    """Apply activation and gate."""
    if not gated:
        return activate(pre_activation, activation)
    features, gates = pre_activation.chunk(2, 1)
    return activate(features, activation) * gates.sigmoid()


def finish_backward(grad: Tensor, saved: Tensor, activation: str, gated: bool) -> Tensor:
    """Return the gradient of the sums.

    saved: the pre-activation where `spec.needs_pre_activation`, else the result.
    """
    grad, saved = tensors.compute_dtype(grad), tensors.compute_dtype(saved)
    if gated:
        return gate_backward(grad, saved, activation)
    if activation == "identity":
        return grad
    if spec.needs_pre_activation(activation):
        return grad * derivative(saved, activation)
    return grad * derivative_of_result(saved, activation)


def gate_backward(grad: Tensor, pre_activation: Tensor, activation: str) -> Tensor:
    """The gradient of the pre-activation of a gated layer."""
    features, gates = pre_activation.chunk(2, 1)
    s = gates.sigmoid()
    through = grad * s
    return torch.cat(
        [
            through * derivative(features, activation),
            through * activate(features, activation) * (1 - s),
        ],
        1,
    )


def widened(x: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return the tensors of a layer in the dtype that sums are formed in."""
    wide = None if bias is None else tensors.compute_dtype(bias)
    return tensors.compute_dtype(x), tensors.compute_dtype(weight), wide
