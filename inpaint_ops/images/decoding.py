"""Decoding of a picture file to upright integer pixels and the metadata that are kept."""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from inpaint_ops.masks.reading import grey_levels

if TYPE_CHECKING:
    import numpy.typing as npt
    from PIL.Image import Exif, Image

# A fixed list keeps Pillow away from formats that start other programs (EPS). JPEG includes MPO.
_FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP", "DIB", "GIF", "PPM", "TGA", "AVIF")

_ORIENTATION, _EXIF_IFD, _GPS_IFD, _INTEROPERABILITY_IFD = 0x0112, 0x8769, 0x8825, 0xA005
_X_RESOLUTION, _Y_RESOLUTION, _RESOLUTION_UNIT = 282, 283, 296
_PER_INCH = {2: 1.0, 3: 2.54}  # values of the unit: inch, centimetre
_PIXEL_SIZE_TAGS = (0xA002, 0xA003)
# TIFF tags that describe how the old file stored its pixels: wrong in the new file.
_STRUCTURE_TAGS = frozenset(
    {*range(254, 260), *range(262, 267), *range(320, 326), *range(512, 515), *range(529, 533)}
    | {273, 277, 278, 279, 282, 283, 284, 296, 317, 330, 332, 338, 339, 347, 700, 34675}
    | {_ORIENTATION, _EXIF_IFD, _GPS_IFD}
)
# PNG text that repeats EXIF and XMP, orientation included.
_METADATA_TEXT = frozenset(
    ("XML:com.adobe.xmp", "Raw profile type exif", "Raw profile type APP1", "Raw profile type xmp")
)
# Pillow's names of integer and float.
_GREY_32 = ("I", "F")
_LOSSLESS_TIFF = frozenset(("packbits", "tiff_lzw", "tiff_deflate", "tiff_adobe_deflate"))

_bomb_lock = threading.Lock()


def pillow() -> Any:
    """Return ``PIL.Image``; an ImportError names the extra to install."""
    try:
        from PIL import Image
    except ImportError as exc:
        raise ImportError(
            "picture files need Pillow, which is not installed: pip install 'inpaint-ops[image]'",
            name="PIL",
        ) from exc
    return Image


def decode(source: Path, max_pixels: int, *, hole: bool = False) -> dict[str, Any]:
    """Return the arguments of `inpaint_ops.images.Photo` for a file; errors as in `load_photo`.

    A hole may also be stored as 32-bit grey, integer or float, if its values are those of a mask
    (`grey_levels`).
    """
    pil = pillow()
    kind = "mask" if hole else "picture"
    if source.is_dir():
        raise IsADirectoryError(f"{source}: is a directory, expected a {kind}")
    if not source.exists():
        raise FileNotFoundError(f"{source}: does not exist")
    with source.open("rb") as stream:
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
            kept = _kept_metadata(picture) if early else None
            with _readable(source):
                picture.load()
            try:
                return _photo_arguments(picture, kept or _kept_metadata(picture))
            except ValueError as exc:
                raise ValueError(f"{source}: {exc}") from exc


@contextmanager
def _readable(source: Path) -> Iterator[None]:
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


