"""Which core sums a convolution on the CPU: the rule is that of csrc/convolution/choose.cpp."""

from __future__ import annotations

from functools import lru_cache

from inpaint_ops.ops import native, tensors
from inpaint_ops.ops.convolution.spec import Geometry

# In the order of their codes.
CORES: tuple[str, ...] = tensors.native().cores if native.status().available else ()


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
    isa = tensors.native().instruction_set()
    return _choose(isa, False, batch, weight_shape, g, size, tiled)


def choose_weight_gradient(
    batch: int,
    weight_shape: tuple[int, int, int, int],
    g: Geometry,
    size: tuple[int, int],
    tiled: bool = True,
) -> str:
    """The core that sums the gradient of a weight, as `choose`; groups must be 1."""
    isa = tensors.native().instruction_set()
    return _choose(isa, True, batch, weight_shape, g, size, tiled)


@lru_cache(maxsize=4096)
def _choose(
    isa: str,  # the rule depends on it
    weight_gradient: bool,
    batch: int,
    weight_shape: tuple[int, int, int, int],
    g: Geometry,
    size: tuple[int, int],
    tiled: bool,
) -> str:
    name: str = tensors.native().choose_core(
        weight_gradient,
        batch,
        weight_shape,
        g.groups,
        g.stride,
        g.dilation,
        (g.padding[0], g.padding[2]),
        g.upsample,
        size,
        tiled,
    )
    return name


def describe() -> dict[str, str]:
    """Kinds of layers and what sums them, for the diagnosis of an installation."""
    worth = tensors.native().unpacked_worth

    def plain(kernel: int, stride: int, channels: int, filters: int, size: int, up: int = 1) -> str:
        if worth(size**2, channels * filters * kernel**2, False):
            return "unpacked"
        pad = (kernel - 1) // 2
        g = Geometry((stride, stride), (pad,) * 4, (1, 1), upsample=up)
        return choose(1, (filters, channels, kernel, kernel), g, (size, size))

    def transposed(channels: int, filters: int, size: int) -> str:
        if worth(size**2, channels * filters * 16, True):
            return "unpacked"
        g = Geometry((1, 1), (1, 1, 1, 1), (1, 1))
        return choose(1, (filters, channels, 2, 2), g, (size, size))

    grouped = choose(1, (64, 8, 3, 3), Geometry((1, 1), (1, 1, 1, 1), (1, 1), 8), (64, 64))
    return {
        "1x1": plain(1, 1, 128, 128, 64),
        "3x3": plain(3, 1, 128, 128, 64),
        "3x3 after upsampling": plain(3, 1, 128, 128, 128, 2),
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
