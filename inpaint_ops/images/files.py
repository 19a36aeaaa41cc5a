"""Pictures and holes on disk: integer pixels in, integer pixels out, known pixels bit for bit.

Pillow does the decoding and is imported on first use, so this module itself needs only torch
and numpy.
"""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from inpaint_ops._program import reason
from inpaint_ops.atomic import write_atomically
from inpaint_ops.images.decoding import decode, pillow, with_resolution, without_interoperability
from inpaint_ops.masks.reading import (
    DEFAULT_POLARITY,
    POLARITIES,
    describe,
    other_ways,
    read_missing,
)

if TYPE_CHECKING:
    import numpy.typing as npt
    from torch import Tensor

MAX_PIXELS = 300_000_000
_JPEG_EXIF = 65533


@dataclass(frozen=True)
class _Format:
    """What one file format can hold, and how Pillow is asked to write it."""

    name: str
    alpha: bool = False
    deep: bool = False
    max_side: int = 2**31 - 1
    options: dict[str, Any] = field(default_factory=dict)


_PNG = _Format("PNG", alpha=True, deep=True)
_JPEG = _Format("JPEG", max_side=65500, options={"quality": 95, "subsampling": 0})
_TIFF = _Format("TIFF", alpha=True, deep=True)
# "exact" keeps the colours under fully transparent pixels.
_WEBP = _Format("WEBP", alpha=True, max_side=16383, options={"lossless": True, "exact": True})
_PPM = _Format("PPM", deep=True)
_WRITE_FORMATS = {
    ".png": _PNG,
    ".jpg": _JPEG,
    ".jpeg": _JPEG,
    ".jpe": _JPEG,
    ".jfif": _JPEG,
    ".tif": _TIFF,
    ".tiff": _TIFF,
    ".webp": _WEBP,
    ".bmp": _Format("BMP"),
    ".pgm": _PPM,
    ".ppm": _PPM,
    ".pnm": _PPM,
}
WRITE_SUFFIXES = frozenset(_WRITE_FORMATS)
READ_SUFFIXES = WRITE_SUFFIXES | {".apng", ".mpo", ".dib", ".gif", ".pbm", ".tga", ".avif"}


