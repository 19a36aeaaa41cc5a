"""A picture of integer pixels, read from a file and written back with known pixels bit for bit.

Pillow does the decoding and is imported on first use; this module itself needs only torch and
numpy.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import torch

from inpaint_ops.atomic import write_atomically
from inpaint_ops.images.decoding import decode, decode_stream
from inpaint_ops.images.formats import JPEG_EXIF, WRITE_FORMATS, WRITE_SUFFIXES, Format, pillow
from inpaint_ops.images.metadata import with_resolution, without_interoperability
from inpaint_ops.program import reason

if TYPE_CHECKING:
    import numpy.typing as npt
    from torch import Tensor

MAX_PIXELS = 300_000_000


@dataclass(frozen=True, eq=False)
class Photo:
    """A picture as stored: upright integer pixels, and the metadata to write it back.

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
        """True if the last channel is alpha."""
        return self.pixels.shape[2] in (2, 4)

    @property
    def levels(self) -> int:
        """The integer that stands for 1.0: 255 or 65535."""
        return int(np.iinfo(self.pixels.dtype).max)

    def image(self) -> Tensor:
        """Return colours as a (1, 3, height, width) float32 tensor in [0, 1]; grey is repeated."""
        colour = self.pixels[..., : self._colours].astype(np.float32) / np.float32(self.levels)
        channels = np.broadcast_to(colour, (*self.size, 3)).transpose(2, 0, 1)
        return torch.from_numpy(np.ascontiguousarray(channels))[None]

    def alpha_hole(self, *, allow_empty: bool = False) -> Tensor:
        """Return the fully transparent pixels as a (1, 1, height, width) bool hole.

        Args:
            allow_empty: accept a picture without a fully transparent pixel.

        Raises:
            ValueError: the picture has no alpha channel, or nothing is missing.
        """
        if not self.has_alpha:
            raise ValueError(
                "the picture has no alpha channel that could mark the hole; give a hole file"
            )
        least = int(self.pixels[..., -1].min())
        if least > 0 and not allow_empty:
            raise ValueError(
                f"nothing is missing: no pixel is fully transparent, the least alpha is {least} of"
                f" {self.levels}; --allow-empty (allow_empty) accepts an empty hole"
            )
        return torch.from_numpy(self.pixels[..., -1] == 0)[None, None]

    def opaque(self, hole: Tensor) -> Photo:
        """Return a copy that is opaque inside hole, a (1, 1, height, width) bool or 0/1 tensor."""
        missing = self._hole_array(hole)
        pixels = self.pixels.copy()
        if self.has_alpha:
            pixels[missing, -1] = self.levels
        return replace(self, pixels=pixels)

    def filled(self, image: Tensor, hole: Tensor) -> Photo:
        """Return a copy with the colours of image inside the hole; all else stays bit for bit.

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
        colours = image.detach()[0].permute(1, 2, 0).cpu()
        values = colours[torch.from_numpy(missing)].double().numpy()
        if not np.isfinite(values).all():
            raise ValueError("filled: image must be finite inside the hole, got NaN or infinity")
        if self._colours == 1:
            values = values.mean(axis=1, keepdims=True)
        pixels = self.pixels.copy()
        pixels[missing, : self._colours] = np.rint(np.clip(values, 0.0, 1.0) * self.levels)
        return replace(self, pixels=pixels)

    def check_format(self, name: str | os.PathLike[str]) -> None:
        """Raise an error if the format that a file's name stands for cannot hold the picture.

        Raises:
            ValueError: unknown extension, or the format cannot hold alpha, 16 bits or the size.
        """
        form = WRITE_FORMATS.get(Path(name).suffix.lower())
        if form is None:
            known = " ".join(sorted(WRITE_SUFFIXES))
            raise ValueError(f"{name}: unknown file extension, expected one of {known}")
        if self.levels > 255 and not form.deep:
            raise ValueError(f"{name}: {form.name} cannot hold 16 bits a pixel; use .png or .tif")
        if self.has_alpha and not form.alpha and (self.pixels[..., -1] < self.levels).any():
            raise ValueError(f"{name}: {form.name} cannot hold alpha; use .png, .tif or .webp")
        if max(self.size) > form.max_side:
            raise ValueError(
                f"{name}: {form.name} holds at most {form.max_side} pixels a side,"
                f" got {size_text(self.size)}"
            )
        if form.name == "JPEG" and len(self.exif) > JPEG_EXIF:
            raise ValueError(
                f"{name}: JPEG holds at most {JPEG_EXIF} bytes of EXIF, got {len(self.exif)};"
                " use .png or .tif"
            )

    def check_save(self, path: str | os.PathLike[str]) -> None:
        """Raise the errors of `save` that are known before anything is written.

        Raises:
            ValueError: as `check_format`.
            OSError: path is a directory, or its folder is missing or not writable.
        """
        target = Path(path)
        self.check_format(target)
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
        with write_atomically(path) as stream:
            self.write(stream, path)

    def write(self, stream: BinaryIO, name: str | os.PathLike[str], **options: Any) -> None:
        """Write what `save` writes to a file of this name to an open file instead.

        Args:
            stream: binary file, open for writing.
            name: its extension picks the format; no file of this name is touched.
            options: of Pillow's writer, in place of our own.

        Raises:
            ValueError: as `check_format`.
            OSError: the disk or the encoder failed.
        """
        self.check_format(name)
        form = WRITE_FORMATS[Path(name).suffix.lower()]
        pixels = self.pixels
        if self.has_alpha and not form.alpha:
            pixels = pixels[..., : self._colours]
        if pixels.shape[2] == 1:
            pixels = pixels[..., 0]
        picture = pillow().fromarray(np.ascontiguousarray(pixels))
        options = {**form.options, **self._metadata(form), **options}
        try:
            picture.save(stream, format=form.name, **options)
        except Exception as exc:
            raise OSError(f"{name}: could not be written ({reason(exc)})") from exc

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

    def _metadata(self, form: Format) -> dict[str, Any]:
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


def read_photo(stream: BinaryIO, name: str, *, max_pixels: int = MAX_PIXELS) -> Photo:
    """Read one picture from an open binary file, as `load_photo` does; errors call it `name`."""
    return Photo(**decode_stream(stream, name, max_pixels))


def size_text(size: tuple[int, int]) -> str:
    """Return a (height, width) for a message."""
    return f"{size[1]}x{size[0]} (width x height)"
