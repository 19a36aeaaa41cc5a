"""NVIDIA/partialconv: models/partialconv2d.py."""

from inpaint_ops import checks, layers
from inpaint_ops.compat import _arguments

Pair = tuple[int, int]


class PartialConv2d(layers.PartialConv2d):
    """`inpaint_ops.PartialConv2d` that refuses words in the place of flags.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias,
            padding_mode, device, dtype: of nn.Conv2d.
        multi_channel: masks have in_channels channels instead of one.
        return_mask: also return the updated mask.

    Raises:
        TypeError, ValueError: wrong type or value; a padding mode other than "zeros".

    Differs from the port: a call without a mask takes the image as all valid, whatever mask came
    before (the port may use the last one again); with `multi_channel` the updated mask is a view of
    one channel; holes are never read, NaN included; masks get no gradient.

    Source: NVIDIA/partialconv at 610d373: models/partialconv2d.py.
    """

    def __init__(  # noqa: PLR0913 - the arguments of the port
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
        device: object = None,
        dtype: object = None,
        *,
        multi_channel: bool = False,
        return_mask: bool = False,
    ) -> None:
        flags = {"bias": bias, "multi_channel": multi_channel, "return_mask": return_mask}
        for name, value in flags.items():
            checks.check_flag("PartialConv2d", name, value)
        _arguments.check_counts(
            "PartialConv2d", in_channels=in_channels, out_channels=out_channels, groups=groups
        )
        _arguments.check_sizes(
            "PartialConv2d", 1, kernel_size=kernel_size, stride=stride, dilation=dilation
        )
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            bool(bias),
            padding_mode,
            device,  # type: ignore[arg-type]
            dtype,  # type: ignore[arg-type]
            multi_channel=bool(multi_channel),
            return_mask=bool(return_mask),
        )
        # Values of a window, as the port calls them.
        values = self.kernel_size[0] * self.kernel_size[1]
        self.slide_winsize = values * (in_channels if multi_channel else 1)
