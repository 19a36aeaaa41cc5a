"""Contextual attention as papers and public code write it: a score for every pair of patches.

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


def picked_pixels(size: int, rate: int, pick: str, device: torch.device | None = None) -> Tensor:
    """Return the feature pixels that stand for the cells of the matching grid, along one axis.

    Args:
        size: feature pixels along the axis.
        rate: feature pixels a cell.
        pick: "floor": 0, rate, 2 rate, ...; "align_corners": evenly from the first to the last
            pixel, rounded half up.
        device: of the result.

    Returns:
        ceil(size / rate) positions, int64.
    """
    cells = -(-size // rate)
    at = torch.arange(cells, device=device)
    if pick == "floor":
        return at * rate
    # One cell has position 0.
    positions: Tensor = (2 * at * (size - 1) + cells - 1) // torch.sym_max(2 * (cells - 1), 1)
    return positions


def _pick(x: Tensor, rate: int, pick: str) -> Tensor:
    rows = picked_pixels(x.shape[2], rate, pick, x.device)
    columns = picked_pixels(x.shape[3], rate, pick, x.device)
    return x[:, :, rows][:, :, :, columns]


def _fuse(scores: Tensor, h: int, w: int, hb: int, wb: int, adjoint: bool = False) -> Tensor:
    """Add to each score those of its neighbours in rows, then in columns, of both grids.

    Takes and returns (N, hb * wb, h * w). The grids are flattened first, so that the end of a row
    is a neighbour of the beginning of the next row. That is wrong at the border, but all public
    code does it and the networks were trained with it. The adjoint has the two steps in the other
    order.
    """
    eye = torch.eye(3, dtype=scores.dtype, device=scores.device).view(1, 1, 3, 3)
    n = scores.shape[0]
    x = scores[:, None]
    if not adjoint:
        x = F.conv2d(x, eye, padding=1)
    x = x.view(n, hb, wb, h, w).permute(0, 2, 1, 4, 3).reshape(n, 1, hb * wb, h * w)
    x = F.conv2d(x, eye, padding=1)
    x = x.view(n, wb, hb, w, h).permute(0, 2, 1, 4, 3).reshape(n, 1, hb * wb, h * w)
    if adjoint:
        x = F.conv2d(x, eye, padding=1)
    return x[:, 0]


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
    height, width = fg.shape[2:]
    dtype = torch.float64 if fg.dtype == torch.float64 else torch.float32
    m = _Matching(fg.to(dtype), bg.to(dtype), hole, options)
    attention, index = m.attention()
    y = _pasted(m.values.mT @ attention, rate, m.h, m.w)
    y = y[:, :, rate // 2 :, rate // 2 :][:, :, :height, :width]
    y = (y / patches_over(height, width, rate, overlap, y)).to(fg.dtype)
    return (y, index.view(-1, m.h, m.w)) if return_index else y


def contextual_attention_backward(
    grad: Tensor, fg: Tensor, bg: Tensor, hole: Tensor | None, options: AttentionOptions
) -> tuple[Tensor, Tensor]:
    """Gradients of `contextual_attention` in fg and bg, each step of it backward in turn."""
    rate = options.rate
    m = _Matching(fg, bg, hole, options)
    attention, _ = m.attention()

    over = patches_over(fg.shape[2], fg.shape[3], rate, options.overlap, grad)
    patches = _value_patches(grad / over, rate, m.h, m.w).mT
    grad_attention = m.values @ patches
    grad_pixels = _pasted(patches @ attention.mT, rate, m.hb, m.wb)
    before = rate // 2
    grad_bg = grad_pixels[:, :, before:, before:][:, :, : bg.shape[2], : bg.shape[3]].contiguous()

    mean = (attention * grad_attention).sum(1, keepdim=True)
    grad_scores = options.softmax_scale * attention * (grad_attention - mean)
    if options.fuse:
        grad_scores = _fuse(grad_scores, m.h, m.w, m.hb, m.wb, adjoint=True)

    keys = m.keys / m.norm
    grad_f = F.fold(keys.mT @ grad_scores, (m.h, m.w), 3, padding=1)
    grad_keys = grad_scores @ F.unfold(m.f, 3, padding=1).mT
    along = (grad_keys * keys).sum(2, keepdim=True) * keys
    grad_keys = (grad_keys - torch.where(m.above, along, 0.0)) / m.norm
    grad_b = F.fold(grad_keys.mT, (m.hb, m.wb), 3, padding=1)
    grad_fg = torch.zeros_like(fg)
    _add_at_picked(grad_fg, grad_f, rate, options.pick)
    _add_at_picked(grad_bg, grad_b, rate, options.pick)
    return grad_fg, grad_bg


class _Matching:
    """What is matched: picked features, key patches and their norms, value patches, usable keys.

    Sizes are h, w, hb, wb; keys are (N, hb * wb, 9 C), values (N, hb * wb, 4 rate^2 C), norms and
    `usable` (N, hb * wb, 1).
    """

    def __init__(
        self, fg: Tensor, bg: Tensor, hole: Tensor | None, options: AttentionOptions
    ) -> None:
        self.options = options
        rate = options.rate
        self.f = _pick(fg, rate, options.pick)
        b = _pick(bg, rate, options.pick)
        self.h, self.w = self.f.shape[2:]
        self.hb, self.wb = b.shape[2:]
        self.values = _value_patches(bg, rate, self.hb, self.wb)
        self.keys = F.unfold(b, 3, padding=1).mT
        self.usable = torch.ones_like(self.keys[:, :, :1], dtype=torch.bool)
        if hole is not None:
            # A key is missing if any cell of its patch is; cells beyond the border are not.
            near = F.max_pool2d((hole != 0).to(fg.dtype), 3, stride=1, padding=1)
            self.usable = self.usable & (near.flatten(2).mT == 0)
        if not options.fuse:
            # Missing keys have weight zero, but a product with NaN would not be zero.
            self.values = self.values.masked_fill(~self.usable, 0.0)
            self.keys = self.keys.masked_fill(~self.usable, 0.0)
        square = self.keys.square().sum(2, keepdim=True)
        if options.key_norm == "max":
            # The derivative of a root at zero is infinite; that of the constant is zero.
            self.above = square > 1e-8
            self.norm = torch.where(self.above, torch.where(self.above, square, 1.0).sqrt(), 1e-4)
        else:
            self.above = torch.ones_like(square, dtype=torch.bool)
            self.norm = (square + 9e-4 * fg.shape[1]).sqrt()

    def attention(self) -> tuple[Tensor, Tensor]:
        """Return weights (N, hb * wb, h * w), zero for missing keys, and best keys (N, h * w)."""
        options = self.options
        scores = (self.keys / self.norm) @ F.unfold(self.f, 3, padding=1)
        if options.fuse:
            scores = _fuse(scores, self.h, self.w, self.hb, self.wb)
        scores = scores * options.softmax_scale
        # Select, not multiply: a missing key may hold NaN.
        usable = scores.masked_fill(~self.usable, float("-inf"))
        weighed = scores.masked_fill(~self.usable, 0.0)
        if options.hole_mode == "exclude":
            weighed = torch.where(self.usable.any(1, keepdim=True), usable, weighed)
        return weighed.softmax(1).masked_fill(~self.usable, 0.0), usable.argmax(1)


def _add_at_picked(x: Tensor, addend: Tensor, rate: int, pick: str) -> None:
    rows = picked_pixels(x.shape[2], rate, pick, x.device)
    columns = picked_pixels(x.shape[3], rate, pick, x.device)
    x[:, :, rows[:, None], columns] += addend


def pad_to_blocks(x: Tensor, rate: int, rows: int, columns: int) -> Tensor:
    """Return x padded with zeros to (rows + 1) x (columns + 1) blocks of rate x rate pixels.

    Cells paste patches of two by two blocks. rate // 2 pixels of padding come first on each axis.
    """
    before = rate // 2
    right = (columns + 1) * rate - before - x.shape[3]
    bottom = (rows + 1) * rate - before - x.shape[2]
    return F.pad(x, (before, right, before, bottom))


def _value_patches(x: Tensor, rate: int, rows: int, columns: int) -> Tensor:
    """Return patches (N, rows * columns, 4 rate^2 C) at stride `rate`, zeros outside."""
    patches = F.unfold(pad_to_blocks(x, rate, rows, columns), 2 * rate, stride=rate)
    return patches.mT


def _pasted(patches: Tensor, rate: int, rows: int, columns: int) -> Tensor:
    """Return the sum of patches (N, 4 rate^2 C, rows * columns), laid at stride `rate`.

    The result is (N, C, (rows + 1) rate, (columns + 1) rate). A patch is two by two blocks, so that
    four pictures of blocks, a block apart, are added up.
    """
    n, depth = patches.shape[:2]
    c = depth // (4 * rate**2)
    blocks = patches.view(n, c, 2, rate, 2, rate, rows, columns).permute(2, 4, 0, 1, 6, 3, 7, 5)
    pictures = blocks.reshape(2, 2, n, c, rows * rate, columns * rate)
    left, right = (
        F.pad(pictures[0, i], (i * rate, (1 - i) * rate, 0, rate))
        + F.pad(pictures[1, i], (i * rate, (1 - i) * rate, rate, 0))
        for i in (0, 1)
    )
    return left + right


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
