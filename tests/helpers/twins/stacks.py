"""EdgeConnect, GMCNN and the partial-convolution U-Net, layer by layer."""

import torch
import torch.nn.functional as F
from torch import nn


class EdgeConnect(nn.Module):
    """7x7 stem, two halvings, residual blocks of dilation 2, two doublings, 7x7 head."""

    def __init__(self, inputs, outputs, c, blocks, *, edges):
        super().__init__()
        self.edges = edges
        self.stem = nn.Conv2d(inputs, c, 7)
        self.down1 = nn.Conv2d(c, 2 * c, 4, 2, 1)
        self.down2 = nn.Conv2d(2 * c, 4 * c, 4, 2, 1)
        self.middle = nn.ModuleList(
            nn.Conv2d(4 * c, 4 * c, 3, dilation=2 - at % 2, bias=not edges)
            for at in range(2 * blocks)
        )
        self.up1 = nn.ConvTranspose2d(4 * c, 2 * c, 4, 2, 1)
        self.up2 = nn.ConvTranspose2d(2 * c, c, 4, 2, 1)
        self.head = nn.Conv2d(c, outputs, 7)

    def forward(self, x):
        x = F.instance_norm(self.stem(F.pad(x, (3, 3, 3, 3), "reflect"))).relu()
        x = F.instance_norm(self.down1(x)).relu()
        x = F.instance_norm(self.down2(x)).relu()
        for first, second in zip(self.middle[::2], self.middle[1::2]):
            y = F.instance_norm(first(F.pad(x, (2, 2, 2, 2), "reflect"))).relu()
            x = x + F.instance_norm(second(F.pad(y, (1, 1, 1, 1), "reflect")))
        x = F.instance_norm(self.up1(x)).relu()
        x = F.instance_norm(self.up2(x)).relu()
        x = self.head(F.pad(x, (3, 3, 3, 3), "reflect"))
        return x.sigmoid() if self.edges else (x.tanh() + 1) / 2


class GMCNN(nn.Module):
    """Three columns of kernels 7, 5 and 3; rows are (times, stride, dilation, doubled before)."""

    TRUNK = ((1, 1, 1, 0), (2, 2, 1, 0), (2, 1, 1, 0), (4, 2, 1, 0), (4, 1, 1, 0), (4, 1, 1, 0))
    TRUNK += tuple((4, 1, dilation, 0) for dilation in (2, 4, 8, 16, 1, 1))
    ENDS = (
        (),
        ((2, 1, 1, 1), (2, 1, 1, 0)),
        ((2, 1, 1, 1), (2, 1, 1, 0), (1, 1, 1, 1), (1, 1, 1, 0)),
    )

    def __init__(self, c):
        super().__init__()
        self.columns = nn.ModuleList()
        for kernel, end in zip((7, 5, 3), self.ENDS):
            layers, inputs = [], 4
            for times, stride, dilation, _ in self.TRUNK + end:
                layers.append(nn.Conv2d(inputs, times * c, kernel, stride, dilation=dilation))
                inputs = times * c
            self.columns.append(nn.ModuleList(layers))
        self.merge = nn.Conv2d(7 * c, c // 2, 3)
        self.last = nn.Conv2d(c // 2, 3, 3)

    def forward(self, x):
        results = []
        for column, end, factor in zip(self.columns, self.ENDS, (4, 2, 1)):
            y = x
            for layer, (_, _, dilation, doubled) in zip(column, self.TRUNK + end):
                if doubled:
                    y = F.interpolate(y, scale_factor=2)
                pad = dilation * (layer.kernel_size[0] // 2)
                y = F.elu(layer(F.pad(y, (pad,) * 4, "reflect")))
            if factor > 1:
                size = (factor * y.shape[2], factor * y.shape[3])
                y = F.interpolate(y, size, mode="bilinear", align_corners=True)
            results.append(y)
        y = F.elu(self.merge(F.pad(torch.cat(results, 1), (1,) * 4, "reflect")))
        return self.last(F.pad(y, (1,) * 4, "reflect")).clamp(-1, 1)


def partial(conv, x, valid, rule):
    """Partial convolution over masks of all channels; windows without a valid value give 0."""
    ones = torch.ones_like(conv.weight)
    count = F.conv2d(valid, ones, None, conv.stride, conv.padding)
    y = F.conv2d(x * valid, conv.weight, None, conv.stride, conv.padding)
    y = y / count.clamp_min(1) * (ones[0].numel() if rule == "window" else 1)
    y = y if conv.bias is None else y + conv.bias[:, None, None]
    return torch.where(count > 0, y, 0), (count > 0).to(x.dtype)


class PartialUNet(nn.Module):
    """Strided partial convolutions down, nearest doubling and skips of features and masks up."""

    def __init__(self, levels, c, rule):
        super().__init__()
        self.rule = rule
        widths = [3, c, 2 * c, 4 * c] + [8 * c] * (levels - 3)
        down, up = [], []
        for i in range(levels):
            kernel = (7, 5, 5)[i] if i < 3 else 3
            conv = nn.Conv2d(widths[i], widths[i + 1], kernel, 2, kernel // 2, bias=False)
            down.append(nn.ModuleList([conv, nn.BatchNorm2d(widths[i + 1])][: 1 + (i > 0)]))
            joined = widths[i] + widths[i + 1]
            conv = nn.Conv2d(joined, widths[i] if i else 3, 3, 1, 1, bias=i == 0)
            up.append(nn.ModuleList([conv, nn.BatchNorm2d(widths[i])][: 1 + (i > 0)]))
        self.down, self.up = nn.ModuleList(down), nn.ModuleList(up)

    def forward(self, x, valid):
        maps, masks = [x], [valid.expand_as(x)]
        for conv, *norm in self.down:
            x, valid = partial(conv, maps[-1], masks[-1], self.rule)
            for one in norm:
                x = one(x)
            maps.append(x.relu())
            masks.append(valid)
        x, valid = maps.pop(), masks.pop()
        for conv, *norm in reversed(self.up):
            x = torch.cat([F.interpolate(x, scale_factor=2), maps.pop()], 1)
            valid = torch.cat([F.interpolate(valid, scale_factor=2), masks.pop()], 1)
            x, valid = partial(conv, x, valid, self.rule)
            for one in norm:
                x = F.leaky_relu(one(x), 0.2)
        return x, valid[:, :1]
