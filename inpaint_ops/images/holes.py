"""Hole files: one rule for which pixels of a file are missing, and their way back to a file."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from inpaint_ops.images.formats import JPEG, WRITE_FORMATS
from inpaint_ops.images.photo import MAX_PIXELS, Photo, load_photo, size_text
from inpaint_ops.masks.reading import POLARITIES, describe, read_missing

if TYPE_CHECKING:
    from torch import Tensor


def load_hole(
    path: str | os.PathLike[str],
    size: tuple[int, int],
    polarity: str = "white",
    *,
    resize: bool = False,
    allow_empty: bool = False,
    max_pixels: int = MAX_PIXELS,
) -> Tensor:
    """Read a hole: a (1, 1, height, width) bool tensor, True = missing.

    "white" and "black" compare the luma (ITU-R BT.601) with half the range. Where the file has
    alpha, pixels that are transparent by half or more were not painted and are known. "alpha" takes
    the pixels that are transparent by more than half, "painted" those that are neither transparent
    nor black.

    Two colours may lie on the same side of the half. Then one of them is black, white or, around a
    brush, transparent. Beside black or transparency the other colour counts as white, beside white
    as black. That covers masks of 0 and 1, label pictures of one label, red and blue brushes.

    Args:
        path: the file.
        size: height and width in pixels of the picture the hole belongs to.
        polarity: which value marks a missing pixel: "white", "black", "alpha" or "painted".
        resize: scale a hole of another size to size (nearest pixel) instead of refusing it.
        allow_empty: accept a file without a missing pixel.
        max_pixels: as `load_photo`.

    Warns:
        UserWarning: two colours were read as above, or a coloured part was read as known.

    Raises:
        ImportError, OSError: as `load_photo`.
        ValueError: as `load_photo`, an unknown polarity, a wrong size, no alpha in the file, or
            nothing is missing.
    """
    hole, notes = read_hole(
        path, size, polarity, resize=resize, allow_empty=allow_empty, max_pixels=max_pixels
    )
    for note in notes:
        warnings.warn(f"{path}: {note}", UserWarning, stacklevel=2)
    return hole


def read_hole(
    path: str | os.PathLike[str],
    size: tuple[int, int],
    polarity: str = "white",
    *,
    resize: bool = False,
    allow_empty: bool = False,
    max_pixels: int = MAX_PIXELS,
) -> tuple[Tensor, list[str]]:
    """Return the hole of `load_hole`, and its warnings as texts without the path."""
    if polarity not in POLARITIES:
        raise ValueError(f"load_hole: polarity must be one of {POLARITIES}, got {polarity!r}")
    photo = load_photo(path, max_pixels=max_pixels)
    if polarity == "alpha" and not photo.has_alpha:
        raise ValueError(f"{path}: has no alpha channel that could mark the hole")
    if photo.size != tuple(size) and not resize:
        raise ValueError(
            f"{path}: the hole has {size_text(photo.size)} pixels,"
            f" but the picture has {size_text(size)}; resizing was not asked for"
        )
    missing, notes = read_missing(photo.pixels, polarity)
    if not missing.any() and not allow_empty:
        raise ValueError(
            f"{path}: nothing is missing where {polarity} marks the hole; the file holds"
            f" {describe(photo.pixels)}; --hole (polarity) {_other_ways(photo, polarity)};"
            " --allow-empty (allow_empty) accepts an empty hole"
        )
    if photo.size != tuple(size):
        rows, columns = (
            (2 * np.arange(new) + 1) * old // (2 * new) for new, old in zip(size, photo.size)
        )
        missing = missing[rows[:, None], columns]
        if not missing.any() and not allow_empty:
            raise ValueError(f"{path}: the hole vanished as it was resized to {size_text(size)}")
    return torch.from_numpy(np.ascontiguousarray(missing))[None, None], notes


def _other_ways(photo: Photo, polarity: str) -> str:
    """Return the share of pixels that each other polarity would take as missing."""
    found = []
    for other in POLARITIES:
        if other != polarity and (other != "alpha" or photo.has_alpha):
            share = read_missing(photo.pixels, other)[0].mean()
            found.append(f"{other} would take {100 * share:.1f} %")
    return ", ".join(found)


def save_hole(hole: Tensor, path: str | os.PathLike[str]) -> None:
    """Write a (1, 1, height, width) bool or 0/1 tensor as 8-bit grey, white = missing.

    Raises:
        TypeError, ValueError, OSError: not such a tensor, or as `Photo.save`.
    """
    if not isinstance(hole, torch.Tensor):
        raise TypeError(f"save_hole: hole must be a tensor, got {type(hole).__name__}")
    if hole.ndim != 4 or hole.shape[:2] != (1, 1):
        raise ValueError(
            f"save_hole: hole must have shape (1, 1, height, width), got {tuple(hole.shape)}"
        )
    if WRITE_FORMATS.get(Path(path).suffix.lower()) is JPEG:
        raise ValueError(f"{path}: JPEG would blur the edges of a hole; use .png")
    missing = (hole.detach()[0, 0] != 0).cpu().numpy()
    Photo(missing.astype(np.uint8)[..., None] * np.uint8(255)).save(path)
