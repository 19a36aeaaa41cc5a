"""Plain torch.nn stacks that the networks of the methods are compared with."""

import torch
import torch.nn.functional as F
from support import check_network
from torch import nn


def stacked(rows, norm_first=True, eps=1e-5):
    """nn.Sequential of (kind, in, out, kernel, stride, padding, dilation, norm, activation) rows.

    kind: "conv", "deconv", "up" (nearest doubling before the convolution) or "reflect" (padding).
    """
    layers = []
    for kind, i, o, k, s, p, d, norm, activation, bias in rows:
        if kind == "up":
            layers.append(nn.Upsample(scale_factor=2, mode="nearest"))
        if kind == "reflect":
            layers.append(nn.ReflectionPad2d(p))
            p = 0
        if kind == "deconv":
            layers.append(nn.ConvTranspose2d(i, o, k, s, p, bias=bias))
        else:
            layers.append(nn.Conv2d(i, o, k, s, p, d, bias=bias))
        parts = [nn.BatchNorm2d(o, eps)] if norm else []
        parts += [activation] if activation is not None else []
        layers += parts if norm_first else parts[::-1]
    return nn.Sequential(*layers)


def fill(ours, plain, seed=0, gain=1.4):
    """Random weights and statistics, the same in both, whose parameters come in one order."""
    generator = torch.Generator().manual_seed(seed)
    modules = [m for m in ours.modules() if hasattr(m, "weight")]
    others = [m for m in plain.modules() if hasattr(m, "weight")]
    assert len(modules) == len(others)
    for a, b in zip(modules, others):
        assert a.weight.shape == b.weight.shape, (a, b)
        for name, value in b.state_dict().items():
            if not value.is_floating_point():
                continue
            drawn = torch.randn(value.shape, generator=generator)
            if value.dim() > 1:
                drawn *= gain / value[0].numel() ** 0.5
            elif name == "running_var":
                drawn = drawn.abs() + 0.5
            elif name == "weight":
                drawn = 1 + 0.2 * drawn
            else:
                drawn *= 0.1
            for module in (a, b):
                module.state_dict()[name].copy_(drawn)


def check_same(ours, plain, x, select=lambda y: y):
    """Both in evaluation without gradients, where ours folds, and in training."""
    for training in (False, True):
        ours.train(training)
        plain.train(training)
        with torch.no_grad():
            y, expected = select(ours(x)), plain.double()(x.double())
            plain.float()
        assert y.shape == expected.shape
        check_network(y.double(), expected)
        assert expected.std() > 1e-3 * expected.abs().max()
    return y


def toy_features(x):
    """The extractor that the golden file of PConv's losses names."""
    middle = F.avg_pool2d(x, 4) * x.new_tensor([1.0, -2.0, 0.5]).view(1, 3, 1, 1)
    return [F.avg_pool2d(x, 2), middle, F.max_pool2d(x, 4)]