@dataclass(frozen=True, eq=False)
class Photo:
    """A picture as stored: integer pixels, upright, with what is needed to write it back.

    Args:
        pixels: (height, width, channels) uint8 with 1 to 4 channels (grey, grey + alpha, RGB,
            RGB + straight alpha), or uint16 with 1 channel.
        exif: EXIF block without orientation and thumbnail, empty if there is none.
        icc_profile: colour profile, None if there is none.
        dpi: horizontal and vertical resolution in pixels per inch.
        text: PNG text entries.
        comment: comment of a JPEG or GIF file, empty if there is none.
        colour_chunks: PNG chunks that say what the colours mean (sRGB, gAMA, cHRM), by name.
        compression: Pillow's name of a lossless TIFF compression, None for no compression.

    Raises:
        TypeError: pixels is not a uint8 or uint16 array.
        ValueError: pixels has another shape.
    """

    pixels: npt.NDArray[Any]
    exif: bytes = b""
    icc_profile: bytes | None = None
    dpi: tuple[float, float] | None = None
    text: dict[str, str] = field(default_factory=dict)
    comment: bytes = b""
    colour_chunks: dict[bytes, bytes] = field(default_factory=dict)
    compression: str | None = None

    def __post_init__(self) -> None:
        pixels = self.pixels
        if not isinstance(pixels, np.ndarray) or pixels.dtype not in (np.uint8, np.uint16):
            got = getattr(pixels, "dtype", type(pixels).__name__)
            raise TypeError(f"Photo: pixels must be a uint8 or uint16 array, got {got}")
        channels = (1,) if pixels.dtype == np.uint16 else (1, 2, 3, 4)
        if pixels.ndim != 3 or pixels.shape[2] not in channels or pixels.size == 0:
            raise ValueError(
                f"Photo: pixels must have shape (height, width, channels) with channels in"
                f" {channels} for {pixels.dtype}, got {pixels.shape}"
            )

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.pixels.shape[0], self.pixels.shape[1]

    @property
    def has_alpha(self) -> bool:
        """Whether the last channel is alpha."""
        return self.pixels.shape[2] in (2, 4)

    @property
    def levels(self) -> int:
        """The integer that stands for 1.0: 255 or 65535."""
        return int(np.iinfo(self.pixels.dtype).max)

    def image(self) -> Tensor:
        """Colours as a (1, 3, height, width) float32 tensor in [0, 1]; grey is repeated."""
        colour = self.pixels[..., : self._colours].astype(np.float32) / np.float32(self.levels)
        planes = np.broadcast_to(colour, (*self.size, 3)).transpose(2, 0, 1)
        return torch.from_numpy(np.ascontiguousarray(planes))[None]

    def alpha_hole(self, *, allow_empty: bool = False) -> Tensor:
        """The fully transparent pixels as a (1, 1, height, width) bool tensor, True = missing.

        Args:
            allow_empty: accept a picture without a fully transparent pixel.

        Raises:
            ValueError: the picture has no alpha channel, or nothing is missing.
        """
        if not self.has_alpha:
            raise ValueError("the picture has no alpha channel that could mark the hole")
        least = int(self.pixels[..., -1].min())
        if least > 0 and not allow_empty:
            raise ValueError(
                f"nothing is missing: no pixel is fully transparent, the least alpha is {least} of"
                f" {self.levels}; --allow-empty (allow_empty) accepts an empty hole"
            )
        return torch.from_numpy(self.pixels[..., -1] == 0)[None, None]

    def opaque(self, hole: Tensor) -> Photo:
        """A copy that is opaque inside hole, a (1, 1, height, width) bool or 0/1 tensor."""
        missing = self._hole_array(hole)
        pixels = self.pixels.copy()
        if self.has_alpha:
            pixels[missing, -1] = self.levels
        return replace(self, pixels=pixels)

    def filled(self, image: Tensor, hole: Tensor) -> Photo:
        """A copy with the colours of image inside the hole; all else stays bit for bit.

        Values are clipped to [0, 1] and rounded to the nearest level; grey takes the mean of the
        three channels. Alpha is kept.

        Args:
            image: (1, 3, height, width) float tensor in [0, 1]; only read inside the hole.
            hole: (1, 1, height, width) bool or 0/1 tensor, 1 = missing.

        Raises:
            TypeError: image is not a float tensor, or hole is not a tensor.
            ValueError: wrong shapes, or image is not finite inside the hole.
        """
        missing = self._hole_array(hole)
        if not isinstance(image, torch.Tensor) or not image.is_floating_point():
            got = getattr(image, "dtype", type(image).__name__)
            raise TypeError(f"filled: image must be a float tensor, got {got}")
        if tuple(image.shape) != (1, 3, *self.size):
            raise ValueError(
                f"filled: image must have shape {(1, 3, *self.size)}, got {tuple(image.shape)}"
            )
        # float64 holds the product with 65535 without a rounding of its own.
        planes = image.detach()[0].permute(1, 2, 0).cpu()
        values = planes[torch.from_numpy(missing)].double().numpy()
        if not np.isfinite(values).all():
            raise ValueError("filled: image must be finite inside the hole, got NaN or infinity")
        if self._colours == 1:
            values = values.mean(axis=1, keepdims=True)
        pixels = self.pixels.copy()
        pixels[missing, : self._colours] = np.rint(np.clip(values, 0.0, 1.0) * self.levels)
        return replace(self, pixels=pixels)

    def check_save(self, path: str | os.PathLike[str]) -> None:
        """Raise now what `save` would raise later because the file cannot hold this picture.

        Raises:
            ValueError: unknown extension, or the format cannot hold alpha, 16 bits or the size.
            OSError: path is a directory, or its folder is missing or not writable.
        """
        target = Path(path)
        form = _WRITE_FORMATS.get(target.suffix.lower())
        if form is None:
            known = " ".join(sorted(WRITE_SUFFIXES))
            raise ValueError(f"{target}: unknown file extension, expected one of {known}")
        if self.levels > 255 and not form.deep:
            raise ValueError(f"{target}: {form.name} cannot hold 16 bits a pixel; use .png or .tif")
        if self.has_alpha and not form.alpha and (self.pixels[..., -1] < self.levels).any():
            raise ValueError(f"{target}: {form.name} cannot hold alpha; use .png, .tif or .webp")
        if max(self.size) > form.max_side:
            raise ValueError(
                f"{target}: {form.name} holds at most {form.max_side} pixels a side,"
                f" got {_size_text(self.size)}"
            )
        if form.name == "JPEG" and len(self.exif) > _JPEG_EXIF:
            raise ValueError(
                f"{target}: JPEG holds at most {_JPEG_EXIF} bytes of EXIF, got {len(self.exif)};"
                " use .png or .tif"
            )
        if target.is_dir():
            raise IsADirectoryError(f"{target}: is a directory, expected a file name")
        if not target.parent.is_dir():
            raise FileNotFoundError(f"{target}: the folder {target.parent} does not exist")
        if not os.access(target.parent, os.W_OK):
            raise PermissionError(f"{target}: the folder {target.parent} is not writable")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the picture; the file appears complete or not at all.

        The extension picks the format. PNG, TIFF, WebP, BMP and PPM store the pixels bit for bit.
        JPEG cannot: it is written at quality 95 without colour subsampling, which changes known
        pixels by a few levels. EXIF (upright, no thumbnail), ICC profile, resolution, comment, PNG
        text and colour chunks are kept where the format has room for them; XMP is not. Alpha that
        is opaque everywhere is dropped in a format without alpha.

        Raises:
            ValueError: as `check_save`.
            OSError: as `check_save`, or the disk or the encoder failed.
        """
        self.check_save(path)
        target = Path(path)
        form = _WRITE_FORMATS[target.suffix.lower()]
        pixels = self.pixels
        if self.has_alpha and not form.alpha:
            pixels = pixels[..., : self._colours]
        if pixels.shape[2] == 1:
            pixels = pixels[..., 0]
        picture = pillow().fromarray(np.ascontiguousarray(pixels))
        options = {**form.options, **self._metadata(form)}
        with write_atomically(target) as stream:
            try:
                picture.save(stream, format=form.name, **options)
            except Exception as exc:
                raise OSError(f"{target}: could not be written ({reason(exc)})") from exc

    @property
    def _colours(self) -> int:
        return 1 if self.pixels.shape[2] < 3 else 3

    def _hole_array(self, hole: Tensor) -> npt.NDArray[np.bool_]:
        if not isinstance(hole, torch.Tensor):
            raise TypeError(f"hole must be a tensor, got {type(hole).__name__}")
        if tuple(hole.shape) != (1, 1, *self.size):
            raise ValueError(f"hole must have shape {(1, 1, *self.size)}, got {tuple(hole.shape)}")
        missing: npt.NDArray[np.bool_] = (hole.detach()[0, 0] != 0).cpu().numpy()
        return missing

    def _metadata(self, form: _Format) -> dict[str, Any]:
        options: dict[str, Any] = {}
        if self.exif:
            tiff = form.name == "TIFF"
            options["exif"] = without_interoperability(self.exif) if tiff else self.exif
        if self.icc_profile:
            options["icc_profile"] = self.icc_profile
        if self.dpi and form.name == "WEBP":
            options["exif"] = with_resolution(self.exif, self.dpi)
        elif self.dpi:
            options["dpi"] = self.dpi
        elif form.name == "BMP":
            options["dpi"] = (0, 0)  # unknown, where Pillow's default is 96
        if form.name == "JPEG" and self.comment:
            options["comment"] = self.comment
        if form.name == "PNG" and (self.text or self.colour_chunks):
            from PIL.PngImagePlugin import PngInfo

            options["pnginfo"] = PngInfo()
            for name, content in self.colour_chunks.items():
                options["pnginfo"].add(name, content)
            for key, value in self.text.items():
                options["pnginfo"].add_text(key, value)
        if form.name == "TIFF" and self.compression:
            options["compression"] = self.compression
        return options


def load_photo(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> Photo:
    """Read one picture: 8-bit grey, palette or RGB, with or without alpha, or 16-bit grey.

    EXIF orientation is applied. Palettes and transparent colour keys become RGB, RGBA or grey
    with alpha, 1-bit pictures become 8-bit grey: the colours stay exact. Of the pictures in a
    phone's MPO file the main one is read. EXIF that cannot be parsed is dropped.

    Args:
        path: the file.
        max_pixels: larger pictures are refused before they are decoded.

    Raises:
        ImportError: Pillow is not installed.
        OSError: the file is missing, a directory or not readable.
        ValueError: not a picture, damaged, too large, several frames, or a kind of pixel that
            cannot be kept exactly (CMYK, 16-bit colour, float, ...).
    """
    return Photo(**decode(Path(path), max_pixels))


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

    "white" and "black" compare the luma (ITU-R BT.601) with half the range; where the file has
    alpha, what is transparent by half or more was not painted and is known. "alpha" takes the
    pixels that are transparent by more than half, "painted" those that are neither transparent nor
    black.

    A file of two colours on the same side of the half is read as it is meant: beside black (or
    around a brush transparency) the other colour counts as white, beside white as black. That
    covers masks of 0 and 1, label pictures of one label, red and blue brushes.

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
    size: tuple[int, int],
    polarity: str | None = None,
    *,
    resize: bool = False,
    allow_empty: bool = False,
    max_pixels: int = MAX_PIXELS,
) -> tuple[Tensor, list[str]]:
    """Return what `load_hole` does, and its warnings as texts without the path."""
    if polarity is not None and polarity not in POLARITIES:
        raise ValueError(f"load_hole: polarity must be one of {POLARITIES}, got {polarity!r}")
    photo = load_hole_file(path, max_pixels=max_pixels)
    if polarity == "alpha" and not photo.has_alpha:
        raise ValueError(f"{path}: has no alpha channel that could mark the hole")
    if photo.size != tuple(size) and not resize:
        raise ValueError(
            f"{path}: the hole has {_size_text(photo.size)} pixels,"
            f" but the picture has {_size_text(size)}; resizing was not asked for"
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
    if photo.size != tuple(size):
        rows, columns = (
            (2 * np.arange(new) + 1) * old // (2 * new) for new, old in zip(size, photo.size)
        )
        missing = missing[rows[:, None], columns]
        if not missing.any() and not allow_empty:
            raise ValueError(f"{path}: the hole vanished as it was resized to {_size_text(size)}")
    return torch.from_numpy(np.ascontiguousarray(missing))[None, None], notes


def load_hole_file(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> Photo:
    """The pixels of a hole file; as `load_photo`, and 32-bit grey as `load_hole` says."""
    return Photo(**decode(Path(path), max_pixels, hole=True))


def readings(photo: Photo, polarity: str | None) -> str:
    """What a hole file holds, and what polarities other than the one given would take."""
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
    if _WRITE_FORMATS.get(Path(path).suffix.lower()) is _JPEG:
        raise ValueError(f"{path}: JPEG would blur the edges of a hole; use .png")
    missing = (hole.detach()[0, 0] != 0).cpu().numpy()
    Photo(missing.astype(np.uint8)[..., None] * np.uint8(255)).save(path)


def _size_text(size: tuple[int, int]) -> str:
    return f"{size[1]}x{size[0]} (width x height)"
