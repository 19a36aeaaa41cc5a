"""Cells of the matching grid and the pixels that they stand for and paste.

A cell stands for one picked pixel of its `rate` x `rate`. It pastes a patch of 2 rate x 2 rate
pixels, so that patches overlap by half: a patch is two by two blocks of rate x rate pixels, and a
grid of h x w cells has (h + 1) x (w + 1) blocks.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from inpaint_ops.reference.contextual_attention import pad_to_blocks


def _picks(size: int, rate: int, pick: str, device: torch.device) -> Tensor:
    """`reference.contextual_attention.picked_pixels`, made on the device."""
    cells = -(-size // rate)
    at = torch.arange(cells, device=device)
    if pick == "floor":
        return at * rate
    if cells == 1:
        return at
    return (2 * at * (size - 1) + cells - 1) // (2 * (cells - 1))


def picked(x: Tensor, rate: int, pick: str) -> Tensor:
    """Picked pixels of (N, C, H, W): (N, h, w, C), packed."""
    rows = x.permute(0, 2, 3, 1).index_select(1, _picks(x.shape[2], rate, pick, x.device))
    return rows.index_select(2, _picks(x.shape[3], rate, pick, x.device)).contiguous()


def add_at_picked(x: Tensor, cells: Tensor, rate: int, pick: str) -> Tensor:
    """Add (N, h, w, C) to picked pixels of x, in place; the adjoint of `picked`."""
    rows = _picks(x.shape[2], rate, pick, x.device)[:, None]
    columns = _picks(x.shape[3], rate, pick, x.device)
    x[:, :, rows, columns] += cells.permute(0, 3, 1, 2)
    return x


def box(x: Tensor) -> Tensor:
    """3 x 3 sums of (N, h, w), zeros outside."""
    return F.avg_pool2d(x[:, None], 3, stride=1, padding=1, divisor_override=1)[:, 0]


def blocks_of(x: Tensor, rate: int, rows: int, columns: int) -> Tensor:
    """Blocks of (N, C, H, W): (N, rows + 1, columns + 1, rate^2 C), zeros outside."""
    n, c = x.shape[:2]
    padded = pad_to_blocks(x, rate, rows, columns)
    blocks = padded.view(n, c, rows + 1, rate, columns + 1, rate)
    return blocks.permute(0, 2, 4, 3, 5, 1).flatten(3)


def pixels_of(blocks: Tensor, rate: int, height: int, width: int) -> Tensor:
    """(N, C, height, width) from its blocks; the inverse of `blocks_of`."""
    n, rows, columns, depth = blocks.shape
    x = blocks.view(n, rows, columns, rate, rate, depth // rate**2).permute(0, 5, 1, 3, 2, 4)
    x = x.reshape(n, depth // rate**2, rows * rate, columns * rate)
    before = rate // 2
    return x[:, :, before : before + height, before : before + width]
