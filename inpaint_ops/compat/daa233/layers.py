"""Convolution blocks and attention."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import spectral_norm, weight_norm

from inpaint_ops import checks
from inpaint_ops.compat import _arguments, _blocks
from inpaint_ops.compat._attention import PortAttention
from inpaint_ops.compat._convolution import Conv2d

_WEIGHT_NORMS = ("none", "sn", "wn")
_NORMS = ("none", "bn", "in")
_PADS = ("zero", "reflect", "replicate", "none")
_ACTIVATIONS = ("none", "relu", "elu", "lrelu", "prelu", "selu", "tanh")


class Conv2dBlock(nn.Module):
    """activation(norm(conv(pad(x)))), in one pass where there is no normalisation between.

    State dict: ``conv.weight`` and ``conv.bias`` (``conv.weight_orig``, ``conv.weight_u``,
    ``conv.weight_v`` with "sn"; ``conv.weight_g`` and ``conv.weight_v`` with "wn"), ``norm.*`` with
    "bn", ``activation.weight`` with "prelu".

    Args:
        input_dim, output_dim: channels.
        kernel_size, stride, dilation: of nn.Conv2d.
        padding: pixels of `pad_type` around x, before the zeros of conv_padding.
        conv_padding: zeros around that.
        weight_norm: "none", "sn" (spectral) or "wn".
        norm: "none", "bn" or "in" (without weights).
        activation: "none", "relu", "elu", "lrelu" (slope 0.2), "prelu", "selu" or "tanh".
        pad_type: "zero", "reflect", "replicate" or "none".
        transpose: a transposed convolution, whose output padding is conv_padding too.

    Raises:
        TypeError, ValueError: wrong type or value.

    Source: daa233/generative-inpainting-pytorch at c6cdaea: model/networks.py.
    """

    def __init__(  # noqa: PLR0913 - the arguments of the port
        self,
        input_dim: int,
        output_dim: int,
        kernel_size: int,
        stride: int,
        padding: int = 0,
        conv_padding: int = 0,
        dilation: int = 1,
        weight_norm: str = "none",
        norm: str = "none",
        activation: str = "relu",
        pad_type: str = "zero",
        transpose: bool = False,
    ) -> None:
        super().__init__()
        name = "Conv2dBlock"
        _arguments.check_counts(name, input_dim=input_dim, output_dim=output_dim)
        _arguments.check_sizes(name, 1, kernel_size=kernel_size, stride=stride, dilation=dilation)
        _arguments.check_sizes(name, 0, padding=padding, conv_padding=conv_padding)
        _arguments.check_word(name, "weight_norm", weight_norm, _WEIGHT_NORMS)
        _arguments.check_word(name, "norm", norm, _NORMS)
        _arguments.check_word(name, "activation", activation, _ACTIVATIONS)
        _arguments.check_word(name, "pad_type", pad_type, _PADS)
        checks.check_flag(name, "transpose", transpose)
        self.use_bias = True
        self.pad = _blocks.pad(pad_type, padding)
        self.norm = _blocks.norm(norm, output_dim)
        self.weight_norm = _WEIGHT_NORM.get(weight_norm)
        self.activation = _blocks.activation(activation)
        conv: nn.Module
        if transpose:
            conv = nn.ConvTranspose2d(
                *(input_dim, output_dim, kernel_size, stride, conv_padding, conv_padding),
                dilation=dilation,
            )
        else:
            conv = Conv2d(input_dim, output_dim, kernel_size, stride, conv_padding, dilation)
        self.conv = conv if self.weight_norm is None else self.weight_norm(conv)

    def forward(self, x: Tensor, *, upsample: int = 1) -> Tensor:
        """(N, input_dim, H, W) to (N, output_dim, Ho, Wo); `upsample` 2 doubles x first."""
        if isinstance(self.conv, nn.ConvTranspose2d):  # no network of the port has one
            if upsample == 2:
                x = F.interpolate(x, scale_factor=2, mode="nearest")
            x = self.conv(x if self.pad is None else self.pad(x))
            return _blocks.finish(x, self.norm, self.activation)
        return _blocks.convolve(self.conv, x, self.pad, self.norm, self.activation, upsample)


_WEIGHT_NORM: dict[str, Any] = {"sn": spectral_norm, "wn": weight_norm}


def gen_conv(
    input_dim: int,
    output_dim: int,
    kernel_size: int = 3,
    stride: int = 1,
    padding: int = 0,
    rate: int = 1,
    activation: str = "elu",
) -> Conv2dBlock:
    """Return a `Conv2dBlock` of the generators, with zero padding and dilation `rate`.

    Raises:
        TypeError, ValueError: wrong type or value.
    """
    return Conv2dBlock(
        *(input_dim, output_dim, kernel_size, stride),
        conv_padding=padding,
        dilation=rate,
        activation=activation,
    )


def dis_conv(
    input_dim: int,
    output_dim: int,
    kernel_size: int = 5,
    stride: int = 2,
    padding: int = 0,
    rate: int = 1,
    activation: str = "lrelu",
) -> Conv2dBlock:
    """Return a `Conv2dBlock` of the critics, with zero padding and dilation `rate`.

    Raises:
        TypeError, ValueError: wrong type or value.
    """
    return gen_conv(input_dim, output_dim, kernel_size, stride, padding, rate, activation)


class ContextualAttention(PortAttention):
    """Every cell of f rebuilt from the patches of b most like its own, without those of the hole.

    Args:
        ksize, fuse_k: sides of patches and fuse kernel, cells; 3.
        stride: between patches; 1.
        rate: feature pixels a cell. The port works with 2 alone.
        softmax_scale: factor on the scores.
        fuse: whether neighbours' scores are added up.
        use_cuda, device_ids: kept, not read: the work is done where f is.

    Raises:
        ValueError: ksize or fuse_k other than 3.
        TypeError, ValueError: wrong type or value.

    Differs from the port: the flow counts along the background's own width.

    Source: daa233/generative-inpainting-pytorch at c6cdaea: model/networks.py.
    """

    def __init__(
        self,
        ksize: int = 3,
        stride: int = 1,
        rate: int = 1,
        fuse_k: int = 3,
        softmax_scale: float = 10,
        fuse: bool = False,
        use_cuda: bool = False,
        device_ids: list[int] | None = None,
    ) -> None:
        checks.check_flag("ContextualAttention", "use_cuda", use_cuda)
        super().__init__(
            *(ksize, stride, rate, fuse_k, softmax_scale, 2, fuse, True, device_ids), key_norm="sum"
        )
        self.use_cuda = use_cuda

    def forward(self, f: Tensor, b: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Attend.

        Args:
            f: (N, C, H, W) foreground features.
            b: (N, C, Hb, Wb) background features; in the networks `f` again.
            mask: not 0 = missing; (batch, 1, 4 Hb, 4 Wb). The first mask of the batch holds for all
                samples.

        Returns:
            y: (N, C, H, W).
            flow: (N, 3, 4 H, 4 W) float32, colours 0 to 1 of the displacements, a square for each
                cell; with a rate of 1 (N, 3, H, W).

        Raises:
            TypeError, ValueError: wrong type, shape or option.
        """
        y, index = self.match(f, b, mask)
        flow = self.picture(index, b)
        if self.rate != 1:
            flow = F.interpolate(flow, scale_factor=self.rate * 4, mode="nearest")
        return y, flow
