"""Building blocks that several methods share."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from inpaint_ops.layers import FusedConv2d, FusedConvTranspose2d
from inpaint_ops.ops import _conv, fused_conv2d, fused_conv_transpose2d
from inpaint_ops.weight_state import Kept


def composite(image: Tensor, prediction: Tensor, hole: Tensor) -> Tensor:
    """The prediction where hole is 1, the image elsewhere; (N, C, H, W), hole (N, 1, H, W)."""
    return torch.where(hole > 0, prediction, image)


def erase(image: Tensor, hole: Tensor, value: float = 0.0) -> Tensor:
    """The image with a number in place of its missing pixels."""
    return torch.where(hole > 0, image.new_tensor(value), image)


def arranged(x: Tensor) -> Tensor:
    """The tensor in channels_last, the layout the convolutions work in."""
    return x.contiguous(memory_format=torch.channels_last)


def stacked(*planes: Tensor) -> Tensor:
    """Concatenation of channels, arranged."""
    return arranged(torch.cat(planes, 1))


def resized(image: Tensor, size: tuple[int, int]) -> Tensor:
    """The image at another size, bilinear, antialiased where it shrinks."""
    if tuple(image.shape[2:]) == size:
        return image
    return F.interpolate(image, size=size, mode="bilinear", antialias=True)


def resized_hole(hole: Tensor, size: tuple[int, int]) -> Tensor:
    """The mask at another size: missing is what any missing pixel touches."""
    return F.adaptive_max_pool2d(hole, size)


def pad_for(kernel: int, dilation: int, rule: str) -> int | str:
    """Padding that keeps the size at stride 1: "same" is TensorFlow's rule, "symmetric" ours."""
    return "same" if rule == "same" else dilation * (kernel - 1) // 2


def signed(image: Tensor) -> Tensor:
    """[0, 1] to [-1, 1]."""
    return image * 2 - 1


def unsigned(image: Tensor) -> Tensor:
    """[-1, 1] to [0, 1]."""
    return (image + 1) / 2


class SpectralNorm(nn.Module):
    """Parametrisation W / sigma(W) by power iteration, v first: the order of public ports.

    One iteration a forward pass in training mode, or in every pass with `always`. Gradients take
    both vectors as constants. In evaluation mode without gradients the quotient is kept until the
    weight or a vector changes, and with it the convolution's packed form of it. (PyTorch's own
    parametrisation iterates in the other order, which gives other numbers until it has converged.)

    Args:
        weight: what is normalised.
        dim: the output dimension: 1 for transposed convolutions.
        always: iterate in evaluation mode too, as TensorFlow's and shepnerd's do.

    Source: Miyato et al., ICLR 2018 (arXiv 1802.05957), algorithm 1.
    """

    _u: Tensor
    _v: Tensor

    def __init__(self, weight: Tensor, *, dim: int = 0, always: bool = False) -> None:
        super().__init__()
        self.dim = dim
        self.always = always
        matrix = self._matrix(weight.detach())
        self.register_buffer("_u", F.normalize(torch.randn_like(matrix[:, 0]), dim=0, eps=1e-12))
        self.register_buffer("_v", F.normalize(matrix.T @ self._u, dim=0, eps=1e-12))
        # The quotient is the layer's `weight`, which anybody may edit.
        self._kept = Kept(exposed=True)

    def _matrix(self, weight: Tensor) -> Tensor:
        return weight.movedim(self.dim, 0).flatten(1)

    def forward(self, weight: Tensor) -> Tensor:
        """The normalised weight, of the same shape."""
        if not (self.training or self.always or torch.is_grad_enabled()):
            return self._remembered(weight)
        matrix = self._matrix(weight)
        if self.training or self.always:
            with torch.no_grad():
                self._v.copy_(F.normalize(matrix.T @ self._u, dim=0, eps=1e-12))
                self._u.copy_(F.normalize(matrix @ self._v, dim=0, eps=1e-12))
        # Copies: a second pass before the backward pass overwrites the buffers.
        u, v = self._u.clone(), self._v.clone()
        return weight / torch.dot(u, matrix @ v)

    def _remembered(self, weight: Tensor) -> Tensor:
        def quotient() -> tuple[Tensor]:
            return (weight / torch.dot(self._u, self._matrix(weight) @ self._v),)

        return self._kept.of((weight, self._u, self._v), quotient)[0]


