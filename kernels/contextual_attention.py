"""contextual_attention on GPUs: strips of query cells, forward and backward.

For each strip `attention.scores` forms the products of 3 x 3 patches tile by tile (3 C
multiply-adds a pair; there is no matrix of products of pixels), `.softmax` fuses them and keeps
maximum and sum, `.corners` forms the weights of blocks, and the library pastes blocks of pixels
(rate^2 C multiply-adds a pair). Scores are always float32; the weights that are pasted have the
dtype of the features. Half-precision features are multiplied on tensor cores and summed in float32;
float32 ones as `dot` says, as TF32 where torch's switch for matrix products allows it.

The backward pass forms each strip again by the same kernels, from the saved maximum and sum of the
softmax. Its products of gradients are the library's, over one strip at a time.

Memory grows with the keys and the pixels: a strip has `strips.PAIRS` pairs of a query and a key, or
what 8 x 28 queries need, of 12 bytes forward and 36 backward. All options run on this one path.

Floor of a pair, rate 2: 14 C FLOPs; no bytes. Ours moves 20 bytes in half precision, 24 in float32.
*Predicted* for an H100, half precision, C = 96, in ps a pair: for each kernel the largest of issue
slots (927 G a second), bytes (85 % of 3.35 TB/s) and the library's FLOPs (60 % of 990 T). Before,
the library multiplied pixels and a kernel added up nine of their products.

    grid               scores     attend  corners  paste   all
    64 x 64, before    1.4 + 4.0     6.1      2.6    1.3  15.4
    64 x 64            1.4           2.8      2.1    1.3   7.6
    256 x 256, before  3.5 + 8.0     6.1      2.6    1.3  21.5
    256 x 256          1.9           2.8      2.1    1.3   8.1

Without the fuse a softmax that pastes as it goes would need no strip. But a query pastes 4 rate^2 C
numbers, 1536 for C = 96: registers hold a twelfth of them beside the tiles of products, so that all
scores would be formed twelve times, for 5 ps of a strip's bytes. So all options take strips.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from inpaint_ops.kernels import program
from inpaint_ops.kernels.attention import cells, strips
from inpaint_ops.kernels.attention.samples import Options
from inpaint_ops.kernels.attention.steps import Steps
from inpaint_ops.kernels.attention.strips import Strip
from inpaint_ops.kernels.launch import aligned
from inpaint_ops.kernels.products import product
from inpaint_ops.ops.tensors import memory_format
from inpaint_ops.reference.contextual_attention import patches_over


def forward(
    fg: Tensor, bg: Tensor, hole: Tensor | None, *options: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Arguments and results of the registered operator.

    Result, best key, and the maximum and sum of each softmax.
    """
    chosen = Options(*options)
    n, _, height, width = fg.shape
    h, w = -(-height // chosen.rate), -(-width // chosen.rate)
    y = torch.empty_like(fg, memory_format=memory_format(fg))
    index = fg.new_empty((n, h, w), dtype=torch.int64)
    row_max = fg.new_empty((n, h, w), dtype=torch.float32)
    row_sum = torch.empty_like(row_max)
    over = patches_over(height, width, chosen.rate, chosen.overlap, row_max)
    for part in _chunks(fg, bg, chosen.rate):
        samples = Steps(fg[part], bg[part], _of(hole, part), chosen)
        statistics = [torch.empty_like(x[part]) for x in (index, row_max, row_sum)]
        blocks = _paste(samples, *statistics)
        y[part] = cells.pixels_of(blocks, chosen.rate, height, width) / over
        for whole, some in zip((index, row_max, row_sum), statistics, strict=True):
            whole[part] = some
    return y, index, row_max, row_sum


def _chunks(fg: Tensor, bg: Tensor, rate: int) -> Iterator[slice]:
    """Samples whose strips fit the memory allowed together, and one launch."""
    pairs = 1
    for size in (*fg.shape[2:], *bg.shape[2:]):
        pairs *= -(-size // rate)
    step = min(max(1, strips.PAIRS // pairs), program.MOST_PROGRAMS)
    return (slice(start, start + step) for start in range(0, fg.shape[0], step))


def _of(hole: Tensor | None, part: slice) -> Tensor | None:
    """The hole of some samples."""
    return hole if hole is None or hole.shape[0] == 1 else hole[part]


def _paste(samples: Steps, index: Tensor, row_max: Tensor, row_sum: Tensor) -> Tensor:
    """Blocks of pixels, (N, h + 1, w + 1, rate^2 C) float32; fills index, maximum and sum."""
    depth = samples.blocks.shape[2]
    y = samples.b.new_zeros((samples.n, samples.h + 1, samples.w + 1, depth), dtype=torch.float32)
    for strip in samples.strips():
        samples.attend(strip, index, row_max, row_sum)
        corners = samples.corners(strip, row_max, row_sum)
        # The first blocks share their pixels with the last of the strips before.
        part = _blocks(y, strip)
        part += product(corners, samples.blocks).view(part.shape)
    return y


def _blocks(x: Tensor, strip: Strip) -> Tensor:
    """Blocks that the cells of a strip paste, of all (N, h + 1, w + 1, rate^2 C)."""
    y, rows, left, columns = strip.own
    return x[:, y : y + rows + 1, left : left + columns + 1]


def backward(
    grad: Tensor,
    fg: Tensor,
    bg: Tensor,
    hole: Tensor | None,
    row_max: Tensor,
    row_sum: Tensor,
    *options: Any,
) -> tuple[Tensor, Tensor]:
    """Arguments and results of the registered operator.

    Gradients of fg and bg, without atomics: sums over strips are formed in order.
    """
    chosen = Options(*options)
    rate = chosen.rate
    h, w = row_max.shape[1:]
    grad_fg = torch.empty_like(fg, memory_format=memory_format(fg))
    grad_bg = torch.empty_like(bg, memory_format=memory_format(bg))
    over = patches_over(fg.shape[2], fg.shape[3], rate, chosen.overlap, row_max)
    for part in _chunks(fg, bg, rate):
        samples = Steps(fg[part], bg[part], _of(hole, part), chosen)
        blocks = cells.blocks_of((grad[part] / over).to(fg.dtype), rate, h, w)
        grad_f, grad_b, grad_blocks = _gradients(
            samples,
            blocks,
            aligned(row_max[part].contiguous()),
            aligned(row_sum[part].contiguous()),
        )
        grad_blocks = grad_blocks.unflatten(1, samples.corners_of_keys[:2])
        dense = torch.zeros_like(fg[part], dtype=torch.float32)
        grad_fg[part] = cells.add_at_picked(dense, grad_f, rate, chosen.pick)
        dense = cells.pixels_of(grad_blocks, rate, *bg.shape[2:])
        grad_bg[part] = cells.add_at_picked(dense, grad_b, rate, chosen.pick)
    return grad_fg, grad_bg


def _gradients(
    samples: Steps, grad: Tensor, row_max: Tensor, row_sum: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of picked pixels of fg (N, h, w, C) and bg (N, hb, wb, C), and of bg's blocks.

    `grad`: of the blocks pasted, (N, h + 1, w + 1, rate^2 C).
    """
    n, h, w, c = samples.f.shape
    f = samples.f.flatten(1, 2)
    keys = samples.b.float()
    columns = F.pad(keys, (0, 0, 0, samples.keys.pitch - samples.keys.w)).flatten(1, 2)
    columns = F.pad(columns, (0, 0, 0, samples.keys.ld - columns.shape[1]))
    grad_f = torch.zeros_like(f, dtype=torch.float32)
    grad_b = torch.zeros_like(columns)
    grad_blocks = torch.zeros_like(samples.blocks, dtype=torch.float32)
    through_norm = torch.zeros_like(samples.factor)
    for strip in samples.strips():
        grad_y = _blocks(grad, strip).flatten(1, 2)
        samples.attend_backward(strip, product(grad_y, samples.blocks.mT), row_max, row_sum)
        grad_blocks += product(samples.corners(strip, row_max, row_sum).mT, grad_y)
        grad_pixels = samples.pixel_gradients(strip, through_norm)
        # Each cell is once among them.
        queries = strip.pixels.cells(h, w, f.device)
        grad_f.index_add_(1, queries, product(grad_pixels, columns))
        grad_b += product(grad_pixels.mT, f.index_select(1, queries).float())
    # Through the norm, whose derivative at zero counts as zero.
    through_norm = samples.of_columns(through_norm)
    grad_square = torch.where(samples.above, -through_norm / (2 * samples.norm), 0.0)
    grad_keys = samples.of_columns(grad_b) + 2 * keys * cells.box(grad_square)[..., None]
    blocks = samples.corners_of_keys
    return grad_f.view(n, h, w, c), grad_keys, grad_blocks[:, : blocks.h * blocks.w]
