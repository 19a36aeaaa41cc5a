"""Operators that compute some pixels of their result, for `inpaint_ops.needed`; on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from inpaint_ops.backends import ALGORITHMS, current_backend
from inpaint_ops.ops.native import extension


class Wanted(NamedTuple):
    """Pixels of an operator's result (N, C, H, W).

    Args:
        pixels: bytes (N or 1, H, W), not 0 = wanted; None: all.
        anchor: row and column of an output at which a tile begins, in algorithms that have tiles.
            Last bits depend on it, and on nothing else in here.
        into: an earlier first result of such a call: memory that may be taken for the new one. Its
            pixels that are not wanted stay as they are.
    """

    pixels: Tensor | None = None
    anchor: tuple[int, int] = (0, 0)
    into: Tensor | None = None


class Reads(NamedTuple):
    """What some pixels of an operator's result take.

    Args:
        maps: bytes (N, H, W) of each tensor among the arguments, in order, 1 = read; None: all of
            it.
        share: of the whole call's work; 1: rather compute everything.
        anchor: for which all this holds, see `Wanted`.
    """

    maps: Sequence[Tensor | None]
    share: float
    anchor: tuple[int, int] = (0, 0)


class Partly(NamedTuple):
    """Computation of some pixels of an operator's first result, on the CPU.

    Args:
        reads: what wanted pixels depend on, of (bytes (N, H, W), not 0 = wanted; the arguments of
            the schema, of whose tensors only shapes, strides and dtypes count), and for the keyword
            `anchor` or, if that is None, the best one. None: everything.
        compute: the results of (`Wanted`, the arguments). Wanted pixels of the first have the bits
            that they have where all are wanted, the others may hold anything. The other results are
            whole.
        touched: bytes (N, H, W), not 0 = pixels of the first result that depend on a changed one,
            of (bytes (N or 1, h, w) of each tensor among the arguments, in order, not 0 = changed,
            or None: nothing of it; the anchor; the arguments as for `reads`). None: all may.
    """

    reads: Callable[..., Reads | None]
    compute: Callable[..., Any]
    touched: Callable[..., Tensor | None]


# By torch's overload.
PARTLY: dict[Any, Partly] = {}


def partly_of(operator: Any) -> Partly | None:
    """Return how torch's overload computes some pixels; None where our kernels do not serve it."""
    if current_backend() not in ALGORITHMS or extension() is None:
        return None
    return PARTLY.get(operator)
