"""fused_conv_transpose2d: transposed convolution, bias and activation in one pass."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from inpaint_ops import checks
from inpaint_ops.ops import tensors
from inpaint_ops.ops.convolution import algorithm as algorithms
from inpaint_ops.ops.convolution import cpu as conv_cpu
from inpaint_ops.ops.convolution import cpu_backward, formulas, operator, spec
from inpaint_ops.ops.convolution.operator import Convolution, Gradients
from inpaint_ops.ops.convolution.spec import Geometry, Pair

_OP = "fused_conv_transpose2d"


def fused_conv_transpose2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: int = 2,
    padding: int = 1,
    activation: str = "identity",
    algorithm: str = "auto",
) -> Tensor:
    """Transposed convolution y = activation(sum_i x_i weight at stride i + bias), fused.

    On the CPU the outputs of each remainder modulo the stride are one small convolution of x: no
    zeros are stuffed in, none multiplied. Cores, rounding and NaN as in `fused_conv2d`. Of x and y
    the backward pass keeps x and, for an activation, y (SiLU: the sums before it). Second
    derivatives raise.

    Args:
        x: (N, C, H, W), float16, bfloat16, float32 or float64, any layout; channels_last and,
            in float32, contiguous images are taken and made without a copy.
        weight: (C, filters, kh, kw), dtype and device of x.
        bias: (filters,).
        stride: pixels between the places of neighbouring inputs.
        padding: pixels cut off each side of the result.
        activation: "identity", "relu", "leaky_relu" (slope 0.2), "elu", "silu", "tanh", "sigmoid".
        algorithm: "auto", or "direct": never Winograd's, in this call and in its backward pass.

    Returns:
        (N, filters, (H - 1) stride - 2 padding + kh, likewise), dtype of x; channels_last if x or
        the weight is. Half precision is summed in float32. Under autocast everything runs in
        float32 and the result has the dtype of x.

    Raises:
        TypeError: wrong type or dtype.
        ValueError: wrong shape, range or device.
    """
    dtype = x.dtype if isinstance(x, Tensor) else None
    x, weight, bias = spec.check_tensors(_OP, x, weight, bias)
    checks.check_int(_OP, "stride", stride)
    checks.check_int(_OP, "padding", padding, 0)
    checks.check_choice(_OP, "activation", activation, spec.ACTIVATIONS)
    algorithms.check(_OP, algorithm)
    if weight.shape[0] != x.shape[1]:
        raise ValueError(
            f"{_OP}: weight must have {x.shape[1]} input channels, got {tuple(weight.shape)}"
        )
    spec.check_bias(_OP, bias, weight.shape[1])
    if x.shape[2] < 1 or x.shape[3] < 1 or min(_out_size(x, weight, stride, padding)) < 1:
        raise ValueError(
            f"{_OP}: padding must leave something of the result, got {padding} for x of "
            f"{tuple(x.shape)} and weight of {tuple(weight.shape)}"
        )
    shape = (x.shape[0], weight.shape[1], *_out_size(x, weight, stride, padding))
    checks.check_result(_OP, "stride", shape, stride)
    y = _call(x, weight, bias, (stride, padding), activation, algorithm)
    return y if y.dtype == dtype else y.to(dtype)


def _out_size(x: Tensor, weight: Tensor, stride: int, padding: int) -> Pair:
    high, wide = ((x.shape[i] - 1) * stride - 2 * padding + weight.shape[i] for i in (2, 3))
    return high, wide


class _TransposedConvolution(Convolution):
    """`where`: stride and padding."""

    schema = "SymInt stride, SymInt padding"

    def filters(self, weight: Tensor) -> int:
        return weight.shape[1]

    def out_size(self, x: Tensor, weight: Tensor, where: Sequence[Any]) -> Pair:
        return _out_size(x, weight, *where)

    def cpu(
        self,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        where: Sequence[Any],
        *,
        gated: bool,
        activation: str,
        y: Tensor,
        z: Tensor | None,
    ) -> Tensor:
        stride, padding = where
        into, applied = (y, activation) if z is None else (z, "identity")
        # One pixel without padding is a matrix product; a stride beyond the kernel leaves outputs
        # without taps.
        product = x.shape[2] == x.shape[3] == 1 and padding == 0
        packed = not product and stride <= min(weight.shape[2:])
        if packed or conv_cpu.unpacked(x, weight, None):
            conv_cpu.transposed_forward(
                x, weight, bias, stride=stride, padding=padding, activation=applied, y=into
            )
        else:
            wide = tensors.compute_dtype(x), tensors.compute_dtype(weight)
            with torch.autocast("cpu", enabled=False):  # called past the dispatcher as well
                sums = formulas.convolve_transposed(*wide, None, stride, padding)
            into.copy_(conv_cpu.finish(sums, bias, applied))
        if z is None:
            return y
        # By our kernel: torch's activations depend on where its threads cut.
        return y.copy_(conv_cpu.finish(z.clone(), None, activation))

    def reference(
        self, x: Tensor, weight: Tensor, bias: Tensor | None, where: Sequence[Any]
    ) -> Tensor:
        return formulas.convolve_transposed(x, weight, bias, *where)

    def backward_cpu(
        self,
        grad: Tensor,
        x: Tensor,
        weight: Tensor,
        where: Sequence[Any],
        wanted: Sequence[bool],
    ) -> Gradients:
        # The gradient of the input is the plain convolution with the same weight.
        g = _plain(*where)
        grad_x = grad_weight = None
        if wanted[0]:
            grad_x = torch.empty(x.shape, memory_format=torch.channels_last)
            grad_x = conv_cpu.forward(
                grad, weight, None, g, gated=False, activation="identity", y=grad_x
            )
        if wanted[1]:
            # x and its gradient change places in the plain convolution's weight gradient.
            image = tensors.compute_dtype(x)
            grad_weight = cpu_backward.weight_gradient(image, grad, weight, g)
        return grad_x, grad_weight

    def backward_reference(
        self,
        grad: Tensor,
        x: Tensor,
        weight: Tensor,
        where: Sequence[Any],
        wanted: Sequence[bool],
    ) -> Gradients:
        stride, padding = where
        grad_x = formulas.convolve(grad, weight, None, _plain(*where)) if wanted[0] else None
        grad_weight = None
        if wanted[1]:
            _, grad_weight, _ = torch.ops.aten.convolution_backward(
                grad,
                x,
                weight,
                None,
                [stride] * 2,
                [padding] * 2,
                [1, 1],
                True,
                [0, 0],
                1,
                [False, True, False],
            )
        return grad_x, grad_weight


def _plain(stride: int, padding: int) -> Geometry:
    return Geometry((stride, stride), (padding,) * 4, (1, 1))


_call = operator.register(_OP, _TransposedConvolution())
