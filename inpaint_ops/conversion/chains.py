"""Layers in a row as one call: in our operators, and as torch computes them.

A `Chain` names what stands around one layer. The plain form runs the same functions of torch that
the model ran, with equal bits: it serves inputs that our operators are not for, and comparisons.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inpaint_ops.ops.fused_conv2d import fused_conv2d
from inpaint_ops.ops.fused_conv_transpose2d import fused_conv_transpose2d
from inpaint_ops.ops.gated_conv2d import gated_conv2d
from inpaint_ops.ops.instance_norm import instance_norm

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "leaky_relu": lambda x: F.leaky_relu(x, 0.2),
    "elu": F.elu,
    "silu": F.silu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
}
_PAD_MODES = {"zeros": "constant", "reflect": "reflect", "replicate": "replicate"}


class Chain(NamedTuple):
    """The steps around a layer, in the order of the data.

    Attributes:
        upsample: factor of a nearest upsampling.
        padding_mode, padding: of a padding of its own, (height, width); None: there is none.
        gate: "": no gate; "split": the second half of the filters are gates; "pair": those of
            another convolution.
        activation: name, of the features where there are gates.
        residual: whether something is added last (instance normalisation).
    """

    upsample: int = 1
    padding_mode: str | None = None
    padding: tuple[int, int] | None = None
    gate: str = ""
    activation: str = "identity"
    residual: bool = False

    def reduced(self) -> list[Chain]:
        """Return the chains to try if this one is not kept: without its start, the layer alone."""
        inner = self._replace(upsample=1, padding_mode=None, padding=None)
        return list(dict.fromkeys(c for c in (inner, Chain()) if c != self))

    def text(self, layer: str) -> str:
        """Return the chain in words."""
        parts = ["upsample"] if self.upsample > 1 else []
        parts += [f"{self.padding_mode} pad"] if self.padding_mode else []
        parts.append(layer)
        parts += [] if self.activation == "identity" else [self.activation]
        parts += [f"gate ({self.gate})"] if self.gate else []
        parts += ["residual"] if self.residual else []
        return " + ".join(parts)


ALONE = Chain()


def activate(x: Tensor, activation: str) -> Tensor:
    """Return torch's activation of x."""
    return x if activation == "identity" else ACTIVATIONS[activation](x)


def prepare(x: Tensor, chain: Chain) -> Tensor:
    """Return x upsampled and padded by torch."""
    if chain.upsample > 1:
        x = F.interpolate(x, scale_factor=float(chain.upsample), mode="nearest")
    if chain.padding_mode is not None and chain.padding is not None:
        height, width = chain.padding
        x = F.pad(x, (width, width, height, height), mode=_PAD_MODES[chain.padding_mode])
    return x


def gated(y: Tensor, gates: Tensor | None, activation: str) -> Tensor:
    """Return torch's activation(f) * sigmoid(g); without `gates` they are the second half of y."""
    features = y
    if gates is None:
        features, gates = y.chunk(2, 1)
    return activate(features, activation) * torch.sigmoid(gates)


def plain_conv2d(
    layer: nn.Conv2d, x: Tensor, weights: tuple[Any, ...], chain: Chain, gate: Any = None
) -> Tensor:
    """Return the chain around nn.Conv2d by torch; `weights`, `gate`: (weight, bias)."""
    x = prepare(x, chain)
    y = layer._conv_forward(x, *weights)
    if not chain.gate:
        return activate(y, chain.activation)
    gates = None if gate is None else layer._conv_forward(x, *gate)
    return gated(y, gates, chain.activation)


def fused_conv2d_chain(
    layer: nn.Conv2d, x: Tensor, weights: tuple[Any, ...], chain: Chain, gate: Any = None
) -> Tensor:
    """Return the chain around nn.Conv2d by one operator."""
    weight, bias = weights
    padding: Any = chain.padding
    mode = chain.padding_mode
    if mode is None:
        mode = layer.padding_mode
        padding = 0 if layer.padding == "valid" else layer.padding
    options: dict[str, Any] = {
        "stride": layer.stride,
        "padding": padding,
        "dilation": layer.dilation,
        "padding_mode": mode,
        "activation": chain.activation,
        "upsample": chain.upsample,
    }
    if not chain.gate:
        return fused_conv2d(x, weight, bias, groups=layer.groups, **options)
    if gate is not None:
        weight, bias = (_joined(layer, x, a, b) for a, b in zip(weights, gate))
    return gated_conv2d(x, weight, bias, **options)


# What `_joined` made for a layer, by the number of axes: its weight, its bias.
_kept: weakref.WeakKeyDictionary[nn.Module, dict[int, Tensor]] = weakref.WeakKeyDictionary()


def _joined(
    layer: nn.Module, x: Tensor, features: Tensor | None, gates: Tensor | None
) -> Tensor | None:
    if features is None or gates is None:
        return None
    differentiated = torch.is_grad_enabled() and any(t.requires_grad for t in (x, features, gates))
    if differentiated or torch.compiler.is_compiling():
        return torch.cat([features, gates])
    # In the same place at every call, where the packed form that was made of it is found again.
    kept = _kept.setdefault(layer, {})
    into = kept.get(features.dim())
    like = (2 * features.shape[0], *features.shape[1:]), features.dtype, features.device
    stale = into is None or (tuple(into.shape), into.dtype, into.device) != like
    if into is None or stale or (into.is_inference() and not torch.is_inference_mode_enabled()):
        into = kept[features.dim()] = torch.zeros(like[0], dtype=like[1], device=like[2])
    with torch.no_grad():
        return torch.cat([features.detach(), gates.detach()], out=into)


def plain_conv_transpose2d(
    layer: nn.ConvTranspose2d, x: Tensor, weights: tuple[Any, ...], chain: Chain
) -> Tensor:
    """Return the chain around nn.ConvTranspose2d by torch."""
    options: Any = {"stride": layer.stride, "padding": layer.padding}
    y = F.conv_transpose2d(x, *weights, **options)
    return activate(y, chain.activation)


def fused_conv_transpose2d_chain(
    layer: nn.ConvTranspose2d, x: Tensor, weights: tuple[Any, ...], chain: Chain
) -> Tensor:
    """Return the chain around nn.ConvTranspose2d by one operator."""
    return fused_conv_transpose2d(
        x,
        *weights,
        stride=layer.stride[0],
        padding=int(layer.padding[0]),
        activation=chain.activation,
    )


def plain_instance_norm(
    layer: nn.InstanceNorm2d,
    x: Tensor,
    weights: tuple[Any, ...],
    chain: Chain,
    residual: Tensor | None = None,
) -> Tensor:
    """Return the chain around nn.InstanceNorm2d by torch."""
    weight, bias = weights
    y = F.instance_norm(x, None, None, weight, bias, True, layer.momentum or 0.0, layer.eps)
    y = activate(y, chain.activation)
    return y if residual is None else residual + y


def fused_instance_norm(
    layer: nn.InstanceNorm2d,
    x: Tensor,
    weights: tuple[Any, ...],
    chain: Chain,
    residual: Tensor | None = None,
) -> Tensor:
    """Return the chain around nn.InstanceNorm2d by one operator."""
    return instance_norm(x, *weights, eps=layer.eps, activation=chain.activation, residual=residual)