def spectral(layer: nn.Module, *, dim: int = 0, always: bool = False) -> Any:
    """The layer with its weight under spectral normalisation."""
    weight: Tensor = layer.weight  # type: ignore[assignment]
    parametrize.register_parametrization(
        layer, "weight", SpectralNorm(weight, dim=dim, always=always)
    )
    return layer


def spectral_keys(public: str, ours: str, weight: str = "weight_orig") -> dict[str, str]:
    """Layout entries of one spectrally normalised weight."""
    return {
        f"{public}.{weight}": f"{ours}.parametrizations.weight.original",
        f"{public}.weight_u": f"{ours}.parametrizations.weight.0._u",
        f"{public}.weight_v": f"{ours}.parametrizations.weight.0._v",
    }


class ConvBlock(nn.Module):
    """Convolution, batch normalisation and activation, in one of the two orders.

    In evaluation mode without gradients a normalisation that comes first is folded into the
    convolution, unless that has more weights than x has numbers: then a pass over the small result
    costs less than a second copy of the weights. Folded weights are kept until one of the tensors
    behind them changes.

    Args:
        in_channels, out_channels, kernel_size: of the convolution.
        activation: of `fused_conv2d`.
        norm: whether there is a normalisation.
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
        # What the operators do themselves; the rest is a pass of its own.
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
        if not self._folds(self.norm) or self.conv.weight.numel() > x.numel():
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
        """The activation, where the operator could not do it."""
        if self._fused == self.activation:
            return y
        return activate(y, self.activation, self.alpha)

    def _folds(self, norm: nn.BatchNorm2d) -> bool:
        if not self.may_fold or torch.is_grad_enabled() or self.training or norm.training:
            return False
        # Hooks watch calls of the two modules, which folding does without.
        hooks = (m._forward_hooks or m._forward_pre_hooks for m in (self.conv, norm))
        return norm.affine and norm.running_mean is not None and not any(hooks)

    def _fold(self, norm: nn.BatchNorm2d) -> tuple[Tensor, ...]:
        conv, mean, variance = self.conv, norm.running_mean, norm.running_var
        assert mean is not None
        assert variance is not None

        def fold() -> tuple[Tensor, Tensor]:
            scale = norm.weight / (variance + norm.eps).sqrt()
            start = torch.zeros_like(mean) if conv.bias is None else conv.bias
            bias = norm.bias + (start - mean) * scale
            by_filter = (1, -1, 1, 1) if self.transposed else (-1, 1, 1, 1)
            return conv.weight * scale.view(by_filter), bias

        sources = (conv.weight, conv.bias, norm.weight, norm.bias, mean, variance)
        return self._folded.of(sources, fold, (norm.eps,))


def activate(x: Tensor, activation: str, alpha: float = 1.0) -> Tensor:
    """The activation of that name, in place where PyTorch offers it; x must be ours.

    Full backward hooks of modules make their results views, which autograd keeps from being
    changed. Compiled, all is out of place until the compiler decides.
    """
    if torch.compiler.is_compiling() or x._is_view():
        return F.elu(x, alpha) if activation == "elu" else _conv.activate(x, activation)
    if activation == "relu":
        return F.relu_(x)
    if activation == "leaky_relu":
        return F.leaky_relu_(x, 0.2)
    if activation == "elu":
        return F.elu_(x, alpha)
    return _conv.activate(x, activation)


def initialise(network: nn.Module, std: float, *, norms: bool = False) -> None:
    """Weights of all convolutions and linear layers from N(0, std), their biases 0.

    `norms`: scales of normalisations from N(1, std), their shifts 0.
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
