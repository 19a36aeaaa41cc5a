"""naoto0804/pytorch-inpainting-with-partial-conv: net.py."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inpaint_ops import checks
from inpaint_ops.compat import _arguments
from inpaint_ops.ops.partial_conv2d import partial_conv2d

Pair = tuple[int, int]

# Kernel, stride and padding of a block's convolution.
_SAMPLES = {"down-7": (7, 2, 3), "down-5": (5, 2, 2), "down-3": (3, 2, 1)}
_INITS = ("gaussian", "xavier", "kaiming", "orthogonal", "default")


def weights_init(init_type: str = "gaussian") -> Callable[[nn.Module], None]:
    """Return a function for `nn.Module.apply` that draws weights and zeroes biases.

    Args:
        init_type: "gaussian" (deviation 0.02), "xavier" and "orthogonal" (gain sqrt 2), "kaiming"
            (fan-in) or "default" (weights stay); of modules whose class name starts with Conv or
            Linear.

    Raises:
        TypeError, ValueError: another word.
    """
    _arguments.check_word("weights_init", "init_type", init_type, _INITS)

    def draw(module: nn.Module) -> None:
        weight = getattr(module, "weight", None)
        if not type(module).__name__.startswith(("Conv", "Linear")) or weight is None:
            return
        if init_type == "gaussian":
            nn.init.normal_(weight, 0.0, 0.02)
        elif init_type == "xavier":
            nn.init.xavier_normal_(weight, gain=math.sqrt(2))
        elif init_type == "kaiming":
            nn.init.kaiming_normal_(weight, a=0, mode="fan_in")
        elif init_type == "orthogonal":
            nn.init.orthogonal_(weight, gain=math.sqrt(2))
        bias = getattr(module, "bias", None)
        if bias is not None:
            nn.init.zeros_(bias)

    return draw


class ConvMasked2d(nn.Conv2d):
    """nn.Conv2d over `partial_conv2d`: the convolution and the window sums of a `PartialConv`."""

    def forward(  # type: ignore[override]
        self, input: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Convolve.

        Args:
            input: (N, in_channels, H, W).
            mask: 1 = valid; (N or 1, in_channels, H, W).

        Returns:
            y: (N, out_channels, Ho, Wo).
            valid: (N or 1, groups, Ho, Wo), 1 where a window of the group saw anything.
        """
        results = []
        size = self.in_channels // self.groups
        filters = self.out_channels // self.groups
        # Window sums are those of the group, where the operator's are those of all channels.
        for i in range(self.groups):
            mine = slice(i * size, (i + 1) * size)
            theirs = slice(i * filters, (i + 1) * filters)
            whole = self.groups == 1
            results.append(
                partial_conv2d(
                    input if whole else input[:, mine],
                    mask if whole else mask[:, mine],
                    self.weight if whole else self.weight[theirs],
                    self.bias if whole or self.bias is None else self.bias[theirs],
                    stride=_pair(self.stride),
                    padding="same" if self.padding == "same" else self._zeros(),
                    dilation=_pair(self.dilation),
                    normalise="sum",
                )
            )
        if self.groups == 1:
            return results[0]
        return torch.cat([y for y, _ in results], 1), torch.cat([u for _, u in results], 1)

    def _zeros(self) -> Pair:
        return (0, 0) if isinstance(self.padding, str) else _pair(self.padding)


