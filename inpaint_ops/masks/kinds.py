"""The drawn holes by the names that a user chooses them by."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inpaint_ops import checks
from inpaint_ops.masks.arguments import Seed
from inpaint_ops.masks.boxes import center_hole, random_box_hole
from inpaint_ops.masks.strokes import free_form_hole, irregular_hole

if TYPE_CHECKING:
    from torch import Tensor

HOLE_KINDS = ("center", "box", "free-form", "irregular")


def draw_hole(
    kind: str,
    height: int,
    width: int,
    *,
    seed: Seed,
    ratio: tuple[float, float] | None = None,
    border: int = 0,
) -> Tensor:
    """Return a hole of a kind: a (1, 1, height, width) bool tensor, True = missing.

    Args:
        kind: one of `HOLE_KINDS`.
        height: of the picture in pixels.
        width: of the picture in pixels.
        seed: integer, or a generator that is advanced.
        ratio: (low, high) makes the missing share lie in (low, high]; None is the kind's own.
        border: pixels at each edge that stay known.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: unknown kind, an argument out of range, or "center" with ratio or border.
    """
    checks.check_choice("draw_hole", "kind", kind, HOLE_KINDS)
    if kind == "center":
        if ratio is not None or border:
            raise ValueError("draw_hole: kind center takes neither ratio nor border")
        return center_hole(height, width)
    if kind == "box":
        return random_box_hole(height, width, seed=seed, ratio=ratio, border=border)
    strokes = free_form_hole if kind == "free-form" else irregular_hole
    return strokes(height, width, seed=seed, ratio=ratio, border=border)
