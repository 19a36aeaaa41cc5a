"""zhaoyuzhi/deepfillv2: deepfillv2/network_module.py."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inpaint_ops import checks
from inpaint_ops.compat import _arguments, _blocks
from inpaint_ops.compat._convolution import Conv2d, convolve, weight_and_bias
from inpaint_ops.compat._norms import LayerNorm, SpectralNorm, l2normalize

__all__ = [
    "Conv2dLayer",
    "GatedConv2d",
    "LayerNorm",
    "SpectralNorm",
    "TransposeConv2dLayer",
    "TransposeGatedConv2d",
    "l2normalize",
]

_PADS = ("reflect", "replicate", "zero")
_NORMS = ("none", "bn", "in", "ln")
_ACTIVATIONS = ("none", "relu", "lrelu", "prelu", "selu", "tanh", "sigmoid")


def _convolution(
    sn: bool, inputs: int, outputs: int, kernel_size: int, stride: int, dilation: int
) -> nn.Module:
    conv = Conv2d(inputs, outputs, kernel_size, stride, dilation=dilation)
    return SpectralNorm(conv) if sn else conv


def _ready(conv: nn.Module, x: Tensor) -> tuple[nn.Conv2d, Tensor, Tensor | None]:
    """The convolution itself, with the weight and bias it is about to use."""
    if isinstance(conv, SpectralNorm) and isinstance(conv.module, nn.Conv2d):
        return conv.module, conv.normalised(), conv.module.bias
    assert isinstance(conv, nn.Conv2d)
    return conv, *weight_and_bias(conv, x)


class _Layer(nn.Module):
    """Checks and neighbours of both kinds of layers."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int,
        padding: int,
        dilation: int,
        pad_type: str,
        activation: str,
        norm: str,
        sn: bool,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        _arguments.check_counts(name, in_channels=in_channels, out_channels=out_channels)
        _arguments.check_sizes(name, 1, kernel_size=kernel_size, stride=stride, dilation=dilation)
        checks.check_int(name, "padding", padding, 0)
        _arguments.check_word(name, "pad_type", pad_type, _PADS)
        _arguments.check_word(name, "activation", activation, _ACTIVATIONS)
        _arguments.check_word(name, "norm", norm, _NORMS)
        checks.check_flag(name, "sn", sn)
        self.pad = _blocks.pad(pad_type, padding)
        self.norm = LayerNorm(out_channels) if norm == "ln" else _blocks.norm(norm, out_channels)
        self.activation = _blocks.activation(activation)
        self.conv2d = _convolution(sn, in_channels, out_channels, kernel_size, stride, dilation)


class Conv2dLayer(_Layer):
    """activation(norm(conv(pad(x)))), in one pass where there is no normalisation between.

    State dict: ``conv2d.weight`` and ``conv2d.bias``; with `sn` ``conv2d.module.weight_bar``,
    ``conv2d.module.weight_u``, ``conv2d.module.weight_v`` and ``conv2d.module.bias``; ``norm.*``
    with "bn" and "ln", ``activation.weight`` with "prelu".

    Args:
        in_channels, out_channels: channels.
        kernel_size, stride, dilation: of nn.Conv2d.
        padding: pixels on each side.
        pad_type: "zero", "reflect" or "replicate".
        activation: "none", "relu", "lrelu" (slope 0.2), "prelu", "selu", "tanh" or "sigmoid".
        norm: "none", "bn", "in" (without weights) or "ln".
        sn: spectral normalisation, see `SpectralNorm`.

    Raises:
        TypeError, ValueError: wrong type or value.

    Source: zhaoyuzhi/deepfillv2 at 84a13c0: deepfillv2/network_module.py.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        pad_type: str = "zero",
        activation: str = "lrelu",
        norm: str = "none",
        sn: bool = False,
    ) -> None:
        super().__init__(
            *(in_channels, out_channels, kernel_size, stride, padding, dilation),
            *(pad_type, activation, norm, sn),
        )

    def forward(self, x: Tensor, *, upsample: int = 1) -> Tensor:
        """(N, in_channels, H, W) to (N, out_channels, Ho, Wo); `upsample` 2 doubles x first."""
        return _blocks.convolve(self.conv2d, x, self.pad, self.norm, self.activation, upsample)


class GatedConv2d(_Layer):
    """activation(norm(conv2d(pad(x)) * sigmoid(mask_conv2d(pad(x))))), both convolutions at once.

    State dict: ``conv2d.*`` of the features and ``mask_conv2d.*`` of the gates, each as in
    `Conv2dLayer`; ``norm.*`` and ``activation.weight`` as there.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, activation, norm, sn: of
            `Conv2dLayer`.
        pad_type: "reflect", "replicate" or "zero".

    Raises:
        TypeError, ValueError: wrong type or value.

    Differs from the port: hooks of ``conv2d`` and ``mask_conv2d`` that look at results are not
    called.

    Source: zhaoyuzhi/deepfillv2 at 84a13c0: deepfillv2/network_module.py.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        pad_type: str = "reflect",
        activation: str = "lrelu",
        norm: str = "none",
        sn: bool = False,
    ) -> None:
        super().__init__(
            *(in_channels, out_channels, kernel_size, stride, padding, dilation),
            *(pad_type, activation, norm, sn),
        )
        geometry = (in_channels, out_channels, kernel_size, stride, dilation)
        self.mask_conv2d = _convolution(sn, *geometry)
        self.sigmoid = nn.Sigmoid()

    def forward(self, x: Tensor, *, upsample: int = 1) -> Tensor:
        """(N, in_channels, H, W) to (N, out_channels, Ho, Wo); `upsample` 2 doubles x first."""
        conv, features, shift = _ready(self.conv2d, x)
        _, gates, gate_shift = _ready(self.mask_conv2d, x)
        bias = None
        if shift is not None and gate_shift is not None:
            bias = torch.cat([shift, gate_shift])
        weight = torch.cat([features, gates])
        y = convolve(conv, x, weight, bias, pad=self.pad, gated=True, upsample=upsample)
        return _blocks.finish(y, self.norm, self.activation)


