"""GLCIC's generator as a table of layers."""

from torch import nn

RELU = nn.ReLU()


def conv(i, o, k=3, s=1, d=1):
    return ("conv", i, o, k, s, d * (k // 2), d, True, RELU, True)


def deconv(i, o):
    return ("deconv", i, o, 4, 2, 1, 1, True, RELU, True)


def table(c):
    rows = [conv(4, c, 5), conv(c, 2 * c, s=2), conv(2 * c, 2 * c), conv(2 * c, 4 * c, s=2)]
    rows += [conv(4 * c, 4 * c) for _ in range(2)]
    rows += [conv(4 * c, 4 * c, d=d) for d in (2, 4, 8, 16)]
    rows += [conv(4 * c, 4 * c) for _ in range(2)]
    rows += [deconv(4 * c, 2 * c), conv(2 * c, 2 * c), deconv(2 * c, c), conv(c, c // 2)]
    return [*rows, ("conv", c // 2, 3, 3, 1, 1, 1, False, nn.Sigmoid(), True)]
