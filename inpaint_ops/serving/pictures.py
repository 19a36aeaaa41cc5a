"""Opened pictures: decoded once, kept in memory, the oldest forgotten."""

from __future__ import annotations

import io
import re
import secrets
import threading
from collections import OrderedDict
from dataclasses import dataclass, replace
from http import HTTPStatus
from pathlib import PurePosixPath
from typing import Any, Generic, TypeVar

from inpaint_ops.images import Photo, read_photo
from inpaint_ops.program import reason
from inpaint_ops.serving.refusals import Refusal

MAX_BYTES = 256 * 2**20
MAX_PIXELS = 100_000_000
# Pictures, and filled pictures, that are kept in memory.
KEPT = 3
# Formats to save in: ending, name, and whether known pixels keep their exact values.
FORMATS = {
    "png": ("PNG", True),
    "jpg": ("JPEG", False),
    "tif": ("TIFF", True),
    "webp": ("WebP", True),
}
_NAME_LENGTH = 100

Item = TypeVar("Item")


class Shelf(Generic[Item]):
    """Items under names that nobody can guess; only the newest are kept."""

    def __init__(self, what: str, kept: int) -> None:
        self._what, self._kept = what, kept
        self._items: OrderedDict[str, Item] = OrderedDict()
        self._lock = threading.Lock()

    def put(self, item: Item) -> str:
        """Keep an item and return its name."""
        name = secrets.token_urlsafe(16)
        with self._lock:
            self._items[name] = item
            while len(self._items) > self._kept:
                self._items.popitem(last=False)
        return name

    def get(self, name: str) -> Item:
        """Return an item; a Refusal with status 410 if it is not there."""
        with self._lock:
            if name not in self._items:
                raise Refusal(
                    HTTPStatus.GONE,
                    f"The server no longer holds this {self._what}; open the file again.",
                )
            self._items.move_to_end(name)
            return self._items[name]


@dataclass(frozen=True)
class Picture:
    """An opened picture; `name` is that of its file, without folders."""

    name: str
    photo: Photo

    def facts(self) -> dict[str, Any]:
        """Return what the page shows of it, ready for JSON."""
        height, width = self.photo.size
        return {
            "name": self.name,
            "width": width,
            "height": height,
            "formats": [
                {"suffix": suffix, "name": name, "exact": exact}
                for suffix, (name, exact) in FORMATS.items()
                if _fits(self.photo, suffix)
            ],
        }

    def file_name(self, suffix: str) -> str:
        """Return the name of the file that the filled picture is saved in."""
        return f"{PurePosixPath(self.name).stem}-filled.{suffix}"


def _fits(photo: Photo, suffix: str) -> bool:
    try:
        photo.check_format(f"picture.{suffix}")
    except ValueError:
        return False
    return True


def open_picture(content: bytes, name: str) -> Picture:
    """Decode a picture file.

    Args:
        content: of the file.
        name: of the file, as the page tells it; it is only shown.

    Raises:
        Refusal: it is none that can be read, or too large.
    """
    cleaned = clean_name(name)
    try:
        return Picture(cleaned, read_photo(io.BytesIO(content), cleaned, max_pixels=MAX_PIXELS))
    except (ValueError, OSError) as exc:
        raise Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, reason(exc)) from exc


def clean_name(name: str) -> str:
    """Return the last part of a path, without what has a meaning in names of files."""
    last = re.split(r"[/\\]", name)[-1]
    kept = "".join(c for c in last if c.isprintable() and c not in '<>:"|?*').strip(" .")
    stem, dot, suffix = kept.rpartition(".")
    if dot and len(suffix) < 10:
        return f"{stem[:_NAME_LENGTH]}.{suffix}"
    return kept[:_NAME_LENGTH] or "picture"


def shown(photo: Photo) -> bytes:
    """Return the picture as a PNG for the page: pixels and the meaning of colours alone."""
    stream = io.BytesIO()
    bare = replace(photo, exif=b"", dpi=None, text={}, comment=b"")
    # It goes no further than this machine: speed matters more than size.
    bare.write(stream, "shown.png", compress_level=1)
    return stream.getvalue()


def encoded(photo: Photo, suffix: str) -> bytes:
    """Return the content of the file that a picture is saved in, metadata included.

    Raises:
        Refusal: the format is not offered, or cannot hold this picture.
    """
    if suffix not in FORMATS:
        raise Refusal(HTTPStatus.BAD_REQUEST, f"The format must be one of {', '.join(FORMATS)}.")
    stream = io.BytesIO()
    try:
        photo.write(stream, f"picture.{suffix}")
    except (ValueError, OSError) as exc:
        raise Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, reason(exc)) from exc
    return stream.getvalue()