def _refuse(picture: Image, source: Path, max_pixels: int, hole: bool) -> None:
    advice = _MASK_ADVICE if hole else _ADVICE
    width, height = picture.size
    if width * height > max_pixels:
        raise ValueError(
            f"{source}: {width}x{height} pixels are more than max_pixels = {max_pixels}"
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


def _kept_metadata(picture: Image) -> tuple[Exif | None, tuple[float, float] | None, bool]:
    """Return EXIF, the stored picture's resolution, and True if that picture lies on its side."""
    turned = _orientation(picture) > 4
    return _exif(picture, turned), _dpi(picture), turned


def _photo_arguments(
    picture: Image, kept: tuple[Exif | None, tuple[float, float] | None, bool]
) -> dict[str, Any]:
    exif, dpi, turned = kept
    text = {
        key: value
        for key, value in getattr(picture, "text", {}).items()
        if key not in _METADATA_TEXT
    }
    if turned:
        dpi = dpi and (dpi[1], dpi[0])
    compression = picture.info.get("compression") if picture.format == "TIFF" else None
    return {
        "pixels": np.ascontiguousarray(_upright(_pixels(picture), _orientation(picture))),
        "exif": b"" if exif is None else exif.tobytes(),
        "icc_profile": picture.info.get("icc_profile") or None,
        "dpi": dpi,
        "text": text,
        "comment": _comment(picture),
        "colour_chunks": _colour_chunks(picture) if picture.format == "PNG" else {},
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


def _orientation(picture: Image) -> int:
    try:
        value = picture.getexif().get(_ORIENTATION, 1)
    except Exception:
        return 1
    return value if value in range(1, 9) else 1


def _upright(pixels: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    # 5 to 8 store the picture on its side: swapped axes, then the flips.
    if orientation > 4:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def _exif(picture: Image, turned: bool) -> Exif | None:
    # A new block rather than the old one edited: the thumbnail still shows what the hole hides and
    # must not be kept. (Asking the new block for a directory would create an empty one.)
    kept: Exif = pillow().Exif()
    directories = 0
    try:
        old = picture.getexif()
        for tag, value in old.items():
            if tag not in _STRUCTURE_TAGS:
                kept[tag] = value
        for directory in (_EXIF_IFD, _GPS_IFD):
            entries = dict(old.get_ifd(directory))
            # In place of the directory inside, the entry holds its offset in the old file.
            if entries.pop(_INTEROPERABILITY_IFD, None) is not None:
                entries[_INTEROPERABILITY_IFD] = dict(old.get_ifd(_INTEROPERABILITY_IFD))
            if turned:
                for tag in _PIXEL_SIZE_TAGS:
                    entries.pop(tag, None)
            if entries:
                kept.get_ifd(directory).update(entries)
                directories += 1
        if not kept and not directories:
            return None
        if _ORIENTATION in old:
            kept[_ORIENTATION] = 1
        kept.tobytes()
    except Exception:
        return None
    return kept


def _dpi(picture: Image) -> tuple[float, float] | None:
    """Return the resolution that the file states, or None where Pillow would make one up."""
    try:
        exif = picture.getexif()
        unit = exif.get(_RESOLUTION_UNIT, 2)
        stated = _X_RESOLUTION in exif and _Y_RESOLUTION in exif and unit in _PER_INCH
        if picture.format in ("JPEG", "MPO"):
            stated = stated or picture.info.get("jfif_unit", 0) in (1, 2)
        elif picture.format != "TIFF":
            stated = stated or "dpi" in picture.info
        if not stated:
            return None
        if "dpi" in picture.info:
            x, y = (float(value) for value in picture.info["dpi"])
        else:
            x, y = (float(exif[tag]) * _PER_INCH[unit] for tag in (_X_RESOLUTION, _Y_RESOLUTION))
    except Exception:
        return None
    return (x, y) if 0 < x < float("inf") and 0 < y < float("inf") else None


def with_resolution(exif: bytes, dpi: tuple[float, float]) -> bytes:
    """Return an EXIF block that states a resolution, for formats without a field of their own."""
    block = pillow().Exif()
    block.load(exif)
    block[_X_RESOLUTION], block[_Y_RESOLUTION], block[_RESOLUTION_UNIT] = *dpi, 2
    encoded: bytes = block.tobytes()
    return encoded


def without_interoperability(exif: bytes) -> bytes:
    """Return an EXIF block without its inner directory, which the writer of TIFFs cannot place."""
    block = pillow().Exif()
    block.load(exif)
    if _INTEROPERABILITY_IFD not in block.get_ifd(_EXIF_IFD):
        return exif
    del block.get_ifd(_EXIF_IFD)[_INTEROPERABILITY_IFD]
    encoded: bytes = block.tobytes()
    return encoded


def _comment(picture: Image) -> bytes:
    comment = picture.info.get("comment", b"")
    return comment.encode("utf-8", "replace") if isinstance(comment, str) else bytes(comment)


def _colour_chunks(picture: Image) -> dict[bytes, bytes]:
    """Return the chunks of a PNG, beside the ICC profile, that say what its colours mean."""
    info, chunks = picture.info, {}
    if "srgb" in info:
        chunks[b"sRGB"] = bytes([info["srgb"]])
    if "gamma" in info:
        chunks[b"gAMA"] = struct.pack(">I", round(info["gamma"] * 100_000))
    if "chromaticity" in info:
        values = (round(value * 100_000) for value in info["chromaticity"])
        chunks[b"cHRM"] = struct.pack(">8I", *values)
    return chunks
