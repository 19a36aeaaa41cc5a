"""Pictures of any size for Context Encoders, which predict the middle of a small square.

`fill_centre` completes with such a network: it takes a `window` around the hole, resizes it to the
network's picture (`crop`), and resizes the prediction back (`paste`). `training_crops` makes such
pictures for training.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from inpaint_ops import checks
from inpaint_ops.models.blocks.pictures import arranged, composite, signed, unsigned
from inpaint_ops.ops import tensors

# Sides of a network's picture and of its prediction, in its own pixels.
SIDE, PREDICTED = 128, 64
# The colour of missing pixels, levels of red, green and blue. ImageNet's mean is (123, 117, 104);
# the published weights were trained with this permutation of it.
FILL = (117.0, 104.0, 123.0)


class Window(NamedTuple):
    """A square of each sample's picture, in its pixels, int64 (N,); parts of it may lie outside."""

    top: Tensor
    left: Tensor
    side: Tensor


class Square(NamedTuple):
    """A window of one picture."""

    top: int
    left: int
    side: int


class Box(NamedTuple):
    """The part of each sample's picture that its hole lies in, int64 (N,); ends exclusive."""

    top: Tensor
    left: Tensor
    bottom: Tensor
    right: Tensor


def fill_colour(like: Tensor, channel_order: str) -> Tensor:
    """Return the colour of missing pixels, (3, 1, 1) in [-1, 1], of the type of a tensor."""
    levels = FILL if channel_order == "rgb" else FILL[::-1]
    return like.new_tensor(levels).view(3, 1, 1) / 255 * 2 - 1


def largest_share(overlap: int) -> float:
    """Return the longest side of a hole's box as a share of the side of the window around it."""
    return (PREDICTED - 2 * overlap) / SIDE


def hole_boxes(hole: Tensor) -> Box:
    """Return the box of each sample's hole, (N, 1, H, W); of none: the last pixel."""
    ends = []
    missing = hole[:, 0] if hole.dtype == torch.bool else hole[:, 0] > 0
    for lines in (missing.any(2), missing.any(1)):
        size = lines.shape[1]
        at = torch.arange(size, device=hole.device)
        first = torch.where(lines, at, size - 1).amin(1)
        ends.append((first, torch.maximum(torch.where(lines, at + 1, 0).amax(1), first + 1)))
    (top, bottom), (left, right) = ends
    return Box(top, left, bottom, right)


