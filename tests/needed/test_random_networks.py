"""Networks drawn at random compute what random holes need, bit for bit as everything."""

import random

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from inpaint_ops import needed
from inpaint_ops.layers import FusedConv2d, FusedConvTranspose2d, GatedConv2d, PartialConv2d
from inpaint_ops.needed import compute as computing


@pytest.fixture(autouse=True)
def _poisoned(monkeypatch):
    """What is not computed is NaN."""
    plain = computing._results

    def results(step, plan):
        made = plain(step, plan)
        if made and isinstance(plan.need, torch.Tensor):
            made[0].masked_fill_((plan.need == 0)[:, None], float("nan"))
        return made

    monkeypatch.setattr(computing, "_results", results)


MODES = ["zeros", "reflect", "replicate"]


def doubling(draw, channels, filters):
    return FusedConv2d(channels, filters, 3, padding=1, upsample=2, padding_mode=draw.choice(MODES))


class Drawn(nn.Module):
    """Some layers in a row: any kernels, dilations, strides, borders, with and without skips."""

    def __init__(self, draw):
        super().__init__()
        self.layers = nn.ModuleList()
        self.channels, self.scale = 4, 1
        for _ in range(draw.randint(2, 7)):
            self._add(draw)
        while self.scale > 1:
            self._append(doubling(draw, self.channels, 8), 8, 0.5)
        self._append(FusedConv2d(self.channels, 3, 3, padding=1), 3)
        self.skips, self.composes = draw.random() < 0.3, draw.random() < 0.5

    def _append(self, layer, channels, scale=1):
        self.layers.append(layer)
        self.channels, self.scale = channels, self.scale * scale

    def _add(self, draw):
        c, o = self.channels, draw.choice([4, 6, 8, 16, 20, 34])
        k, d = draw.choice([1, 3, 3, 5, 7]), draw.choice([1, 1, 2, 4])
        activation = draw.choice(["relu", "elu", "identity", "leaky_relu", "tanh"])
        options = {"padding": d * (k // 2), "dilation": d, "activation": activation}
        if options["padding"] < 6:
            options["padding_mode"] = draw.choice(MODES)
        kinds = ["plain", "gated", "partial", "norm", "pool", "pad", "relu"]
        kinds += ["down"] if self.scale < 4 else []
        kinds += ["up", "transposed"] if self.scale > 1 else []
        kind = draw.choice(kinds)
        if kind in ("plain", "gated"):
            layer = FusedConv2d if kind == "plain" else GatedConv2d
            self._append(layer(c, o, k, **options), o)
        elif kind == "partial":
            made = PartialConv2d(c, o, k, padding=k // 2, multi_channel=False, return_mask=True)
            self._append(made, o)
        elif kind == "down":
            k = draw.choice([3, 4, 5])
            self._append(FusedConv2d(c, o, k, stride=2, padding="same"), o, 2)
        elif kind == "up":
            self._append(doubling(draw, c, o), o, 0.5)
        elif kind == "transposed":
            self._append(FusedConvTranspose2d(c, o, 4, stride=2, padding=1), o, 0.5)
        elif kind == "norm":
            self._append(nn.BatchNorm2d(c), c)
        elif kind == "pool":
            self._append(draw.choice([nn.MaxPool2d, nn.AvgPool2d])(3, 1, 1), c)
        elif kind == "pad":
            self._append(nn.Sequential(nn.ReflectionPad2d(1), FusedConv2d(c, c, 3)), c)
        else:
            self._append(nn.ReLU(inplace=draw.random() < 0.5), c)

    def forward(self, x, hole):
        y = torch.cat([x, hole], 1)
        for layer in self.layers:
            if isinstance(layer, PartialConv2d):
                valid = F.interpolate(1 - hole, size=y.shape[2:], mode="nearest")
                z, _ = layer(y, valid)
            else:
                z = layer(y)
            y = z + y if self.skips and z.shape == y.shape else z
        return torch.where(hole > 0, y, x) if self.composes else y


def drawn_hole(draw, n, h, w):
    hole = torch.zeros(n, 1, h, w)
    kind = draw.choice(["pixel", "box", "scattered", "edge"])
    for one in hole[:, 0]:
        top, left = draw.randrange(h), draw.randrange(w)
        if kind == "pixel":
            one[top, left] = 1
        elif kind == "box":
            one[top : top + draw.randint(1, h // 2), left : left + draw.randint(1, w // 2)] = 1
        elif kind == "scattered":
            one[torch.rand(h, w) < draw.choice([0.002, 0.02, 0.2])] = 1
        else:
            one[-2:] = 1
    return hole


@pytest.mark.parametrize("seed", range(80))
def test_bits_are_those_of_everything(seed):
    draw = random.Random(seed)
    torch.manual_seed(seed)
    network = Drawn(draw).eval()
    n, h, w = draw.choice([1, 2, 3]), 8 * draw.randint(2, 14), 8 * draw.randint(2, 14)
    x, hole = torch.randn(n, 3, h, w), drawn_hole(draw, n, h, w)
    if draw.random() < 0.5:
        x = x.contiguous(memory_format=torch.channels_last)
    results = []
    with torch.no_grad():
        for whole in (False, True):
            y = needed.computed(network(needed.lazy(x), hole), hole, whole=whole)
            results.append(torch.where(hole > 0, y, 0.0))
        plain = torch.where(hole > 0, network(x, hole), 0.0)
    assert torch.equal(*results)
    size = max(1.0, plain.abs().max().item())
    torch.testing.assert_close(results[0], plain, atol=1e-3 * size, rtol=1e-3)


@pytest.mark.parametrize("seed", range(80, 140))
def test_memories_give_what_the_network_gives(seed):
    """What is kept of one hole serves the next, wherever the first one began."""
    draw = random.Random(seed)
    torch.manual_seed(seed)
    network = Drawn(draw).eval()
    n, h, w = draw.choice([1, 2]), 8 * draw.randint(2, 9), 8 * draw.randint(2, 9)
    x, memory, hole = torch.randn(n, 3, h, w), needed.Memory(), torch.zeros(n, 1, h, w)
    top, left = draw.randint(1, 7), draw.randint(1, 7)
    corner = hole.clone()
    hole[:, :, top : top + 5, left : left + 4] = 1
    corner[:, :, : top + 2, : left + 2] = 1
    for wanted in (hole, corner, drawn_hole(draw, n, h, w)):
        with torch.no_grad():
            with needed.remembering(memory):
                y = needed.computed(network(needed.lazy(x), wanted), wanted)
            plain = network(x, wanted)
        y, plain = (torch.where(wanted > 0, one, 0.0) for one in (y, plain))
        size = max(1.0, plain.abs().max().item())
        torch.testing.assert_close(y, plain, atol=1e-3 * size, rtol=1e-3)
