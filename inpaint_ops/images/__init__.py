"""Pictures as files: integer pixels in, integer pixels out, known pixels bit for bit.

In the order a picture passes: `decoding` makes upright pixels of a file, `metadata` reads what is
kept beside them, `photo` holds both, fills the hole and writes the result, `formats` knows what
each file format can hold. `holes` reads and writes the files that mark what is missing, `lines`
reads sketches and edges.
"""

from inpaint_ops.images.formats import READ_SUFFIXES, WRITE_SUFFIXES
from inpaint_ops.images.holes import load_hole, read_hole, save_hole
from inpaint_ops.images.lines import load_lines
from inpaint_ops.images.photo import MAX_PIXELS, Photo, load_photo, read_photo

__all__ = [
    "MAX_PIXELS",
    "READ_SUFFIXES",
    "WRITE_SUFFIXES",
    "Photo",
    "load_hole",
    "load_lines",
    "load_photo",
    "read_hole",
    "read_photo",
    "save_hole",
]
