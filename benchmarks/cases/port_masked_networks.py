"""Networks whose layers know the mask, of torch.nn alone: DeepFill v2 and the partial U-Net.

Written from the papers and from descriptions of public ports; see `port_networks`.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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
