"""Convolution layer with activation and upsampling fused in."""

import math

import torch
from torch import Tensor, nn

from inpaint_ops import checks
from inpaint_ops.ops.convolution import spec
from inpaint_ops.ops.fused_conv2d import fused_conv2d

Pair = tuple[int, int]


def kernel_pair(layer: str, value: int | Pair) -> Pair:
    """Return the size of a kernel as (height, width)."""
    return spec.check_pair(layer, "kernel_size", value, 1)


class FusedConv2d(nn.Module):
    """Layer activation(conv(pad(upsample(x)))) with state dict and initialisation of nn.Conv2d.

    Args:
        in_channels: channels of x.
        out_channels: channels of the result.
        kernel_size: pixels, or (height, width).
        stride, padding, dilation, groups, padding_mode, activation, upsample, algorithm: of
            `fused_conv2d`.
        bias: add a bias.
        device, dtype: of the parameters.

    Raises:
        TypeError, ValueError: wrong type or value; what depends on the image is checked in forward.
    """

    bias: nn.Parameter | None

    def __init__(  # noqa: PLR0913 - the arguments of nn.Conv2d, in its order
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Pair,
        stride: int | Pair = 1,
        padding: int | Pair | str = 0,
        dilation: int | Pair = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        *,
        activation: str = "identity",
        upsample: int = 1,
        algorithm: str = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        for label, count in (("in_channels", in_channels), ("out_channels", out_channels)):
            checks.check_int(name, label, count)
        checks.check_int(name, "groups", groups)
        checks.check_flag(name, "bias", bias)
        if in_channels % groups or out_channels % groups:
            raise ValueError(f"{name}: groups must divide the channels, got {groups}")
        checks.check_choice(name, "activation", activation, spec.ACTIVATIONS)
        checks.check_choice(name, "padding_mode", padding_mode, spec.PADDING_MODES)
        spec.check_algorithm(name, algorithm)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = kernel_pair(name, kernel_size)
        self.stride = spec.check_pair(name, "stride", stride, 1)
        self.padding = padding
        self.dilation = spec.check_pair(name, "dilation", dilation, 1)
        self.groups = groups
        self.padding_mode = padding_mode
        self.activation = activation
        self.upsample = upsample
        self.algorithm = algorithm
        shape = (self._filters(), in_channels // groups, *self.kernel_size)
        self.weight = nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
        if bias:
            self.bias = nn.Parameter(torch.empty(shape[0], device=device, dtype=dtype))
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def _filters(self) -> int:
        return self.out_channels

    def reset_parameters(self) -> None:
        """Draw weight and bias as nn.Conv2d does."""
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            bound = 1 / math.sqrt(self.weight[0].numel())
            nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, out_channels, Ho, Wo), see `fused_conv2d`."""
        return fused_conv2d(
            x,
            self.weight,
            self.bias,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            groups=self.groups,
            padding_mode=self.padding_mode,
            activation=self.activation,
            upsample=self.upsample,
            algorithm=self.algorithm,
        )

    def extra_repr(self) -> str:
        """Return the options, for printing."""
        options = [f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}"]
        options += [f"stride={self.stride}, padding={self.padding!r}, dilation={self.dilation}"]
        if self.groups != 1:
            options.append(f"groups={self.groups}")
        if self.bias is None:
            options.append("bias=False")
        if self.padding_mode != "zeros":
            options.append(f"padding_mode={self.padding_mode!r}")
        options.append(f"activation={self.activation!r}")
        if self.upsample != 1:
            options.append(f"upsample={self.upsample}")
        if self.algorithm != "auto":
            options.append(f"algorithm={self.algorithm!r}")
        return ", ".join(options)
