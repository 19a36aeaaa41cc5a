"""gated_conv2d: features times the sigmoid of their gates, out of one convolution."""

from typing import Any

import torch
from torch import Tensor

from inpaint_ops import checks
from inpaint_ops.ops import recording, shortcut
from inpaint_ops.ops.convolution import calls, operator, spec
from inpaint_ops.ops.extension_objects import ConvCall
from inpaint_ops.ops.fused_conv2d import OPERATOR as PLAIN
from inpaint_ops.ops.overrides import call, has_override, inside, tracing

_OP = "gated_conv2d"


def gated_conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] | str = 0,
    dilation: int | tuple[int, int] = 1,
    padding_mode: str = "zeros",
    activation: str = "elu",
    upsample: int = 1,
    algorithm: str = "auto",
) -> Tensor:
    """Gated convolution y = activation(f) * sigmoid(g), [f | g] = weight * pad(upsample(x)) + bias.

    Features and gates are multiplied while they are still in registers; f and g are stored only
    when a gradient will be wanted (2 n channels in float32: recomputing them would cost a third of
    forward and backward together). Algorithms, rounding and NaN as in `fused_conv2d`. Second
    derivatives raise.

    Args:
        x: (N, C, H, W), float16, bfloat16, float32 or float64, any layout; channels_last
            is taken and made without a copy.
        weight: (2 n, C, kh, kw), the n filters of the features first, dtype and device of x.
        bias: (2 n,).
        stride: pixels, vertically and horizontally, as for dilation and padding.
        padding: on both sides, after the upsampling; "same": out = ceil(in / stride), TensorFlow's
            rule, the odd pixel after.
        dilation: distance between taps.
        padding_mode: "zeros", "reflect" (without the edge) or "replicate".
        activation: "identity", "relu", "leaky_relu" (slope 0.2), "elu", "silu", "tanh", "sigmoid".
        upsample: 2 repeats every pixel twice along both axes first (nearest).
        algorithm: "auto"; "precise": never Winograd's large tiles; or "direct": never Winograd's at
            all; in this call and in its backward pass.

    Returns:
        (N, n, Ho, Wo), dtype of x; channels_last if x or the weight is. Half precision is summed in
        float32. Under autocast x, weight and bias are rounded to its dtype, which is also the
        result's, as in torch.nn.functional.conv2d.

    Raises:
        TypeError: wrong type or dtype.
        ValueError: wrong shape, range or device.

    Source: Yu et al., ICCV 2019 (arXiv 1806.03589), section 3.1; JiahuiYu/generative_inpainting:
    inpaint_ops.py (gen_conv, gen_deconv).
    """
    if (has_override(x, weight, bias) or tracing()) and not inside():
        return call(gated_conv2d, locals())
    options = (stride, padding, dilation, padding_mode, activation, upsample, algorithm)
    if shortcut.AVAILABLE and not torch.compiler.is_dynamo_compiling():
        taken = _taken(x, weight, bias, *options)
        if taken is not None:
            return taken
    x, weight, bias, g = _checked(x, weight, bias, *options)
    keep = recording.may_be_recorded((x, weight, bias))
    y: Tensor = _operator(x, weight, bias, g, activation, keep, algorithm)[0]
    return y


def _checked(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    padding_mode: str,
    activation: str,
    upsample: int,
    algorithm: str,
) -> tuple[Tensor, Tensor, Tensor | None, spec.Geometry]:
    x, weight, bias = spec.check_tensors(_OP, x, weight, bias)
    if weight.shape[0] % 2:
        raise ValueError(
            f"{_OP}: weight must have an even number of filters, got {tuple(weight.shape)}"
        )
    g = spec.check_geometry(
        _OP,
        x,
        weight,
        stride=stride,
        padding=padding,
        dilation=dilation,
        padding_mode=padding_mode,
        upsample=upsample,
    )
    checks.check_choice(_OP, "activation", activation, spec.ACTIVATIONS)
    spec.check_algorithm(_OP, algorithm)
    spec.check_bias(_OP, bias, weight.shape[0])
    return x, weight, bias, g


def _call(x: Tensor, weight: Tensor, bias: Tensor | None, *options: Any) -> ConvCall | None:
    """The call that the extension takes as a whole."""
    g = _checked(x, weight, bias, *options)[3]
    *_, activation, _, algorithm = options
    return operator.call_for(x, weight, bias, g, activation, algorithm, gated=True)


_operator = operator.register(_OP, plain=PLAIN)
_taken = calls.register(_operator, _call)
