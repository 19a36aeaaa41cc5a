"""Generators built of plain torch.nn modules, as public ports build them; what users convert."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import spectral_norm


class GatedBlock(nn.Module):
    """One convolution split in two: DeepFill v2 ports."""

    def __init__(self, i: int, o: int, k: int = 3, s: int = 1, d: int = 1, act: Any = F.elu):
        super().__init__()
        self.activation = act
        self.conv = nn.Conv2d(i, 2 * o, k, s, d * (k - 1) // 2, d)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        features, gates = torch.split(x, x.size(1) // 2, dim=1)
        y: Tensor = self.activation(features) * torch.sigmoid(gates)
        return y


class GatedUp(nn.Module):
    """Doubling before a gated convolution."""

    def __init__(self, i: int, o: int):
        super().__init__()
        self.conv = GatedBlock(i, o)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))
        return y


class PatchAttention(nn.Module):
    """Contextual attention by convolutions with patches; one mask for the batch."""

    fuse_weight: Tensor

    def __init__(self, rate: int = 2, softmax_scale: float = 10.0, fuse: bool = True):
        super().__init__()
        self.rate = rate
        self.softmax_scale = softmax_scale
        self.fuse = fuse
        self.register_buffer("fuse_weight", torch.eye(3).view(1, 1, 3, 3))

    def forward(self, f: Tensor, b: Tensor, mask: Tensor | None = None) -> Any:
        rate, channels = self.rate, f.size(1)
        raw = F.unfold(b, 2 * rate, padding=rate // 2, stride=rate)
        small_f, small_b = f[:, :, ::rate, ::rate], b[:, :, ::rate, ::rate]
        h, w = small_f.shape[2:]
        hb, wb = small_b.shape[2:]
        if mask is None:
            mask = f.new_zeros(1, 1, 4 * b.size(2), 4 * b.size(3))
        step = mask.size(2) // hb
        small = mask[:1, :, ::step, ::step]
        usable = (F.unfold(small, 3, padding=1).mean(1) == 0).to(f.dtype).view(1, -1, 1, 1)
        keys = F.unfold(small_b, 3, padding=1).transpose(1, 2)
        out = []
        for i in range(f.size(0)):
            key = keys[i].view(-1, channels, 3, 3)
            norm = key.square().sum((1, 2, 3), keepdim=True).sqrt().clamp_min(1e-4)
            y = F.conv2d(small_f[i : i + 1], key / norm, padding=1)
            if self.fuse:
                y = F.conv2d(y.reshape(1, 1, hb * wb, h * w), self.fuse_weight, padding=1)
                y = y.view(1, hb, wb, h, w).permute(0, 2, 1, 4, 3)
                y = y.reshape(1, 1, hb * wb, h * w)
                y = F.conv2d(y, self.fuse_weight, padding=1)
                y = y.view(1, wb, hb, w, h).permute(0, 2, 1, 4, 3).reshape(1, hb * wb, h, w)
            y = F.softmax(y * usable * self.softmax_scale, 1) * usable
            patches = raw[i].t().reshape(-1, channels, 2 * rate, 2 * rate)
            out.append(F.conv_transpose2d(y, patches, stride=rate, padding=rate // 2) / 4)
        return torch.cat(out), None


class DeepFillV2(nn.Module):
    """Two stages of gated convolutions, attention in the second."""

    def __init__(self, width: int = 24):
        super().__init__()
        c = width
        self.coarse = nn.Sequential(
            *(GatedBlock(5, c, 5), GatedBlock(c, 2 * c, 3, 2), GatedBlock(2 * c, 2 * c)),
            *(GatedBlock(2 * c, 4 * c, 3, 2), GatedBlock(4 * c, 4 * c), GatedBlock(4 * c, 4 * c)),
            *(GatedBlock(4 * c, 4 * c, d=d) for d in (2, 4, 8, 16)),
            *(GatedBlock(4 * c, 4 * c), GatedBlock(4 * c, 4 * c), *self._decoder(c)),
        )
        self.head = nn.Conv2d(c // 2, 3, 3, padding=1)
        self.branch = nn.Sequential(
            *(GatedBlock(3, c, 5), GatedBlock(c, c, 3, 2), GatedBlock(c, 2 * c)),
            *(GatedBlock(2 * c, 2 * c, 3, 2), GatedBlock(2 * c, 4 * c), GatedBlock(4 * c, 4 * c)),
            *(GatedBlock(4 * c, 4 * c, d=d) for d in (2, 4, 8, 16)),
        )
        self.attended = nn.Sequential(
            *(GatedBlock(3, c, 5), GatedBlock(c, c, 3, 2), GatedBlock(c, 2 * c)),
            *(GatedBlock(2 * c, 4 * c, 3, 2), GatedBlock(4 * c, 4 * c)),
            GatedBlock(4 * c, 4 * c, act=F.relu),
        )
        self.attention = PatchAttention()
        self.after = nn.Sequential(GatedBlock(4 * c, 4 * c), GatedBlock(4 * c, 4 * c))
        self.fine = nn.Sequential(
            *(GatedBlock(8 * c, 4 * c), GatedBlock(4 * c, 4 * c), *self._decoder(c))
        )
        self.head2 = nn.Conv2d(c // 2, 3, 3, padding=1)

    def _decoder(self, c: int) -> list[nn.Module]:
        return [
            *(GatedUp(4 * c, 2 * c), GatedBlock(2 * c, 2 * c)),
            *(GatedUp(2 * c, c), GatedBlock(c, c // 2)),
        ]

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        x1 = torch.tanh(self.head(self.coarse(x)))
        y = x1 * mask + x[:, :3] * (1 - mask)
        a = self.branch(y)
        b = self.attended(y)
        b, _ = self.attention(b, b, mask)
        b = self.after(b)
        return x1, torch.tanh(self.head2(self.fine(torch.cat([a, b], 1))))


class MaskedConv(nn.Module):
    """Partial convolution with a convolution of the mask, normalised by the sum alone."""

    def __init__(self, i: int, o: int, k: int, s: int = 1, bias: bool = False):
        super().__init__()
        self.input_conv = nn.Conv2d(i, o, k, s, (k - 1) // 2, bias=bias)
        self.mask_conv = nn.Conv2d(i, o, k, s, (k - 1) // 2, bias=False)
        nn.init.constant_(self.mask_conv.weight, 1.0)
        self.mask_conv.weight.requires_grad_(False)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        y = self.input_conv(x * mask)
        bias: Any = 0.0
        if self.input_conv.bias is not None:
            bias = self.input_conv.bias.view(1, -1, 1, 1)
        with torch.no_grad():
            total = self.mask_conv(mask)
        empty = total == 0
        y = (y - bias) / total.masked_fill(empty, 1.0) + bias
        return y.masked_fill(empty, 0.0), torch.ones_like(y).masked_fill(empty, 0.0).detach()


class PartialUnit(nn.Module):
    """Partial convolution, norm, activation."""

    def __init__(
        self, i: int, o: int, k: int, s: int, norm: bool, act: nn.Module | None, **more: Any
    ):
        super().__init__()
        self.conv = MaskedConv(i, o, k, s, **more)
        if norm:
            self.bn = nn.BatchNorm2d(o)
        if act is not None:
            self.activation = act

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        y, mask = self.conv(x, mask)
        if hasattr(self, "bn"):
            y = self.bn(y)
        if hasattr(self, "activation"):
            y = self.activation(y)
        return y, mask


class PartialUNet(nn.Module):
    """U-Net of partial convolutions."""

    def __init__(self, width: int = 64, levels: int = 7):
        super().__init__()
        c, self.levels = width, levels
        sizes = [3, c, 2 * c, 4 * c, *[8 * c] * (levels - 3)]
        for i in range(1, levels + 1):
            k = 7 if i == 1 else 5 if i < 4 else 3
            unit = PartialUnit(sizes[i - 1], sizes[i], k, 2, i > 1, nn.ReLU())
            setattr(self, f"enc_{i}", unit)
        for i in range(levels, 0, -1):
            o = 3 if i == 1 else sizes[i - 1]
            act = None if i == 1 else nn.LeakyReLU(0.2)
            unit = PartialUnit(sizes[i] + sizes[i - 1], o, 3, 1, i > 1, act, bias=i == 1)
            setattr(self, f"dec_{i}", unit)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        h, m = {0: x}, {0: mask}
        for i in range(1, self.levels + 1):
            h[i], m[i] = getattr(self, f"enc_{i}")(h[i - 1], m[i - 1])
        y, v = h[self.levels], m[self.levels]
        for i in range(self.levels, 0, -1):
            y = F.interpolate(y, scale_factor=2, mode="nearest")
            v = F.interpolate(v, scale_factor=2, mode="nearest")
            y, v = torch.cat([y, h[i - 1]], 1), torch.cat([v, m[i - 1]], 1)
            y, v = getattr(self, f"dec_{i}")(y, v)
        return y, v


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
