"""CPU side of the convolutions' backward passes: which kernel forms which gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from inpaint_ops.ops import tensors
from inpaint_ops.ops.convolution import cpu, formulas, spec
from inpaint_ops.ops.convolution.cpu import InputPart
from inpaint_ops.ops.convolution.plan import Convolution, Plan, Shapes, plan
from inpaint_ops.ops.convolution.spec import Geometry, Pair

# Pixels of a padded image for one of the result, beyond which oneDNN forms its gradient.
_MOST_PADDED = 3


def finish_backward(
    grad: Tensor, saved: Tensor, activation: str, *, gated: bool, bias: bool
) -> tuple[Tensor, Tensor | None]:
    """Return the gradients of the sums (float32, channels_last) and of the bias (float64).

    saved: the sums before activation and gate where `spec.needs_pre_activation`, else the result;
    not read without activation and gate.
    """
    if activation == "identity" and not gated:
        image = tensors.packed_image(grad)
        return image, bias_gradient(image) if bias else None
    filters = saved.shape[1]
    out = cpu.channels_last(saved, filters, (saved.shape[2], saved.shape[3]))
    sums = torch.zeros(filters, dtype=torch.float64) if bias else None
    if out.numel():
        tensors.native().conv_epilogue_backward(
            tensors.packed_image(grad),
            tensors.packed_image(saved),
            out,
            sums,
            gated,
            not spec.needs_pre_activation(activation, gated),
            activation,
            tensors.threads(),
        )
    return out, sums


def bias_gradient(grad: Tensor) -> Tensor:
    """Sums over pixels in float64, of (N, filters, Ho, Wo) in float32."""
    sums = torch.zeros(grad.shape[1], dtype=torch.float64)
    if grad.numel():
        image = tensors.packed_image(grad)
        tensors.native().conv_epilogue_backward(
            image, image, None, sums, False, False, "identity", tensors.threads()
        )
    return sums


def ratio_backward(
    grad: Tensor, mask_ratio: Tensor, update_mask: Tensor, bias: bool
) -> tuple[Tensor, Tensor | None]:
    """Gradients of the sums and of the bias of y = sums mask_ratio + bias update_mask.

    Where `update_mask` is zero `grad` is not read: it may be anything.

    Args:
        grad: (N, filters, Ho, Wo).
        mask_ratio: (N or 1, 1, Ho, Wo), like `update_mask`.
        update_mask: the factor of the bias.
        bias: whether its gradient is wanted.
    """
    out = cpu.channels_last(grad, grad.shape[1], (grad.shape[2], grad.shape[3]))
    grad_bias = torch.zeros(grad.shape[1], dtype=torch.float64) if bias else None
    if out.numel():
        planes = (mask_ratio.contiguous(), update_mask.contiguous())
        image = tensors.packed_image(grad)
        tensors.native().mask_ratio_backward(image, *planes, out, grad_bias, tensors.threads())
    return out, grad_bias


def convolve_backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    g: Geometry,
    wanted: Sequence[bool],
    algorithm: str,
) -> tuple[Tensor | None, Tensor | None]:
    """Return the gradients of x and weight in float32 from that of the sums.

    That of x is itself a convolution of `grad`, with filters and channels exchanged and the taps
    turned round; with a stride, one for each remainder of the position modulo the stride. All but
    grouped convolutions, and some strided ones' gradient of x, are our own kernels', whose bits do
    not depend on the number of threads.

    Args:
        grad: (N, filters, Ho, Wo), gradient of the sums.
        x: (N, C, H, W).
        weight: (filters, C / groups, kh, kw).
        g: geometry.
        wanted: whether x's, whether weight's.
        algorithm: one of `spec.ALGORITHMS`: what may be taken.
    """
    x = tensors.compute_dtype(x)
    grad_x = grad_weight = None
    if wanted[0]:
        grad_x = _input_gradient(grad, x, weight, g, algorithm)
    if wanted[1] and g.groups == 1:
        grad_weight = weight_gradient(grad, x, weight, g, algorithm)
    left = (wanted[0] and grad_x is None, wanted[1] and grad_weight is None)
    if any(left):
        by_aten = formulas.convolve_backward(
            grad.contiguous(memory_format=torch.channels_last),
            x.contiguous(memory_format=torch.channels_last),
            tensors.compute_dtype(weight),
            g,
            left,
        )
        grad_x = by_aten[0] if left[0] else grad_x
        grad_weight = by_aten[1] if left[1] else grad_weight
    return grad_x, grad_weight


def arranged(grad: Tensor | None, x: Tensor, weight: Tensor) -> Tensor | None:
    """Return the gradient of x in the layout that it is promised in."""
    return None if grad is None else tensors.in_layout(grad, spec.memory_format(x, weight))


def is_whole(grad: Tensor, x: Tensor, weight: Tensor, g: Geometry) -> bool:
    """Return whether the kernel is as large as the image: one output, a matrix product."""
    one = grad.shape[2:] == (1, 1) and x.shape[2:] == weight.shape[2:]
    return one and g.groups == g.upsample == 1 and g.padding == (0, 0, 0, 0)


def weight_gradient(
    grad: Tensor, x: Tensor | Sequence[InputPart], weight: Tensor, g: Geometry, algorithm: str
) -> Tensor:
    """The weight's gradient, (filters, C, kh, kw), by our own kernels; groups must be 1.

    x may be the parts that are read as one image, see `cpu.convolve`. In Winograd's domain where
    that is chosen, with a fraction of the multiplications. On one Zen 4 core 3x3, 96 -> 192
    filters, 128^2: 28 ms, as direct sums 64, oneDNN 62 in planes and 73 in channels_last.
    """
    if isinstance(x, Tensor):
        if is_whole(grad, x, weight, g):
            return (grad.flatten(1).T @ x.flatten(1)).view(weight.shape)
        x = cpu.parts_of(x, g)
    result = torch.empty(weight.shape, dtype=torch.float32)
    if grad.numel() == 0:
        return result.zero_()
    shapes = cpu.shapes_of(x, weight, (grad.shape[2], grad.shape[3]))
    chosen = plan(Convolution(g, kind="weight_gradient"), shapes, algorithm)
    tensors.native().conv_weight_gradient(
        [cpu.adjacent(part.x) for part in x],
        [part.known for part in x],
        shapes.tensors,
        tensors.packed_image(grad),
        result,
        chosen.algorithm,
        g.stride,
        (g.padding[0], g.padding[2]),
        g.dilation,
        g.padding_mode,
        tensors.threads(),
    )
    return result


def _input_gradient(
    grad: Tensor, x: Tensor, weight: Tensor, g: Geometry, algorithm: str
) -> Tensor | None:
    """Return the gradient of x in float32, or None where oneDNN is to form it."""
    if g.groups != 1:
        return None
    found = input_plan(grad, x, weight, g, algorithm)
    if found is None:
        if not _is_ours(grad, x, weight, g):
            return None
        matrix = tensors.compute_dtype(weight).flatten(1)
        return (grad.flatten(1) @ matrix).view(x.shape)
    size = (x.shape[2], x.shape[3])
    into = cpu.channels_last(x, x.shape[1], found.padded or size)
    cpu.run(found.plan, _read(grad), weight, None, into)
    if found.padded is None:
        return into
    out = cpu.channels_last(x, x.shape[1], size)
    if out.numel():
        before = (g.padding[0], g.padding[2])
        tensors.native().fold_padding(
            into, out, before, g.upsample, g.padding_mode, tensors.threads()
        )
    return out


class InputPlan(NamedTuple):
    """How our kernels form the gradient of x.

    Args:
        plan: of one convolution.
        padded: size of the image of which it forms the gradient, x upsampled and padded, to be
            folded back; None: it is that of x itself.
    """

    plan: Plan
    padded: Pair | None = None


def input_plan(
    grad: Tensor, x: Tensor, weight: Tensor, g: Geometry, algorithm: str
) -> InputPlan | None:
    """Return how our kernels form the gradient of x; of the tensors only the shapes count.

    None where oneDNN does, or where it is a matrix product. Groups must be 1.
    """
    zeros = g.padding_mode == "zeros"
    top, bottom, left, right = g.padding
    size = (x.shape[2], x.shape[3])
    padded = (size[0] * g.upsample + top + bottom, size[1] * g.upsample + left + right)
    scattered = scattered_plan(grad, weight, g, algorithm)
    if scattered is not None:
        return InputPlan(scattered, None if zeros and g.upsample == 1 else padded)
    if not _is_ours(grad, x, weight, g) or is_whole(grad, x, weight, g):
        return None
    if g.stride != (1, 1):
        # Zeros are cut off by asking for no more outputs.
        cut = zeros and top <= weight.shape[2] - 1 and left <= weight.shape[3] - 1
        plain = Geometry(g.stride, (top if cut else 0,) * 4, (1, 1))
        chosen = cpu.transposed_plan(
            grad, weight, plain, "identity", "transposed", algorithm, backward=True
        )
        return InputPlan(chosen, None if cut else padded)
    if zeros and g.upsample == 1:
        return InputPlan(_turned_plan(grad, weight, g, (top, left), size, algorithm))
    if zeros and g.dilation == (1, 1) and min(weight.shape[2:]) > 1:
        # Pixel i is read as 2 i and 2 i + 1, so its gradient is a convolution with stride 2, by
        # sums of two by two neighbouring taps: (kh + 1) (kw + 1) of them instead of 4 kh kw. The
        # gradient of the doubled image is never made.
        before = [k - 1 - p for k, p in zip(weight.shape[2:], (top, left))]
        strided = Geometry((2, 2), (before[0], 0, before[1], 0), (1, 1))
        doubled = Convolution(strided, kind="doubled", backward=True)
        return InputPlan(plan(doubled, _shapes(grad, weight, size), "direct"))
    # At one go: the inner part and four strips of padding take 1.2 to 2.5 times as long (3x3, 256
    # channels, 32x32 and 64x64; 8 channels, 4x4).
    return InputPlan(_turned_plan(grad, weight, g, (0, 0), padded, algorithm), padded)


def scattered_plan(grad: Tensor, weight: Tensor, g: Geometry, algorithm: str) -> Plan | None:
    """Return how the gradient of an input is formed by a weight that is read where it lies.

    It is that of the image itself where the padding is zeros and nothing is doubled, else that of
    the padded image. None where pixels share the weight often enough to pack it.
    """
    if g.groups != 1:
        return None
    if g.padding_mode != "zeros" or g.upsample != 1:
        g = Geometry(g.stride, (0,) * 4, g.dilation)
    found = cpu.transposed_plan(grad, weight, g, "identity", "scattered", algorithm, backward=True)
    return None if found.kernels is None else found


def _turned_plan(
    grad: Tensor, weight: Tensor, g: Geometry, begin: Pair, size: Pair, algorithm: str
) -> Plan:
    """The plan of the padded image's gradient from `begin` on, (height, width); stride 1."""
    before = [d * (k - 1) - b for d, k, b in zip(g.dilation, weight.shape[2:], begin)]
    turned = Geometry((1, 1), (before[0], 0, before[1], 0), g.dilation)
    what = Convolution(turned, kind="flipped", backward=True)
    return plan(what, _shapes(grad, weight, size), algorithm)


