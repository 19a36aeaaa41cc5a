"""Generators built of plain torch.nn modules, as public ports build them; what users convert."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import spectral_norm

from inpaint_ops.benchmarks.cases.port_masked_networks import (
    DeepFillV2,
    PartialUNet,
)


class GLCIC(nn.Module):
    """Completion network, activation before the norm."""

    def __init__(self, width: int = 64):
        super().__init__()
        c = width
        rows = [
            *((4, c, 5, 1, 1), (c, 2 * c, 3, 2, 1), (2 * c, 2 * c, 3, 1, 1)),
            *((2 * c, 4 * c, 3, 2, 1), (4 * c, 4 * c, 3, 1, 1), (4 * c, 4 * c, 3, 1, 1)),
            *((4 * c, 4 * c, 3, 1, d) for d in (2, 4, 8, 16)),
            *((4 * c, 4 * c, 3, 1, 1), (4 * c, 4 * c, 3, 1, 1), (4 * c, 2 * c, 4, 0, 1)),
            *((2 * c, 2 * c, 3, 1, 1), (2 * c, c, 4, 0, 1), (c, c // 2, 3, 1, 1)),
        ]
        self.count = len(rows)
        for n, (i, o, k, s, d) in enumerate(rows, 1):
            if s == 0:
                setattr(self, f"conv{n}", nn.ConvTranspose2d(i, o, k, 2, 1))
            else:
                setattr(self, f"conv{n}", nn.Conv2d(i, o, k, s, d * (k - 1) // 2, d))
            setattr(self, f"act{n}", nn.ReLU())
            setattr(self, f"bn{n}", nn.BatchNorm2d(o))
        self.last = nn.Conv2d(c // 2, 3, 3, padding=1)
        self.squash = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        for n in range(1, self.count + 1):
            conv, act, bn = (getattr(self, f"{name}{n}") for name in ("conv", "act", "bn"))
            x = bn(act(conv(x)))
        y: Tensor = self.squash(self.last(x))
        return y


class ResidualBlock(nn.Module):
    """Two reflection padded convolutions with instance norms."""

    def __init__(self, c: int, dilation: int, wrap: Any):
        super().__init__()
        self.conv_block = nn.Sequential(
            *(nn.ReflectionPad2d(dilation), wrap(nn.Conv2d(c, c, 3, dilation=dilation))),
            *(nn.InstanceNorm2d(c), nn.ReLU(True)),
            *(nn.ReflectionPad2d(1), wrap(nn.Conv2d(c, c, 3)), nn.InstanceNorm2d(c)),
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.conv_block(x)
        return y


class EdgeConnect(nn.Module):
    """Inpainting generator; `spectral` as in the edge generator."""

    def __init__(self, width: int = 64, spectral: bool = False, blocks: int = 8):
        super().__init__()
        c, wrap = width, spectral_norm if spectral else lambda m: m
        self.encoder = nn.Sequential(
            *(nn.ReflectionPad2d(3), wrap(nn.Conv2d(4, c, 7)), nn.InstanceNorm2d(c), nn.ReLU(True)),
            *(wrap(nn.Conv2d(c, 2 * c, 4, 2, 1)), nn.InstanceNorm2d(2 * c), nn.ReLU(True)),
            *(wrap(nn.Conv2d(2 * c, 4 * c, 4, 2, 1)), nn.InstanceNorm2d(4 * c), nn.ReLU(True)),
        )
        self.middle = nn.Sequential(*(ResidualBlock(4 * c, 2, wrap) for _ in range(blocks)))
        up = nn.ConvTranspose2d
        self.decoder = nn.Sequential(
            *(wrap(up(4 * c, 2 * c, 4, 2, 1)), nn.InstanceNorm2d(2 * c), nn.ReLU(True)),
            *(wrap(up(2 * c, c, 4, 2, 1)), nn.InstanceNorm2d(c), nn.ReLU(True)),
            *(nn.ReflectionPad2d(3), nn.Conv2d(c, 3, 7)),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.decoder(self.middle(self.encoder(x)))
        return (torch.tanh(x) + 1) / 2


class PaddedConv(nn.Module):
    """Reflection padding, convolution, activation."""

    def __init__(self, i: int, o: int, k: int, s: int = 1, d: int = 1, act: bool = True):
        super().__init__()
        self.pad = nn.ReflectionPad2d(d * (k - 1) // 2)
        self.conv = nn.Conv2d(i, o, k, s, 0, d)
        self.act = nn.ELU() if act else None

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(self.pad(x))
        return x if self.act is None else self.act(x)


class GMCNN(nn.Module):
    """Three columns with kernels 7, 5 and 3."""

    def __init__(self, width: int = 32):
        super().__init__()
        c = width
        self.columns = nn.ModuleList()
        for k in (7, 5, 3):
            column: list[nn.Module] = [
                PaddedConv(4, c, k),
                PaddedConv(c, 2 * c, k, 2),
                PaddedConv(2 * c, 2 * c, k),
            ]
            column += [PaddedConv(2 * c, 4 * c, k, 2)]
            column += [PaddedConv(4 * c, 4 * c, k, d=d) for d in (1, 1, 2, 4, 8, 16, 1, 1)]
            if k == 7:
                column.append(nn.Upsample(scale_factor=4, mode="bilinear", align_corners=True))
            else:
                column += [nn.UpsamplingNearest2d(scale_factor=2), PaddedConv(4 * c, 2 * c, k)]
                column.append(PaddedConv(2 * c, 2 * c, k))
            if k == 5:
                column.append(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True))
            if k == 3:
                column += [nn.UpsamplingNearest2d(scale_factor=2), PaddedConv(2 * c, c, k)]
                column.append(PaddedConv(c, c, k))
            self.columns.append(nn.Sequential(*column))
        self.decoding = nn.Sequential(PaddedConv(7 * c, 16, 3), PaddedConv(16, 3, 3, act=False))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.cat([column(x) for column in self.columns], 1)
        return torch.clamp(self.decoding(y), -1, 1)


class ShiftTriple(nn.Module):
    """[D | E] to [D | E | E moved into the hole]; the mask is set beforehand."""

    def __init__(self) -> None:
        super().__init__()
        self.mask: Any = None

    def set_mask(self, mask: Tensor) -> None:
        mask = mask.reshape(1, 1, *mask.shape[-2:]).float()
        self.mask = F.interpolate(mask, scale_factor=1 / 8, mode="nearest")

    def forward(self, x: Tensor) -> Tensor:
        decoder, encoder = x.chunk(2, 1)
        hole = self.mask.flatten() > 0
        known, asked = (~hole).nonzero()[:, 0], hole.nonzero()[:, 0]
        shifted = []
        for d, e in zip(decoder.flatten(2), encoder.flatten(2)):
            with torch.no_grad():
                q, k = d[:, asked], e[:, known]
                cosine = q.t() @ k / (q.norm(dim=0)[:, None] * k.norm(dim=0) + 1e-8)
                best = known[cosine.argmax(1)]
            shifted.append(torch.zeros_like(e).index_copy(1, asked, e[:, best]))
        return torch.cat([decoder, encoder, torch.stack(shifted).view_as(encoder)], 1)


class UNetBlock(nn.Module):
    """One level of a nested U-Net: joins what it makes of x with x."""

    def __init__(self, model: nn.Sequential):
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        y = self.model(x)
        if y.shape[2:] != x.shape[2:]:
            y = F.interpolate(y, x.shape[2:], mode="bilinear")
        return torch.cat([y, x], 1)


class ShiftNet(nn.Module):
    """Nested U-Net with a shift layer at an eighth of the image."""

    def __init__(self, width: int = 64, levels: int = 8):
        super().__init__()
        c = width
        sizes = [c, 2 * c, 4 * c, *[8 * c] * (levels - 3)]
        self.shift = ShiftTriple()

        def norm(n: int) -> nn.Module:
            return nn.InstanceNorm2d(n, affine=True)

        def level(i: int) -> nn.Module:
            a, b = sizes[i - 1], sizes[i]
            down: list[nn.Module] = [nn.LeakyReLU(0.2, True), nn.Conv2d(a, b, 4, 2, 1)]
            up: list[nn.Module] = [nn.ReLU(True)]
            if i < levels - 1:
                down += [norm(b), level(i + 1)]
            wide = b if i == levels - 1 else 3 * b if i == 2 else 2 * b
            if i == 2:
                up.append(self.shift)
            up += [nn.ConvTranspose2d(wide, a, 4, 2, 1), norm(a)]
            return UNetBlock(nn.Sequential(*down, *up))

        self.model = nn.Sequential(
            *(nn.Conv2d(4, c, 4, 2, 1), level(1), nn.ReLU(True)),
            *(nn.ConvTranspose2d(2 * c, 3, 4, 2, 1), nn.Tanh()),
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.model(x)
        return y


def hole(n: int, size: int) -> Tensor:
    """Return a mask of a rectangle, 1 = missing."""
    mask = torch.zeros(n, 1, size, size)
    mask[:, :, size // 4 : 3 * size // 4, size // 8 * 3 : size // 8 * 7] = 1
    return mask


def build(name: str, *, width: int | None = None, size: int = 256, n: int = 1) -> Any:
    """Return a network and its arguments, by the name of the method."""
    torch.manual_seed(0)
    more = {} if width is None else {"width": width}
    mask = hole(n, size)
    picture = torch.rand(n, 3, size, size) * 2 - 1
    masked = picture * (1 - mask)
    four = torch.cat([masked, mask], 1)
    if name == "deepfill_v2":
        return DeepFillV2(**more), (torch.cat([masked, torch.ones_like(mask), mask], 1), mask)
    if name == "partial_conv_unet":
        levels = {} if size >= 128 else {"levels": 4}
        valid = (1 - mask).expand(-1, 3, -1, -1).contiguous()
        return PartialUNet(**more, **levels), (masked, valid)
    if name == "shift_net":
        levels = {} if size >= 256 else {"levels": size.bit_length() - 1}
        net = ShiftNet(**more, **levels)
        net.shift.set_mask(mask[:1])
        return net, (four,)
    kinds: dict[str, Any] = {"glcic": GLCIC, "edge_connect": EdgeConnect, "gmcnn": GMCNN}
    return kinds[name](**more), (four,)


NAMES = ("deepfill_v2", "partial_conv_unet", "glcic", "edge_connect", "gmcnn", "shift_net")
