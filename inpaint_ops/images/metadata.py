"""Metadata of a picture file that are kept: EXIF, resolution, text, comment, meaning of colours."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from inpaint_ops.images.formats import pillow

if TYPE_CHECKING:
    from PIL.Image import Exif, Image

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


def exif_and_resolution(picture: Image) -> tuple[Exif | None, tuple[float, float] | None, bool]:
    """Return EXIF, the stored picture's resolution, and True if that picture lies on its side."""
    turned = orientation(picture) > 4
    return _exif(picture, turned), _dpi(picture), turned


def orientation(picture: Image) -> int:
    """Return the EXIF orientation, 1 to 8; 1, upright, where the file tells none."""
    try:
        value = picture.getexif().get(_ORIENTATION, 1)
    except Exception:
        return 1
    return value if value in range(1, 9) else 1


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


def png_text(picture: Image) -> dict[str, str]:
    """Return the text entries of a PNG that are not metadata of another kind."""
    entries: dict[str, str] = getattr(picture, "text", {})
    return {key: value for key, value in entries.items() if key not in _METADATA_TEXT}


def comment(picture: Image) -> bytes:
    """Return the comment of a JPEG or GIF file, empty if there is none."""
    found = picture.info.get("comment", b"")
    return found.encode("utf-8", "replace") if isinstance(found, str) else bytes(found)


def colour_chunks(picture: Image) -> dict[bytes, bytes]:
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
