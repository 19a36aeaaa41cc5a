"""A network as users make them, and what may stand in its middle."""

import torch
import torch.nn.functional as F
from torch import nn

from inpaint_ops.layers import FusedConv2d, GatedConv2d, InstanceNorm2d, PartialConv2d


class Own(nn.Module):
    """A network of a user's: our layers, torch's, in-place activations, an unknown operator."""

    def __init__(self, unknown=None):
        super().__init__()
        torch.manual_seed(1)
        self.stem = GatedConv2d(4, 8, 5, padding=2)
        self.down = FusedConv2d(8, 12, 3, stride=2, padding=1, activation="identity")
        self.norm = nn.BatchNorm2d(12)
        self.relu = nn.ReLU(inplace=True)
        self.middle = FusedConv2d(12, 12, 3, padding=2, dilation=2, padding_mode="reflect")
        self.partial = PartialConv2d(12, 12, 3, padding=1, multi_channel=False, return_mask=True)
        self.up = FusedConv2d(20, 8, 3, padding=1, upsample=1)
        self.last = FusedConv2d(8, 3, 3, padding=1)
        self.unknown = unknown

    def forward(self, x, hole):
        first = self.stem(torch.cat([x, hole], 1))
        y = self.relu(self.norm(self.down(first)))
        if self.unknown is not None:
            y = self.unknown(y)
        y = y + self.middle(y)
        valid = 1 - F.max_pool2d(hole, 2)
        y, _ = self.partial(y, valid)
        y = F.interpolate(y, scale_factor=2, mode="nearest")
        return self.last(self.up(torch.cat([y, first], 1)))


UNKNOWN = {
    "none": None,
    "instance norm": InstanceNorm2d(12),
    "a mean": lambda y: y - y.mean((2, 3), keepdim=True),
    "torch's convolution": nn.Conv2d(12, 12, 3, padding=1),
    "values decide": lambda y: y * 2 if float(y.amax()) > 0 else y,
    "random": lambda y: y + 0 * torch.rand_like(y),
    "sorted": lambda y: y.sort(1)[0],
    "softmax": lambda y: y.softmax(1),
    "softmax over rows": lambda y: y.softmax(2),
    "average": lambda y: F.avg_pool2d(y, 3, 1, 1),
    "largest": lambda y: F.max_pool2d(y, 3, 1, 1),
    "halves": lambda y: F.interpolate(F.avg_pool2d(y, 2), scale_factor=2, mode="bilinear"),
    "antialiased": lambda y: F.interpolate(
        F.interpolate(y, size=(20, 30), mode="bilinear", antialias=True),
        size=y.shape[2:],
        mode="bicubic",
    ),
    "padded": lambda y: F.pad(y, (2, 1, 0, 3), mode="reflect")[:, :, :-3, 2:-1],
    "zeros around": lambda y: F.pad(F.pad(y, (2, -1, 1, 3)), (-2, 1, -1, -3)).contiguous(),
    "flipped": lambda y: y.flip(3, 1).flip(1, 3),
    "turned": lambda y: y.flip(3) * y,
    "chunks": lambda y: torch.cat(y.chunk(3, 1)[::-1], 1),
    "batches": lambda y: torch.cat(list(y.split(1, 0)), 0),
    "rows": lambda y: torch.cat([y[:, :, :7], y[:, :, 7:]], 2),
    "every second": lambda y: y[:, :, ::2, 1::2].repeat_interleave(2, 2).repeat_interleave(2, 3),
    "zeros like": lambda y: y + torch.zeros_like(y) + y.new_ones(()),
    "where": lambda y: torch.where(torch.ones(1, 1, *y.shape[2:], dtype=torch.bool), y, 2.0),
    "masked": lambda y: y.masked_fill(torch.eye(y.shape[2], y.shape[3]) > 0, 0.5),
    "half": lambda y: y.half().float(),
    "wider": lambda y: y.double().float(),
    "group norm": nn.GroupNorm(3, 12),
    "transposed twice": lambda y: y.transpose(2, 3).contiguous().transpose(2, 3),
    "viewed": lambda y: y.flatten(2).unflatten(2, y.shape[2:]),
    "in place": lambda y: y.mul_(2).clamp_(-1, 1),
}
