"""Every distinct convolution of the ten methods, by the layer tables of their papers and ports.

A few that other networks have come with them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial


@dataclass(frozen=True)
class Layer:
    """One layer at the size its method runs at.

    Args:
        method: the first method that has it, "others" if it is none of the ten.
        op: "fused", "gated", "partial" or "transposed".
        channels: of the input.
        out: channels of the result.
        size: height and width of the input, after the upsampling of `parts`.
        kernel, stride, dilation, upsample, padding_mode, activation: options.
        padding: of each side; None: half the reach of the kernel.
        parts: the tensors that a partial layer concatenates, each as (channels, upsampling factor).
    """

    method: str
    op: str
    channels: int
    out: int
    size: int
    kernel: int = 3
    stride: int = 1
    dilation: int = 1
    upsample: int = 1
    padding: int | None = None
    padding_mode: str = "zeros"
    activation: str = "identity"
    parts: tuple[tuple[int, int], ...] = ()

    @property
    def pad(self) -> int:
        """Padding on each side."""
        return self.dilation * (self.kernel - 1) // 2 if self.padding is None else self.padding

    @property
    def filters(self) -> int:
        """Filters of its convolution: a gated layer has those of the gates too."""
        return 2 * self.out if self.op == "gated" else self.out

    @property
    def out_size(self) -> int:
        """Height and width of the result."""
        if self.op == "transposed":
            return (self.size - 1) * self.stride - 2 * self.pad + self.kernel
        reach = self.dilation * (self.kernel - 1) + 1
        return (self.size * self.upsample + 2 * self.pad - reach) // self.stride + 1

    @property
    def multiplications(self) -> int:
        """Multiplications of one image, summed directly."""
        pixels = self.size**2 if self.op == "transposed" else self.out_size**2
        return pixels * self.channels * self.filters * self.kernel**2

    @property
    def id(self) -> str:
        """Readable and unique name."""
        parts = [self.op, f"{self.channels}-{self.out}", f"{self.size}x{self.size}"]
        parts.append(f"k{self.kernel}")
        if self.stride > 1:
            parts.append(f"s{self.stride}")
        if self.dilation > 1:
            parts.append(f"d{self.dilation}")
        if self.upsample > 1:
            parts.append("up2")
        if self.padding_mode != "zeros":
            parts.append(self.padding_mode)
        if self.activation != "identity":
            parts.append(self.activation)
        return "-".join(parts)


def _deepfill_v2() -> list[Layer]:
    gated = partial(Layer, "deepfill_v2", "gated", activation="elu")
    critic = partial(Layer, "deepfill_v2", "fused", kernel=5, stride=2, activation="leaky_relu")
    return [
        gated(5, 24, 512, kernel=5),
        gated(24, 48, 512, stride=2),
        gated(48, 48, 256),
        gated(48, 96, 256, stride=2),
        gated(96, 96, 128),
        *(gated(96, 96, 128, dilation=d) for d in (2, 4, 8, 16)),
        gated(96, 48, 128, upsample=2),
        gated(48, 24, 256, upsample=2),
        gated(24, 12, 512),
        Layer("deepfill_v2", "fused", 12, 3, 512, activation="tanh"),
        gated(3, 24, 512, kernel=5),
        gated(24, 24, 512, stride=2),
        gated(24, 48, 256),
        gated(48, 48, 256, stride=2),
        gated(48, 96, 128),
        gated(96, 96, 128, activation="relu"),
        gated(192, 96, 128),
        critic(4, 64, 256),
        critic(64, 128, 128),
        critic(128, 256, 64),
        *(critic(256, 256, size) for size in (32, 16, 8)),
    ]


def _deepfill_v1() -> list[Layer]:
    elu = partial(Layer, "deepfill_v1", "fused", activation="elu")
    return [
        elu(5, 32, 256, 5),
        elu(32, 64, 256, 3, 2),
        elu(64, 64, 128),
        elu(64, 128, 128, 3, 2),
        elu(128, 128, 64),
        *(elu(128, 128, 64, 3, 1, d) for d in (2, 4, 8, 16)),
        elu(128, 64, 64, upsample=2),
        elu(64, 32, 128, upsample=2),
        elu(32, 16, 256),
        Layer("deepfill_v1", "fused", 16, 3, 256),
        elu(32, 32, 256, 3, 2),
        elu(32, 64, 128),
        elu(64, 64, 128, 3, 2),
        elu(64, 128, 64),
        elu(256, 128, 64),
        Layer("deepfill_v1", "fused", 3, 64, 256, 5, 2, activation="leaky_relu"),
    ]


def partial_unet(size: int = 512, levels: int = 8) -> list[Layer]:
    """Return the layers of the partial-convolution U-Net in order, encoder then decoder."""
    layer = partial(Layer, "partial_conv_unet", "partial")
    widths = [3, 64, 128, 256, 512, *[512] * (levels - 4)]
    layers = []
    for level in range(levels):
        kernel = {0: 7, 1: 5, 2: 5}.get(level, 3)
        c, out = widths[level], widths[level + 1]
        layers.append(layer(c, out, size >> level, kernel, 2, parts=((c, 1),)))
    for level in reversed(range(levels)):
        up, skip = widths[level + 1], widths[level]
        layers.append(layer(up + skip, widths[level], size >> level, parts=((up, 2), (skip, 1))))
    return layers


def _glcic() -> list[Layer]:
    plain = partial(Layer, "glcic", "fused")
    transposed = partial(Layer, "glcic", "transposed", kernel=4, stride=2, padding=1)
    return [
        plain(4, 64, 256, 5),
        plain(64, 128, 256, 3, 2),
        plain(128, 128, 128),
        plain(128, 256, 128, 3, 2),
        plain(256, 256, 64),
        *(plain(256, 256, 64, 3, 1, d) for d in (2, 4, 8, 16)),
        transposed(256, 128, 64),
        transposed(128, 64, 128),
        plain(64, 32, 256),
        plain(32, 3, 256, activation="sigmoid"),
        plain(3, 64, 256, 5, 2),
        plain(256, 512, 32, 5, 2),
        plain(512, 512, 16, 5, 2),
        plain(512, 512, 8, 5, 2),
    ]


def _gmcnn_branch(kernel: int) -> list[Layer]:
    reflect = partial(
        Layer, "gmcnn", "fused", kernel=kernel, padding_mode="reflect", activation="elu"
    )
    layers = [
        reflect(4, 32, 256),
        reflect(32, 64, 256, stride=2),
        reflect(64, 64, 128),
        reflect(64, 128, 128, stride=2),
        reflect(128, 128, 64),
        # Dilation 16 of the 7 x 7 branch reads 48 pixels beyond the 64.
        *(reflect(128, 128, 64, dilation=d) for d in (2, 4, 8, 16)),
    ]
    if kernel < 7:
        layers += [reflect(128, 64, 64, upsample=2), reflect(64, 64, 128)]
    if kernel == 3:
        layers += [reflect(64, 32, 128, upsample=2), reflect(32, 32, 256)]
    return layers


def _gmcnn() -> list[Layer]:
    decoder = partial(Layer, "gmcnn", "fused", padding_mode="reflect")
    last = [decoder(224, 16, 256, activation="elu"), decoder(16, 3, 256)]
    return [*_gmcnn_branch(7), *_gmcnn_branch(5), *_gmcnn_branch(3), *last]


def _four_by_four() -> list[Layer]:
    """Return the 4 x 4 layers of three methods."""

    def down(method: str, channels: int, out: int, size: int, activation: str) -> Layer:
        return Layer(method, "fused", channels, out, size, 4, 2, padding=1, activation=activation)

    def up(method: str, channels: int, out: int, size: int, activation: str = "identity") -> Layer:
        return Layer(
            method, "transposed", channels, out, size, 4, 2, padding=1, activation=activation
        )

    return [
        down("shift_net", 4, 64, 256, "identity"),
        down("shift_net", 64, 128, 128, "identity"),
        down("shift_net", 128, 256, 64, "identity"),
        down("shift_net", 256, 512, 32, "identity"),
        *(down("shift_net", 512, 512, size, "identity") for size in (16, 8, 4, 2)),
        up("shift_net", 512, 512, 1),
        *(up("shift_net", 1024, 512, size) for size in (2, 4, 8)),
        up("shift_net", 1024, 256, 16),
        up("shift_net", 768, 128, 32),
        up("shift_net", 256, 64, 64),
        up("shift_net", 128, 3, 128, "tanh"),
        down("context_encoder", 3, 64, 128, "leaky_relu"),
        down("context_encoder", 64, 64, 64, "identity"),
        Layer("context_encoder", "fused", 512, 4000, 4, 4, padding=0),
        Layer("context_encoder", "transposed", 4000, 512, 1, 4, padding=0),
        up("context_encoder", 512, 256, 4),
        up("context_encoder", 256, 128, 8),
        up("context_encoder", 128, 64, 16),
        up("context_encoder", 64, 3, 32, "tanh"),
        down("edge_connect", 64, 128, 256, "identity"),
        down("edge_connect", 128, 256, 128, "identity"),
        down("edge_connect", 3, 64, 256, "leaky_relu"),
        Layer("edge_connect", "fused", 256, 512, 32, 4, padding=1),
        Layer("edge_connect", "fused", 512, 1, 31, 4, padding=1),
    ]


def _residual() -> list[Layer]:
    """Return the layers of EdgeConnect and PatchGAN that other methods do not have."""
    edge = partial(Layer, "edge_connect", "fused", padding_mode="reflect")
    plain = partial(Layer, "patch_gan", "fused")
    return [
        edge(3, 64, 256, 7),
        edge(4, 64, 256, 7),
        edge(256, 256, 64, dilation=2),
        edge(256, 256, 64),
        edge(64, 1, 256, 7),
        edge(64, 3, 256, 7),
        plain(256, 128, 64, upsample=2),
        plain(128, 64, 128, upsample=2),
        plain(128, 256, 64, 3, 2),
    ]


def all_layers() -> list[Layer]:
    """Return every layer of the ten methods once, as the first method that has it."""
    families = (
        _deepfill_v2(),
        _deepfill_v1(),
        partial_unet(),
        _glcic(),
        _gmcnn(),
        _four_by_four(),
        _residual(),
    )
    distinct: dict[str, Layer] = {}
    for family in families:
        for layer in family:
            distinct.setdefault(layer.id, layer)
    return list(distinct.values())


def other_layers() -> list[Layer]:
    """Return layers that none of the ten methods has, but most other networks do."""
    plain = partial(Layer, "others", "fused")
    return [
        plain(128, 128, 128, 1),
        plain(3, 64, 256, 7),
        plain(3, 64, 256, 7, 2),
        plain(512, 512, 16),
    ]
