"""The generator of the patch-based GAN in plain torch.nn."""

import networks
from torch import nn

RELU = nn.ReLU()


class Residual(nn.Module):
    def __init__(self, c, first, second):
        super().__init__()
        rows = [
            ("conv", c, c, 3, 1, first, first, True, RELU, False),
            ("conv", c, c, 3, 1, second, second, True, None, False),
        ]
        self.branch = networks.stacked(rows)

    def forward(self, x):
        return x + self.branch(x)


def plain_generator(c, channels, pairs):
    head = [
        ("reflect", channels, c, 7, 1, 3, 1, True, RELU, False),
        ("conv", c, 2 * c, 3, 2, 1, 1, True, RELU, False),
        ("conv", 2 * c, 4 * c, 3, 2, 1, 1, True, RELU, False),
    ]
    tail = [
        ("up", 4 * c, 2 * c, 3, 1, 1, 1, True, RELU, False),
        ("up", 2 * c, c, 3, 1, 1, 1, True, RELU, False),
        ("reflect", c, 3, 7, 1, 3, 1, False, nn.Tanh(), True),
    ]
    middle = [Residual(4 * c, *pair) for pair in pairs]
    return nn.Sequential(*networks.stacked(head), *middle, *networks.stacked(tail))
