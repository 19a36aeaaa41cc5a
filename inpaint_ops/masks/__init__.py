"""Holes: (1, 1, height, width) bool tensors, True = missing, drawn or read from a file.

`boxes` and `strokes` draw them: the same seed and arguments give the same hole. `kinds` has the
names that users choose one by. `arguments` checks what is given. `canvas` is the sheet that strokes
are painted on. `reading` decides which pixels of a mask file are missing; `inpaint_ops.images`
opens the file.
"""

from inpaint_ops.masks.boxes import center_hole, random_box_hole
from inpaint_ops.masks.kinds import HOLE_KINDS, draw_hole
from inpaint_ops.masks.strokes import HOLE_RATIO_BINS, free_form_hole, irregular_hole

__all__ = [
    "HOLE_KINDS",
    "HOLE_RATIO_BINS",
    "center_hole",
    "draw_hole",
    "free_form_hole",
    "irregular_hole",
    "random_box_hole",
]
