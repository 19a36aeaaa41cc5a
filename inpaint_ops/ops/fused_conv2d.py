"""fused_conv2d: convolution with padding, upsampling, bias and activation in one pass."""

from typing import Any

import torch
from torch import Tensor

from inpaint_ops import checks
from inpaint_ops.ops import recording, shortcut
from inpaint_ops.ops.convolution import calls, operator, spec
from inpaint_ops.ops.extension_objects import ConvCall
from inpaint_ops.ops.overrides import call, has_override, inside, tracing

_OP = "fused_conv2d"


def fused_conv2d(  # noqa: PLR0913 - the options of a convolution
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] | str = 0,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
    padding_mode: str = "zeros",
    activation: str = "identity",
    upsample: int = 1,
    algorithm: str = "auto",
) -> Tensor:
    """Convolution y = activation(weight * pad(upsample(x)) + bias), fused into one pass.

    On the CPU kernels larger than 1x1 are summed in Winograd tiles of 5 x 5, 6 x 6 or, "large", 8 x
    8 inputs where that measures faster (`inpaint-ops doctor` lists the kinds of layers). All
    outputs of a tile, 3 to 5 a side, then err in proportion to the largest of its inputs: among
    values of one size 1 to 4 times as much as a direct sum, in a large tile 5 to 10 times, which is
    2 to 6 times PyTorch's own error; beside one value of 1e6 300,000 times as much, even where no
    window holds that value; a NaN reaches them all. ``algorithm="precise"`` forbids the large ones
    and ``algorithm="direct"`` all of them for a call, ``with inpaint_ops.backend("direct")`` for
    many; docs/reference/numerics.md has the bound. Of x and y the backward pass keeps x and, for an
    activation, y (SiLU: the pre-activation).

    On GPUs torch's switches hold as for its own convolutions: TF32 for float32 is on by default
    (``torch.backends.cudnn.conv.fp32_precision = "ieee"`` ends it), and gradients may differ in
    their last digits from run to run unless ``torch.backends.cudnn.deterministic`` or
    ``torch.use_deterministic_algorithms`` forbids it.

    Args:
        x: (N, C, H, W), float16, bfloat16, float32 or float64, any layout; channels_last
            is taken and made without a copy.
        weight: (filters, C / groups, kh, kw), dtype and device of x.
        bias: (filters,).
        stride: pixels, vertically and horizontally, as for dilation and padding.
        padding: on both sides, after the upsampling; "same": out = ceil(in / stride), TensorFlow's
            rule, the odd pixel after.
        dilation: distance between taps.
        groups: channels and filters fall into so many independent groups.
        padding_mode: "zeros", "reflect" (without the edge) or "replicate".
        activation: "identity", "relu", "leaky_relu" (slope 0.2), "elu", "silu", "tanh", "sigmoid".
        upsample: 2 repeats every pixel twice along both axes first (nearest).
        algorithm: "auto"; "precise": never Winograd's large tiles; or "direct": never Winograd's at
            all; in this call and in its backward pass.

    Returns:
        (N, filters, Ho, Wo), dtype of x; channels_last if x or the weight is. Half precision is
        summed in float32. Under autocast x, weight and bias are rounded to its dtype, which is also
        the result's, as in torch.nn.functional.conv2d.

    Raises:
        TypeError: wrong type or dtype.
        ValueError: wrong shape, range or device.
    """
    if (has_override(x, weight, bias) or tracing()) and not inside():
        return call(fused_conv2d, locals())
    options = (stride, padding, dilation, groups, padding_mode, activation, upsample, algorithm)
    if shortcut.AVAILABLE and not torch.compiler.is_dynamo_compiling():
        taken = _taken(x, weight, bias, *options)
        if taken is not None:
            return taken
    x, weight, bias, g = _checked(x, weight, bias, *options)
    keep = spec.needs_pre_activation(activation) and recording.may_be_recorded((x, weight, bias))
    y: Tensor = OPERATOR(x, weight, bias, g, activation, keep, algorithm)[0]
    return y


def _checked(  # noqa: PLR0913 - the same
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
    padding_mode: str,
    activation: str,
    upsample: int,
    algorithm: str,
) -> tuple[Tensor, Tensor, Tensor | None, spec.Geometry]:
    x, weight, bias = spec.check_tensors(_OP, x, weight, bias)
    g = spec.check_geometry(
        _OP,
        x,
        weight,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
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
    return operator.call_for(x, weight, bias, g, activation, algorithm, gated=False)


OPERATOR = operator.register(_OP)
_taken = calls.register(OPERATOR, _call)