def window(box: Box, height: int, width: int, overlap: int) -> Window:
    """Return the smallest square around a box whose predicted part covers the box.

    The square and the box have the same middle. The side is at least that of the network's picture,
    or the shorter side of the image if that is less. It is a multiple of 32 pixels, so that the
    predicted part ends between two pixels.
    """
    half = (torch.maximum(box.bottom - box.top, box.right - box.left) + 1) // 2
    inner = PREDICTED // 2 - overlap
    least = torch.sym_min(SIDE, torch.sym_min(height, width))
    side = ((half * SIDE + inner - 1) // inner).clamp(min=least)
    side = (side + 31) // 32 * 32
    top = (box.top + box.bottom) // 2 - side // 2
    return Window(top, (box.left + box.right) // 2 - side // 2, side)


def margin(side: int) -> int:
    """Return how many pixels around a window of that side `crop` reads."""
    return side // SIDE + 1


def _triangles(centres: Tensor, support: Tensor, size: int, *, inside: bool) -> Tensor:
    """Return weights of a triangle around each centre, (N, K), over pixels 0 ... size - 1.

    The result is (N, K, size). Each row sums to 1 over these pixels if `inside`, else over these
    and all before and after them. `support` is half a triangle's base, (N, 1), at least 1.
    """
    pixels = torch.arange(size, device=centres.device) + 0.5
    distance = (centres[:, :, None] - pixels).abs()
    weights = (1 - distance / support[:, :, None]).clamp_min(0)
    total = weights.sum(2) if inside else _sum_of_triangle(centres - 0.5, support)
    return weights / total[:, :, None]


def _sum_of_triangle(centre: Tensor, support: Tensor) -> Tensor:
    """Return the sum of max(0, 1 - |k - centre| / support) over all integers k."""
    middle = centre.floor()
    first, last = (centre - support).ceil(), (centre + support).floor()
    before, after = middle - first + 1, last - middle
    # Distances of the integers up to the centre, and of those beyond it, are two series.
    nearer = before * (centre - (first + middle) / 2)
    farther = after * ((middle + 1 + last) / 2 - centre)
    return before + after - (nearer + farther) / support


def _mixed(x: Tensor, down: Tensor, across: Tensor) -> Tensor:
    """Return down @ x @ across^T for each channel of (N, C, H, W); matrices (N, K, H or W).

    The products are float32, or float64 for x in float64, under autocast too.
    """
    n, c = x.shape[:2]
    wide = tensors.compute_dtype(x)
    down, across = (
        one.to(wide.dtype).expand(n, -1, -1).repeat_interleave(c, 0) for one in (down, across)
    )
    with torch.autocast(x.device.type, enabled=False):
        mixed: Tensor = torch.bmm(torch.bmm(down, wide.flatten(0, 1)), across.mT)
    result: Tensor = mixed.unflatten(0, (n, c)).to(x.dtype)
    return result


def crop(image: Tensor, where: Window, colour: Tensor) -> Tensor:
    """Return a window of each picture (N, C, H, W) at SIDE x SIDE pixels.

    It is resized bilinearly, antialiased where it shrinks; a window of SIDE pixels stays as it is.
    Pixels outside the picture have the colour (C, 1, 1).
    """
    scale = where.side[:, None].double() / SIDE
    steps = (torch.arange(SIDE, device=image.device, dtype=torch.float64) + 0.5) * scale
    matrices = [
        _triangles(steps + origin[:, None], scale.clamp_min(1), size, inside=False)
        for origin, size in ((where.top, image.shape[2]), (where.left, image.shape[3]))
    ]
    return _mixed(image - colour, *matrices) + colour


def paste(image: Tensor, prediction: Tensor, where: Window, box: Box) -> Tensor:
    """Return the pictures with a box of each from its prediction (N, C, PREDICTED, PREDICTED)."""
    scale = where.side[:, None].double() / SIDE

    def shares(at: Tensor, origin: Tensor, of: slice) -> Tensor:
        """Return how much each line of the prediction gives to some lines of the pictures."""
        centres = (at + 0.5 - origin[of, None]) / scale[of] - (SIDE - PREDICTED) / 2
        support = (1 / scale[of]).clamp_min(1)
        return _triangles(centres.clamp(0.5, PREDICTED - 0.5), support, PREDICTED, inside=True)

    if checks.tracing() is None and not torch.compiler.is_compiling():
        result = image.clone()
        for n, (top, left, bottom, right) in enumerate(zip(*(end.tolist() for end in box))):
            rows, columns, one = slice(top, bottom), slice(left, right), slice(n, n + 1)
            down = shares(torch.arange(top, bottom, device=image.device), where.top, one)
            across = shares(torch.arange(left, right, device=image.device), where.left, one)
            result[one, :, rows, columns] = _mixed(prediction[one], down, across)
        return result
    # A graph has no boxes yet: it makes the whole picture of the prediction.
    every, matrices, inside = slice(None), [], []
    for first, last, origin, size in (
        (box.top, box.bottom, where.top, image.shape[2]),
        (box.left, box.right, where.left, image.shape[3]),
    ):
        at = torch.arange(size, device=image.device)
        inside.append((at >= first[:, None]) & (at < last[:, None]))
        matrices.append(shares(at, origin, every))
    chosen = inside[0][:, None, :, None] & inside[1][:, None, None]
    return torch.where(chosen, _mixed(prediction, *matrices), image)


def inner_square(overlap: int) -> slice:
    """Return the rows (and columns) of the network's picture that it does not see."""
    start = (SIDE - PREDICTED) // 2 + overlap
    return slice(start, SIDE - start)


def least_side(height: int, width: int) -> int:
    """Return the least side of a square in a picture of that size, see `window`."""
    return (min(SIDE, height, width) + 31) // 32 * 32


def seen_pixels(missing: Tensor, square: Square, overlap: int) -> int:
    """Return the number of known pixels that the network sees: of a square, not of its middle.

    Args:
        missing: (H, W) bool.
        square: around the hole, of `window`.
        overlap: of `fill_centre`.
    """
    dropped = inner_square(overlap)
    first, last = (end * square.side // SIDE for end in (dropped.start, dropped.stop))
    counts = []
    for start, end in ((0, square.side), (first, last)):
        rows, columns = (
            slice(max(origin + start, 0), max(origin + end, 0)) for origin in square[:2]
        )
        part = missing[rows, columns]
        counts.append(part.numel() - int(part.sum()))
    return counts[0] - counts[1]


def fill_centre(
    network: Callable[[Tensor], Tensor],
    image: Tensor,
    hole: Tensor,
    *,
    wanted: Tensor | None = None,
    colour: Tensor,
    overlap: int,
) -> Tensor:
    """Fill each sample's hole by one prediction of the middle of a square around it.

    The square (`window`) is resized to SIDE x SIDE pixels. Its middle, of side PREDICTED - 2
    overlap, gets the colour, known pixels included. The prediction is resized back. Where the
    square reaches beyond the picture it has the colour too.

    The pixels that come back as they were are the known ones, and those that are missing beyond the
    box of the wanted ones.

    Args:
        network: (M, 3, SIDE, SIDE) in [-1, 1] to (M, 3, PREDICTED, PREDICTED).
        image: (N, 3, H, W) in [0, 1].
        hole: (N, 1, H, W), 1 = missing.
        wanted: those of the missing pixels that the square lies around, (N, 1, H, W); None: all.
        colour: (3, 1, 1) in [-1, 1].
        overlap: predicted pixels on each side that are known to the network.
    """
    # Masks have one plane: planes are faster here than channels_last.
    image = image.contiguous()
    box = hole_boxes(hole if wanted is None else wanted)
    where = window(box, image.shape[2], image.shape[3], overlap)
    seen = crop(torch.where(hole > 0, colour, signed(image)), where, colour)
    middle = inner_square(overlap)
    dropped = torch.zeros(SIDE, SIDE, dtype=torch.bool, device=image.device)
    dropped[middle, middle] = True
    seen = torch.where(dropped, colour, seen)
    return composite(image, paste(image, unsigned(network(arranged(seen))), where, box), hole)


def training_crops(image: Tensor, hole: Tensor, colour: Tensor, overlap: int) -> Tensor:
    """Return complete pictures around each sample's hole, (N, 3, SIDE, SIDE) in [-1, 1].

    The squares are those of `fill_centre`; a sample without a hole is cropped around its middle.
    Pictures of SIDE x SIDE pixels with a hole around their middle stay as they are.
    """
    height, width = image.shape[2:]
    middle = (height // 2, width // 2, height // 2 + 1, width // 2 + 1)
    holes = (hole > 0).flatten(1).any(1)
    box = Box(*(torch.where(holes, end, at) for end, at in zip(hole_boxes(hole), middle)))
    return arranged(crop(signed(image), window(box, height, width, overlap), colour))
