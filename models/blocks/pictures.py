"""Pictures and holes: compositing, sizes, ranges, squares around holes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from inpaint_ops import checks
from inpaint_ops.ops import tensors


def composite(image: Tensor, prediction: Tensor, hole: Tensor) -> Tensor:
    """Return the prediction where the hole is, the image elsewhere; (N, C, H, W), (N, 1, H, W)."""
    return torch.where(hole > 0, prediction, image)


def erase(image: Tensor, hole: Tensor, value: float = 0.0) -> Tensor:
    """Return the image with a number in place of its missing pixels."""
    return torch.where(hole > 0, image.new_tensor(value), image)


def arranged(x: Tensor) -> Tensor:
    """Return the tensor in channels_last, the memory format that the convolutions work in."""
    return x.contiguous(memory_format=torch.channels_last)


def stacked(*planes: Tensor) -> Tensor:
    """Concatenate channels, in channels_last."""
    return arranged(torch.cat(planes, 1))


def resized(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the image at another size, bilinear, antialiased where it shrinks.

    Half precision is resized in float32: torch's CPU kernels do not take it.
    """
    if known_to_have(image, size):
        return image
    wide = tensors.compute_dtype(image)
    return F.interpolate(wide, size=size, mode="bilinear", antialias=True).to(image.dtype)


def known_to_have(image: Tensor, size: tuple[int, int]) -> bool:
    """Return whether an image has this size, without a promise that others of its trace have it."""
    if checks.tracing() is not None:
        return False
    return checks.known(image.shape[2] == size[0]) and checks.known(image.shape[3] == size[1])


def resized_hole(hole: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the mask at another size: a pixel is missing that any missing pixel touches."""
    return F.adaptive_max_pool2d(hole, size)


def pad_for(kernel: int, dilation: int, rule: str) -> int | str:
    """Return the padding that keeps the size at stride 1.

    The rules differ at other strides: "same" is TensorFlow's, "symmetric" that of PyTorch's ports.
    """
    return "same" if rule == "same" else dilation * (kernel - 1) // 2


def signed(image: Tensor) -> Tensor:
    """Map [0, 1] to [-1, 1]."""
    return image * 2 - 1


def unsigned(image: Tensor) -> Tensor:
    """Map [-1, 1] to [0, 1]."""
    return (image + 1) / 2


def hole_box(hole: Tensor) -> tuple[int, int, int, int] | None:
    """Return (top, left, bottom, right), ends exclusive, of the missing pixels of a (1, H, W) mask.

    None if there are none.
    """
    rows, columns = hole[0].any(1).nonzero(), hole[0].any(0).nonzero()
    if len(rows) == 0:
        return None
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def hole_squares(hole: Tensor, side: int) -> list[tuple[int, int]]:
    """Return the top left corner of a square around each sample's hole.

    The square lies around the middle of the hole's box, or of the picture if nothing is missing,
    moved to lie inside the picture.

    Args:
        hole: (N, 1, H, W), 1 = missing.
        side: of the squares, at most that of the pictures.
    """
    height, width = hole.shape[2:]
    corners = []
    for one in hole:
        top, left, bottom, right = hole_box(one) or (0, 0, height, width)
        rows, columns = (top, bottom, height), (left, right, width)
        corner = [
            min(max((first + last) // 2 - side // 2, 0), size - side)
            for first, last, size in (rows, columns)
        ]
        corners.append((corner[0], corner[1]))
    return corners


def cut_squares(x: Tensor, corners: list[tuple[int, int]], side: int) -> Tensor:
    """Return the square at each sample's top left corner, (N, C, side, side)."""
    squares = [one[:, top : top + side, left : left + side] for one, (top, left) in zip(x, corners)]
    return torch.stack(squares)