class TransposeConv2dLayer(nn.Module):
    """Nearest upsampling, then a `Conv2dLayer`; in one pass for a factor of 2.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, pad_type, activation,
            norm, sn: of `Conv2dLayer`.
        scale_factor: of the upsampling.

    Raises:
        TypeError, ValueError: wrong type or value.

    Source: zhaoyuzhi/deepfillv2 at 84a13c0: deepfillv2/network_module.py.
    """

    def __init__(  # noqa: PLR0913 - the arguments of the port
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        pad_type: str = "zero",
        activation: str = "lrelu",
        norm: str = "none",
        sn: bool = False,
        scale_factor: float = 2,
    ) -> None:
        super().__init__()
        checks.check_finite("TransposeConv2dLayer", "scale_factor", scale_factor)
        self.scale_factor = scale_factor
        self.conv2d = Conv2dLayer(
            *(in_channels, out_channels, kernel_size, stride, padding, dilation),
            *(pad_type, activation, norm, sn),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) to (N, out_channels, Ho, Wo)."""
        return _upsampled(self.conv2d, x, self.scale_factor)

    def extra_repr(self) -> str:
        """Return the options, for printing."""
        return f"scale_factor={self.scale_factor}"


class TransposeGatedConv2d(nn.Module):
    """Nearest upsampling, then a `GatedConv2d`; in one pass for a factor of 2.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, pad_type, activation,
            norm: of `GatedConv2d`.
        sn: spectral normalisation, on by default.
        scale_factor: of the upsampling.

    Raises:
        TypeError, ValueError: wrong type or value.

    Source: zhaoyuzhi/deepfillv2 at 84a13c0: deepfillv2/network_module.py.
    """

    def __init__(  # noqa: PLR0913 - the arguments of the port
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        pad_type: str = "zero",
        activation: str = "lrelu",
        norm: str = "none",
        sn: bool = True,
        scale_factor: float = 2,
    ) -> None:
        super().__init__()
        checks.check_finite("TransposeGatedConv2d", "scale_factor", scale_factor)
        self.scale_factor = scale_factor
        self.gated_conv2d = GatedConv2d(
            *(in_channels, out_channels, kernel_size, stride, padding, dilation),
            *(pad_type, activation, norm, sn),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) to (N, out_channels, Ho, Wo)."""
        return _upsampled(self.gated_conv2d, x, self.scale_factor)

    def extra_repr(self) -> str:
        """Return the options, for printing."""
        return f"scale_factor={self.scale_factor}"


def _upsampled(layer: nn.Module, x: Tensor, factor: float) -> Tensor:
    """The layer of x upsampled by nearest neighbours."""
    if factor == 2:
        y: Tensor = layer(x, upsample=2)
    else:
        y = layer(F.interpolate(x, scale_factor=factor, mode="nearest"))
    return y
