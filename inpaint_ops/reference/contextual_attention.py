"""Contextual attention as the papers and the public code write it, with patches as filters.

Sizes: h x w query cells, hb x wb key cells, rate x rate feature pixels a cell.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class AttentionOptions(NamedTuple):
    """Options of `inpaint_ops.contextual_attention` but for what it returns, in the op's order."""

    rate: int
    softmax_scale: float
    fuse: bool
    pick: str
    key_norm: str
    hole_mode: str
    overlap: str


def picked_pixels(size: int, rate: int, pick: str) -> list[int]:
    """Return the feature pixels that stand for the cells of the matching grid, along one axis.

    Args:
        size: feature pixels along the axis.
        rate: feature pixels a cell.
        pick: "floor": 0, rate, 2 rate, ...; "align_corners": evenly from the first to the last
            pixel, rounded half up.

    Returns:
        ceil(size / rate) positions.
    """
    cells = -(-size // rate)
    if pick == "floor":
        return list(range(0, size, rate))
    if cells == 1:
        return [0]
    return [(2 * i * (size - 1) + cells - 1) // (2 * (cells - 1)) for i in range(cells)]


def _pick(x: Tensor, rate: int, pick: str) -> Tensor:
    rows = picked_pixels(x.shape[2], rate, pick)
    columns = picked_pixels(x.shape[3], rate, pick)
    return x[:, :, rows][:, :, :, columns]


def _fuse(scores: Tensor, h: int, w: int, hb: int, wb: int, adjoint: bool = False) -> Tensor:
    """Add to each score those of its neighbours in rows, then in columns, of both grids.

    Takes and returns (1, hb * wb, h, w). The grids are flattened first, so that the end of a row is
    a neighbour of the beginning of the next row. That is wrong at the border, but all public code
    does it and the networks were trained with it. The adjoint has the two steps in the other order.
    """
    eye = torch.eye(3, dtype=scores.dtype, device=scores.device).view(1, 1, 3, 3)
    x = scores.view(1, 1, hb * wb, h * w)
    if not adjoint:
        x = F.conv2d(x, eye, padding=1)
    x = x.view(1, hb, wb, h, w).permute(0, 2, 1, 4, 3).reshape(1, 1, hb * wb, h * w)
    x = F.conv2d(x, eye, padding=1)
    x = x.view(1, wb, hb, w, h).permute(0, 2, 1, 4, 3).reshape(1, 1, hb * wb, h * w)
    if adjoint:
        x = F.conv2d(x, eye, padding=1)
    return x.view(1, hb * wb, h, w)


def contextual_attention(  # noqa: PLR0913
    fg: Tensor,
    bg: Tensor,
    hole: Tensor | None = None,
    *,
    rate: int = 2,
    softmax_scale: float = 10.0,
    fuse: bool = True,
    pick: str = "floor",
    key_norm: str = "max",
    hole_mode: str = "zero",
    overlap: str = "constant",
    return_index: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Plain version of `inpaint_ops.contextual_attention`: same arguments and results."""
    options = AttentionOptions(rate, softmax_scale, fuse, pick, key_norm, hole_mode, overlap)
    n, _, height, width = fg.shape
    dtype = torch.float64 if fg.dtype == torch.float64 else torch.float32
    results, indices = [], []
    for i in range(n):
        sample = _Sample(fg[i : i + 1].to(dtype), bg[i : i + 1].to(dtype), _of(hole, i), options)
        attention, index = sample.attention()
        pasted = F.conv_transpose2d(attention, sample.values, stride=rate)
        y = pasted[:, :, rate // 2 :, rate // 2 :][:, :, :height, :width]
        results.append(y / patches_over(height, width, rate, overlap, y))
        indices.append(index)
    y = torch.cat(results) if n else fg
    if not return_index:
        return y.to(fg.dtype)
    grid = (-(-height // rate), -(-width // rate))
    index = torch.cat(indices) if n else fg.new_zeros((0, *grid), dtype=torch.int64)
    return y.to(fg.dtype), index


def contextual_attention_backward(
    grad: Tensor, fg: Tensor, bg: Tensor, hole: Tensor | None, options: AttentionOptions
) -> tuple[Tensor, Tensor]:
    """Gradients of `contextual_attention` in fg and bg, each step of it backward in turn."""
    rate = options.rate
    c = fg.shape[1]
    grad_fg, grad_bg = torch.zeros_like(fg), torch.zeros_like(bg)
    for i in range(fg.shape[0]):
        s = _Sample(fg[i : i + 1], bg[i : i + 1], _of(hole, i), options)
        attention, _ = s.attention()

        over = patches_over(fg.shape[2], fg.shape[3], rate, options.overlap, grad)
        grad_y = pad_to_blocks(grad[i : i + 1] / over, rate, s.f.shape[2], s.f.shape[3])
        grad_attention = F.conv2d(grad_y, s.values, stride=rate)
        patches = F.unfold(grad_y, 2 * rate, stride=rate)[0]
        grad_values = patches @ attention[0].flatten(1).T
        size = ((s.hb + 1) * rate, (s.wb + 1) * rate)
        grad_pixels = F.fold(grad_values[None], size, 2 * rate, stride=rate)
        before = rate // 2
        grad_bg[i] = grad_pixels[0, :, before:, before:][:, : bg.shape[2], : bg.shape[3]]

        mean = (attention * grad_attention).sum(1, keepdim=True)
        grad_scores = options.softmax_scale * attention * (grad_attention - mean)
        if options.fuse:
            grad_scores = _fuse(grad_scores, s.f.shape[2], s.f.shape[3], s.hb, s.wb, adjoint=True)

        keys = s.keys / s.norm
        grad_f = F.conv_transpose2d(grad_scores, keys, padding=1)
        grad_keys = grad_scores[0].flatten(1) @ F.unfold(s.f, 3, padding=1)[0].T
        grad_keys = grad_keys.view_as(keys)
        along = (grad_keys * keys).sum((1, 2, 3), keepdim=True) * keys
        grad_keys = (grad_keys - torch.where(s.above, along, 0.0)) / s.norm
        grad_b = F.fold(grad_keys.view(1, -1, 9 * c).transpose(1, 2), (s.hb, s.wb), 3, padding=1)
        _add_at_picked(grad_fg[i], grad_f[0], rate, options.pick)
        _add_at_picked(grad_bg[i], grad_b[0], rate, options.pick)
    return grad_fg, grad_bg


class _Sample:
    """One sample: picked features, key patches and their norms, value patches, usable keys."""

    def __init__(
        self, fg: Tensor, bg: Tensor, hole: Tensor | None, options: AttentionOptions
    ) -> None:
        self.options = options
        rate, c = options.rate, fg.shape[1]
        self.f = _pick(fg, rate, options.pick)
        b = _pick(bg, rate, options.pick)
        self.hb, self.wb = b.shape[2], b.shape[3]
        self.usable = torch.ones(self.hb * self.wb, 1, 1, 1, dtype=torch.bool, device=fg.device)
        if hole is not None:
            # A key is missing if any cell of its patch is; cells beyond the border are not.
            near = F.max_pool2d((hole != 0).to(fg.dtype), 3, stride=1, padding=1)
            self.usable = near.view(-1, 1, 1, 1) == 0
        self.values = _value_patches(bg, rate, self.hb, self.wb)
        self.keys = F.unfold(b, 3, padding=1)[0].T.reshape(-1, c, 3, 3)
        if not options.fuse:
            # Missing keys have weight zero, but a product with NaN would not be zero.
            self.values = self.values.masked_fill(~self.usable, 0.0)
            self.keys = self.keys.masked_fill(~self.usable, 0.0)
        square = self.keys.square().sum((1, 2, 3), keepdim=True)
        if options.key_norm == "max":
            # The derivative of a root at zero is infinite; that of the constant is zero.
            self.above = square > 1e-8
            self.norm = torch.where(self.above, torch.where(self.above, square, 1.0).sqrt(), 1e-4)
        else:
            self.above = torch.ones_like(square, dtype=torch.bool)
            self.norm = (square + 9e-4 * c).sqrt()

    def attention(self) -> tuple[Tensor, Tensor]:
        """Return weights (1, hb * wb, h, w), zero for missing keys, and the best key (1, h, w)."""
        options = self.options
        scores = F.conv2d(self.f, self.keys / self.norm, padding=1)
        if options.fuse:
            scores = _fuse(scores, self.f.shape[2], self.f.shape[3], self.hb, self.wb)
        scores = scores * options.softmax_scale
        # Select, not multiply: a missing key may hold NaN.
        missing = ~self.usable.view(1, -1, 1, 1)
        usable = scores.masked_fill(missing, float("-inf"))
        if options.hole_mode == "exclude" and bool(self.usable.any()):
            weights = usable.softmax(1)
        else:
            weights = scores.masked_fill(missing, 0.0).softmax(1)
        return weights.masked_fill(missing, 0.0), usable.argmax(1)


def _of(hole: Tensor | None, sample: int) -> Tensor | None:
    """Return the hole of one sample."""
    return None if hole is None else hole[sample % hole.shape[0]][None]


def _add_at_picked(x: Tensor, addend: Tensor, rate: int, pick: str) -> None:
    rows = torch.tensor(picked_pixels(x.shape[1], rate, pick), device=x.device)
    columns = torch.tensor(picked_pixels(x.shape[2], rate, pick), device=x.device)
    x[:, rows[:, None], columns] += addend


def pad_to_blocks(x: Tensor, rate: int, rows: int, columns: int) -> Tensor:
    """Return x padded with zeros to (rows + 1) x (columns + 1) blocks of rate x rate pixels.

    Cells paste patches of two by two blocks. rate // 2 pixels of padding come first on each axis.
    """
    before = rate // 2
    right = (columns + 1) * rate - before - x.shape[3]
    bottom = (rows + 1) * rate - before - x.shape[2]
    return F.pad(x, (before, right, before, bottom))


def _value_patches(x: Tensor, rate: int, rows: int, columns: int) -> Tensor:
    """Return patches (rows * columns, C, 2 rate, 2 rate) at stride `rate`, zeros outside."""
    patches = F.unfold(pad_to_blocks(x, rate, rows, columns), 2 * rate, stride=rate)
    return patches[0].T.reshape(rows * columns, x.shape[1], 2 * rate, 2 * rate)


def patches_over(height: int, width: int, rate: int, overlap: str, like: Tensor) -> Tensor:
    """Return the number of patches over each pixel, (height, width) in the dtype of `like`, or 4.

    `overlap` "constant" divides by 4 everywhere.
    """
    if overlap == "constant":
        return like.new_full((), 4.0)
    counts = []
    for size in (height, width):
        block = (torch.arange(size, device=like.device) + rate // 2) // rate
        counts.append((block > 0).to(like.dtype) + (block < -(-size // rate)).to(like.dtype))
    return counts[0][:, None] * counts[1]
