"""Launch of a compiled Triton kernel, past Triton's own search for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch

# Along the second and third axis of a grid. CUDA allows 65535; this keeps the first sample of a
# part as aligned as the first of all.
MOST_PROGRAMS = 65520
# Sizes are counted in 32 bits, beyond the end by up to a block.
MOST = 2**31 - 2**16
# Programs that fill about 132 multiprocessors twice.
WANTED = 264


class Program:
    """A row compiled for one device, for tensors of certain dtypes.

    Triton looks for it anew at every launch, by all arguments: 30 to 50 us. Here a few of them tell
    which it is, since integers are not specialised on and all pointers are aligned.
    """

    def __init__(self, compiled: Any, constexprs: Sequence[Any]) -> None:
        self._compiled, self._constexprs = compiled, constexprs

    def launch(
        self, grid: tuple[int, ...], stream: int, addresses: list[int], numbers: Sequence[Any]
    ) -> None:
        """Launch on a stream of the current device, the one that it was compiled for."""
        grid = (*grid, 1, 1)
        self._compiled[grid](*addresses, *numbers, *self._constexprs, stream=stream)


class Call(NamedTuple):
    """A launch but for its tensors, its sizes checked; what a plan keeps.

    Args:
        row: of the kernel's table.
        grid: programs along one to three axes; with a zero in it nothing is launched.
        numbers: the kernel's, in their order.
        free: values of the free constexprs.
    """

    row: str
    grid: tuple[int, ...]
    numbers: Sequence[Any]
    free: Sequence[Any]


def check_sizes(
    kernel: str, names: Sequence[str], grid: tuple[int, ...], numbers: Sequence[Any]
) -> None:
    """Check what a launch would cut to 32 bits, or the driver refuse."""
    if max(numbers) > MOST or grid[0] > MOST or max(grid[1:], default=1) > MOST_PROGRAMS:
        raise ValueError(
            f"{kernel}: sizes must be at most {MOST} and a grid at most ({MOST}, {MOST_PROGRAMS}, "
            f"{MOST_PROGRAMS}), got {dict(zip(names, numbers))} and {grid}"
        )


def check_count(op: str, what: str, count: int) -> None:
    """Check what a kernel counts in 32 bits; numbers of values are not limited so.

    Raises:
        ValueError: there are too many.
    """
    if count > MOST:
        raise ValueError(f"{op}: {what} must be at most {MOST} on GPUs, got {count}")


def cdiv(a: int, b: int) -> int:
    """A / b, rounded up; Triton's own takes microseconds outside of kernels."""
    return -(-a // b)


def batches(n: int) -> Iterator[slice]:
    """Parts of n samples, each no more than the third axis of a grid takes."""
    return (slice(start, start + MOST_PROGRAMS) for start in range(0, n, MOST_PROGRAMS))


def segments(programs: int, blocks: int, wanted: int = WANTED) -> int:
    """Segments of a loop over so many blocks, so that small grids have `wanted` programs."""
    return max(1, min(cdiv(wanted, max(programs, 1)), blocks, 32))


def current_device() -> int:
    """Index of the device that launches go to."""
    index: int = torch._C._cuda_getDevice()
    return index


def current_stream(index: int) -> int:
    """The current stream of a device, as the driver's handle."""
    stream: int = torch._C._cuda_getCurrentRawStream(index)
    return stream
