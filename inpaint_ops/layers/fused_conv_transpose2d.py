"""Transposed convolution layer with activation fused in."""

import torch
from torch import Tensor, nn

from inpaint_ops import checks
from inpaint_ops.ops.convolution import spec
from inpaint_ops.ops.fused_conv_transpose2d import fused_conv_transpose2d

Pair = tuple[int, int]


class FusedConvTranspose2d(nn.ConvTranspose2d):
    """Layer activation(conv_transpose(x)), otherwise nn.ConvTranspose2d.

    Args:
        in_channels: channels of x.
        out_channels: channels of the result.
        kernel_size: pixels, or (height, width).
        stride, padding: of `fused_conv_transpose2d`; a pair must hold one number twice.
        output_padding, groups, dilation, padding_mode: of nn.ConvTranspose2d; only its defaults are
            accepted.
        bias: add a bias.
        activation, algorithm: of `fused_conv_transpose2d`.
        device, dtype: of the parameters.

    Raises:
        TypeError, ValueError: wrong type or value; what depends on the image is checked in forward.
    """

    def __init__(  # noqa: PLR0913 - the arguments of nn.ConvTranspose2d, in its order
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Pair,
        stride: int | Pair = 1,
        padding: int | Pair = 0,
        output_padding: int | Pair = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: int | Pair = 1,
        padding_mode: str = "zeros",
        *,
        activation: str = "identity",
        algorithm: str = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        name = type(self).__name__
        for label, count in (("in_channels", in_channels), ("out_channels", out_channels)):
            checks.check_int(name, label, count)
        kernel = spec.check_pair(name, "kernel_size", kernel_size, 1)
        steps = _both(name, "stride", stride, 1)
        cut = _both(name, "padding", padding, 0)
        fixed = {
            "output_padding": (spec.check_pair(name, "output_padding", output_padding, 0), (0, 0)),
            "groups": (groups, 1),
            "dilation": (spec.check_pair(name, "dilation", dilation, 1), (1, 1)),
            "padding_mode": (padding_mode, "zeros"),
        }
        for label, (value, only) in fixed.items():
            if value != only:
                raise ValueError(f"{name}: {label} must be {only!r}, got {value!r}")
        checks.check_choice(name, "activation", activation, spec.ACTIVATIONS)
        spec.check_algorithm(name, algorithm)
        checks.check_flag(name, "bias", bias)
        super().__init__(
            in_channels,
            out_channels,
            kernel,
            steps,
            cut,
            bias=bias,
            device=device,
            dtype=dtype,
        )
        self.activation = activation
        self.algorithm = algorithm
        self._cut = cut

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        """Map (N, in_channels, H, W) to (N, out_channels, Ho, Wo), see `fused_conv_transpose2d`."""
        return fused_conv_transpose2d(
            x,
            self.weight,
            self.bias,
            stride=self.stride[0],
            padding=self._cut,
            activation=self.activation,
            algorithm=self.algorithm,
        )

    def extra_repr(self) -> str:
        """Return the options, for printing."""
        text = f"{super().extra_repr()}, activation={self.activation!r}"
        return text if self.algorithm == "auto" else f"{text}, algorithm={self.algorithm!r}"


def _both(layer: str, name: str, value: int | Pair, minimum: int) -> int:
    """Return the one number for both directions."""
    vertical, horizontal = spec.check_pair(layer, name, value, minimum)
    if vertical != horizontal:
        raise ValueError(f"{layer}: {name} must be one number for both directions, got {value}")
    return vertical
