"""Hole files: one rule for which pixels of a file are missing, and their way back to a file."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from inpaint_ops.images.decoding import decode
from inpaint_ops.images.formats import JPEG, WRITE_FORMATS
from inpaint_ops.images.photo import MAX_PIXELS, Photo, size_text
from inpaint_ops.masks.reading import (
    DEFAULT_POLARITY,
    POLARITIES,
    describe,
    other_ways,
    read_missing,
)

if TYPE_CHECKING:
    from torch import Tensor


def load_hole(
    path: str | os.PathLike[str],
    size: tuple[int, int],
    polarity: str | None = None,
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

    Masks of 32-bit grey, integer or float, are read where their values tell their range: 0 to 1, 0
    to 255, 0 to 65535, or 0 and one other number.

    Args:
        path: the file.
        size: height and width in pixels of the picture the hole belongs to.
        polarity: which value marks a missing pixel: "white", "black", "alpha" or "painted". None is
            "white", and refuses a file with many colours and transparent parts, such as a photo
            that was cut out: only you can say which of the two is meant.
        resize: scale a hole of another size to size (nearest pixel) instead of refusing it.
        allow_empty: accept a file without a missing pixel.
        max_pixels: as `load_photo`.

    Warns:
        UserWarning: two colours were read as above, a coloured part was read as known, the file has
            more colours than a mask, or transparent parts although polarity is None.

    Raises:
        ImportError, OSError: as `load_photo`.
        ValueError: as `load_photo`, an unknown polarity, one that must be given, a wrong size, no
            alpha in the file, or nothing is missing.
    """
    hole, notes = read_hole(
        path, size, polarity, resize=resize, allow_empty=allow_empty, max_pixels=max_pixels
    )
    for note in notes:
        warnings.warn(f"{path}: {note}", UserWarning, stacklevel=2)
    return hole


def read_hole(
    path: str | os.PathLike[str],
    size: tuple[int, int] | None,
    polarity: str | None = None,
    *,
    resize: bool = False,
    allow_empty: bool = False,
    max_pixels: int = MAX_PIXELS,
) -> tuple[Tensor, list[str]]:
    """Return the hole of `load_hole`, and its warnings as texts without the path.

    A size of None is that of the file.
    """
    if polarity is not None and polarity not in POLARITIES:
        raise ValueError(f"load_hole: polarity must be one of {POLARITIES}, got {polarity!r}")
    photo = load_hole_file(path, max_pixels=max_pixels)
    if polarity == "alpha" and not photo.has_alpha:
        raise ValueError(
            f"{path}: has no alpha channel that could mark the hole; is it white or black?"
        )
    size = photo.size if size is None else (size[0], size[1])
    if photo.size != size and not resize:
        raise ValueError(
            f"{path}: the hole has {size_text(photo.size)} pixels,"
            f" but the picture has {size_text(size)}; resizing was not asked for"
            " (--resize-hole, resize=True)"
        )
    try:
        missing, notes = read_missing(photo.pixels, polarity)
    except ValueError as exc:
        raise ValueError(f"{path}: {exc}") from exc
    if not missing.any() and not allow_empty:
        raise ValueError(
            f"{path}: nothing is missing where {polarity or DEFAULT_POLARITY} marks the hole;"
            f" {readings(photo, polarity)}; --allow-empty (allow_empty) accepts an empty hole"
        )
    if photo.size != size:
        rows, columns = (
            (2 * np.arange(new) + 1) * old // (2 * new) for new, old in zip(size, photo.size)
        )
        missing = missing[rows[:, None], columns]
        if not missing.any() and not allow_empty:
            raise ValueError(
                f"{path}: the hole vanished as it was resized to {size_text(size)};"
                " give one of that size"
            )
    return torch.from_numpy(np.ascontiguousarray(missing))[None, None], notes


def load_hole_file(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> Photo:
    """Return the pixels of a hole file; as `load_photo`, and 32-bit grey as `load_hole` says."""
    return Photo(**decode(Path(path), max_pixels, hole=True))


def readings(photo: Photo, polarity: str | None) -> str:
    """Return the colours of a hole file, and the shares that other polarities would take."""
    ways = other_ways(photo.pixels, polarity or DEFAULT_POLARITY)
    return f"the file holds {describe(photo.pixels)}; --hole (polarity) {ways}"


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
