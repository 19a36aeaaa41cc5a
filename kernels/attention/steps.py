"""Steps of contextual attention: the launches of its kernels on the strips of some samples.

In the order of the data: scores, fuse and softmax (`attend`), `corners`; backward the same again,
and the adjoints.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from inpaint_ops.kernels.attention import (
    grid,
    scores,
    softmax,
    softmax_backward,
    stencils,
    strips,
)
from inpaint_ops.kernels.attention.corners import CORNER
from inpaint_ops.kernels.attention.samples import Options, Samples
from inpaint_ops.kernels.attention.strips import Strip, Window
from inpaint_ops.kernels.launch import architecture, dtype_class
from inpaint_ops.kernels.program import cdiv, segments


class Steps(Samples):
    """Samples with the memory of their strips, which all lie in the same place."""

    def __init__(self, fg: Tensor, bg: Tensor, hole: Tensor | None, options: Options) -> None:
        super().__init__(fg, bg, hole, options)
        most = strips.PAIRS // (self.keys.ld * max(self.n, 1))
        self._strips = list(strips.strips(self.h, self.w, most, options.fuse))
        first = self._strips[0]
        self._lines = {"own": 1 + first.own.lines, "scores": 1 + first.scores.lines}
        self._lines["pixels"] = 1 + first.pixels.lines
        self._tables: dict[int, Tensor] = {}

    def strips(self) -> Iterator[Strip]:
        """Strips of query cells."""
        return iter(self._strips)

    def attend(self, strip: Strip, index: Tensor, row_max: Tensor, row_sum: Tensor) -> None:
        """Form the strip's fused scores; fill best key, maximum and sum of its queries."""
        parts = self._parts(strip.own.lines, self.keys.ld)
        shape = (self.n, parts[1], self._lines["own"])
        tops, totals = (self.factor.new_empty(shape) for _ in range(2))
        places = self.usable.new_empty(shape, dtype=torch.int32)
        softmax.ATTEND(
            "fp32",
            parts,
            strip_ptr=self._scores(strip),
            table_ptr=self._fuse_table,
            usable_ptr=self.usable,
            fused_ptr=self._fused,
            part_max_ptr=tops,
            part_sum_ptr=totals,
            part_index_ptr=places,
            **self._own(strip),
            **self._scored(strip),
        )
        softmax.MERGE(
            "fp32",
            (cdiv(strip.own.lines, softmax.MERGED), self.n),
            part_max_ptr=tops,
            part_sum_ptr=totals,
            part_index_ptr=places,
            missing_ptr=self._missing,
            row_max_ptr=row_max,
            row_sum_ptr=row_sum,
            index_ptr=index,
            **self._own(strip),
            segments=parts[1],
            wb=self.keys.w,
        )

    def corners(self, strip: Strip, row_max: Tensor, row_sum: Tensor) -> Tensor:
        """Weights of blocks from the fused scores, (N, (rows + 1) * (columns + 1), corner_ld)."""
        count = (strip.own.rows + 1) * (strip.own.columns + 1)
        corners = self.b.new_empty((self.n, count, self.corners_of_keys.ld))
        CORNER(
            dtype_class(corners.dtype),
            self._parts(count, self.corners_of_keys.ld),
            fused_ptr=self._fused,
            table_ptr=self._table(grid.PASTED),
            row_max_ptr=row_max,
            row_sum_ptr=row_sum,
            corner_ptr=corners,
            **self._own(strip),
            corner_groups=self.corners_of_keys.groups,
        )
        return corners

    def attend_backward(
        self, strip: Strip, grad_corners: Tensor, row_max: Tensor, row_sum: Tensor
    ) -> None:
        """Form the strip's scores and fused scores again, and the gradient of the latter."""
        parts = self._parts(strip.own.lines, self.keys.ld)
        shape = (self.n, parts[1], self._lines["own"])
        means = self.factor.new_empty(shape)
        softmax_backward.ATTEND_BACKWARD(
            "fp32",
            parts,
            strip_ptr=self._scores(strip),
            table_ptr=self._fuse_table,
            usable_ptr=self.usable,
            row_max_ptr=row_max,
            row_sum_ptr=row_sum,
            grad_corner_ptr=grad_corners,
            corner_table_ptr=self._table(grid.PASTING),
            fused_ptr=self._fused,
            grad_ptr=self._grads,
            part_mean_ptr=means,
            **self._own(strip),
            corner_groups=self.corners_of_keys.groups,
            **self._scored(strip),
        )
        softmax_backward.SOFTMAX_BACKWARD(
            "fp32",
            (parts[0], cdiv(self.keys.ld, softmax.COLUMNS), self.n),
            fused_ptr=self._fused,
            usable_ptr=self.usable,
            row_max_ptr=row_max,
            row_sum_ptr=row_sum,
            part_mean_ptr=means,
            factor_ptr=self.factor,
            grad_ptr=self._grads,
            **self._own(strip),
            segments=parts[1],
            softmax_scale=self.options.softmax_scale,
            FUSED=self.options.fuse,
        )

    def pixel_gradients(self, strip: Strip, through_norm: Tensor) -> Tensor:
        """Gradient of the products of pixels, (N, lines of `strip.pixels`, ld).

        Adds to `through_norm` (N, ld) each key's sum of gradient times score, queries in order.
        """
        grads, window = self._grads, strip.own
        if self.options.fuse:
            self._stencil(grid.FUSE_ADJOINT, grads, window, self._score_grads, strip.scores)
            grads, window = self._score_grads, strip.scores
        stencils.COLUMN_DOT(
            "fp32",
            (cdiv(self.keys.ld, stencils.COLUMN), self.n),
            a_ptr=grads,
            b_ptr=self._score_strip,
            out_ptr=through_norm,
            count=window.lines,
            a_lines=grads.shape[1],
            b_lines=self._score_strip.shape[1],
            groups=self.keys.groups,
        )
        self._stencil(grid.BOX, grads, window, self._pixel_grads, strip.pixels)
        return self._pixel_grads[:, 1 : 1 + strip.pixels.lines]

    def _scores(self, strip: Strip) -> Tensor:
        """Products of 3 x 3 patches over the norm of the key's, before the fuse."""
        window = strip.scores
        blocks = ""
        if window.columns <= 32:
            blocks = "-narrow" if self.keys.w > 32 else "-small"
        row = scores.SCORE.row(f"{self.row}{blocks}", architecture(self.b.device))
        programs = cdiv(window.columns, row.constexprs["BLOCK_M"])
        programs *= (self.keys.h + 1) * cdiv(self.keys.w, row.constexprs["BLOCK_N"])
        scores.SCORE(
            row.name,
            (programs, segments(programs * self.n, cdiv(window.rows + 1, 8)), self.n),
            query_ptr=self.queries,
            key_ptr=self.keyed,
            factor_ptr=self.factor,
            out_ptr=self._score_strip,
            **self._grid(),
            hb=self.keys.h,
            wb=self.keys.w,
            **_window(window, "first_y", "rows", "first_x", "columns"),
            lines=self._score_strip.shape[1],
            units=self.units,
        )
        return self._score_strip

    def _stencil(self, kind: Any, x: Tensor, taken: Window, out: Tensor, made: Window) -> None:
        """Sums over neighbours of the cells of one window, for those of another."""
        stencils.STENCIL(
            "fp32",
            self._parts(made.lines, self.keys.ld),
            in_ptr=x,
            table_ptr=self._table(kind),
            factor_ptr=self.factor,
            out_ptr=out,
            **self._grid(),
            **_window(taken, "in_y", "in_rows", "in_x", "in_columns"),
            in_lines=x.shape[1],
            **_window(made, "out_y", "out_rows", "out_x", "out_columns"),
            out_lines=out.shape[1],
            KIND=kind.value,
        )

    def _table(self, kind: Any) -> Tensor:
        """Columns of the neighbours of keys, or of blocks of the keys' grid."""
        if kind.value not in self._tables:
            keys = self.corners_of_keys if kind.value == grid.PASTED.value else self.keys
            to = self.corners_of_keys if kind.value == grid.PASTING.value else self.keys
            self._tables[kind.value] = grid.table(kind, keys, to, self.b.device)
        return self._tables[kind.value]

    @property
    def _fuse_table(self) -> Tensor | None:
        return self._table(grid.FUSE) if self.options.fuse else None

    @cached_property
    def _missing(self) -> Tensor:
        """Missing keys of each sample that count as a score of 0."""
        if self.options.hole_mode == "exclude":
            return self.factor.new_zeros(self.n)
        return self.keys.h * self.keys.w - self.usable.sum(1, dtype=torch.float32)

    @cached_property
    def _score_strip(self) -> Tensor:
        return self._blank("scores", 0.0)

    @cached_property
    def _fused(self) -> Tensor:
        return self._blank("own", float("-inf"))

    @cached_property
    def _grads(self) -> Tensor:
        return self._blank("own", 0.0)

    @cached_property
    def _score_grads(self) -> Tensor:
        return self._blank("scores", 0.0)

    @cached_property
    def _pixel_grads(self) -> Tensor:
        return self._blank("pixels", 0.0)

    def _blank(self, window: str, value: float) -> Tensor:
        """Memory for strips of a kind, with what the blank line and columns hold everywhere."""
        return self.factor.new_full((self.n, self._lines[window], self.keys.ld), value)

    def _parts(self, lines: int, columns: int) -> tuple[int, int, int]:
        """Grid of a kernel over so many lines and columns, those shared by segments."""
        blocks = cdiv(lines, softmax.ROWS)
        most = cdiv(columns, 4 * softmax.COLUMNS)
        return blocks, segments(blocks * self.n, most, wanted=1056), self.n

    def _own(self, strip: Strip) -> dict[str, int]:
        names = ("own_y", "own_rows", "own_x", "own_columns")
        return {**self._grid(), **_window(strip.own, *names), "own_lines": self._lines["own"]}

    def _scored(self, strip: Strip) -> dict[str, Any]:
        return {
            **_window(strip.scores, "first_y", "rows", "first_x", "columns"),
            "lines": self._lines["scores"],
            "softmax_scale": self.options.softmax_scale,
            "FUSED": self.options.fuse,
        }

    def _grid(self) -> dict[str, int]:
        return {"h": self.h, "w": self.w, "groups": self.keys.groups}


def _window(window: Window, *names: str) -> dict[str, int]:
    return dict(zip(names, window, strict=True))
