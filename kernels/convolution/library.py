"""Products of convolutions by the vendor's library, under this package's rules of precision."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from inpaint_ops.kernels.launch import tf32_allowed
from inpaint_ops.ops.convolution import formulas, spec


@contextmanager
def precision(device: torch.device) -> Iterator[None]:
    """The library under our rules: no TF32 unless asked for (`tf32_allowed`), no autocast.

    And no algorithm that adds by atomics, whose results change from run to run.
    """
    settings = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    before = settings.fp32_precision, torch.backends.cudnn.deterministic
    settings.fp32_precision = "tf32" if tf32_allowed() else "ieee"
    torch.backends.cudnn.deterministic = True
    try:
        with torch.amp.autocast(device.type, enabled=False):
            yield
    finally:
        settings.fp32_precision, torch.backends.cudnn.deterministic = before


def nhwc(x: Tensor) -> Tensor:
    """X in channels_last memory, for which the vendors' kernels are fastest."""
    return x.contiguous(memory_format=torch.channels_last)


def convolve(x: Tensor, weight: Tensor, g: spec.Geometry) -> Tensor:
    """The sums without bias, NHWC."""
    with precision(x.device):
        return nhwc(formulas.convolve(nhwc(x), nhwc(weight), None, g))


def convolve_transposed(x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    """The sums of a transposed convolution without bias, NHWC."""
    with precision(x.device):
        return nhwc(formulas.convolve_transposed(nhwc(x), nhwc(weight), None, stride, padding))


def convolve_backward(
    grad_z: Tensor, x: Tensor, weight: Tensor, g: spec.Geometry, wanted: Sequence[bool]
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of x and weight from that of the sums."""
    with precision(x.device):
        return formulas.convolve_backward(grad_z, nhwc(x), nhwc(weight), g, wanted)


def convolve_transposed_backward(
    grad_z: Tensor,
    x: Tensor,
    weight: Tensor,
    stride: int,
    padding: int,
    wanted: Sequence[bool],
) -> tuple[Tensor | None, Tensor | None]:
    """The same of a transposed convolution."""
    with precision(x.device):
        grad_x, grad_weight, _ = torch.ops.aten.convolution_backward(
            grad_z,
            nhwc(x),
            nhwc(weight),
            None,
            [stride] * 2,
            [padding] * 2,
            [1, 1],
            True,
            [0, 0],
            1,
            [wanted[0], wanted[1], False],
        )
    return grad_x, grad_weight
