"""Groups of holes: by the share of missing pixels, and by their contact with the border."""

from __future__ import annotations

from torch import Tensor

from inpaint_ops.masks import HOLE_RATIO_BINS

ALL = "all"
# Shares that no bin holds.
OTHER = "other"
TOUCHES, INSIDE = "touches", "inside"
BINS = tuple(f"{low}-{high}" for low, high in HOLE_RATIO_BINS)


def bin_of(ratio: float) -> str:
    """Return the name of the bin (low, high] that a share of missing pixels is in, or `OTHER`."""
    for name, (low, high) in zip(BINS, HOLE_RATIO_BINS):
        if low < ratio <= high:
            return name
    return OTHER


def border_of(hole: Tensor) -> str:
    """Return whether a hole, (1, 1, H, W) bool, has a missing pixel at the picture's edge."""
    plane = hole[0, 0]
    edges = (plane[0], plane[-1], plane[:, 0], plane[:, -1])
    return TOUCHES if any(bool(edge.any()) for edge in edges) else INSIDE


def groups() -> list[tuple[str, str]]:
    """Return bin and border of every group of the summary, in its order."""
    return [(share, border) for share in (ALL, *BINS, OTHER) for border in (ALL, TOUCHES, INSIDE)]
