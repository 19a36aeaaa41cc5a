"""Products that the vendor's library forms.

The kernels leave to cuBLAS and cuDNN (on ROCm to their counterparts) what those multiply faster.
Operators run without autocast. All else is as torch's own switches say, which no call changes:
whether float32 factors may be rounded to TF32, and whether sums may be formed by atomics, with
other last digits from run to run (``torch.use_deterministic_algorithms``,
``torch.backends.cudnn.deterministic``).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

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


def _nhwc(x: Tensor) -> Tensor:
    """Return x in channels_last memory, for which the vendors' kernels are fastest.

    Weights need no such call: the library takes the layout of its input and brings them into it.
    """
    return x.contiguous(memory_format=torch.channels_last)


def convolve(x: Tensor, weight: Tensor, g: spec.Geometry) -> Tensor:
    """Convolution without bias, NHWC."""
    return _nhwc(formulas.convolve(_nhwc(x), weight, None, g))


def convolve_transposed(x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    """Transposed convolution without bias, NHWC."""
    return _nhwc(formulas.convolve_transposed(_nhwc(x), weight, None, stride, padding))


def convolve_backward(
    grad: Tensor, x: Tensor, weight: Tensor, g: spec.Geometry, wanted: Sequence[bool]
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of x and weight from that of `convolve`."""
    return formulas.convolve_backward(grad, _nhwc(x), weight, g, wanted)


def convolve_transposed_backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    stride: int,
    padding: int,
    wanted: Sequence[bool],
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of x and weight from that of `convolve_transposed`."""
    grad_x, grad_weight, _ = torch.ops.aten.convolution_backward.default(
        grad,
        _nhwc(x),
        weight,
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
