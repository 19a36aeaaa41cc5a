"""Samples of contextual attention made ready, and the launches of its kernels on their strips.

`Samples` holds what all strips of some samples share. Its methods are the steps of both passes, in
the order of the data: scores, fuse and softmax (`attend`), corners; and the adjoint of the fuse.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from inpaint_ops.kernels.attention import cells, softmax, stencils
from inpaint_ops.kernels.attention.corners import CORNER
from inpaint_ops.kernels.attention.strips import Strip, strips
from inpaint_ops.kernels.launch import dtype_class
from inpaint_ops.kernels.products import product
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

    Keys and blocks are padded to whole groups of 16, so that rows start at multiples of 64 bytes.
    """

    def __init__(self, fg: Tensor, bg: Tensor, hole: Tensor | None, options: Options) -> None:
        self.options = options
        rate = options.rate
        self.n, self.c = fg.shape[:2]
        self.f = cells.picked(fg, rate, options.pick)
        b = cells.picked(bg, rate, options.pick)
        (self.h, self.w), (self.hb, self.wb) = self.f.shape[1:3], b.shape[1:3]
        self.keys = self.hb * self.wb
        self.groups = cdiv(self.keys, 16)
        self.corner_groups = cdiv((self.hb + 1) * (self.wb + 1), 16)
        self.usable = fg.new_zeros((self.n, self.ld), dtype=torch.uint8)
        self.usable[:, : self.keys].fill_(1)
        if hole is not None:
            missing = (hole != 0).expand(self.n, 1, self.hb, self.wb)
            near = F.max_pool2d(missing.float(), 3, stride=1, padding=1)
            self.usable[:, : self.keys] = near.flatten(1) == 0
            if not options.fuse:
                # No score needs them, and a NaN in them would reach a sum even times zero.
                b = b.masked_fill(missing.permute(0, 2, 3, 1), 0.0)
            pixels = missing.repeat_interleave(rate, 2).repeat_interleave(rate, 3)
            bg = bg.masked_fill(pixels[:, :, : bg.shape[2], : bg.shape[3]], 0.0)
        self.b = F.pad(b.flatten(1, 2), (0, 0, 0, self.ld - self.keys))
        square = cells.box(b.float().square().sum(3))
        if options.key_norm == "max":
            self.above = square > 1e-8
            self.norm = torch.where(self.above, square.sqrt(), 1e-4)
        else:
            self.above = torch.ones_like(square, dtype=torch.bool)
            self.norm = (square + 9e-4 * self.c).sqrt()
        self.factor = F.pad(self.norm.reciprocal().flatten(1), (0, self.ld - self.keys))
        blocks = cells.blocks_of(bg, rate, self.hb, self.wb).flatten(1, 2)
        self.blocks = F.pad(blocks, (0, 0, 0, self.corner_ld - blocks.shape[1]))

    @property
    def ld(self) -> int:
        """Length of a row of a strip: keys, padded."""
        return 16 * self.groups

    @property
    def corner_ld(self) -> int:
        """Length of a row of corners: blocks of the keys' grid, padded."""
        return 16 * self.corner_groups

    def strips(self) -> Iterator[Strip]:
        """Strips of query rows that fit the memory allowed."""
        return strips(self.h, 4 * self.w * self.ld, self.n, self.options.fuse)

    def empty(self, rows: int) -> Tensor:
        """Memory for that many grid rows against all keys: (N, rows * w, ld) float32."""
        return self.b.new_empty((self.n, rows * self.w, self.ld), dtype=torch.float32)

    def at_rows(self, x: Tensor, window: tuple[int, int]) -> tuple[Tensor, Tensor | None]:
        """Those rows of x (N, h, w, C), (N, slots * w, C), and their numbers; None: all."""
        base, slots = window
        if slots == self.h:
            return x.flatten(1, 2), None
        rows = (torch.arange(slots, device=x.device) + base) % self.h
        return x.index_select(1, rows).flatten(1, 2), rows

    def scores(self, strip: Strip) -> Tensor:
        """Products of 3 x 3 patches over the norm of the key's, before the fuse.

        The products are diagonal sums of those of pixels, C multiply-adds a pair instead of 9 C.
        """
        rows, _ = self.at_rows(self.f, strip.gram)
        return self.box(product(rows, self.b.mT), strip.gram, strip.scores, scale=True)

    def box(self, x: Tensor, taken: tuple[int, int], made: tuple[int, int], scale: bool) -> Tensor:
        """3 x 3 diagonal sums of the rows `taken`, for the rows `made`; with `scale` over norms."""
        out = self.empty(made[1])
        self._launch(
            stencils.BOX,
            made[1] * self.w,
            in_ptr=x,
            out_ptr=out,
            factor_ptr=self.factor,
            **self._grid(),
            in_base=taken[0],
            in_slots=taken[1],
            out_base=made[0],
            out_slots=made[1],
            SCALE=scale,
        )
        return out

    def attend(self, strip: Strip, index: Tensor, row_max: Tensor, row_sum: Tensor) -> Tensor:
        """Attention of the strip's queries, (N, rows * w, ld); fills index, maximum and sum."""
        attention = self.empty(strip.rows)
        softmax.ATTEND(
            "fp32",
            (cdiv(strip.rows * self.w, stencils.ROWS), self.n),
            strip_ptr=self.scores(strip),
            usable_ptr=self.usable,
            attention_ptr=attention,
            index_ptr=index,
            row_max_ptr=row_max,
            row_sum_ptr=row_sum,
            **self._attended(strip),
            EXCLUDE=self.options.hole_mode == "exclude",
        )
        return attention

    def corners(self, attention: Tensor, strip: Strip) -> Tensor:
        """Weights of blocks from those of patches, (N, (rows + 1) * (w + 1), corner_ld)."""
        rows = (strip.rows + 1) * (self.w + 1)
        corners = self.b.new_empty((self.n, rows, self.corner_ld))
        self._launch(
            CORNER,
            rows,
            dtype_class(corners.dtype),
            attention_ptr=attention,
            corner_ptr=corners,
            rows=strip.rows,
            w=self.w,
            hb=self.hb,
            wb=self.wb,
            groups=self.groups,
            corner_groups=self.corner_groups,
        )
        return corners

    def attend_backward(
        self, strip: Strip, scores: Tensor, grad_corners: Tensor, row_max: Tensor, row_sum: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Attention once more, and the gradient of the scores it was formed from."""
        attention, grads = self.empty(strip.rows), self.empty(strip.rows)
        softmax.ATTEND_BACKWARD(
            "fp32",
            (cdiv(strip.rows * self.w, stencils.ROWS), self.n),
            strip_ptr=scores,
            usable_ptr=self.usable,
            row_max_ptr=row_max,
            row_sum_ptr=row_sum,
            grad_corner_ptr=grad_corners,
            factor_ptr=self.factor,
            attention_ptr=attention,
            grad_score_ptr=grads,
            corner_groups=self.corner_groups,
            **self._attended(strip),
        )
        return attention, grads

    def fuse_adjoint(self, grads: Tensor, strip: Strip) -> Tensor:
        """Gradient of `scores`, over the norms, from that of the fused scores."""
        out = self.empty(strip.scores[1])
        self._launch(
            stencils.FUSE_ADJOINT,
            strip.scores[1] * self.w,
            in_ptr=grads,
            out_ptr=out,
            factor_ptr=self.factor,
            **self._grid(),
            in_base=strip.first,
            in_slots=strip.rows,
            out_base=strip.scores[0],
            out_slots=strip.scores[1],
        )
        return out

    def add_through_norm(self, through_norm: Tensor, grads: Tensor, scores: Tensor) -> None:
        """Add to `through_norm` (N, ld) each key's sum of gradient times score, rows in order."""
        stencils.COLUMN_DOT(
            "fp32",
            (cdiv(self.ld, stencils.COLUMN), self.n),
            a_ptr=grads,
            b_ptr=scores,
            out_ptr=through_norm,
            rows=grads.shape[1],
            groups=self.groups,
        )

    def _attended(self, strip: Strip) -> dict[str, Any]:
        return {
            **self._grid(),
            "base": strip.scores[0],
            "slots": strip.scores[1],
            "first": strip.first,
            "rows": strip.rows,
            "softmax_scale": self.options.softmax_scale,
            "FUSE": self.options.fuse,
        }

    def _grid(self) -> dict[str, int]:
        return {"h": self.h, "w": self.w, "hb": self.hb, "wb": self.wb, "groups": self.groups}

    def _launch(self, kernel: Any, total: int, name: str = "fp32", /, **arguments: Any) -> None:
        """Launch a kernel over tiles of that many rows by all keys, or by all blocks."""
        columns = 16 * arguments.get("corner_groups", self.groups)
        blocks = (
            cdiv(total, stencils.ROWS),
            cdiv(columns, stencils.COLUMNS),
            self.n,
        )
        kernel(name, blocks, **arguments)
