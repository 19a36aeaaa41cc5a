"""Which core sums a convolution on the CPU: one rule for all layers, by measurement.

Measured on one Zen 4 core (AVX-512, peak 118 GFLOP/s), one thread, ms, everything behind the sums
included; "tiled" is the Winograd core that costs least:

    layer                                tiled   direct   oneDNN (public formula)
    3x3, 256 -> 256, 64^2                 13.7     40       43
    3x3 stride 2, 48 -> 192, 256^2        22       28       33
    3x3 stride 2, 128 -> 256, 64^2         5.0      6.0      6.0
    4x4 stride 2, 3 -> 64, 256^2           1.1      2.1      1.6
    4x4 stride 2, 64 -> 128, 256^2        19.6     42       51
    4x4 stride 2, 256 -> 512, 32^2         5.0     10.2     12
    4x4 stride 2, 512 -> 512, 8^2          3.4      2.0      6.4
    5x5, 128 -> 128, 64^2                 13.9     31       32
    5x5 stride 2, 512 -> 512, 16^2         5.9     10.8     12
    5x5 stride 2, 512 -> 512, 8^2          5.1      2.5      8.3
    7x7, 64 -> 64, 128^2                  25       64       62
    7x7, 64 -> 3, 256^2                     -      17       61
    transposed 4x4, 256 -> 128, 64^2      20       41       44
    transposed 4x4, 1024 -> 256, 16^2      9.7     20       22
    transposed 4x4, 1024 -> 512, 4^2       6.6      3.5     27

and the weight's gradient alone, ms:

    3x3, 512 -> 512, 16^2                  6.9     13.0
    3x3 stride 2, 64 -> 128, 128^2         6.9      6.9
    4x4 stride 2, 3 -> 64, 256^2           1.1      1.5
    4x4 stride 2, 64 -> 128, 128^2         7.7     12.7
    4x4 stride 2, 256 -> 512, 32^2        13.2     11.5
    5x5, 128 -> 128, 64^2                 21       37
    5x5 stride 2, 64 -> 128, 128^2        11       19
    7x7, 64 -> 64, 128^2                  34       66
"""

from __future__ import annotations

from functools import lru_cache
from math import ceil
from typing import NamedTuple

from inpaint_ops.ops._conv import Geometry

# Order of csrc/conv.h.
CORES = (
    "direct",
    "winograd",
    "winograd_doubled",
    "winograd_pairs",
    "winograd_short",
    "winograd_fours",
    "unpacked",
)


class _Tile(NamedTuple):
    """Taps that a Winograd core sums at a time and outputs of a tile, along each axis."""

    taps: int
    outputs: int

    @property
    def products(self) -> int:
        return (self.taps + self.outputs - 1) ** 2


_TILES = {
    "winograd": _Tile(3, 4),
    "winograd_pairs": _Tile(2, 5),
    "winograd_short": _Tile(2, 4),
    "winograd_fours": _Tile(4, 3),
}
# Costs in multiply-adds of the peak, fitted to the layers of benchmarks/conv_layers.py: the
# products, with inputs of a block of tiles inside and outside of a 1 MiB L2, and staged; a weight
# read from memory, by two threads at once, whose packed form a training has to write as well: one
# image of 8 x 8 outputs is not worth Winograd's many weights; of each product of a tile the
# transforms of a channel and of a filter, the last one for both where the products are staged; what
# makes the change worth while.
_DIRECT, _TILED, _TILED_DEEP, _DEEP, _TILED_STAGED = 1.1, 1.3, 1.8, 512, 1.2
_READ, _TRANSFORM_IN, _TRANSFORM_OUT, _TRANSFORM_STAGED = 12.0, 3.3, 7.0, 32.0
_GAIN = 1.1
# Of the weight's gradient: a product directly, where taps of few channels lie side by side and in
# tiles; a weight and one of its sums, on their way to memory; a transformed channel or filter of a
# tile.
_OUTER, _OUTER_THIN, _THIN, _OUTER_TILED = 1.25, 1.5, 32, 1.8
_WRITE, _SUM, _TRANSFORM_OUTER = 30.0, 16.0, 9.2


@lru_cache(maxsize=4096)
def choose(
    batch: int,
    weight_shape: tuple[int, int, int, int],
    g: Geometry,
    size: tuple[int, int],
    tiled: bool = True,
) -> str:
    """The core of a float32 convolution: one of `CORES`, or "aten".

    Args:
        batch: images.
        weight_shape: (filters, C / groups, kh, kw).
        g: geometry.
        size: height and width of the result.
        tiled: whether Winograd cores may be taken.
    """
    filters, channels, *kernel = weight_shape
    few = filters <= 4
    if g.groups != 1 or (few and g.stride[1] > 1 and g.dilation[1] > 1):
        return "aten"  # the direct core reads dense rows for few filters
    if not tiled or not _cuts(kernel, g) or (few and tuple(kernel) != (3, 3)):
        return "direct"
    weights = channels * filters
    taps = kernel[0] * kernel[1]
    best = "direct"
    cost = weights * taps * max(batch * size[0] * size[1] * _DIRECT, _READ)
    for core, tile in _TILES.items():
        tiles, parts = _tiling(tile, kernel, g, size)
        depth, tiles = parts * channels, batch * tiles
        product = _TILED if depth < _DEEP else _TILED_DEEP
        transforms = depth * _TRANSFORM_IN + filters * _TRANSFORM_OUT
        # The rule of csrc/conv_winograd.cpp.
        if tiles > 14 and depth * filters >= 160 * (depth + filters):
            product, transforms = _TILED_STAGED, (depth + filters) * _TRANSFORM_STAGED
        other = parts * weights * max(tiles * product, _READ) + tiles * transforms
        other *= tile.products
        if other * _GAIN < cost:
            best, cost = core, other
    return _named(best, kernel, g)


