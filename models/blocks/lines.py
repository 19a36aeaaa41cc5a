"""Lines that a user gives beside picture and hole: a sketch, or edges of what is known."""

from __future__ import annotations

from torch import Tensor

from inpaint_ops import checks

# The planes that a user may give by name, and who takes them.
_TAKEN_BY = {
    "sketch": "deepfill_v2 built with sketch=True takes one",
    "edges": "edge_connect takes them",
}


def given(op: str, names: tuple[str, ...], image: Tensor, **planes: Tensor | None) -> Tensor | None:
    """Check lines and return those that were given.

    Args:
        op: of the messages.
        names: of the planes that the networks take.
        image: (N, C, H, W) that they belong to.
        planes: (N or 1, 1, H, W), bool or numbers in [0, 1], by name; None where none are given.

    Returns:
        (N, 1, H, W) in the dtype of image, or None.

    Raises:
        TypeError: wrong type or dtype.
        ValueError: wrong shape, device or range, or lines that the networks do not take.
    """
    result = None
    for name, plane in planes.items():
        if plane is not None:
            check_taken(op, name, names)
            result = _checked(op, name, plane, image)
    return result


def check_taken(op: str, name: str, names: tuple[str, ...]) -> None:
    """Check that networks take the lines of a name; `names` are those that they take."""
    if name not in names:
        raise ValueError(
            f"{op}: {name} must be left out, because these networks take none; {_TAKEN_BY[name]}"
        )


def _checked(op: str, name: str, plane: Tensor, image: Tensor) -> Tensor:
    batch, size = image.shape[0], (image.shape[2], image.shape[3])
    checks.check_mask(op, name, plane, batch, size, image.device)
    outside = ~((plane >= 0) & (plane <= 1))
    if outside.any():
        bad = plane[outside].flatten()[0].item()
        raise ValueError(f"{op}: {name} must be in [0, 1], 1 = line, got {bad}")
    return plane.detach().to(image.dtype).expand(batch, 1, *size)


def thresholded(plane: Tensor, threshold: float) -> Tensor:
    """Return 1 where a plane is above a threshold, else 0, in its dtype."""
    return (plane > threshold).to(plane.dtype)
