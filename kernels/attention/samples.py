"""Samples of contextual attention made ready: what all strips of some samples share."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from inpaint_ops.kernels.attention import cells, grid, scores
from inpaint_ops.kernels.launch import dtype_class
from inpaint_ops.kernels.plans import tf32_products
from inpaint_ops.kernels.program import cdiv


class Options(NamedTuple):
    """Options of the operator, as `contextual_attention` documents them."""

    rate: int
    softmax_scale: float
    fuse: bool
    pick: str
    key_norm: str
    hole_mode: str
    overlap: str


class Samples:
    """Picked pixels, norms of keys, usable keys and blocks of pixels of some samples.

    Keys and blocks are padded to whole groups of 16, at least one more than there are, so that rows
    start at multiples of 64 bytes and end in a blank column.
    """

    def __init__(self, fg: Tensor, bg: Tensor, hole: Tensor | None, options: Options) -> None:
        self.options = options
        rate = options.rate
        self.n, self.c = fg.shape[:2]
        self.f = cells.picked(fg, rate, options.pick)
        b = cells.picked(bg, rate, options.pick)
        (self.h, self.w), (hb, wb) = self.f.shape[1:3], b.shape[1:3]
        self.keys = grid.Keys(hb, wb, cdiv(wb, 4) * 4)
        self.corners_of_keys = grid.Keys(hb + 1, wb + 1, wb + 1)
        usable = fg.new_ones((self.n, hb, wb), dtype=torch.uint8)
        if hole is not None:
            missing = (hole != 0).expand(self.n, 1, hb, wb)
            near = F.max_pool2d(missing.float(), 3, stride=1, padding=1)
            usable = (near[:, 0] == 0).to(torch.uint8)
            if not options.fuse:
                # No score needs them, and a NaN in them would reach a sum even times zero.
                b = b.masked_fill(missing.permute(0, 2, 3, 1), 0.0)
            pixels = missing.repeat_interleave(rate, 2).repeat_interleave(rate, 3)
            bg = bg.masked_fill(pixels[:, :, : bg.shape[2], : bg.shape[3]], 0.0)
        self.b = b
        self.usable = self.in_columns(usable, self.keys.table_ld)
        square = cells.box(b.float().square().sum(3))
        if options.key_norm == "max":
            self.above = square > 1e-8
            self.norm = torch.where(self.above, square.sqrt(), 1e-4)
        else:
            self.above = torch.ones_like(square, dtype=torch.bool)
            self.norm = (square + 9e-4 * self.c).sqrt()
        self.factor = self.in_columns(self.norm.reciprocal(), self.keys.ld)
        blocks = cells.blocks_of(bg, rate, hb, wb).flatten(1, 2)
        self.blocks = F.pad(blocks, (0, 0, 0, self.corners_of_keys.ld - blocks.shape[1]))
        self.row = dtype_class(fg.dtype)
        unit = scores.UNIT[self.row]
        self.units = cdiv(self.c, unit)
        if self.row == "fp32" and tf32_products():
            self.row = "tf32"
        # Channels in whole vectors, a column of zeros before each row and two rows below.
        padding = (0, self.units * unit - self.c, 1, 0, 0, 2)
        self.queries, self.keyed = F.pad(self.f, padding), F.pad(b, padding)

    def in_columns(self, x: Tensor, columns: int) -> Tensor:
        """(N, hb, wb) as the columns of a strip have it, zero where they are blank."""
        x = F.pad(x, (0, self.keys.pitch - self.keys.w)).flatten(1)
        return F.pad(x, (0, columns - x.shape[1]))

    def of_columns(self, x: Tensor) -> Tensor:
        """The inverse: (N, hb, wb, ...) of (N, columns, ...)."""
        h, w, pitch = self.keys
        of_rows: Tensor = x[:, : h * pitch].unflatten(1, (h, pitch))
        return of_rows[:, :, :w]
