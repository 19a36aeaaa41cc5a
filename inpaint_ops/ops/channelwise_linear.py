"""channelwise_linear: each feature map through a dense matrix of its own."""

import torch
from torch import Tensor

from inpaint_ops import checks
from inpaint_ops.ops import dispatch, tensors
from inpaint_ops.ops.overrides import call, has_override, inside, tracing

_OP = "channelwise_linear"
dispatch.OPERATORS[_OP] = dispatch.Operator(_OP, library="torch.baddbmm")


def channelwise_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Every output position of a channel sees every input position of that channel, and no other.

    y[n, c, j] = sum over i of x[n, c, i] weight[c, j, i] + bias[c, j]. One batched product over
    channels, of views: the weights, which are nearly all there is to read, are read once and in
    place, forward and in both gradients. A kernel of our own would wait for the same memory.

    Args:
        x: (N, C, H, W), float16, bfloat16, float32 or float64, any layout.
        weight: (C, Ho * Wo, H * W), dtype and device of `x`.
        bias: (C, Ho * Wo) or None.

    Returns:
        (N, C, H, W) if Ho * Wo equals H * W, else (N, C, Ho * Wo, 1), dtype of x, contiguous.
        Under autocast x, weight and bias are rounded to its dtype, which is also the result's, as
        in torch.nn.functional.linear.

    Raises:
        TypeError: wrong type or dtype.
        ValueError: wrong shape or device.

    Source: Pathak et al., CVPR 2016 (arXiv 1604.07379), section 3.1.
    """
    if (has_override(x, weight, bias) or tracing()) and not inside():
        return call(channelwise_linear, locals())
    checks.check_image(_OP, "x", x)
    checks.check_kinds(_OP, x=x, weight=weight, bias=bias)
    for name, value in (("weight", weight), ("bias", bias)):
        if not isinstance(value, Tensor) and (name == "weight" or value is not None):
            raise TypeError(f"{_OP}: {name} must be a Tensor, got {type(value).__name__}")
    x, weight, bias = tensors.autocast_to_lower(x, weight, bias)
    _check("weight", weight, x, 3)
    c, outputs, inputs = weight.shape
    if c != x.shape[1] or inputs != x.shape[2] * x.shape[3]:
        raise ValueError(
            f"{_OP}: weight must have shape ({x.shape[1]}, Ho * Wo, {x.shape[2] * x.shape[3]}), "
            f"got {tuple(weight.shape)}"
        )
    if bias is not None:
        _check("bias", bias, x, 2)
        if tuple(bias.shape) != (c, outputs):
            raise ValueError(
                f"{_OP}: bias must have shape ({c}, {outputs}), got {tuple(bias.shape)}"
            )
    maps = x.flatten(2).transpose(0, 1)  # (C, N, H * W)
    columns = weight.transpose(1, 2)
    y = torch.bmm(maps, columns) if bias is None else torch.baddbmm(bias[:, None], maps, columns)
    y = y.transpose(0, 1).contiguous()
    return y.view_as(x) if outputs == inputs else y[..., None]


def _check(name: str, value: Tensor, x: Tensor, dims: int) -> None:
    checks.check_same(_OP, f"x and {name}", x, value)
    if value.dim() != dims:
        shape = "(C, Ho * Wo, H * W)" if dims == 3 else "(C, Ho * Wo)"
        raise ValueError(f"{_OP}: {name} must have shape {shape}, got {tuple(value.shape)}")
