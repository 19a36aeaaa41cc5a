"""contextual_attention on the GPU: strips of query rows, forward and backward.

Per strip the library multiplies pixels (C multiply-adds a pair; the 3 x 3 patches are a diagonal
sum of that), kernels of `_stencils` and `_attention` sum, fuse, attend and gather corners, and the
library pastes blocks of pixels (rate^2 C multiply-adds a pair). Scores are float32 always; the
weights that are pasted have the type of the features. The backward pass forms each strip again from
the saved maximum and sum of the softmax. Strips take `STRIP_BYTES`, or as much as 4 query rows
need: memory grows with w * hb * wb. Every option runs on this one path.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
import triton
from torch import Tensor

from inpaint_ops.kernels import products
from inpaint_ops.kernels.attention import softmax, stencils
from inpaint_ops.kernels.launch import aligned, dtype_class
from inpaint_ops.kernels.products import product, without_autocast
from inpaint_ops.ops.tensors import memory_format
from inpaint_ops.reference.contextual_attention import pad_to_blocks, patches_over

_MIN_ROWS = 4


class _Options(NamedTuple):
    rate: int
    softmax_scale: float
    fuse: bool
    pick: str
    key_norm: str
    hole_mode: str
    overlap: str


class _Strip(NamedTuple):
    """Query rows [first, first + rows), and windows of rows (base, slots) that they are made of.

    `scores` and `gram` are where scores before the fuse and products of pixels are needed.
    """

    first: int
    rows: int
    scores: tuple[int, int]
    gram: tuple[int, int]


def _strips(h: int, row_bytes: int, samples: int, fuse: bool) -> Iterator[_Strip]:
    step = max(_MIN_ROWS, products.STRIP_BYTES // (4 * row_bytes * samples))
    halo = 2 if fuse else 0

    def window(start: int, rows: int) -> tuple[int, int]:
        return (0, h) if rows >= h else (start % h, rows)

    for first in range(0, h, step):
        rows = min(step, h - first)
        scores = window(first - halo, rows + 2 * halo)
        yield _Strip(first, rows, scores, window(first - halo - 1, rows + 2 * halo + 2))


class _Samples:
    """Some samples made ready: picked pixels, norms, usable keys, blocks of pixels to paste."""

    def __init__(self, fg: Tensor, bg: Tensor, hole: Tensor | None, options: _Options) -> None:
        self.options = options
        rate = options.rate
        self.n, self.c = fg.shape[:2]
        self.f = _picked(fg, options)
        b = _picked(bg, options)
        (self.h, self.w), (self.hb, self.wb) = self.f.shape[1:3], b.shape[1:3]
        self.keys = self.hb * self.wb
        self.groups = int(triton.cdiv(self.keys, 16))
        self.corner_groups = int(triton.cdiv((self.hb + 1) * (self.wb + 1), 16))
        self.usable = fg.new_zeros((self.n, self.ld), dtype=torch.uint8)
        self.usable[:, : self.keys] = 1
        if hole is not None:
            missing = (hole != 0).expand(self.n, 1, self.hb, self.wb)
            near = F.max_pool2d(missing.float(), 3, stride=1, padding=1)
            self.usable[:, : self.keys] = near.flatten(1) == 0
            if not options.fuse:
                # Nothing reads them, and what they hold must not reach a sum even times zero.
                b = b.masked_fill(missing.permute(0, 2, 3, 1), 0.0)
            pixels = missing.repeat_interleave(rate, 2).repeat_interleave(rate, 3)
            bg = bg.masked_fill(pixels[:, :, : bg.shape[2], : bg.shape[3]], 0.0)
        self.b = F.pad(b.flatten(1, 2), (0, 0, 0, self.ld - self.keys))
        square = _box(b.float().square().sum(3))
        if options.key_norm == "max":
            self.above = square > 1e-8
            self.norm = torch.where(self.above, square.sqrt(), 1e-4)
        else:
            self.above = torch.ones_like(square, dtype=torch.bool)
            self.norm = (square + 9e-4 * self.c).sqrt()
        self.factor = F.pad(self.norm.reciprocal().flatten(1), (0, self.ld - self.keys))
        blocks = _blocks(bg, rate, self.hb, self.wb).flatten(1, 2)
        self.blocks = F.pad(blocks, (0, 0, 0, self.corner_ld - blocks.shape[1]))

    @property
    def ld(self) -> int:
        return 16 * self.groups

    @property
    def corner_ld(self) -> int:
        return 16 * self.corner_groups

    def strips(self) -> Iterator[_Strip]:
        return _strips(self.h, 4 * self.w * self.ld, self.n, self.options.fuse)

    def empty(self, rows: int) -> Tensor:
        """A strip of some grid rows."""
        return self.b.new_empty((self.n, rows * self.w, self.ld), dtype=torch.float32)

    def at_rows(self, x: Tensor, window: tuple[int, int]) -> tuple[Tensor, Tensor | None]:
        """(N, slots * w, C) of those rows of x (N, h, w, C), and which they are; None: all."""
        base, slots = window
        if slots == self.h:
            return x.flatten(1, 2), None
        rows = (torch.arange(slots, device=x.device) + base) % self.h
        return x.index_select(1, rows).flatten(1, 2), rows

    def grid(self) -> dict[str, int]:
        return {"h": self.h, "w": self.w, "hb": self.hb, "wb": self.wb, "groups": self.groups}

    def launch(self, kernel: Any, total: int, name: str = "fp32", /, **arguments: Any) -> None:
        """A kernel over tiles of that many rows by all keys."""
        columns = 16 * arguments.get("corner_groups", self.groups)
        blocks = (
            triton.cdiv(total, stencils.ROWS),
            triton.cdiv(columns, stencils.COLUMNS),
            self.n,
        )
        kernel(name, blocks, **arguments)

    def box(self, x: Tensor, taken: tuple[int, int], made: tuple[int, int], scale: bool) -> Tensor:
        """3 x 3 diagonal sums of a strip on one window of rows, on another."""
        out = self.empty(made[1])
        self.launch(
            stencils.BOX,
            made[1] * self.w,
            in_ptr=x,
            out_ptr=out,
            factor_ptr=self.factor,
            **self.grid(),
            in_base=taken[0],
            in_slots=taken[1],
            out_base=made[0],
            out_slots=made[1],
            SCALE=scale,
        )
        return out

    def scores(self, strip: _Strip) -> Tensor:
        """Products of patches over the norm of the key's, before the fuse."""
        rows, _ = self.at_rows(self.f, strip.gram)
        return self.box(product(rows, self.b.mT), strip.gram, strip.scores, scale=True)

    def corners(self, attention: Tensor, strip: _Strip) -> Tensor:
        rows = (strip.rows + 1) * (self.w + 1)
        corners = self.b.new_empty((self.n, rows, self.corner_ld))
        self.launch(
            stencils.CORNER,
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

    def attend(self, strip: _Strip, index: Tensor, row_max: Tensor, row_sum: Tensor) -> Tensor:
        attention = self.empty(strip.rows)
        softmax.ATTEND(
            "fp32",
            (triton.cdiv(strip.rows * self.w, stencils.ROWS), self.n),
            strip_ptr=self.scores(strip),
            usable_ptr=self.usable,
            attention_ptr=attention,
            index_ptr=index,
            row_max_ptr=row_max,
            row_sum_ptr=row_sum,
            **self.attended(strip),
            EXCLUDE=self.options.hole_mode == "exclude",
        )
        return attention

    def attended(self, strip: _Strip) -> dict[str, Any]:
        return {
            **self.grid(),
            "base": strip.scores[0],
            "slots": strip.scores[1],
            "first": strip.first,
            "rows": strip.rows,
            "softmax_scale": self.options.softmax_scale,
            "FUSE": self.options.fuse,
        }

    def paste(self, index: Tensor, row_max: Tensor, row_sum: Tensor) -> Tensor:
        """(N, h + 1, w + 1, rate^2 C) blocks of pixels, float32; fills the statistics."""
        depth = self.blocks.shape[2]
        y = self.b.new_zeros((self.n, self.h + 1, self.w + 1, depth), dtype=torch.float32)
        for strip in self.strips():
            corners = self.corners(self.attend(strip, index, row_max, row_sum), strip)
            # The first row of blocks shares its pixels with the last of the strip before.
            part = y[:, strip.first : strip.first + strip.rows + 1]
            part += product(corners, self.blocks).view(part.shape)
        return y

    def gradients(
        self, grad: Tensor, row_max: Tensor, row_sum: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Of picked pixels of fg (N, h, w, C) and bg (N, hb, wb, C) and of the blocks pasted."""
        grad_f = torch.zeros_like(self.f, dtype=torch.float32)
        grad_b = torch.zeros_like(self.b, dtype=torch.float32)
        grad_blocks = torch.zeros_like(self.blocks, dtype=torch.float32)
        along = torch.zeros_like(self.factor)
        wide_b = self.b.float()
        for strip in self.strips():
            grad_y = grad[:, strip.first : strip.first + strip.rows + 1].flatten(1, 2)
            scores = self.scores(strip)
            attention, grads = self.empty(strip.rows), self.empty(strip.rows)
            softmax.ATTEND_BACKWARD(
                "fp32",
                (triton.cdiv(strip.rows * self.w, stencils.ROWS), self.n),
                strip_ptr=scores,
                usable_ptr=self.usable,
                row_max_ptr=row_max,
                row_sum_ptr=row_sum,
                grad_corner_ptr=product(grad_y, self.blocks.mT),
                factor_ptr=self.factor,
                attention_ptr=attention,
                grad_score_ptr=grads,
                corner_groups=self.corner_groups,
                **self.attended(strip),
            )
            grad_blocks += product(self.corners(attention, strip).mT, grad_y)
            del attention
            if self.options.fuse:
                grads = self.fuse_adjoint(grads, strip)
            stencils.COLUMN_DOT(
                "fp32",
                (triton.cdiv(self.ld, stencils.COLUMN), self.n),
                a_ptr=grads,
                b_ptr=scores,
                out_ptr=along,
                rows=grads.shape[1],
                groups=self.groups,
            )
            grad_gram = self.box(grads, strip.scores, strip.gram, scale=False)
            rows, which = self.at_rows(self.f, strip.gram)
            part = product(grad_gram, wide_b).view(self.n, -1, self.w, self.c)
            grad_f = grad_f + part if which is None else grad_f.index_add_(1, which, part)
            grad_b += product(grad_gram.mT, rows.float())
        keys = along[:, : self.keys].view(self.norm.shape)
        # Through the norm; its derivative at zero counts as zero.
        grad_square = torch.where(self.above, -keys / (2 * self.norm), 0.0)
        grad_b += (
            2 * wide_b * F.pad(_box(grad_square).flatten(1), (0, self.ld - self.keys))[..., None]
        )
        grad_b = grad_b[:, : self.keys].view(self.n, self.hb, self.wb, self.c)
        return grad_f, grad_b, grad_blocks[:, : (self.hb + 1) * (self.wb + 1)]

    def fuse_adjoint(self, grads: Tensor, strip: _Strip) -> Tensor:
        out = self.empty(strip.scores[1])
        self.launch(
            stencils.FUSE_ADJOINT,
            strip.scores[1] * self.w,
            in_ptr=grads,
            out_ptr=out,
            factor_ptr=self.factor,
            **self.grid(),
            in_base=strip.first,
            in_slots=strip.rows,
            out_base=strip.scores[0],
            out_slots=strip.scores[1],
        )
        return out


@without_autocast
def contextual_attention(
    fg: Tensor, bg: Tensor, hole: Tensor | None, *options: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The operator: result, best key, and the maximum and sum of each softmax."""
    chosen = _Options(*options)
    n, _, height, width = fg.shape
    h, w = -(-height // chosen.rate), -(-width // chosen.rate)
    y = torch.empty_like(fg, memory_format=memory_format(fg))
    index = fg.new_empty((n, h, w), dtype=torch.int64)
    row_max = fg.new_empty((n, h, w), dtype=torch.float32)
    row_sum = torch.empty_like(row_max)
    over = patches_over(height, width, chosen.rate, chosen.overlap, row_max)
    for part in _chunks(fg, bg, chosen.rate):
        samples = _Samples(fg[part], bg[part], _of(hole, part), chosen)
        statistics = [torch.empty_like(x[part]) for x in (index, row_max, row_sum)]
        blocks = samples.paste(*statistics)
        y[part] = _pixels(blocks, chosen.rate, height, width) / over
        for whole, some in zip((index, row_max, row_sum), statistics, strict=True):
            whole[part] = some
    return y, index, row_max, row_sum


@without_autocast
def contextual_attention_backward(
    grad: Tensor,
    fg: Tensor,
    bg: Tensor,
    hole: Tensor | None,
    row_max: Tensor,
    row_sum: Tensor,
    *options: Any,
) -> tuple[Tensor, Tensor]:
    """Gradients in fg and bg; no atomics, sums over strips in order."""
    chosen = _Options(*options)
    rate = chosen.rate
    h, w = row_max.shape[1:]
    grad_fg = torch.empty_like(fg, memory_format=memory_format(fg))
    grad_bg = torch.empty_like(bg, memory_format=memory_format(bg))
    over = patches_over(fg.shape[2], fg.shape[3], rate, chosen.overlap, row_max)
    for part in _chunks(fg, bg, rate):
        samples = _Samples(fg[part], bg[part], _of(hole, part), chosen)
        blocks = _blocks((grad[part] / over).to(fg.dtype), rate, h, w)
        grad_f, grad_b, grad_blocks = samples.gradients(
            blocks, aligned(row_max[part].contiguous()), aligned(row_sum[part].contiguous())
        )
        grad_blocks = grad_blocks.unflatten(1, (samples.hb + 1, samples.wb + 1))
        wide = torch.zeros_like(fg[part], dtype=torch.float32)
        grad_fg[part] = _added_at_picked(wide, grad_f, chosen)
        wide = _pixels(grad_blocks, rate, *bg.shape[2:])
        grad_bg[part] = _added_at_picked(wide, grad_b, chosen)
    return grad_fg, grad_bg


def _chunks(fg: Tensor, bg: Tensor, rate: int) -> Iterator[slice]:
    """Samples whose strips fit together."""
    pairs = 1
    for size in (*fg.shape[2:], *bg.shape[2:]):
        pairs *= -(-size // rate)
    step = max(1, products.STRIP_BYTES // (16 * pairs))
    return (slice(start, start + step) for start in range(0, fg.shape[0], step))


def _of(hole: Tensor | None, part: slice) -> Tensor | None:
    return hole if hole is None or hole.shape[0] == 1 else hole[part]


def _picks(size: int, options: _Options, device: torch.device) -> Tensor:
    """`reference.picked_pixels`, made on the device."""
    cells = -(-size // options.rate)
    at = torch.arange(cells, device=device)
    if options.pick == "floor":
        return at * options.rate
    if cells == 1:
        return at
    return (2 * at * (size - 1) + cells - 1) // (2 * (cells - 1))


def _picked(x: Tensor, options: _Options) -> Tensor:
    """(N, h, w, C), packed."""
    rows = x.permute(0, 2, 3, 1).index_select(1, _picks(x.shape[2], options, x.device))
    return rows.index_select(2, _picks(x.shape[3], options, x.device)).contiguous()


def _added_at_picked(x: Tensor, part: Tensor, options: _Options) -> Tensor:
    rows = _picks(x.shape[2], options, x.device)[:, None]
    columns = _picks(x.shape[3], options, x.device)
    x[:, :, rows, columns] += part.permute(0, 3, 1, 2)
    return x


def _box(x: Tensor) -> Tensor:
    """3 x 3 sums of (N, h, w), zeros outside."""
    return F.avg_pool2d(x[:, None], 3, stride=1, padding=1, divisor_override=1)[:, 0]


def _blocks(x: Tensor, rate: int, rows: int, columns: int) -> Tensor:
    """(N, rows + 1, columns + 1, rate^2 C) blocks of pixels that patches share, zeros outside."""
    n, c = x.shape[:2]
    padded = pad_to_blocks(x, rate, rows, columns)
    blocks = padded.view(n, c, rows + 1, rate, columns + 1, rate)
    return blocks.permute(0, 2, 4, 3, 5, 1).flatten(3)


def _pixels(blocks: Tensor, rate: int, height: int, width: int) -> Tensor:
    """The inverse: (N, C, height, width)."""
    n, rows, columns, depth = blocks.shape
    x = blocks.view(n, rows, columns, rate, rate, depth // rate**2).permute(0, 5, 1, 3, 2, 4)
    x = x.reshape(n, depth // rate**2, rows * rate, columns * rate)
    before = rate // 2
    return x[:, :, before : before + height, before : before + width]
