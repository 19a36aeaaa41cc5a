"""The ports' modules in plain torch, written from what their papers and state dicts say."""

import torch
import torch.nn.functional as F
from torch import nn


class Partial(nn.Conv2d):
    """NVIDIA's layer: y = ((conv(x m) - b) R + b) U with S = sum m, R = N / S U, U = clamp(S)."""

    def __init__(self, *sizes, multi_channel=False, return_mask=False, **options):
        super().__init__(*sizes, **options)
        self.multi_channel, self.return_mask = multi_channel, return_mask

    def forward(self, x, mask=None):
        kh, kw = self.kernel_size
        shape = (self.out_channels, self.in_channels) if self.multi_channel else (1, 1)
        known = x.new_ones(x.shape[0], shape[1], *x.shape[2:]) if mask is None else mask
        with torch.no_grad():
            ones = x.new_ones(*shape, kh, kw)
            sums = F.conv2d(known, ones, None, self.stride, self.padding, self.dilation)
            update = sums.clamp(0, 1)
            ratio = shape[1] * kh * kw / (sums + 1e-8) * update
        raw = super().forward(x if mask is None else x * mask)
        if self.bias is None:
            y = raw * ratio
        else:
            bias = self.bias.view(1, -1, 1, 1)
            y = ((raw - bias) * ratio + bias) * update
        return (y, update) if self.return_mask else y


class SumPartial(nn.Module):
    """naoto0804's layer: y = conv(x m) / S + b where the window sum S is not 0, else 0."""

    def __init__(self, cin, cout, kernel, stride=1, padding=0, dilation=1, groups=1, bias=True):
        super().__init__()
        sizes = (cin, cout, kernel, stride, padding, dilation, groups)
        self.input_conv = nn.Conv2d(*sizes, bias)
        self.mask_conv = nn.Conv2d(*sizes, False).requires_grad_(False)
        nn.init.kaiming_normal_(self.input_conv.weight)
        nn.init.ones_(self.mask_conv.weight)
        if bias:
            nn.init.zeros_(self.input_conv.bias)

    def forward(self, x, mask):
        conv = self.input_conv
        sums = self.mask_conv(mask)
        y = F.conv2d(
            x * mask, conv.weight, None, conv.stride, conv.padding, conv.dilation, conv.groups
        )
        y = y / sums.where(sums != 0, torch.ones_like(sums))
        if conv.bias is not None:
            y = y + conv.bias.view(1, -1, 1, 1)
        known = (sums != 0).to(y.dtype).expand(y.shape)
        return y * known, known


class Gated(nn.Module):
    """nipponjo's gated convolution; with `same` in TensorFlow's padding."""

    def __init__(self, cin, cout, kernel, stride=1, padding=0, rate=1, activation=None, **options):
        super().__init__()
        self.same, self.gated = options.pop("same", False), options.pop("gated", True)
        self.activation, self.twice = activation, options.pop("twice", False)
        filters = 2 * cout if self.gated else cout
        self.conv = nn.Conv2d(cin, filters, kernel, stride, padding, rate, **options)

    def forward(self, x):
        if self.twice:
            x = F.interpolate(x, scale_factor=2, mode="nearest")
        if self.same:
            x = same_padded(x, self.conv.kernel_size[0], self.conv.stride[0], self.conv.dilation[0])
        z = self.conv(x)
        if not self.gated:
            return z
        features, gates = z.chunk(2, 1)
        return self.activation(features) * torch.sigmoid(gates)


