"""Convolution with batch normalisation and activation, activations, and initial weights."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inpaint_ops import checks
from inpaint_ops.layers import FusedConv2d, FusedConvTranspose2d
from inpaint_ops.ops import fused_conv2d, fused_conv_transpose2d, tensors
from inpaint_ops.ops.convolution import formulas
from inpaint_ops.ops.weight_state import Kept


class ConvBlock(nn.Module):
    """Convolution, batch normalisation and activation, in one of the two orders.

    In evaluation mode without gradients a normalisation that comes before the activation is folded
    into the convolution. Convolutions with more weights than the input has numbers are not folded:
    a pass over their small result costs less than a second copy of the weights. Folded weights are
    kept until one of the tensors that they are made of changes.

    Args:
        in_channels, out_channels, kernel_size: of the convolution.
        activation: of `fused_conv2d`.
        norm: normalise; otherwise convolution and activation alone.
        norm_first: convolution, normalisation, activation; otherwise normalisation last.
        eps: of the normalisation.
        alpha: of activation "elu".
        transposed: a transposed convolution.
        options: further arguments of `FusedConv2d`, or of `FusedConvTranspose2d`.
    """

    # Off in benchmarks of the public formulas.
    may_fold: ClassVar[bool] = True

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        activation: str = "relu",
        norm: bool = True,
        norm_first: bool = True,
        eps: float = 1e-5,
        alpha: float = 1.0,
        transposed: bool = False,
        **options: Any,
    ) -> None:
        super().__init__()
        self.activation = activation
        self.alpha = alpha
        self.norm_first = norm_first
        self.transposed = transposed
        # The activation of the operator; ELU with another alpha is a pass of its own.
        self._fused = "identity" if activation == "elu" and alpha != 1 else activation
        inside = "identity" if norm and norm_first else self._fused
        layer = FusedConvTranspose2d if transposed else FusedConv2d
        self.conv: Any = layer(in_channels, out_channels, kernel_size, activation=inside, **options)
        self.norm = nn.BatchNorm2d(out_channels, eps=eps) if norm else None
        self._folded = Kept()

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) to (N, out_channels, Ho, Wo)."""
        if self.norm is None:
            return self._late(self.conv(x))
        if not self.norm_first:
            y: Tensor = self.norm(self._late(self.conv(x)))
            return y
        small = math.prod(checks.sizes(self.conv.weight)) <= math.prod(checks.sizes(x))
        if not (self._folds(self.norm) and checks.known(small)):
            return activate(self.norm(self.conv(x)), self.activation, self.alpha)
        weight, bias = self._fold(self.norm)
        conv = self.conv
        if self.transposed:
            stride, padding = conv.stride[0], conv.padding[0]
            y = fused_conv_transpose2d(
                x,
                weight,
                bias,
                stride=stride,
                padding=padding,
                activation=self._fused,
                algorithm=conv.algorithm,
            )
            return self._late(y)
        y = fused_conv2d(
            x,
            weight,
            bias,
            stride=conv.stride,
            padding=conv.padding,
            dilation=conv.dilation,
            groups=conv.groups,
            padding_mode=conv.padding_mode,
            activation=self._fused,
            upsample=conv.upsample,
            algorithm=conv.algorithm,
        )
        return self._late(y)

    def _late(self, y: Tensor) -> Tensor:
        """Apply the activation where the operator did not."""
        if self._fused == self.activation:
            return y
        return activate(y, self.activation, self.alpha)

    def _folds(self, norm: nn.BatchNorm2d) -> bool:
        if not self.may_fold or self.training or norm.training:
            return False
        # A trace is one for both, with gradients and without.
        if torch.is_grad_enabled() and checks.tracing() is None:
            return False
        # Hooks watch calls of the two modules; folding would not call them.
        hooks = (m._forward_hooks or m._forward_pre_hooks for m in (self.conv, norm))
        # Readers of an exported graph know convolution and normalisation side by side; folded there
        # weights would be made anew at each call.
        apart = torch.compiler.is_exporting() or any(hooks)
        return norm.affine and norm.running_mean is not None and not apart

    def _fold(self, norm: nn.BatchNorm2d) -> tuple[Tensor, ...]:
        conv, mean, variance = self.conv, norm.running_mean, norm.running_var
        assert mean is not None
        assert variance is not None

        def fold() -> tuple[Tensor, Tensor]:
            # Formed in float32 at least, as normalisations are; kept in the dtype of the layer.
            wide = tensors.compute_dtype
            scale = wide(norm.weight) / (wide(variance) + norm.eps).sqrt()
            start = torch.zeros_like(scale) if conv.bias is None else wide(conv.bias)
            bias = wide(norm.bias) + (start - wide(mean)) * scale
            by_filter = (1, -1, 1, 1) if self.transposed else (-1, 1, 1, 1)
            weight = wide(conv.weight) * scale.view(by_filter)
            return weight.to(conv.weight.dtype), bias.to(conv.weight.dtype)

        sources = (conv.weight, conv.bias, norm.weight, norm.bias, mean, variance)
        return self._folded.of(sources, fold, (norm.eps,))

    def extra_repr(self) -> str:
        """Return the options, for printing."""
        return f"activation={self.activation!r}, norm_first={self.norm_first}" + (
            f", alpha={self.alpha}" if self.alpha != 1 else ""
        )


def activate(x: Tensor, activation: str, alpha: float = 1.0) -> Tensor:
    """Apply the activation of that name, in place where PyTorch offers it.

    Nobody else may use x. Views stay unchanged: full backward hooks of modules make their results
    views, which autograd does not let be changed. In compiled code nothing is in place; the
    compiler reuses memory itself.
    """
    if torch.compiler.is_compiling() or x._is_view():
        return F.elu(x, alpha) if activation == "elu" else formulas.activate(x, activation)
    if activation == "relu":
        return F.relu_(x)
    if activation == "leaky_relu":
        return F.leaky_relu_(x, 0.2)
    if activation == "elu":
        return F.elu_(x, alpha)
    return formulas.activate(x, activation)


def initialise(network: nn.Module, std: float, *, norms: bool = False) -> None:
    """Draw the weights of all convolutions and linear layers from N(0, std); their biases are 0.

    `norms`: draw the scales of normalisations from N(1, std); their shifts are 0.
    """
    for module in network.modules():
        weight = getattr(module, "weight", None)
        if not isinstance(weight, nn.Parameter):
            continue
        if weight.dim() > 1:
            nn.init.normal_(weight, 0.0, std)
        elif norms:
            nn.init.normal_(weight, 1.0, std)
        if (weight.dim() > 1 or norms) and getattr(module, "bias", None) is not None:
            nn.init.zeros_(module.bias)  # type: ignore[arg-type]
