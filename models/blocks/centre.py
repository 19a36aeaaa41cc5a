"""Pictures of any size for networks that predict the middle of a small square."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

# Sides of what such a network sees and predicts, in its own pixels.
SIDE, PREDICTED = 128, 64


@dataclass(frozen=True)
class Window:
    """A square of a picture, in its pixels; parts of it may lie outside."""

    top: int
    left: int
    side: int


def hole_box(hole: Tensor) -> tuple[int, int, int, int] | None:
    """(top, left, bottom, right) of what is missing in a (1, H, W) mask, ends exclusive."""
    rows, columns = hole[0].any(1).nonzero(), hole[0].any(0).nonzero()
    if len(rows) == 0:
        return None
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    return top, int(columns[0]), bottom, int(columns[-1]) + 1


def window(box: tuple[int, int, int, int], height: int, width: int, overlap: int) -> Window:
    """The smallest square around the middle of a box in which the box fits what is predicted.

    It is at least as large as the network's picture, or as the shorter side of the image if that
    is less; sides are multiples of 32 pixels, so that what is predicted ends between two pixels.
    """
    top, left, bottom, right = box
    half = -(-max(bottom - top, right - left) // 2)
    inner = PREDICTED // 2 - overlap
    side = max(-(-half * SIDE // inner), min(SIDE, height, width))
    side = -(-side // 32) * 32
    return Window((top + bottom) // 2 - side // 2, (left + right) // 2 - side // 2, side)


def _weights(centres: Tensor, support: float, size: int, *, inside: bool) -> Tensor:
    """(len(centres), size) weights of a triangle around each centre over pixels 0 ... size - 1.

    They sum to 1 over the pixels there are if `inside`, else over those and the ones beyond.
    """
    before = 0 if inside else max(0, int(support - centres.min().item()) + 1)
    behind = 0 if inside else max(0, int(centres.max().item() + support - size) + 1)
    pixels = torch.arange(-before, size + behind, device=centres.device) + 0.5
    weights = (1 - (centres[:, None] - pixels).abs() / support).clamp_min(0)
    weights = weights / weights.sum(1, keepdim=True)
    return weights[:, before : before + size].float()


def crop(image: Tensor, where: Window, colour: Tensor) -> Tensor:
    """A (C, H, W) picture's window at SIDE x SIDE pixels, bilinear, antialiased where it shrinks.

    Pixels outside the picture have the colour (C, 1, 1). With a window of SIDE pixels none is
    interpolated.
    """
    scale = where.side / SIDE
    steps = (torch.arange(SIDE, device=image.device, dtype=torch.float64) + 0.5) * scale
    support = max(1.0, scale)
    down = _weights(steps + where.top, support, image.shape[1], inside=False)
    across = _weights(steps + where.left, support, image.shape[2], inside=False)
    return down @ (image - colour) @ across.T + colour


def paste(
    image: Tensor, prediction: Tensor, where: Window, box: tuple[int, int, int, int]
) -> Tensor:
    """The picture with the pixels of a box from the prediction (C, PREDICTED, PREDICTED)."""
    top, left, bottom, right = box
    scale = where.side / SIDE
    matrices = []
    for first, last, origin in ((top, bottom, where.top), (left, right, where.left)):
        pixels = torch.arange(first, last, device=image.device, dtype=torch.float64) + 0.5
        centres = (pixels - origin) / scale - (SIDE - PREDICTED) / 2
        centres = centres.clamp(0.5, PREDICTED - 0.5)
        matrices.append(_weights(centres, max(1.0, 1 / scale), PREDICTED, inside=True))
    result = image.clone()
    result[:, top:bottom, left:right] = matrices[0] @ prediction @ matrices[1].T
    return result


def inner_square(overlap: int) -> slice:
    """Rows (and columns) of the network's picture that are dropped from it."""
    start = (SIDE - PREDICTED) // 2 + overlap
    return slice(start, SIDE - start)


def fill_centre(
    network: Callable[[Tensor], Tensor],
    image: Tensor,
    hole: Tensor,
    *,
    colour: Tensor,
    overlap: int,
) -> Tensor:
    """Fills each sample's hole by one prediction of the middle of a square around it.

    The square (`window`) is resized to SIDE x SIDE pixels; its middle, PREDICTED - 2 overlap pixels
    wide, gets the colour and with it everything known in there; the prediction is resized back.
    Where the square reaches beyond the picture it has the colour too.

    Args:
        network: (M, 3, SIDE, SIDE) in [-1, 1] to (M, 3, PREDICTED, PREDICTED).
        image: (N, 3, H, W) in [0, 1].
        hole: (N, 1, H, W), 1 = missing.
        colour: (3, 1, 1) in [-1, 1].
        overlap: predicted pixels on each side that are known to the network.
    """
    boxes = [hole_box(one) for one in hole]
    signed = torch.where(hole > 0, colour, image * 2 - 1)
    middle = inner_square(overlap)
    places, crops = [], []
    for i, box in enumerate(boxes):
        if box is None:
            continue
        where = window(box, image.shape[2], image.shape[3], overlap)
        square = crop(signed[i], where, colour)
        square[:, middle, middle] = colour
        places.append((i, box, where))
        crops.append(square)
    if not crops:
        return image
    batch = torch.stack(crops).contiguous(memory_format=torch.channels_last)
    predictions = (network(batch) + 1) / 2
    filled = list(image)
    for (i, box, where), prediction in zip(places, predictions):
        filled[i] = paste(filled[i], prediction, where, box)
    return torch.stack(filled)


def training_crops(image: Tensor, hole: Tensor, colour: Tensor, overlap: int) -> Tensor:
    """(N, 3, SIDE, SIDE) in [-1, 1]: complete pictures around each sample's hole, as `fill_centre`.

    A sample without a hole is cropped around its middle. Pictures of SIDE x SIDE pixels with a hole
    around their middle stay as they are.
    """
    height, width = image.shape[2:]
    middle = (height // 2, width // 2, height // 2 + 1, width // 2 + 1)
    boxes = [hole_box(one) or middle for one in hole]
    squares = [
        crop(picture * 2 - 1, window(box, height, width, overlap), colour)
        for picture, box in zip(image, boxes)
    ]
    return torch.stack(squares).contiguous(memory_format=torch.channels_last)