@lru_cache(maxsize=4096)
def choose_weight_gradient(
    batch: int,
    weight_shape: tuple[int, int, int, int],
    g: Geometry,
    size: tuple[int, int],
    tiled: bool = True,
) -> str:
    """The core that sums the gradient of a weight, as `choose`; groups must be 1."""
    filters, channels, *kernel = weight_shape
    # Few filters would leave most lanes of a transformed gradient empty.
    if not tiled or not _cuts(kernel, g) or filters <= 4:
        return "direct"
    weights = channels * filters
    product = _OUTER_THIN if channels < _THIN else _OUTER
    best = "direct"
    cost = weights * kernel[0] * kernel[1] * (batch * size[0] * size[1] * product + _WRITE)
    for core, tile in _TILES.items():
        tiles, parts = _tiling(tile, kernel, g, size)
        tiles *= batch
        other = parts * weights * (tiles * _OUTER_TILED + _SUM)
        # Inputs are transformed once for 64 filters, gradients once for 16 channels, all parts.
        inputs = parts * 16 * ceil(channels / 16) * ceil(filters / 64)
        gradients = filters * ceil(channels * min(parts, 4) / 64)
        other += tiles * (inputs + gradients) * _TRANSFORM_OUTER
        other *= tile.products
        if other * _GAIN < cost:
            best, cost = core, other
    return _named(best, kernel, g)


def _cuts(kernel: list[int], g: Geometry) -> bool:
    """Whether the kernel falls into parts of a Winograd core."""
    return 1 not in kernel and all(s == 1 or d == 1 for s, d in zip(g.stride, g.dilation))


def _named(core: str, kernel: list[int], g: Geometry) -> str:
    plain = g.stride == (1, 1) and g.dilation == (1, 1) and (g.padding[0], g.padding[2]) == (1, 1)
    doubled = g.upsample == 2 and kernel == [3, 3] and plain
    return "winograd_doubled" if core == "winograd" and doubled else core


def _tiling(tile: _Tile, kernel: list[int], g: Geometry, size: tuple[int, int]) -> tuple[int, int]:
    """Tiles of an image and parts of the kernel, as csrc/conv_winograd.cpp cuts them."""
    tiles = parts = 1
    for k, stride, grid, outputs in zip(kernel, g.stride, g.dilation, size):
        tiles *= grid * ceil(ceil(outputs / grid) / tile.outputs)
        parts *= sum(
            ceil(ceil((k - phase) / stride) / tile.taps) for phase in range(min(stride, k))
        )
    return tiles, parts


def describe() -> dict[str, str]:
    """Kinds of layers and what sums them, for the diagnosis of an installation."""

    def plain(kernel: int, stride: int, channels: int, filters: int, size: int, up: int = 1) -> str:
        pad = (kernel - 1) // 2
        g = Geometry((stride, stride), (pad,) * 4, (1, 1), upsample=up)
        return choose(1, (filters, channels, kernel, kernel), g, (size, size))

    def transposed(channels: int, filters: int, size: int) -> str:
        g = Geometry((1, 1), (1, 1, 1, 1), (1, 1))
        return choose(1, (filters, channels, 2, 2), g, (size, size))

    grouped = choose(1, (64, 8, 3, 3), Geometry((1, 1), (1, 1, 1, 1), (1, 1), 8), (64, 64))
    return {
        "1x1": plain(1, 1, 128, 128, 64),
        "3x3": plain(3, 1, 128, 128, 64),
        "3x3 behind upsampling": plain(3, 1, 128, 128, 128, 2),
        "3x3 stride 2, 32 -> 64 channels at 128^2": plain(3, 2, 32, 64, 128),
        "3x3 stride 2, 128 -> 256 channels at 32^2": plain(3, 2, 128, 256, 32),
        "4x4 stride 2, 64 -> 128 channels at 64^2": plain(4, 2, 64, 128, 64),
        "4x4 stride 2, 512 -> 512 channels at 4^2": plain(4, 2, 512, 512, 4),
        "5x5": plain(5, 1, 128, 128, 64),
        "5x5 stride 2": plain(5, 2, 64, 128, 64),
        "7x7": plain(7, 1, 64, 64, 128),
        "7x7 to an image": plain(7, 1, 64, 3, 256),
        "transposed 4x4, 256 -> 128 channels at 64^2": transposed(256, 128, 64),
        "transposed 4x4, 1024 -> 512 channels at 4^2": transposed(1024, 512, 4),
        "grouped": grouped,
    }
