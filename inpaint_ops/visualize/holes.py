"""A hole on its picture."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from inpaint_ops import checks
from inpaint_ops.visualize.sheets import Picture, check_colour, check_picture, rgb, row

_OP = "hole_overlay"


def hole_overlay(
    image: Tensor,
    hole: Tensor | None = None,
    *,
    valid: Tensor | None = None,
    colour: Sequence[float] = (1.0, 0.0, 1.0),
    opacity: float = 0.6,
) -> Picture:
    """Draw what is missing over pictures.

    Args:
        image: (N, 3 or 1, H, W) floating, [0, 1]; what is outside is cut off, NaN is black.
        hole: (N or 1, 1, H, W), 1 = missing; bool, or 0 and 1 in uint8 or float.
        valid: the same with 1 = known; one of the two is given.
        colour: of missing pixels, red, green and blue in [0, 1].
        opacity: of the colour, 0 to 1; 1 hides what the hole holds.

    Returns:
        A PIL image: the pictures side by side, with a gap of 2 pixels.

    Raises:
        ImportError: Pillow is not installed; the extra is named.
        TypeError, ValueError: wrong type, shape, mask value or option; both masks or none.
    """
    check_picture(_OP, image)
    if (hole is None) == (valid is None):
        raise ValueError(f"{_OP}: give either hole (1 = missing) or valid (1 = known)")
    name, mask = ("hole", hole) if hole is not None else ("valid", valid)
    assert mask is not None
    batch, size = image.shape[0], (image.shape[2], image.shape[3])
    checks.check_mask(_OP, name, mask, batch, size, image.device)
    check_colour(_OP, colour)
    checks.check_finite(_OP, "opacity", opacity)
    if not 0 <= opacity <= 1:
        raise ValueError(f"{_OP}: opacity must be in [0, 1], got {opacity}")
    marked = checks.binary(_OP, name, mask).cpu()
    missing = marked if hole is not None else ~marked
    picture = rgb(image)
    covered = torch.lerp(picture, torch.tensor(colour).view(3, 1, 1), float(opacity))
    return row(torch.where(missing, covered, picture))
