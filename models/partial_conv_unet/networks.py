"""Networks of the PartialConv U-Net."""

from __future__ import annotations

from torch import Tensor, nn

from inpaint_ops import checks
from inpaint_ops.models.blocks.conv_block import activate
from inpaint_ops.ops import partial_conv2d


class PartialBlock(nn.Module):
    """Partial convolution, batch normalisation and activation.

    Normalisation and activation also act on windows without a valid pixel, where the convolution
    gives 0.

    Args:
        in_channels, out_channels, kernel_size, stride: of the convolution; padding keeps the size.
        activation: "relu", "leaky_relu" or "identity".
        norm: normalise after the convolution.
        bias: give the convolution a bias.
        normalise: rule of `partial_conv2d`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int,
        *,
        activation: str,
        norm: bool,
        bias: bool,
        normalise: str,
    ) -> None:
        super().__init__()
        padding = kernel_size // 2
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, bias=bias)
        nn.init.kaiming_normal_(self.conv.weight)
        if bias:
            nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]
        self.norm = nn.BatchNorm2d(out_channels) if norm else None
        self.activation = activation
        self.normalise = normalise

    def forward(
        self,
        x: Tensor | tuple[Tensor, ...],
        valid: Tensor | tuple[Tensor, ...],
        upsample: int | tuple[int, ...] = 1,
    ) -> tuple[Tensor, Tensor]:
        """Return the result and its valid pixels (N, 1, Ho, Wo); see `partial_conv2d`."""
        conv = self.conv
        y, valid = partial_conv2d(
            x,
            valid,
            conv.weight,
            conv.bias,
            stride=conv.stride[0],
            padding=conv.kernel_size[0] // 2,
            normalise=self.normalise,
            upsample=upsample,
        )
        if self.norm is not None:
            y = self.norm(y)
        return activate(y, self.activation), valid


class PartialConvUNetwork(nn.Module):
    """Encoder of strided partial convolutions, decoder over doubled features and masks.

    Args:
        levels: halvings, 5 to 8.
        base_channels: of the first layer; the fourth and deeper ones have eight times as many.
        stem_bias: give the first layer a bias (mmagic).
        normalise: rule of `partial_conv2d`.
    """

    def __init__(
        self,
        levels: int = 7,
        base_channels: int = 64,
        stem_bias: bool = False,
        normalise: str = "window",
    ) -> None:
        super().__init__()
        widths = [3, *(base_channels * min(8, 1 << i) for i in range(levels))]
        kernels = [7, 5, 5, *(3 for _ in range(levels - 3))]
        self.encoder = nn.ModuleList(
            PartialBlock(
                *(widths[i], widths[i + 1], kernels[i], 2),
                activation="relu",
                norm=i > 0,
                bias=stem_bias and i == 0,
                normalise=normalise,
            )
            for i in range(levels)
        )
        # decoder[i] brings level i + 1 to level i.
        self.decoder = nn.ModuleList(
            PartialBlock(
                *(widths[i + 1] + widths[i], widths[i] if i else 3, 3, 1),
                activation="leaky_relu" if i else "identity",
                norm=i > 0,
                bias=i == 0,
                normalise=normalise,
            )
            for i in range(levels)
        )

    def forward(self, x: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Fill a picture.

        Args:
            x: (N, 3, H, W), normalised, anything where it is missing; sides are multiples of
                2^levels.
            valid: (N, 1 or 3, H, W), known where not 0; bool, uint8 or float.

        Returns:
            The picture, known pixels predicted too, and (N, 1, H, W) of the type of `valid`: 1
            where the network saw anything.

        Raises:
            TypeError, ValueError: wrong type or shape.
        """
        step = 1 << len(self.encoder)
        shape = checks.sizes(x)
        if x.dim() != 4 or shape[2] % step or shape[3] % step:
            raise ValueError(
                f"partial_conv_unet: x must have sides that are multiples of {step}, got "
                f"{tuple(x.shape)}; complete pads"
            )
        known = valid != 0
        maps, masks = [x], [known]
        for block in self.encoder:
            x, known = block(x, known)
            maps.append(x)
            masks.append(known)
        for level in reversed(range(len(self.decoder))):
            x, known = self.decoder[level]((x, maps[level]), (known, masks[level]), (2, 1))
        return x, known.to(valid.dtype)
