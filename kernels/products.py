"""Products that the vendor's library forms, under this package's rules of precision.

The kernels leave to cuBLAS and cuDNN (on ROCm to their counterparts) what those multiply faster.
Convolutions follow `tf32_allowed`, and never add by atomics, which would change results from run to
run.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from inpaint_ops.kernels.launch import tf32_allowed
from inpaint_ops.ops.convolution import formulas, spec

# Bytes that the strips of scores of one call may take together, where rows allow it.
STRIP_BYTES = 1 << 28


def product(a: Tensor, b: Tensor) -> Tensor:
    """Batched a @ b in float32.

    Half-precision factors are multiplied on tensor cores, but their sums are never rounded to half.
    """
    if a.dtype == torch.float32:
        return torch.bmm(a, b)
    if a.device.type == "cuda" and torch.version.hip is None:
        return torch.bmm(a, b, out_dtype=torch.float32)
    return torch.bmm(a.float(), b.float())


@contextmanager
def precision() -> Iterator[None]:
    """Hold the library's convolutions to the rules above."""
    settings = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    before = settings.fp32_precision, torch.backends.cudnn.deterministic
    settings.fp32_precision = "tf32" if tf32_allowed() else "ieee"
    torch.backends.cudnn.deterministic = True
    try:
        yield
    finally:
        settings.fp32_precision, torch.backends.cudnn.deterministic = before


def _nhwc(x: Tensor) -> Tensor:
    """Return x in channels_last memory, for which the vendors' kernels are fastest."""
    return x.contiguous(memory_format=torch.channels_last)


def convolve(x: Tensor, weight: Tensor, g: spec.Geometry) -> Tensor:
    """Convolution without bias, NHWC."""
    with precision():
        return _nhwc(formulas.convolve(_nhwc(x), _nhwc(weight), None, g))


def convolve_transposed(x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    """Transposed convolution without bias, NHWC."""
    with precision():
        return _nhwc(formulas.convolve_transposed(_nhwc(x), _nhwc(weight), None, stride, padding))


def convolve_backward(
    grad: Tensor, x: Tensor, weight: Tensor, g: spec.Geometry, wanted: Sequence[bool]
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of x and weight from that of `convolve`."""
    with precision():
        return formulas.convolve_backward(grad, _nhwc(x), _nhwc(weight), g, wanted)


def convolve_transposed_backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    stride: int,
    padding: int,
    wanted: Sequence[bool],
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of x and weight from that of `convolve_transposed`."""
    with precision():
        grad_x, grad_weight, _ = torch.ops.aten.convolution_backward(
            grad,
            _nhwc(x),
            _nhwc(weight),
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