class PartialConv(nn.Module):
    """Convolution over the valid pixels, divided by their number: y = W (x m) / sum m + b.

    State dict: ``input_conv.weight``, ``input_conv.bias`` and ``mask_conv.weight``, frozen ones
    that are written and loaded but not read.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias: of
            nn.Conv2d. The weight starts Kaiming-normal (fan-in), the bias from 0.

    Raises:
        TypeError, ValueError: wrong type or value.

    Differs from the port: holes are never read, NaN included; masks get no gradient; the new mask
    is a view of one channel for each group.

    Source: naoto0804/pytorch-inpainting-with-partial-conv at 8d64e7e: net.py.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Pair,
        stride: int | Pair = 1,
        padding: int | Pair | str = 0,
        dilation: int | Pair = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        _arguments.check_counts(
            name, in_channels=in_channels, out_channels=out_channels, groups=groups
        )
        _arguments.check_sizes(name, 1, kernel_size=kernel_size, stride=stride, dilation=dilation)
        checks.check_flag(name, "bias", bias)
        shape = (in_channels, out_channels, kernel_size, stride, padding, dilation, groups)
        self.input_conv = ConvMasked2d(*shape, bool(bias))
        self.mask_conv = nn.Conv2d(*shape, False)
        self.input_conv.apply(weights_init("kaiming"))
        nn.init.ones_(self.mask_conv.weight)
        self.mask_conv.requires_grad_(False)

    def forward(self, input: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Convolve.

        Args:
            input: (N, in_channels, H, W).
            mask: 1 = valid, soft values allowed; (N or 1, in_channels, H, W), floating.

        Returns:
            output: (N, out_channels, Ho, Wo), 0 where a window saw nothing.
            new_mask: like output, 1 where a window saw anything.

        Raises:
            TypeError, ValueError: wrong type or shape.
        """
        channels = self.input_conv.in_channels
        if not isinstance(mask, Tensor) or mask.dim() != 4 or mask.shape[1] != channels:
            got = tuple(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
            raise ValueError(f"PartialConv: mask must have shape (N, {channels}, H, W), got {got}")
        output, valid = self.input_conv(input, mask)
        n, filters, high, wide = output.shape
        valid = valid.to(output.dtype)
        groups = self.input_conv.groups
        if groups > 1:
            valid = valid.repeat_interleave(filters // groups, 1)
        return output, valid.expand(n, filters, high, wide)


class PCBActiv(nn.Module):
    """Partial convolution, batch normalisation and activation.

    Args:
        in_ch, out_ch: channels.
        bn: whether there is a normalisation, ``bn``.
        sample: "down-7", "down-5" or "down-3": kernel of a stride of 2; anything else a 3x3
            convolution of stride 1.
        activ: "relu", "leaky" (slope 0.2), or anything else for none.
        conv_bias: whether the convolution has one.

    Raises:
        TypeError, ValueError: wrong type or value.

    Source: naoto0804/pytorch-inpainting-with-partial-conv at 8d64e7e: net.py.
    """

    def __init__(
        self,
        in_ch: int,
        out_ch: int,
        bn: bool = True,
        sample: str = "none-3",
        activ: str | None = "relu",
        conv_bias: bool = False,
    ) -> None:
        super().__init__()
        checks.check_flag("PCBActiv", "bn", bn)
        if not isinstance(sample, str):
            raise TypeError(f"PCBActiv: sample must be a str, got {type(sample).__name__}")
        if activ is not None and not isinstance(activ, str):
            raise TypeError(f"PCBActiv: activ must be a str or None, got {type(activ).__name__}")
        self.conv = PartialConv(in_ch, out_ch, *_SAMPLES.get(sample, (3, 1, 1)), bias=conv_bias)
        if bn:
            self.bn = nn.BatchNorm2d(out_ch)
        if activ == "relu":
            self.activation: nn.Module = nn.ReLU()
        elif activ == "leaky":
            self.activation = nn.LeakyReLU(negative_slope=0.2)

    def forward(self, input: Tensor, input_mask: Tensor) -> tuple[Tensor, Tensor]:
        """(N, in_ch, H, W) and its mask to (N, out_ch, Ho, Wo) and its mask."""
        h, h_mask = self.conv(input, input_mask)
        if hasattr(self, "bn"):
            h = self.bn(h)
        if hasattr(self, "activation"):
            h = self.activation(h)
        return h, h_mask


class PConvUNet(nn.Module):
    """The U-Net of partial convolutions.

    Args:
        layer_size: levels; the image's sides are multiples of 2 ** layer_size.
        input_channels: of the image.
        upsampling_mode: of the features on the way up, as in F.interpolate; masks always "nearest".

    ``freeze_enc_bn = True`` before ``train()`` keeps the encoder's normalisations in evaluation.

    Raises:
        TypeError, ValueError: wrong type or value.

    Source: naoto0804/pytorch-inpainting-with-partial-conv at 8d64e7e: net.py.
    """

    def __init__(
        self, layer_size: int = 7, input_channels: int = 3, upsampling_mode: str = "nearest"
    ) -> None:
        super().__init__()
        checks.check_int("PConvUNet", "layer_size", layer_size)
        checks.check_int("PConvUNet", "input_channels", input_channels)
        if not isinstance(upsampling_mode, str):
            raise TypeError(f"PConvUNet: upsampling_mode must be a str, got {upsampling_mode!r}")
        self.freeze_enc_bn = False
        self.upsampling_mode = upsampling_mode
        self.layer_size = layer_size
        widths = (input_channels, 64, 128, 256, 512)
        samples = ("down-7", "down-5", "down-5", "down-3")
        for i in range(1, 5):
            block = PCBActiv(widths[i - 1], widths[i], bn=i > 1, sample=samples[i - 1])
            self.add_module(f"enc_{i}", block)
        for i in range(5, layer_size + 1):
            self.add_module(f"enc_{i}", PCBActiv(512, 512, sample="down-3"))
        for i in range(5, layer_size + 1):
            self.add_module(f"dec_{i}", PCBActiv(512 + 512, 512, activ="leaky"))
        for i in (4, 3, 2):
            block = PCBActiv(widths[i] + widths[i - 1], widths[i - 1], activ="leaky")
            self.add_module(f"dec_{i}", block)
        self.dec_1 = PCBActiv(
            64 + input_channels, input_channels, bn=False, activ=None, conv_bias=True
        )

    def forward(self, input: Tensor, input_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Complete.

        Args:
            input: (N, input_channels, H, W).
            input_mask: the same shape, 1 = valid.

        Returns:
            (N, input_channels, H, W), unbounded, and the last mask.
        """
        skips = [(input, input_mask)]
        for i in range(1, self.layer_size + 1):
            skips.append(self.get_submodule(f"enc_{i}")(*skips[-1]))
        h, h_mask = skips.pop()
        for i in range(self.layer_size, 0, -1):
            features, mask = skips.pop()
            h = F.interpolate(h, scale_factor=2, mode=self.upsampling_mode)
            h_mask = F.interpolate(h_mask, scale_factor=2, mode="nearest")
            h, h_mask = self.get_submodule(f"dec_{i}")(
                torch.cat([h, features], 1), torch.cat([h_mask, mask], 1)
            )
        return h, h_mask

    def train(self, mode: bool = True) -> "PConvUNet":
        """Switch between training and evaluation; see ``freeze_enc_bn``."""
        super().train(mode)
        if self.freeze_enc_bn:
            for name, module in self.named_modules():
                if isinstance(module, nn.BatchNorm2d) and "enc" in name:
                    module.eval()
        return self

    def extra_repr(self) -> str:
        """Return the options, for printing."""
        return f"layer_size={self.layer_size}, upsampling_mode={self.upsampling_mode!r}"


def _pair(value: tuple[int, ...]) -> Pair:
    return value[0], value[1]
