"""Networks of EdgeConnect: a generator and a discriminator, each for edges and for colours."""

from __future__ import annotations

from torch import Tensor, nn

from inpaint_ops.layers import FusedConv2d, FusedConvTranspose2d, InstanceNorm2d
from inpaint_ops.models.blocks.conv_block import initialise
from inpaint_ops.models.blocks.pictures import unsigned
from inpaint_ops.models.blocks.spectral_norm import spectral


class Residual(nn.Module):
    """x + norm(conv2(relu(norm(conv1(x))))), conv1 dilated by 2, no activation after the sum."""

    def __init__(self, channels: int, bias: bool) -> None:
        super().__init__()
        pad = "reflect"
        self.conv1 = FusedConv2d(channels, channels, 3, 1, 2, 2, bias=bias, padding_mode=pad)
        self.norm1 = InstanceNorm2d(channels, activation="relu")
        self.conv2 = FusedConv2d(channels, channels, 3, 1, 1, bias=bias, padding_mode=pad)
        self.norm2 = InstanceNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same."""
        y: Tensor = self.norm2(self.conv2(self.norm1(self.conv1(x))), residual=x)
        return y


class Generator(nn.Module):
    """Two halvings, dilated residual blocks, two doublings; instance norm without parameters.

    Args:
        in_channels: of the input.
        out_channels: of the result.
        width: channels of the first layer.
        blocks: residual blocks.
        edges: for edges the network ends in a sigmoid, every convolution but the last is
            spectrally normalised, and those of the blocks have no bias.

    Source: knazeri/edge-connect: src/networks.py (EdgeGenerator, InpaintGenerator).
    """

    def __init__(
        self, in_channels: int, out_channels: int, width: int, blocks: int, *, edges: bool
    ) -> None:
        super().__init__()
        c = width
        self.stem = FusedConv2d(in_channels, c, 7, padding=3, padding_mode="reflect")
        self.norm1 = InstanceNorm2d(c, activation="relu")
        self.down1 = FusedConv2d(c, 2 * c, 4, 2, 1)
        self.norm2 = InstanceNorm2d(2 * c, activation="relu")
        self.down2 = FusedConv2d(2 * c, 4 * c, 4, 2, 1)
        self.norm3 = InstanceNorm2d(4 * c, activation="relu")
        self.middle = nn.Sequential(*(Residual(4 * c, bias=not edges) for _ in range(blocks)))
        self.up1 = FusedConvTranspose2d(4 * c, 2 * c, 4, 2, 1)
        self.norm4 = InstanceNorm2d(2 * c, activation="relu")
        self.up2 = FusedConvTranspose2d(2 * c, c, 4, 2, 1)
        self.norm5 = InstanceNorm2d(c, activation="relu")
        last = "sigmoid" if edges else "tanh"
        self.head = FusedConv2d(
            c, out_channels, 7, padding=3, padding_mode="reflect", activation=last
        )
        self.edges = edges
        initialise(self, 0.02)
        if edges:
            for name, layer in list(self.named_modules()):
                if isinstance(layer, FusedConv2d) and name != "head":
                    spectral(layer)
                elif isinstance(layer, FusedConvTranspose2d):
                    spectral(layer, dim=1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) to (N, out_channels, H, W) in [0, 1].

        Sides are multiples of 4 from 12 on; others give the ones below, as in the port.
        """
        x = self.norm1(self.stem(x))
        x = self.norm2(self.down1(x))
        x = self.norm3(self.down2(x))
        x = self.middle(x)
        x = self.norm4(self.up1(x))
        x = self.head(self.norm5(self.up2(x)))
        return x if self.edges else unsigned(x)


class Discriminator(nn.Module):
    """70 x 70 patches: five 4x4 convolutions with spectral normalisation and no bias.

    Args:
        in_channels: channels judged.
        width: channels of the first layer.
        sigmoid: make probabilities of the scores; the hinge loss takes plain numbers.

    Source: knazeri/edge-connect: src/networks.py (Discriminator).
    """

    def __init__(self, in_channels: int, width: int, *, sigmoid: bool = True) -> None:
        super().__init__()
        self.sigmoid = sigmoid
        inputs = in_channels
        for i, (outputs, stride) in enumerate(
            ((width, 2), (2 * width, 2), (4 * width, 2), (8 * width, 1), (1, 1)), start=1
        ):
            activation = "identity" if i == 5 else "leaky_relu"
            layer = FusedConv2d(inputs, outputs, 4, stride, 1, bias=False, activation=activation)
            self.add_module(f"conv{i}", layer)
            inputs = outputs
        initialise(self, 0.02)
        for one in self.children():
            spectral(one)

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(N, in_channels, H, W) to patch scores and the maps of all layers, last the logits."""
        maps = []
        for layer in self.children():
            x = layer(x)
            maps.append(x)
        return (x.sigmoid() if self.sigmoid else x), maps
