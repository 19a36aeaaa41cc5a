"""Generators of DeepFill v1 and v2, and of the network that zhaoyuzhi calls v2.

Contextual attention itself is the plain version of `inpaint_ops.reference`, which has golden files
of five public implementations; here it meets grids of every shape.
"""

import torch
import torch.nn.functional as F
from torch import nn

from inpaint_ops.reference import contextual_attention

# Width in multiples of the first layer's, kernel, stride, dilation; "up" doubles before.
ATROUS = [(4, 3, 1, d) for d in (2, 4, 8, 16)]
DECODER = [(4, 3, 1, 1), (4, 3, 1, 1), "up", (2, 3, 1, 1), (2, 3, 1, 1), "up", (1, 3, 1, 1)]
DECODER += [(0.5, 3, 1, 1)]
COARSE = [(1, 5, 1, 1), (2, 3, 2, 1), (2, 3, 1, 1), (4, 3, 2, 1), (4, 3, 1, 1), (4, 3, 1, 1)]
COARSE += ATROUS + DECODER
BRANCH = [(1, 5, 1, 1), (1, 3, 2, 1), (2, 3, 1, 1), (2, 3, 2, 1), (4, 3, 1, 1), (4, 3, 1, 1)]
BRANCH += ATROUS
ATTENDING = [(1, 5, 1, 1), (1, 3, 2, 1), (2, 3, 1, 1), (4, 3, 2, 1), (4, 3, 1, 1), (4, 3, 1, 1)]


class Chain(nn.Module):
    """Convolutions, each with ELU ("relu_last": the last with ReLU), gated or not."""

    def __init__(self, rows, inputs, width, padding, *, gated, relu_last=False, picture=False):
        super().__init__()
        self.rows, self.padding, self.gated, self.relu_last = list(rows), padding, gated, relu_last
        layers = []
        for row in self.rows:
            if row != "up":
                outputs = int(row[0] * width)
                filters = 2 * outputs if gated else outputs
                layers.append(nn.Conv2d(inputs, filters, row[1], row[2], dilation=row[3]))
                inputs = outputs
        if picture:
            layers.append(nn.Conv2d(inputs, 3, 3))
        self.picture = picture
        self.layers = nn.ModuleList(layers)

    def convolved(self, layer, x):
        (k, _), (s, _), (d, _) = layer.kernel_size, layer.stride, layer.dilation
        pads = []
        for size in (x.shape[3], x.shape[2]):
            total = max((-(-size // s) - 1) * s + (k - 1) * d + 1 - size, 0)
            half = d * (k - 1) // 2
            pads += [half, half] if self.padding == "symmetric" else [total // 2, -(-total // 2)]
        return layer(F.pad(x, pads))

    def forward(self, x):
        layers = iter(self.layers)
        for at, row in enumerate(self.rows):
            if row == "up":
                x = F.interpolate(x, scale_factor=2)
                continue
            y = self.convolved(next(layers), x)
            features, *gates = y.chunk(2, 1) if self.gated else (y,)
            last = self.relu_last and at == len(self.rows) - 1
            x = F.relu(features) if last else F.elu(features)
            for gate in gates:
                x = x * gate.sigmoid()
        return self.convolved(next(layers), x) if self.picture else x


class DeepFill(nn.Module):
    """Version 1 (plain, clipped, five channels in stage 2) or 2 (gated, tanh, three channels)."""

    def __init__(self, version, width, padding, **attention):
        super().__init__()
        self.version, self.attention = version, attention
        self.last = torch.tanh if version == 2 else lambda x: x.clamp(-1, 1)

        def chain(rows, inputs, **options):
            return Chain(rows, inputs, width, padding, gated=version == 2, **options)

        second = 5 if version == 1 else 3
        self.coarse = chain(COARSE, 5, picture=True)
        self.branch = chain(BRANCH, second)
        self.before = chain(ATTENDING, second, relu_last=True)
        self.after = chain([(4, 3, 1, 1)] * 2, 4 * width)
        self.decoder = chain(DECODER, 8 * width, picture=True)

    def forward(self, x, hole):
        planes = [torch.ones_like(hole), hole]
        first = self.last(self.coarse(torch.cat([x, *planes], 1)))
        merged = x * (1 - hole) + first * hole
        seen = torch.cat([merged, *planes], 1) if self.version == 1 else merged
        features = self.before(seen)
        # An odd map has a cell for its last row or column too.
        grid = [-(-side // 2) for side in features.shape[2:]]
        cells = picked(hole, *grid, self.attention["pick"])
        attended = contextual_attention(features, features, cells, **self.attention)
        y = torch.cat([self.branch(seen), self.after(attended)], 1)
        return first, self.last(self.decoder(y))


def picked(hole, rows, columns, pick):
    """Every n-th pixel, or those that TensorFlow's aligned corners pick."""
    for axis, count in ((2, rows), (3, columns)):
        size = hole.shape[axis]
        at = torch.arange(count, dtype=torch.float64)
        aligned = (at * (size - 1) / max(count - 1, 1) + 0.5).floor()
        at = aligned if pick == "align_corners" else (at * size / count).floor()
        hole = hole.index_select(axis, at.long())
    return hole


def zhaoyuzhi_stage(blocks, x):
    """One stage from the convolutions of a model: features and gates are halves of the filters."""
    shapes = [(7, 1, 1), (4, 2, 1), (3, 1, 1), (4, 2, 1)]
    shapes += [(3, 1, d) for d in (1, 1, 2, 4, 8, 16, 1, 1, 1, 1, 1)] + [(7, 1, 1)]
    for at, (block, (kernel, stride, dilation)) in enumerate(zip(blocks, shapes)):
        if at in (12, 14):
            x = F.interpolate(x, scale_factor=2)
        weight, bias = block.conv.weight.to(x), block.conv.bias.to(x)
        padding = {7: 3, 4: 1, 3: dilation}[kernel]
        features, gates = F.conv2d(x, weight, bias, stride, padding, dilation).chunk(2, 1)
        x = features * gates.sigmoid()
        if 0 < at < 15:
            x = F.instance_norm(x)
        x = x.tanh() if at == 15 else F.leaky_relu(x, 0.2)
    return x
