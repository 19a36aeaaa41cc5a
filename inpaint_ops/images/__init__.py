"""Pictures as files: `decoding` reads what a file holds, `files` keeps it until it is written."""

from inpaint_ops.images.files import (
    MAX_PIXELS,
    READ_SUFFIXES,
    WRITE_SUFFIXES,
    Photo,
    load_hole,
    load_photo,
    read_hole,
    save_hole,
)

__all__ = [
    "MAX_PIXELS",
    "READ_SUFFIXES",
    "WRITE_SUFFIXES",
    "Photo",
    "load_hole",
    "load_photo",
    "read_hole",
    "save_hole",
]
