"""Networks of Context Encoders: two forms of encoder-decoder and two discriminators."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from inpaint_ops import checks
from inpaint_ops.layers import (
    ChannelwiseLinear,
    FusedConv2d,
    FusedConvTranspose2d,
    InstanceNorm2d,
)
from inpaint_ops.models.blocks.conv_block import ConvBlock
from inpaint_ops.models.blocks.pictures import resized

VARIANTS = ("centre", "random_64", "random_128", "convolutional")


def _check_picture(network: str, x: Tensor, size: tuple[int, int]) -> None:
    if x.dim() != 4 or tuple(checks.sizes(x)[1:]) != (3, *size):
        raise ValueError(
            f"{network}: x must have shape (N, 3, {size[0]}, {size[1]}), got {tuple(x.shape)}"
        )


class EncoderDecoder(nn.Module):
    """A picture through a vector and back: 4x4 convolutions of stride 2 on both sides.

    Args:
        variant: "centre", 128^2 to the 64^2 in its middle; "random_64" and "random_128", the whole
            picture of that size; "convolutional", as "centre" but with a 1x1 bottleneck at 4x4
            positions (eriklindernoren's port).
        base_channels: filters of the first layer; the deepest have 8 times as many.
        bottleneck: length of the vector.
        bias: of the convolutions before a normalisation.
        eps: of the normalisations.
        activations: of encoder and decoder.
        alpha: of activation "elu".
    """

    def __init__(
        self,
        *,
        variant: str = "centre",
        base_channels: int = 64,
        bottleneck: int = 4000,
        bias: bool = False,
        eps: float = 1e-5,
        activations: tuple[str, str] = ("leaky_relu", "relu"),
        alpha: float = 1.0,
    ) -> None:
        super().__init__()
        checks.check_choice("EncoderDecoder", "variant", variant, VARIANTS)
        self.input_size = (64, 64) if variant == "random_64" else (128, 128)
        c = base_channels
        convolutional = variant == "convolutional"
        down = [3, c, 2 * c, 4 * c, 8 * c] if variant == "random_64" else [3, c, c, 2 * c, 4 * c]
        down += [] if variant == "random_64" else [8 * c]

        def block(i: int, o: int, *, transposed: bool = False, **numbers: Any) -> ConvBlock:
            options = {"kernel_size": 4, "stride": 2, "padding": 1, "bias": bias, **numbers}
            activation = activations[int(transposed)]
            options = {"activation": activation, "eps": eps, "alpha": alpha, **options}
            return ConvBlock(i, o, transposed=transposed, **options)

        encoder = [block(3, c, norm=False)]
        encoder += [block(i, o) for i, o in pairwise(down[1:])]
        if convolutional:
            straight: dict[str, Any] = {"kernel_size": 1, "stride": 1, "padding": 0, "norm": False}
            encoder.append(block(8 * c, bottleneck, activation="identity", **straight))
        else:
            encoder.append(block(8 * c, bottleneck, stride=1, padding=0))
        self.encoder = nn.Sequential(*encoder)

        up = [8 * c, 4 * c, 2 * c, c] + ([c] if variant == "random_128" else [])
        first: dict[str, Any] = {} if convolutional else {"stride": 1, "padding": 0}
        decoder = [block(bottleneck, 8 * c, transposed=True, **first)]
        decoder += [block(i, o, transposed=True) for i, o in pairwise(up)]
        last: dict[str, Any] = {"norm": False, "activation": "tanh"}
        if convolutional:
            decoder.append(block(c, 3, kernel_size=3, stride=1, **last))
        else:
            decoder.append(block(c, 3, transposed=True, **last))
        self.decoder = nn.Sequential(*decoder)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, *input_size) in [-1, 1] to (N, 3, 64, 64), or ("random_128") 128, in [-1, 1].

        Raises:
            ValueError: another size.
        """
        _check_picture("EncoderDecoder", x, self.input_size)
        y: Tensor = self.decoder(self.encoder(x))
        return y


class RegionDiscriminator(nn.Module):
    """Judges a square of 64 or 128 pixels: 4x4 convolutions down to one logit.

    Args:
        size: of the square, 64 or 128.
        base_channels: filters of the first layer.
        bias: of the convolutions.
        activation: of all layers but the last.
        alpha: of activation "elu".
    """

    def __init__(
        self,
        *,
        size: int = 64,
        base_channels: int = 64,
        bias: bool = False,
        activation: str = "leaky_relu",
        alpha: float = 1.0,
    ) -> None:
        super().__init__()
        if size not in (64, 128):
            raise ValueError(f"RegionDiscriminator: size must be 64 or 128, got {size}")
        self.size = size
        c = base_channels
        widths = [3, c] + ([c] if size == 128 else []) + [2 * c, 4 * c, 8 * c]
        blocks = [
            ConvBlock(
                i,
                o,
                4,
                stride=2,
                padding=1,
                bias=bias,
                norm=n > 0,
                activation=activation,
                alpha=alpha,
            )
            for n, (i, o) in enumerate(pairwise(widths))
        ]
        blocks.append(ConvBlock(8 * c, 1, 4, bias=bias, norm=False, activation="identity"))
        self.layers = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, size, size) in [-1, 1] to logits (N,); the ports' sigmoid is left to the loss.

        Raises:
            ValueError: another size.
        """
        _check_picture("RegionDiscriminator", x, (self.size, self.size))
        y: Tensor = self.layers(x)
        return y.flatten()


class PatchDiscriminator(nn.Module):
    """Judges patches of a 64^2 square: the discriminator of eriklindernoren's port.

    3x3 convolutions of strides 2, 2, 2 and 1 with instance normalisation but in the first.

    Args:
        base_channels: filters of the first layer.

    Source: eriklindernoren/PyTorch-GAN: implementations/context_encoder/models.py.
    """

    def __init__(self, *, base_channels: int = 64) -> None:
        super().__init__()
        c = base_channels
        layers: list[nn.Module] = [FusedConv2d(3, c, 3, 2, 1, activation="leaky_relu")]
        for i, o, stride in ((c, 2 * c, 2), (2 * c, 4 * c, 2), (4 * c, 8 * c, 1)):
            layers += [FusedConv2d(i, o, 3, stride, 1), InstanceNorm2d(o, activation="leaky_relu")]
        self.layers = nn.Sequential(*layers, FusedConv2d(8 * c, 1, 3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, 64, 64) in [-1, 1] to scores of patches, (N, 1, 8, 8), 1 for real.

        Raises:
            ValueError: another size.
        """
        _check_picture("PatchDiscriminator", x, (64, 64))
        y: Tensor = self.layers(x)
        return y


class AlexNetEncoderDecoder(nn.Module):
    """AlexNet's convolutions, a dense matrix for each of their maps, and a decoder of 5 doublings.

    The form with which the paper's features were learned; no code of it was published.

    From the paper (recalled, not checked): AlexNet up to pool5, a channel-wise fully connected
    layer on 256 maps of 6x6 followed by a convolution of stride 1, and decoded maps of 11, 21, 41,
    81 and 161 pixels with 128, 64, 64, 32 and 3 channels, resized to 227.

    Ours, where the paper's words are unknown: convolutions without groups and without local
    response normalisation, a 1x1 kernel after the channel-wise layer, 5x5 kernels of stride 2 and
    padding 2 in the decoder (6 to 11 is 2 n - 1), no normalisation, tanh at the end, bilinear
    resizing.

    Args:
        base_channels: AlexNet has 64: 96, 256, 384, 384 and 256 filters are 1.5, 4, 6, 6, 4 times.

    Source: Pathak et al., CVPR 2016 (arXiv 1604.07379), section 3.1.
    """

    def __init__(self, *, base_channels: int = 64) -> None:
        super().__init__()
        c = base_channels
        self.input_size = (227, 227)

        def conv(i: int, o: int, k: int, **options: Any) -> FusedConv2d:
            return FusedConv2d(i, o, k, activation="relu", **options)

        self.encoder = nn.Sequential(
            conv(3, 3 * c // 2, 11, stride=4),
            nn.MaxPool2d(3, 2),
            conv(3 * c // 2, 4 * c, 5, padding=2),
            nn.MaxPool2d(3, 2),
            conv(4 * c, 6 * c, 3, padding=1),
            conv(6 * c, 6 * c, 3, padding=1),
            conv(6 * c, 4 * c, 3, padding=1),
            nn.MaxPool2d(3, 2),
        )
        self.bottleneck = ChannelwiseLinear(4 * c, (6, 6))
        self.mix = conv(4 * c, 4 * c, 1)
        widths = [4 * c, 2 * c, c, c, c // 2]
        up = [FusedConvTranspose2d(i, o, 5, 2, 2, activation="relu") for i, o in pairwise(widths)]
        up.append(FusedConvTranspose2d(c // 2, 3, 5, 2, 2, activation="tanh"))
        self.decoder = nn.Sequential(*up)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, 227, 227) in [-1, 1] to the same.

        Raises:
            ValueError: another size.
        """
        _check_picture("AlexNetEncoderDecoder", x, self.input_size)
        y = self.decoder(self.mix(self.bottleneck(self.encoder(x))))
        return resized(y, self.input_size)
