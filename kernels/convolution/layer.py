"""Forward and backward of fused_conv2d and gated_conv2d on GPUs.

Forward: `choose` says who multiplies. The fused kernel finishes the layer itself; after the
library's product `epilogue` does. Backward: `epilogue_backward`, then the library's products.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from inpaint_ops.kernels import products
from inpaint_ops.kernels.convolution import epilogue, epilogue_backward, fused, phases
from inpaint_ops.kernels.convolution.choose import fuses
from inpaint_ops.kernels.convolution.fused import Reading
from inpaint_ops.kernels.launch import aligned, channels_last, dense
from inpaint_ops.ops.convolution import spec
from inpaint_ops.ops.convolution.spec import Geometry, Pair


def forward(
    x: Tensor, weight: Tensor, bias: Tensor | None, *rest: Any, gated: bool
) -> tuple[Tensor, Tensor]:
    """Arguments and results of the registered operator."""
    *where, activation, keep = rest
    g = spec.geometry(*where)
    size = g.out_size(x, weight)
    filters = weight.shape[0]
    outputs = filters // 2 if gated else filters
    layout = spec.memory_format(x, weight)
    y = empty_nhwc(x, outputs, size)
    pre_activation = None
    if y.numel() == 0 or _fuses(x, weight, g, outputs, y.numel() // outputs):
        pre_activation = empty_nhwc(x, filters, size) if keep else None
        if y.numel():
            image = channels_last(x, fused.vector(x))
            taps, reading = _reading(weight, g, image.shape[1])
            fused.convolve(
                image,
                taps,
                bias,
                y,
                reading,
                gated=gated,
                activation=activation,
                pre_activation=pre_activation,
            )
    else:
        product = aligned(_product(x, weight, g))
        if not gated and activation == "identity" and bias is None and not keep:
            return spec.settled(product, x, layout), spec.empty_gradient(x)
        epilogue.finish(
            product,
            None if bias is None else dense(bias),
            y,
            kind=epilogue.GATED if gated else epilogue.PLAIN,
            activation=activation,
            keep=keep,
        )
        pre_activation = product if keep else None
    saved = spec.empty_gradient(x) if pre_activation is None else pre_activation
    return spec.settled(y, x, layout), saved


def empty_nhwc(x: Tensor, channels: int, size: Pair) -> Tensor:
    """Memory for a result: dense NHWC, as an (N, C, H, W) view, dtype and device of x."""
    shape = (x.shape[0], *size, channels)
    return torch.empty(shape, dtype=x.dtype, device=x.device).permute(0, 3, 1, 2)


def _fuses(x: Tensor, weight: Tensor, g: Geometry, outputs: int, pixels: int) -> bool:
    if g.groups != 1:
        return False
    depth = weight[0].numel() * 4 // 9 if phases.is_doubled(weight, g) else weight[0].numel()
    return fuses(x, depth=depth, outputs=outputs, pixels=pixels, saves=g.upsample == 2)


def _reading(weight: Tensor, g: Geometry, channels: int) -> tuple[Tensor, Reading]:
    """The weight as the fused kernel reads it, for so many padded channels, and where it reads."""
    if phases.is_doubled(weight, g):
        # One pixel outside, a doubled image shows its own edge pixel, mirrored or repeated.
        mode = "zeros" if g.padding_mode == "zeros" else "replicate"
        reading = Reading((2, 2), padding=(1, 1), padding_mode=mode, phases=2, phase_pad=1)
        return phases.phase_weight(phases.transposed_weight(weight), 2, 1, channels), reading
    taps = channels_last(weight, fused.vector(weight))
    reading = Reading(
        (weight.shape[2], weight.shape[3]),
        g.stride,
        (g.padding[0], g.padding[2]),
        g.dilation,
        g.padding_mode,
        g.upsample - 1,
    )
    return taps.permute(0, 2, 3, 1)[None], reading


def _product(x: Tensor, weight: Tensor, g: Geometry) -> Tensor:
    """The convolution without bias, by the library."""
    if phases.is_doubled(weight, g) and g.padding_mode == "zeros":
        return products.convolve_transposed(x, phases.transposed_weight(weight), 2, 1)
    return products.convolve(x, weight, g)


def backward(
    grad: Tensor, x: Tensor, weight: Tensor, saved: Tensor, *rest: Any, gated: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Arguments and results of the registered operator."""
    *where, activation, wanted = rest
    g = spec.geometry(*where)
    grad_pre_activation, grad_bias = finish_backward(grad, saved, gated, activation, wanted[2])
    grads: tuple[Tensor | None, Tensor | None]
    if grad_pre_activation.numel() == 0:
        grads = (x.new_zeros(x.shape), weight.new_zeros(weight.shape))
    else:
        grads = _product_backward(grad_pre_activation, x, weight, g, wanted)
    chosen = [t if need else None for t, need in zip((*grads, grad_bias), wanted)]
    return spec.settled_gradients(x, weight, chosen)


def finish_backward(
    grad: Tensor, saved: Tensor, gated: bool, activation: str, bias: bool
) -> tuple[Tensor, Tensor | None]:
    """Gradients of the pre-activation, NHWC, and of the bias."""
    grad = channels_last(grad)
    if grad.numel() == 0:
        filters = grad.shape[1] * (2 if gated else 1)
        empty = grad.new_zeros((grad.shape[0], filters, *grad.shape[2:]))
        return empty, grad.new_zeros((filters,))
    if activation == "identity" and not gated:
        return grad, grad.sum((0, 2, 3), dtype=torch.float32) if bias else None
    return epilogue_backward.finish_backward(
        grad,
        channels_last(saved),
        kind=epilogue.GATED if gated else epilogue.PLAIN,
        activation=activation,
    )


def _product_backward(
    grad: Tensor, x: Tensor, weight: Tensor, g: Geometry, wanted: Sequence[bool]
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of x and weight from that of the pre-activation."""
    if not (phases.is_doubled(weight, g) and g.padding_mode == "zeros"):
        return products.convolve_backward(grad, x, weight, g, wanted)
    taps = phases.transposed_weight(weight)
    grad_x, grad_taps = products.convolve_transposed_backward(grad, x, taps, 2, 1, wanted)
    return grad_x, None if grad_taps is None else phases.transposed_weight_backward(grad_taps)
