"""CPU side of the convolutions' backward passes: which kernel forms which gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from inpaint_ops.ops import tensors
from inpaint_ops.ops.convolution import cores, cpu, formulas, input_gradient, spec
from inpaint_ops.ops.convolution.cores import CORES
from inpaint_ops.ops.convolution.cpu import Part
from inpaint_ops.ops.convolution.spec import Geometry


def finish_backward(
    grad: Tensor, z: Tensor, activation: str, *, gated: bool, from_result: bool, bias: bool
) -> tuple[Tensor, Tensor | None]:
    """Gradients of the sums (float32, channels_last) and of the bias (float64).

    z: the sums before activation and gate, or, `from_result`, what the activation made of them.
    """
    filters = z.shape[1]
    size = (z.shape[2], z.shape[3])
    out = cpu._channels_last(z, filters, size)
    sums = torch.zeros(filters, dtype=torch.float64) if bias else None
    if out.numel():
        tensors.native().conv_epilogue_backward(
            tensors.packed_image(grad),
            tensors.packed_image(z),
            out,
            sums,
            gated,
            from_result,
            spec.ACTIVATIONS.index(activation),
            tensors.threads(),
        )
    return out, sums


def bias_gradient(grad: Tensor) -> Tensor:
    """Sums over pixels in float64, of (N, filters, Ho, Wo) in float32."""
    sums = torch.zeros(grad.shape[1], dtype=torch.float64)
    if grad.numel():
        image = tensors.packed_image(grad)
        tensors.native().conv_epilogue_backward(
            image, image, None, sums, False, False, 0, tensors.threads()
        )
    return sums


def ratio_backward(
    grad: Tensor, scale: Tensor, share: Tensor, bias: bool
) -> tuple[Tensor, Tensor | None]:
    """Gradients of the sums and of the bias behind y = sums scale + bias share.

    Where `share` is zero `grad` is not read: it may be anything.

    Args:
        grad: (N, filters, Ho, Wo).
        scale: (N or 1, 1, Ho, Wo), like `share`.
        share: of the bias.
        bias: whether its gradient is wanted.
    """
    out = cpu._channels_last(grad, grad.shape[1], (grad.shape[2], grad.shape[3]))
    if not out.numel():
        return out, torch.zeros(grad.shape[1], dtype=torch.float64) if bias else None
    image = tensors.packed_image(grad)
    ratio, known = (plane[:, 0].contiguous() for plane in (scale, share))

    def scaled(factor: Any) -> None:
        tensors.native().conv_epilogue(
            image, None, factor, known, out, None, False, 0, tensors.threads()
        )

    grad_bias = None
    if bias:
        scaled(known)
        grad_bias = bias_gradient(out)
    scaled(ratio)
    return out, grad_bias


def convolve_backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    g: Geometry,
    wanted: Sequence[bool],
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of x and weight in float32 from that of the sums.

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
    """
    x = tensors.compute_dtype(x)
    left_x = wanted[0] and not input_gradient.takes(grad, x, weight, g)
    left_weight = wanted[1] and g.groups != 1
    grad_x = grad_weight = None
    if wanted[0] and not left_x:
        if _is_whole(grad, x, weight, g) and not cpu.unpacked(grad, weight, None):
            matrix = tensors.compute_dtype(weight).flatten(1)
            grad_x = (grad.flatten(1) @ matrix).view(x.shape)
        else:
            grad_x = input_gradient.input_gradient(grad, x, weight, g)
    if wanted[1] and not left_weight:
        grad_weight = weight_gradient(grad, x, weight, g)
    if left_x or left_weight:
        by_aten = formulas.convolve_backward(
            grad.contiguous(memory_format=torch.channels_last),
            x.contiguous(memory_format=torch.channels_last),
            tensors.compute_dtype(weight),
            g,
            (left_x, left_weight),
        )
        grad_x = by_aten[0] if left_x else grad_x
        grad_weight = by_aten[1] if left_weight else grad_weight
    return grad_x, grad_weight


def _is_whole(grad: Tensor, x: Tensor, weight: Tensor, g: Geometry) -> bool:
    """Whether the kernel is as large as the image: one output, a matrix product."""
    one = grad.shape[2:] == (1, 1) and x.shape[2:] == weight.shape[2:]
    return one and g.groups == g.upsample == 1 and g.padding == (0, 0, 0, 0)


def weight_gradient(
    grad: Tensor, x: Tensor | Sequence[Part], weight: Tensor, g: Geometry
) -> Tensor:
    """The weight's gradient, (filters, C, kh, kw), by our own kernels; groups must be 1.

    x may be the parts that are read as one image, see `_conv_cpu.forward`.

    In Winograd's domain where `_conv_cores` says so, with a fraction of the multiplications, unless
    ``backend("direct")`` is in force. On one Zen 4 core 3x3, 96 -> 192 filters, 128^2: 28 ms, as
    direct sums 64, oneDNN 62 in planes and 73 in channels_last.
    """
    if isinstance(x, Tensor):
        if _is_whole(grad, x, weight, g):
            return (grad.flatten(1).T @ x.flatten(1)).view(weight.shape)
        x = cpu.parts_of(x, g)
    result = torch.empty(weight.shape, dtype=torch.float32)
    if grad.numel() == 0:
        return result.zero_()
    f, c, kh, kw = weight.shape
    size = (grad.shape[2], grad.shape[3])
    core = cores.choose_weight_gradient(grad.shape[0], (f, c, kh, kw), g, size, cpu.tiled())
    tensors.native().conv_weight_gradient(
        [cpu.adjacent(part.x) for part in x],
        [part.known for part in x],
        [(part.upsample, part.widths) for part in x],
        tensors.packed_image(grad),
        result,
        CORES.index(core),
        g.stride,
        (g.padding[0], g.padding[2]),
        g.dilation,
        spec.PADDING_MODES.index(g.padding_mode),
        tensors.threads(),
    )
    return result