def _shapes(grad: Tensor, weight: Tensor, size: Pair) -> Shapes:
    return cpu.shapes_of(_read(grad), weight, size)


def _read(grad: Tensor) -> list[InputPart]:
    return [InputPart(grad, 1, (grad.shape[1],))]


def _is_ours(grad: Tensor, x: Tensor, weight: Tensor, g: Geometry) -> bool:
    """Return whether our own kernels form the gradient of the input."""
    if g.padding_mode != "zeros":
        # The gradient of the padding is summed as a whole, most of it of few taps: oneDNN skips
        # the others (at 64x64, one thread, all gradients: 7x7 of dilation 16, 6 times the pixels,
        # 440 ms, eager 295; 5x5, 4 times, 163 and 127; 5x5 of dilation 8, 2.25 times, 99 and 119).
        top, bottom, left, right = g.padding
        padded = (x.shape[2] * g.upsample + top + bottom) * (x.shape[3] * g.upsample + left + right)
        if padded > _MOST_PADDED * grad.shape[2] * grad.shape[3] * g.stride[0] * g.stride[1]:
            return False
    if g.stride == (1, 1):
        return True
    even = g.stride[0] == g.stride[1] and g.padding[0] == g.padding[2] and g.upsample == 1
    return even and g.dilation == (1, 1) and g.stride[0] <= min(weight.shape[2:])
