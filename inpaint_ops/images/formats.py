"""File formats that pictures are written in, their limits, and Pillow, which writes them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

JPEG_EXIF = 65533  # bytes of EXIF that a JPEG holds


@dataclass(frozen=True)
class Format:
    """Limits of one file format, and the options that Pillow writes it with.

    Attributes:
        name: Pillow's name of the format.
        alpha: it holds an alpha channel.
        deep: it holds 16 bits a channel.
        max_side: largest height and width, pixels.
        options: of Pillow's writer.
    """

    name: str
    alpha: bool = False
    deep: bool = False
    max_side: int = 2**31 - 1
    options: dict[str, Any] = field(default_factory=dict)


_PNG = Format("PNG", alpha=True, deep=True)
JPEG = Format("JPEG", max_side=65500, options={"quality": 95, "subsampling": 0})
_TIFF = Format("TIFF", alpha=True, deep=True)
# "exact" keeps the colours under fully transparent pixels.
_WEBP = Format("WEBP", alpha=True, max_side=16383, options={"lossless": True, "exact": True})
_PPM = Format("PPM", deep=True)
WRITE_FORMATS = {
    ".png": _PNG,
    ".jpg": JPEG,
    ".jpeg": JPEG,
    ".jpe": JPEG,
    ".jfif": JPEG,
    ".tif": _TIFF,
    ".tiff": _TIFF,
    ".webp": _WEBP,
    ".bmp": Format("BMP"),
    ".pgm": _PPM,
    ".ppm": _PPM,
    ".pnm": _PPM,
}
WRITE_SUFFIXES = frozenset(WRITE_FORMATS)
READ_SUFFIXES = WRITE_SUFFIXES | {".apng", ".mpo", ".dib", ".gif", ".pbm", ".tga", ".avif"}


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
