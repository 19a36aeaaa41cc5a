"""Gated convolution layer of DeepFill v2."""

import torch
from torch import Tensor

from inpaint_ops.layers.fused_conv2d import FusedConv2d, Pair
from inpaint_ops.ops.gated_conv2d import gated_conv2d


class GatedConv2d(FusedConv2d):
    """Layer activation(f) * sigmoid(g) with [f | g] = conv(pad(upsample(x))).

    State dict: `weight` (2 out_channels, in_channels, kh, kw) and `bias` (2 out_channels,), first
    the filters of features, then those of gates. It is that of the one nn.Conv2d inside the public
    layer. Two separate convolutions, as in zhaoyuzhi/deepfillv2, are concatenated as
    [features; gates].

    Args:
        in_channels: channels of x.
        out_channels: channels of the result: half the filters.
        kernel_size: pixels, or (height, width).
        stride, padding, dilation, padding_mode, activation, upsample, algorithm: of `gated_conv2d`.
        bias: add a bias.
        device, dtype: of the parameters.

    Raises:
        TypeError, ValueError: wrong type or value; what depends on the image is checked in forward.

    Source: GConv and GDeConv of nipponjo/deepfillv2-pytorch: model/networks.py.
    """

    def __init__(  # noqa: PLR0913 - the arguments of nn.Conv2d, in its order
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Pair,
        stride: int | Pair = 1,
        padding: int | Pair | str = 0,
        dilation: int | Pair = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        *,
        activation: str = "elu",
        upsample: int = 1,
        algorithm: str = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            1,
            bias,
            padding_mode,
            activation=activation,
            upsample=upsample,
            algorithm=algorithm,
            device=device,
            dtype=dtype,
        )

    def _filters(self) -> int:
        return 2 * self.out_channels

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, out_channels, Ho, Wo), see `gated_conv2d`."""
        return gated_conv2d(
            x,
            self.weight,
            self.bias,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            padding_mode=self.padding_mode,
            activation=self.activation,
            upsample=self.upsample,
            algorithm=self.algorithm,
        )