def same_padded(x, kernel, stride, rate=1):
    """Zeros around x so that out = ceil(in / stride), the odd one after."""
    pads = []
    for size in (x.shape[3], x.shape[2]):
        total = max((-(-size // stride) - 1) * stride + (kernel - 1) * rate + 1 - size, 0)
        pads += [total // 2, total - total // 2]
    return F.pad(x, pads)


def attention(f, b, mask, *, fuse, pick="floor", key_norm="max", scale=10.0, rate=2):
    """Contextual attention, patch by patch: (y, index of the best key of each cell)."""
    n, _, h, w = f.shape
    hb, wb = b.shape[2:]
    values = F.unfold(b, 2 * rate, padding=rate // 2, stride=rate)  # (n, c 4 r r, keys)
    small_f, small_b = (pick_pixels(x, rate, pick) for x in (f, b))
    keys = F.unfold(small_b, 3, padding=1)
    if key_norm == "max":
        length = keys.square().sum(1, keepdim=True).sqrt().clamp_min(1e-4)
    else:
        length = (keys.square() + 1e-4).sum(1, keepdim=True).sqrt()
    queries = F.unfold(small_f, 3, padding=1)
    scores = (keys / length).transpose(1, 2) @ queries  # (n, keys, cells)
    if fuse:
        grid = (hb // rate, wb // rate, h // rate, w // rate)
        for _ in range(2):  # along rows, then along columns of both grids
            padded = F.pad(scores, (1, 1, 1, 1))
            scores = padded[:, :-2, :-2] + padded[:, 1:-1, 1:-1] + padded[:, 2:, 2:]
            scores = scores.view(n, *grid).permute(0, 2, 1, 4, 3).reshape(scores.shape)
            grid = (grid[1], grid[0], grid[3], grid[2])
    valid = f.new_ones(1, values.shape[2], 1)
    if mask is not None:
        hole = pick_pixels(mask[:1].to(f), mask.shape[2] // small_b.shape[2], pick)
        valid = (F.unfold(hole, 3, padding=1).sum(1) == 0).to(f).unsqueeze(2)
    weights = torch.softmax(scores * valid * scale, 1) * valid
    y = F.fold(values @ weights, (h, w), 2 * rate, padding=rate // 2, stride=rate) / 4
    return y, weights.argmax(1)


def pick_pixels(x, rate, pick):
    """One pixel of each cell."""
    if pick == "floor":
        return x[:, :, ::rate, ::rate]
    for axis in (2, 3):
        size = x.shape[axis]
        places = torch.linspace(0, size - 1, size // rate, dtype=torch.float64)
        x = x.index_select(axis, (places + 0.5).floor().long())
    return x


class SpectralTwin(nn.Module):
    """A convolution whose weight is divided by sigma = u W v after one power iteration."""

    def __init__(self, *sizes, **options):
        super().__init__()
        self.module = nn.Conv2d(*sizes, **options)
        weight = self.module.weight.data
        del self.module.weight
        rows = weight.flatten(1)
        for name, value in (("u", rows[:, 0]), ("v", rows[0]), ("bar", weight)):
            parameter = nn.Parameter(value / value.norm() if name != "bar" else value)
            self.module.register_parameter(f"weight_{name}", parameter)
            parameter.requires_grad_(name == "bar")

    def forward(self, x):
        conv = self.module
        rows = conv.weight_bar.flatten(1)
        with torch.no_grad():
            v = rows.t() @ conv.weight_u
            conv.weight_v.copy_(v / (v.norm() + 1e-12))
            u = rows @ conv.weight_v
            conv.weight_u.copy_(u / (u.norm() + 1e-12))
        weight = conv.weight_bar / (conv.weight_u @ rows @ conv.weight_v)
        return F.conv2d(x, weight, conv.bias, conv.stride, conv.padding, conv.dilation)


class LayerNormTwin(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.gamma, self.beta = (nn.Parameter(torch.rand(channels)) for _ in range(2))

    def forward(self, x):
        std, mean = torch.std_mean(x, (1, 2, 3), keepdim=True)
        return (x - mean) / (std + 1e-8) * self.gamma.view(-1, 1, 1) + self.beta.view(-1, 1, 1)


ACTIVATIONS = {
    "none": nn.Identity,
    "relu": nn.ReLU,
    "elu": nn.ELU,
    "lrelu": lambda: nn.LeakyReLU(0.2),
    "prelu": nn.PReLU,
    "selu": nn.SELU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}
PADS = {"zero": nn.ZeroPad2d, "reflect": nn.ReflectionPad2d, "replicate": nn.ReplicationPad2d}
NORMS = {
    "none": nn.Identity,
    "bn": nn.BatchNorm2d,
    "in": nn.InstanceNorm2d,
    "ln": LayerNormTwin,
}


class Block(nn.Module):
    """zhaoyuzhi's layers: activation(norm(conv(pad(x)))), with a gate convolution or without."""

    def __init__(self, cin, cout, kernel, stride=1, padding=0, dilation=1, **words):
        super().__init__()
        self.pad = PADS[words.get("pad_type", "zero")](padding)
        self.norm = NORMS[words.get("norm", "none")](cout)
        self.activation = ACTIVATIONS[words.get("activation", "lrelu")]()
        kind = SpectralTwin if words.get("sn") else nn.Conv2d
        self.conv2d = kind(cin, cout, kernel, stride, dilation=dilation)
        self.gated = words.get("gated", False)
        if self.gated:
            self.mask_conv2d = kind(cin, cout, kernel, stride, dilation=dilation)

    def forward(self, x):
        x = self.pad(x)
        y = self.conv2d(x)
        if self.gated:
            y = y * torch.sigmoid(self.mask_conv2d(x))
        return self.activation(self.norm(y))


def shifted(x, hole, scale=1.0):
    """[D | E | N]: N is E of the most similar known cell; its gradient to E is scaled."""
    n, c, h, w = x.shape
    decoder, encoder = x.flatten(2).chunk(2, 1)
    rows = []
    for i in range(n):
        masked = hole[i].flatten().bool()
        known = (~masked).nonzero()[:, 0]
        cosine = F.normalize(decoder[i][:, masked], dim=0).t() @ F.normalize(
            encoder[i][:, known], dim=0
        )
        row = torch.zeros_like(encoder[i])
        row[:, masked] = encoder[i][:, known[cosine.argmax(1)]]
        rows.append(row)
    new = torch.stack(rows).view(n, c // 2, h, w)
    # Value of the shifted feature, `scale` times its derivative.
    return torch.cat([x, new.detach() + scale * (new - new.detach())], 1)


def id_mrf(generated, target):
    """The loss of two maps, summed over samples, step by step."""
    mean = target.mean(1, keepdim=True)
    g, t = ((x - mean).flatten(2) for x in (generated, target))
    cosine = (t / t.norm(dim=1, keepdim=True)).transpose(1, 2) @ (g / g.norm(dim=1, keepdim=True))
    distance = (1 - cosine) / 2  # (n, target places, generated places)
    relative = distance / (distance.min(1, keepdim=True).values + 1e-5)
    similarity = ((1 - relative) / 0.5).exp()
    shares = similarity / similarity.sum(1, keepdim=True)
    return -shares.max(2).values.mean(1).log().sum()
