"""Where cells were copied from: matches of attention, shift connection and `nearest_patch`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from inpaint_ops import checks
from inpaint_ops.images.formats import pillow
from inpaint_ops.layers.contextual_attention import displacement_colours
from inpaint_ops.visualize.sheets import Picture, check_picture, enlarged, image_of, rgb, row, sheet

# Of cells without a match, and of those that are not asked for.
_GREY = 0.75


def match_map(
    index: Tensor,
    *,
    keys: tuple[int, int] | None = None,
    hole: Tensor | None = None,
    cell: int = 8,
) -> Picture:
    """Draw the way from each cell to its source: hue is direction, saturation is length.

    A cell that is its own source is white, one without a match grey. Lengths are relative to the
    greatest of the cells that are shown, of each sample for itself.

    Args:
        index: (N, h, w) int64, flat position of each cell's source, -1 for none: what
            `contextual_attention` gives with `return_index`, `shift_connection` and
            `nearest_patch`.
        keys: rows and columns of the grid that `index` counts on; None: (h, w).
        hole: (N or 1, 1, h, w), 1 = missing; only these cells are shown. None: all.
        cell: pixels of the picture for each cell, along each axis.

    Returns:
        A PIL image: the samples side by side, with a gap of 2 pixels.

    Raises:
        ImportError: Pillow is not installed; the extra is named.
        TypeError, ValueError: wrong type, shape, position, mask value or option.

    Source: Middlebury colour code (Baker et al., IJCV 2011), as `layers.flow_picture`.
    """
    op = "match_map"
    checks.check_int(op, "cell", cell)
    ways = _Ways(op, index, keys, hole)
    return row(enlarged(ways.colours(), cell))


def match_arrows(
    image: Tensor,
    index: Tensor,
    *,
    keys: tuple[int, int] | None = None,
    hole: Tensor | None = None,
    every: int = 2,
) -> Picture:
    """Draw a line from the source of cells to these cells, over pictures.

    A line has the colour of `match_map`; a dot is at the cell that was filled.

    Args:
        image: (N, 3 or 1, H, W) floating, [0, 1]. The cells, and the keys, are spread evenly over
            it.
        index: as of `match_map`.
        keys: as of `match_map`.
        hole: as of `match_map`.
        every: cells from line to line, along each axis.

    Returns:
        A PIL image: the pictures side by side, with a gap of 2 pixels.

    Raises:
        ImportError: Pillow is not installed; the extra is named.
        TypeError, ValueError: wrong type, shape, position, mask value or option.
    """
    op = "match_arrows"
    check_picture(op, image)
    checks.check_int(op, "every", every)
    ways = _Ways(op, index, keys, hole)
    if image.shape[0] != index.shape[0]:
        raise ValueError(
            f"{op}: image and index must agree in N, got {tuple(image.shape)} and "
            f"{tuple(index.shape)}"
        )
    size = (int(image.shape[2]), int(image.shape[3]))
    pictures = [
        ways.drawn(image_of(picture), number, every, size)
        for number, picture in enumerate(rgb(image))
    ]
    return sheet(pictures, len(pictures))


class _Ways:
    """Displacements from cells to their sources, checked."""

    def __init__(
        self, op: str, index: Tensor, keys: tuple[int, int] | None, hole: Tensor | None
    ) -> None:
        if not isinstance(index, Tensor) or index.dtype != torch.int64:
            got = index.dtype if isinstance(index, Tensor) else type(index).__name__
            raise TypeError(f"{op}: index must be an int64 Tensor, got {got}")
        if index.dim() != 3 or 0 in index.shape:
            raise ValueError(
                f"{op}: index must have shape (N, h, w) with cells, got {tuple(index.shape)}"
            )
        batch, *size = index.shape
        self.cells = (size[0], size[1])
        self.keys = self.cells if keys is None else keys
        if not isinstance(self.keys, (tuple, list)) or len(self.keys) != 2:
            raise TypeError(f"{op}: keys must be rows and columns, got {keys!r}")
        for count in self.keys:
            checks.check_int(op, "keys", count)
        most = self.keys[0] * self.keys[1]
        bad = (index < -1) | (index >= most)
        if bool(bad.any()):
            raise ValueError(
                f"{op}: index must be -1 or a position among {self.keys[0]} x {self.keys[1]} keys, "
                f"got {index[bad][0].item()}; give keys=(rows, columns) for another grid"
            )
        self.shown = index.cpu() >= 0
        if hole is not None:
            checks.check_mask(op, "hole", hole, batch, self.cells, index.device)
            self.shown = self.shown & checks.binary(op, "hole", hole).cpu()[:, 0]
        self.index = index.cpu()

    def colours(self) -> Tensor:
        """Return (N, 3, h, w) in [0, 1]."""
        source = self.index.clamp_min(0)
        down = source // self.keys[1] - torch.arange(self.cells[0])[:, None]
        right = source % self.keys[1] - torch.arange(self.cells[1])
        down, right = (torch.where(self.shown, way, 0).double() for way in (down, right))
        length = (down.square() + right.square()).sqrt()
        scale = length.amax((1, 2), keepdim=True).clamp_min(1.0)
        return torch.where(
            self.shown[:, None], displacement_colours(down / scale, right / scale), _GREY
        )

    def drawn(self, image: Any, number: int, every: int, size: tuple[int, int]) -> Tensor:
        """Return the picture (3, H, W) of a sample with its lines."""
        draw_on = _draw(image)
        colours = (self.colours()[number] * 255).round().to(torch.int64)
        radius = max(1, min(size) // 128)
        for y, x in self.shown[number].nonzero().tolist():
            if y % every or x % every:
                continue
            source = int(self.index[number, y, x])
            colour = tuple(colours[:, y, x].tolist())
            start = _centre(source // self.keys[1], source % self.keys[1], self.keys, size)
            end = _centre(y, x, self.cells, size)
            draw_on.line([start, end], fill=colour, width=radius)
            box = [end[0] - radius, end[1] - radius, end[0] + radius, end[1] + radius]
            draw_on.ellipse(box, fill=colour)
        return _pixels(image)


def _centre(row: int, column: int, grid: tuple[int, int], size: tuple[int, int]) -> Any:
    """Return x and y of the pixel in the middle of a cell."""
    return (
        int((column + 0.5) * size[1] / grid[1]),
        int((row + 0.5) * size[0] / grid[0]),
    )


def _draw(image: Any) -> Any:
    pillow()
    from PIL import ImageDraw

    return ImageDraw.Draw(image)


def _pixels(image: Any) -> Tensor:
    import numpy as np

    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
