"""Pictures of any size for Context Encoders, which predict the middle of a small square.

`fill_centre` completes with such a network: it takes a `window` around the hole, resizes it to the
network's picture (`crop`), and resizes the prediction back (`paste`). `training_crops` makes such
pictures for training.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from inpaint_ops.models.blocks.pictures import arranged, hole_box, signed, unsigned
from inpaint_ops.ops import tensors

# Sides of a network's picture and of its prediction, in its own pixels.
SIDE, PREDICTED = 128, 64
# The colour of missing pixels, levels of red, green and blue. ImageNet's mean is (123, 117, 104);
# the published weights were trained with this permutation of it.
FILL = (117.0, 104.0, 123.0)


@dataclass(frozen=True)
class Window:
    """A square of a picture, in its pixels; parts of it may lie outside."""

    top: int
    left: int
    side: int


def fill_colour(like: Tensor, channel_order: str) -> Tensor:
    """Return the colour of missing pixels, (3, 1, 1) in [-1, 1], of the type of a tensor."""
    levels = FILL if channel_order == "rgb" else FILL[::-1]
    return like.new_tensor(levels).view(3, 1, 1) / 255 * 2 - 1


def window(box: tuple[int, int, int, int], height: int, width: int, overlap: int) -> Window:
    """Return the smallest square around a box whose predicted part covers the box.

    The square and the box have the same middle. The side is at least that of the network's picture,
    or the shorter side of the image if that is less. It is a multiple of 32 pixels, so that the
    predicted part ends between two pixels.
    """
    top, left, bottom, right = box
    half = -(-max(bottom - top, right - left) // 2)
    inner = PREDICTED // 2 - overlap
    side = max(-(-half * SIDE // inner), min(SIDE, height, width))
    side = -(-side // 32) * 32
    return Window((top + bottom) // 2 - side // 2, (left + right) // 2 - side // 2, side)


def _weights(
    centres: Tensor, support: float, size: int, dtype: torch.dtype, *, inside: bool
) -> Tensor:
    """Return weights of a triangle around each centre over pixels 0 ... size - 1.

    The result is (len(centres), size), of the dtype given. Each row sums to 1 over these pixels if
    `inside`, else over these and the ones before and after them.
    """
    before = 0 if inside else max(0, int(support - centres.min().item()) + 1)
    after = 0 if inside else max(0, int(centres.max().item() + support - size) + 1)
    pixels = torch.arange(-before, size + after, device=centres.device) + 0.5
    weights = (1 - (centres[:, None] - pixels).abs() / support).clamp_min(0)
    weights = weights / weights.sum(1, keepdim=True)
    return weights[:, before : before + size].to(dtype)


def _resampled(down: Tensor, image: Tensor, across: Tensor) -> Tensor:
    """Return down image across^T, in the dtype of the weights, under autocast or not."""
    with torch.autocast(image.device.type, enabled=False):
        return down @ image.to(down.dtype) @ across.T


def crop(image: Tensor, where: Window, colour: Tensor) -> Tensor:
    """Return a window of a (C, H, W) picture at SIDE x SIDE pixels.

    It is resized bilinearly, antialiased where it shrinks; a window of SIDE pixels stays as it is.
    Pixels outside the picture have the colour (C, 1, 1).
    """
    scale = where.side / SIDE
    steps = (torch.arange(SIDE, device=image.device, dtype=torch.float64) + 0.5) * scale
    support = max(1.0, scale)
    dtype = tensors.compute_dtype(image).dtype
    down = _weights(steps + where.top, support, image.shape[1], dtype, inside=False)
    across = _weights(steps + where.left, support, image.shape[2], dtype, inside=False)
    return _resampled(down, image - colour, across).to(image.dtype) + colour


def paste(
    image: Tensor, prediction: Tensor, where: Window, box: tuple[int, int, int, int]
) -> Tensor:
    """Return the picture with a box of it from the prediction (C, PREDICTED, PREDICTED)."""
    top, left, bottom, right = box
    scale = where.side / SIDE
    dtype = tensors.compute_dtype(image).dtype
    matrices = []
    for first, last, origin in ((top, bottom, where.top), (left, right, where.left)):
        pixels = torch.arange(first, last, device=image.device, dtype=torch.float64) + 0.5
        centres = (pixels - origin) / scale - (SIDE - PREDICTED) / 2
        centres = centres.clamp(0.5, PREDICTED - 0.5)
        matrices.append(_weights(centres, max(1.0, 1 / scale), PREDICTED, dtype, inside=True))
    result = image.clone()
    result[:, top:bottom, left:right] = _resampled(matrices[0], prediction, matrices[1])
    return result


def inner_square(overlap: int) -> slice:
    """Return the rows (and columns) of the network's picture that it does not see."""
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
    """Fill each sample's hole by one prediction of the middle of a square around it.

    The square (`window`) is resized to SIDE x SIDE pixels. Its middle, of side PREDICTED - 2
    overlap, gets the colour, known pixels included. The prediction is resized back. Where the
    square reaches beyond the picture it has the colour too.

    Args:
        network: (M, 3, SIDE, SIDE) in [-1, 1] to (M, 3, PREDICTED, PREDICTED).
        image: (N, 3, H, W) in [0, 1].
        hole: (N, 1, H, W), 1 = missing.
        colour: (3, 1, 1) in [-1, 1].
        overlap: predicted pixels on each side that are known to the network.
    """
    boxes = [hole_box(one) for one in hole]
    seen = torch.where(hole > 0, colour, signed(image))
    middle = inner_square(overlap)
    places, crops = [], []
    for i, box in enumerate(boxes):
        if box is None:
            continue
        where = window(box, image.shape[2], image.shape[3], overlap)
        square = crop(seen[i], where, colour)
        square[:, middle, middle] = colour
        places.append((i, box, where))
        crops.append(square)
    if not crops:
        return image
    predictions = unsigned(network(arranged(torch.stack(crops))))
    filled = list(image)
    for (i, box, where), prediction in zip(places, predictions):
        filled[i] = paste(filled[i], prediction, where, box)
    return torch.stack(filled)


def training_crops(image: Tensor, hole: Tensor, colour: Tensor, overlap: int) -> Tensor:
    """Return complete pictures around each sample's hole, (N, 3, SIDE, SIDE) in [-1, 1].

    The squares are those of `fill_centre`; a sample without a hole is cropped around its middle.
    Pictures of SIDE x SIDE pixels with a hole around their middle stay as they are.
    """
    height, width = image.shape[2:]
    middle = (height // 2, width // 2, height // 2 + 1, width // 2 + 1)
    boxes = [hole_box(one) or middle for one in hole]
    squares = [
        crop(signed(picture), window(box, height, width, overlap), colour)
        for picture, box in zip(image, boxes)
    ]
    return arranged(torch.stack(squares))
