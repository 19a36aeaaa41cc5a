"""fused_conv_transpose2d on GPUs: one small convolution for each phase of the stride, or cuDNN."""

from typing import Any

from torch import Tensor

from inpaint_ops.kernels import products
from inpaint_ops.kernels.convolution import epilogue, fused
from inpaint_ops.kernels.convolution.choose import fuses
from inpaint_ops.kernels.convolution.fused import Reading
from inpaint_ops.kernels.convolution.layer import empty_nhwc, finish_backward
from inpaint_ops.kernels.convolution.phases import phase_weight
from inpaint_ops.kernels.launch import aligned, channels_last, dense
from inpaint_ops.ops.convolution import spec


def forward(x: Tensor, weight: Tensor, bias: Tensor | None, *rest: Any) -> tuple[Tensor, Tensor]:
    """Arguments and results of the registered operator."""
    stride, padding, activation, keep = rest
    filters = weight.shape[1]
    height, width = ((x.shape[i] - 1) * stride - 2 * padding + weight.shape[i] for i in (2, 3))
    y = empty_nhwc(x, filters, (height, width))
    pre_activation = None
    taps = [-(-k // stride) for k in weight.shape[2:]]
    depth = weight.shape[0] * taps[0] * taps[1]
    pixels = y.numel() // filters
    if pixels == 0:
        pre_activation = empty_nhwc(x, filters, (height, width)) if keep else None
    # `saves`, for the library's transposed convolutions are weaker than its plain ones.
    elif fuses(x, depth=depth, outputs=filters, pixels=pixels, saves=True):
        pre_activation = empty_nhwc(x, filters, (height, width)) if keep else None
        image = channels_last(x, fused.vector(x))
        reading = Reading(
            (taps[0], taps[1]),
            padding=(taps[0] - 1, taps[1] - 1),
            phases=stride,
            phase_pad=padding,
        )
        packed = phase_weight(weight, stride, padding, image.shape[1])
        fused.convolve(
            image, packed, bias, y, reading, activation=activation, pre_activation=pre_activation
        )
    else:
        product = aligned(products.convolve_transposed(x, weight, stride, padding))
        epilogue.finish(
            product,
            None if bias is None else dense(bias),
            y,
            kind=epilogue.PLAIN,
            activation=activation,
            keep=keep,
        )
        pre_activation = product if keep else None
    saved = spec.empty_gradient(x) if pre_activation is None else pre_activation
    return spec.settled(y, x, spec.memory_format(x, weight)), saved


def backward(
    grad: Tensor, x: Tensor, weight: Tensor, saved: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Arguments and results of the registered operator."""
    stride, padding, activation, wanted = rest
    grad_pre_activation, grad_bias = finish_backward(grad, saved, False, activation, wanted[2])
    grads: tuple[Tensor | None, Tensor | None]
    if grad_pre_activation.numel() == 0:
        grads = (x.new_zeros(x.shape), weight.new_zeros(weight.shape))
    else:
        grads = products.convolve_transposed_backward(
            grad_pre_activation, x, weight, stride, padding, wanted
        )
    chosen = [t if need else None for t, need in zip((*grads, grad_bias), wanted)]
    return spec.settled_gradients(x, weight, chosen)
