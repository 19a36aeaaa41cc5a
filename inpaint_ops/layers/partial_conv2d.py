"""Partial convolution layer, drop-in for NVIDIA's."""

import torch
from torch import Tensor, nn

from inpaint_ops import checks
from inpaint_ops.ops.convolution import spec
from inpaint_ops.ops.overrides import call, has_override
from inpaint_ops.ops.partial_conv2d import partial_conv2d

Pair = tuple[int, int]


class PartialConv2d(nn.Conv2d):
    """Convolution over valid pixels: constructor, forward and state dict of the public layer.

    Deviations: without a mask the whole image is valid, whatever mask came before; the public layer
    may use the last mask again. Padding modes other than zeros are refused, because the public
    layer counts padded pixels as invalid and reads them nevertheless.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation: of nn.Conv2d.
        groups, bias, padding_mode, device, dtype: of nn.Conv2d.
        multi_channel: masks have in_channels channels instead of one.
        return_mask: also return the updated mask.
        algorithm: of `partial_conv2d`.

    Raises:
        ValueError: a padding mode other than "zeros", and what nn.Conv2d refuses.

    Source: NVIDIA/partialconv: models/partialconv2d.py.
    """

    def __init__(  # noqa: PLR0913 - the arguments of the public layer
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
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        multi_channel: bool = False,
        return_mask: bool = False,
        algorithm: str = "auto",
    ) -> None:
        spec.check_algorithm("PartialConv2d", algorithm)
        if padding_mode != "zeros":
            raise ValueError(f"PartialConv2d: padding_mode must be zeros, got {padding_mode!r}")
        checks.check_flag("PartialConv2d", "bias", bias)
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            bias,
            "zeros",
            device,
            dtype,
        )
        self.multi_channel = multi_channel
        self.return_mask = return_mask
        self.algorithm = algorithm

    def forward(  # type: ignore[override]
        self, input: Tensor, mask_in: Tensor | None = None
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Convolve the valid pixels.

        Args:
            input: (N, in_channels, H, W).
            mask_in: 1 = valid; (N or 1, 1, H, W), or (N or 1, in_channels, H, W) if multi_channel.

        Returns:
            y: (N, out_channels, Ho, Wo).
            mask: the updated mask, only if return_mask. Its batch is that of mask_in (without one:
                1, or N if multi_channel). It has one channel, or out_channels equal ones if
                multi_channel (a view).

        Raises:
            TypeError, ValueError: wrong type or shape.
        """
        y, valid_out = partial_conv2d(
            input,
            _valid(input, mask_in, self.in_channels if self.multi_channel else None),
            self.weight,
            self.bias,
            stride=_pair(self.stride),
            padding=self._zeros_around(),
            dilation=_pair(self.dilation),
            groups=self.groups,
            algorithm=self.algorithm,
        )
        if not self.return_mask:
            return y
        if self.multi_channel:
            valid_out = valid_out.expand(-1, self.out_channels, -1, -1)
        return y, valid_out

    def _zeros_around(self) -> Pair | str:
        if isinstance(self.padding, str):
            return "same" if self.padding == "same" else (0, 0)
        return _pair(self.padding)

    def extra_repr(self) -> str:
        """Return the options, for printing."""
        text = (
            f"{super().extra_repr()}, multi_channel={self.multi_channel}, "
            f"return_mask={self.return_mask}"
        )
        return text if self.algorithm == "auto" else f"{text}, algorithm={self.algorithm!r}"


def _valid(input: Tensor, mask_in: Tensor | None, channels: int | None) -> Tensor:
    """Return the mask, checked; without one every pixel is valid. `channels`: if multi_channel."""
    if has_override(input, mask_in):
        return call(_valid, locals())
    if not isinstance(input, Tensor) or input.dim() != 4:
        got = tuple(input.shape) if isinstance(input, Tensor) else type(input).__name__
        raise ValueError(f"PartialConv2d: input must be a Tensor of shape (N, C, H, W), got {got}")
    if mask_in is None:
        batch = 1 if channels is None else input.shape[0]
        return input.new_ones((batch, 1, *input.shape[2:]))
    wanted = 1 if channels is None else channels
    if not isinstance(mask_in, Tensor) or mask_in.dim() != 4 or checks.sizes(mask_in)[1] != wanted:
        got = tuple(mask_in.shape) if isinstance(mask_in, Tensor) else type(mask_in).__name__
        raise ValueError(f"PartialConv2d: mask_in must have shape (N, {wanted}, H, W), got {got}")
    return mask_in


def _pair(value: tuple[int, ...]) -> Pair:
    return value[0], value[1]
