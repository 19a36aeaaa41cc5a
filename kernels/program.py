"""Launch of a compiled Triton kernel, past Triton's own search for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

# Programs along the second and third axis of a grid; along the first 2**31 - 1.
MOST_PROGRAMS = 65535
_MOST = 2**31 - 1


class Program:
    """A row compiled for one device, for tensors of certain dtypes.

    Triton looks for it anew at every launch, by all arguments: 30 to 50 us. Here a few of them tell
    which it is, since integers are not specialised on and all pointers are aligned.
    """

    def __init__(self, compiled: Any, constexprs: Sequence[Any]) -> None:
        self._compiled, self._constexprs = compiled, constexprs

    def launch(
        self, grid: tuple[int, ...], stream: int, addresses: list[int], numbers: list[Any]
    ) -> None:
        """Launch on a stream of the current device, the one that it was compiled for."""
        grid = (*grid, 1, 1)
        self._compiled[grid](*addresses, *numbers, *self._constexprs, stream=stream)


def check_sizes(
    kernel: str, names: Sequence[str], grid: tuple[int, ...], numbers: list[Any]
) -> None:
    """Check what a launch would cut to 32 bits, or the driver refuse."""
    if max(numbers) > _MOST or grid[0] > _MOST or max(grid[1:], default=1) > MOST_PROGRAMS:
        named = dict(zip(names, numbers))
        raise ValueError(
            f"{kernel}: sizes must be below 2**31 and a grid at most (2**31 - 1, "
            f"{MOST_PROGRAMS}, {MOST_PROGRAMS}), got {grid} and {named}"
        )


def cdiv(a: int, b: int) -> int:
    """A / b, rounded up; Triton's own takes microseconds outside of kernels."""
    return -(-a // b)


def batches(n: int) -> Iterator[slice]:
    """Parts of n samples, each no more than the third axis of a grid takes."""
    return (slice(start, start + MOST_PROGRAMS) for start in range(0, n, MOST_PROGRAMS))


def current_device() -> int:
    """Index of the device that launches go to."""
    index: int = torch._C._cuda_getDevice()
    return index


def current_stream(index: int) -> int:
    """The current stream of a device, as the driver's handle."""
    stream: int = torch._C._cuda_getCurrentRawStream(index)
    return stream
