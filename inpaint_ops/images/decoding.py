"""Decoding of a picture file to upright integer pixels and the metadata that are kept."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from inpaint_ops.images.formats import pillow
from inpaint_ops.images.metadata import (
    colour_chunks,
    comment,
    exif_and_resolution,
    orientation,
    png_text,
)
from inpaint_ops.masks.reading import grey_levels

if TYPE_CHECKING:
    import numpy.typing as npt
    from PIL.Image import Exif, Image

# A fixed list keeps Pillow away from formats that start other programs (EPS). JPEG includes MPO.
_FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP", "DIB", "GIF", "PPM", "TGA", "AVIF")

# Pillow's names of 32-bit grey, integer and float.
_GREY_32 = ("I", "F")
_LOSSLESS_TIFF = frozenset(("packbits", "tiff_lzw", "tiff_deflate", "tiff_adobe_deflate"))

_bomb_lock = threading.Lock()


def decode(source: Path, max_pixels: int, *, hole: bool = False) -> dict[str, Any]:
    """Return the arguments of `inpaint_ops.images.Photo` for a file; errors as in `load_photo`.

    A hole may also be stored as 32-bit grey, integer or float, if its values are those of a mask
    (`grey_levels`).
    """
    pillow()
    kind = "mask" if hole else "picture"
    if source.is_dir():
        raise IsADirectoryError(f"{source}: is a directory, expected a {kind}")
    if not source.exists():
        raise FileNotFoundError(f"{source}: does not exist")
    with source.open("rb") as stream:
        return decode_stream(stream, str(source), max_pixels, hole=hole)


def decode_stream(
    stream: BinaryIO, source: str, max_pixels: int, *, hole: bool = False
) -> dict[str, Any]:
    """As `decode` for an open file; errors call it `source`."""
    pil = pillow()
    if not stream.read(1):
        raise ValueError(f"{source}: the file is empty")
    stream.seek(0)
    pil.init()
    formats = [name for name in _FORMATS if name in pil.OPEN]
    with _readable(source), _own_bomb_limit(pil):
        picture = pil.open(stream, formats=formats)
    with picture:
        _refuse(picture, source, max_pixels, hole)
        # Pillow rotates a TIFF while it loads it and forgets the tags, so these are read
        # before. The tags of a PNG are read after: to look for them decodes the file, and
        # only the first attempt to decode a damaged file fails.
        early = picture.format == "TIFF"
        kept = exif_and_resolution(picture) if early else None
        with _readable(source):
            picture.load()
        try:
            return _photo_arguments(picture, kept or exif_and_resolution(picture))
        except ValueError as exc:
            raise ValueError(f"{source}: {exc}") from exc


@contextmanager
def _readable(source: str) -> Iterator[None]:
    # Pillow's decoders answer damaged files with OSError, SyntaxError, ValueError, EOFError,
    # struct.error, zlib.error and more.
    try:
        yield
    except MemoryError:
        raise
    except Exception as exc:
        reason = "unknown format" if type(exc).__name__ == "UnidentifiedImageError" else exc
        raise ValueError(f"{source}: not a readable picture ({reason})") from exc


@contextmanager
def _own_bomb_limit(pil: Any) -> Iterator[None]:
    # Pillow refuses 179 million pixels and more while it opens a file; our own limit is checked
    # on the opened, not yet decoded, file.
    with _bomb_lock:
        limit = pil.MAX_IMAGE_PIXELS
        pil.MAX_IMAGE_PIXELS = None
        try:
            yield
        finally:
            pil.MAX_IMAGE_PIXELS = limit


# Advice about a file that cannot be read exactly.
_ADVICE = "convert the picture to {}"
_MASK_ADVICE = "save the mask as 8-bit grey, black and white"


def _refuse(picture: Image, source: str, max_pixels: int, hole: bool) -> None:
    advice = _MASK_ADVICE if hole else _ADVICE
    width, height = picture.size
    if width * height > max_pixels:
        raise ValueError(
            f"{source}: {width}x{height} pixels are more than max_pixels = {max_pixels}; scale it"
            " down"
        )
    with _readable(source):
        frames = getattr(picture, "n_frames", 1)
    # An MPO holds previews and depth maps beside the photo itself.
    if frames > 1 and picture.format != "MPO":
        kind = "mask" if hole else "picture"
        raise ValueError(f"{source}: has {frames} frames or pages, expected a single {kind}")
    # Pillow would drop the low byte without a word.
    if picture.mode in ("RGB", "RGBA", "LA", "L") and _stored_depth(picture) > 8:
        raise ValueError(
            f"{source}: more than 8 bits a channel are supported for grey only;"
            f" {advice.format('8 bits')}"
        )
    deep = picture.mode.startswith("I;16") and _stored_depth(picture) == 16
    # Some versions of Pillow, and every one for PGM, call 16-bit grey "I".
    deep |= picture.mode == "I" and picture.format in ("PNG", "PPM")
    if deep and "transparency" in picture.info:
        raise ValueError(
            f"{source}: 16-bit grey with a transparent colour is not supported;"
            f" {advice.format('8 bits')}"
        )
    known = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", *(_GREY_32 if hole else ()))
    if not deep and picture.mode not in known:
        target = "8-bit or 16-bit grey" if picture.mode in _GREY_32 else "RGB"
        raise ValueError(
            f"{source}: colour mode {picture.mode} is not supported; {advice.format(target)}"
        )


def _stored_depth(picture: Image) -> int:
    bits = getattr(picture, "tag_v2", {}).get(258)
    if bits:
        return int(max(bits))
    tiles: list[Any] = getattr(picture, "tile", [])
    if not tiles or picture.format not in ("PNG", "PPM"):
        return 8
    # "RGB;16B" in a PNG, ("RGB", 65535) in a PPM, "I;16B" in a PGM.
    arguments = tiles[0][3]
    values = arguments if isinstance(arguments, tuple) else (arguments,)
    deep = any(value > 255 if isinstance(value, int) else ";16" in value for value in values)
    return 16 if deep else 8


def _photo_arguments(
    picture: Image, kept: tuple[Exif | None, tuple[float, float] | None, bool]
) -> dict[str, Any]:
    exif, dpi, turned = kept
    if turned:
        dpi = dpi and (dpi[1], dpi[0])
    compression = picture.info.get("compression") if picture.format == "TIFF" else None
    return {
        "pixels": np.ascontiguousarray(_upright(_pixels(picture), orientation(picture))),
        "exif": b"" if exif is None else exif.tobytes(),
        "icc_profile": picture.info.get("icc_profile") or None,
        "dpi": dpi,
        "text": png_text(picture),
        "comment": comment(picture),
        "colour_chunks": colour_chunks(picture) if picture.format == "PNG" else {},
        "compression": compression if compression in _LOSSLESS_TIFF else None,
    }


def _pixels(picture: Image) -> npt.NDArray[Any]:
    if picture.mode in _GREY_32 and picture.format not in ("PNG", "PPM"):
        pixels: npt.NDArray[Any] = grey_levels(np.asarray(picture))
    elif picture.mode.startswith("I"):
        pixels = np.asarray(picture).astype(np.uint16)
    else:
        transparent = "transparency" in picture.info
        target = {"1": "L", "P": "RGB", "PA": "RGBA"}.get(picture.mode, picture.mode)
        if transparent and target in ("L", "RGB"):
            target = {"L": "LA", "RGB": "RGBA"}[target]
        pixels = np.asarray(picture if picture.mode == target else picture.convert(target))
    return pixels if pixels.ndim == 3 else pixels[..., None]


def _upright(pixels: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    # 5 to 8 store the picture on its side: swapped axes, then the flips.
    if orientation > 4:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels
