"""fused_conv_transpose2d on GPUs: one small convolution for each phase of the stride, or cuDNN."""

from typing import Any

from torch import Tensor

from inpaint_ops.kernels.convolution import epilogue, launch, library
from inpaint_ops.kernels.convolution.dispatch import fuses
from inpaint_ops.kernels.convolution.launch import Reading
from inpaint_ops.kernels.convolution.layer import empty_nhwc, finish_backward, phase_weight
from inpaint_ops.kernels.launch import aligned, channels_last, dense
from inpaint_ops.ops.convolution import spec


def forward(x: Tensor, weight: Tensor, bias: Tensor | None, *rest: Any) -> tuple[Tensor, Tensor]:
    """Arguments and results of the registered operator."""
    stride, padding, activation, keep = rest
    filters = weight.shape[1]
    high, wide = ((x.shape[i] - 1) * stride - 2 * padding + weight.shape[i] for i in (2, 3))
    y = empty_nhwc(x, filters, (high, wide))
    z = None
    taps = [-(-k // stride) for k in weight.shape[2:]]
    depth = weight.shape[0] * taps[0] * taps[1]
    pixels = y.numel() // filters
    if pixels == 0:
        z = empty_nhwc(x, filters, (high, wide)) if keep else None
    # The library's transposed convolutions are weaker than its plain ones.
    elif fuses(x, depth=depth, outputs=filters, pixels=pixels, saves=True):
        z = empty_nhwc(x, filters, (high, wide)) if keep else None
        image = channels_last(x, launch.vector(x))
        reading = Reading(
            (taps[0], taps[1]),
            padding=(taps[0] - 1, taps[1] - 1),
            phases=stride,
            phase_pad=padding,
        )
        packed = phase_weight(weight, stride, padding, image.shape[1])
        launch.convolve(image, packed, bias, y, reading, activation=activation, z=z)
    else:
        z = aligned(library.convolve_transposed(x, weight, stride, padding))
        epilogue.finish(
            z,
            None if bias is None else dense(bias),
            y,
            kind=epilogue.PLAIN,
            activation=activation,
            keep=keep,
        )
    kept = spec.empty_gradient(x) if not keep or z is None else z
    return spec.settled(y, x, spec.memory_format(x, weight)), kept


def backward(
    grad: Tensor, x: Tensor, weight: Tensor, kept: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Arguments and results of the registered operator."""
    stride, padding, activation, wanted = rest
    grad_z, grad_bias = finish_backward(grad, kept, False, activation, wanted[2])
    grads: tuple[Tensor | None, Tensor | None]
    if grad_z.numel() == 0:
        grads = (x.new_zeros(x.shape), weight.new_zeros(weight.shape))
    else:
        grads = library.convolve_transposed_backward(grad_z, x, weight, stride, padding, wanted)
    chosen = [t if need else None for t, need in zip((*grads, grad_bias), wanted)]
    return spec.settled_gradients(x, weight, chosen)
