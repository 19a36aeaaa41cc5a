"""The convolution inside the ports' blocks: nn.Conv2d that takes its neighbours along.

The ports write padding, convolution, activation and gate as modules of their own. A block here
holds the same modules under the same names and hands them to its convolution, which does the work
of all in one pass. A neighbour that somebody watches through hooks, and one that no kernel has,
runs by itself.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inpaint_ops.ops.fused_conv2d import fused_conv2d
from inpaint_ops.ops.gated_conv2d import gated_conv2d

Activation = Callable[[Tensor], Tensor]
Padding = str | tuple[int, int]

_NAMES: dict[type, str] = {
    nn.Identity: "identity",
    nn.ReLU: "relu",
    nn.SiLU: "silu",
    nn.Tanh: "tanh",
    nn.Sigmoid: "sigmoid",
}
_MODES: dict[type, str] = {
    nn.ReflectionPad2d: "reflect",
    nn.ReplicationPad2d: "replicate",
    nn.ZeroPad2d: "zeros",
}


class Conv2d(nn.Conv2d):
    """nn.Conv2d over `fused_conv2d` and `gated_conv2d`; hooks and reparametrisations go on working.

    Its name is that of nn.Conv2d because the ports' initialisers look at names of classes.
    """

    def forward(self, input: Tensor, **neighbours: Any) -> Tensor:
        """(N, in_channels, H, W) to (N, filters, Ho, Wo), see `convolve`."""
        return convolve(self, input, self.weight, self.bias, **neighbours)


def convolve(
    conv: nn.Conv2d,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    pad: nn.Module | None = None,
    activation: Activation | None = None,
    gated: bool = False,
    upsample: int = 1,
    padding: Padding | None = None,
) -> Tensor:
    """Convolve with the geometry of `conv` and given weights.

    Args:
        conv: says stride, padding, dilation and groups.
        x: (N, C, H, W).
        weight: (filters, C / groups, kh, kw); with `gated` features first, gates second.
        bias: (filters,).
        pad: a padding module in front.
        activation: after the convolution; with `gated` of the features.
        gated: multiply the features by the sigmoid of the gates.
        upsample: 2 doubles x first, by nearest neighbours.
        padding: zeros, instead of those of `conv`.

    Returns:
        (N, filters, Ho, Wo), half the filters with `gated`.
    """
    own = _own_padding(conv) if padding is None else padding
    both = _padding(own, pad)
    if both is None:
        assert pad is not None
        x = pad(F.interpolate(x, scale_factor=2, mode="nearest") if upsample == 2 else x)
        both, upsample = (own, "zeros"), 1
    name = _name(activation)
    options: dict[str, Any] = {
        "stride": conv.stride,
        "padding": both[0],
        "padding_mode": both[1],
        "dilation": conv.dilation,
        "upsample": upsample,
    }
    if gated and name is not None:
        return gated_conv2d(x, weight, bias, activation=name, **options)
    y = fused_conv2d(x, weight, bias, groups=conv.groups, activation=name or "identity", **options)
    if name is not None:
        return y
    assert activation is not None
    if not gated:
        return activation(y)
    features, gates = y.chunk(2, 1)
    return activation(features) * torch.sigmoid(gates)


def weight_and_bias(conv: nn.Conv2d, x: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return what a convolution is about to use, for a block that joins two convolutions.

    Spectral norm, weight norm and pruning of older style compute the weight in a hook in front of
    the convolution, which nobody calls here.
    """
    for number, hook in conv._forward_pre_hooks.items():
        with_kwargs = number in conv._forward_pre_hooks_with_kwargs
        changed = hook(conv, (x,), {}) if with_kwargs else hook(conv, (x,))
        if changed is not None:
            raise RuntimeError(
                f"{type(conv).__name__}: a hook that changes the input has no place in front of "
                "one of two joined convolutions; register it on the layer that holds them"
            )
    return conv.weight, conv.bias


def _name(activation: Activation | None) -> str | None:
    """The kernels' name of an activation; None for one that must run by itself."""
    if activation is None:
        return "identity"
    if isinstance(activation, nn.Module) and _is_watched(activation):
        return None
    kind = type(activation)
    if kind is nn.ELU and activation.alpha == 1:  # type: ignore[attr-defined]
        return "elu"
    if kind is nn.LeakyReLU and activation.negative_slope == 0.2:  # type: ignore[attr-defined]
        return "leaky_relu"
    return _NAMES.get(kind)


def _padding(own: Padding, pad: nn.Module | None) -> tuple[Padding, str] | None:
    """Pixels and mode of both paddings as one; None where they do not add up to one."""
    if pad is None:
        return own, "zeros"
    mode = _MODES.get(type(pad))
    if mode is None or _is_watched(pad):
        return None
    left, right, top, bottom = pad.padding  # type: ignore[misc]
    if (left, top) != (right, bottom):
        return None
    if left == top == 0:
        return own, "zeros"
    if mode == "zeros" and not isinstance(own, str):
        return (own[0] + top, own[1] + left), mode
    return ((top, left), mode) if own == (0, 0) else None


def _own_padding(conv: nn.Conv2d) -> Padding:
    if conv.padding == "valid":
        return 0, 0
    if isinstance(conv.padding, str):
        return conv.padding
    return conv.padding[0], conv.padding[1]


def _is_watched(module: nn.Module) -> bool:
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
    )
