"""Holes: `holes` draws them, `canvas` holds strokes, `reading` tells what a mask file means."""

from inpaint_ops.masks.holes import (
    HOLE_RATIO_BINS,
    center_hole,
    free_form_hole,
    irregular_hole,
    random_box_hole,
)

__all__ = ["HOLE_RATIO_BINS", "center_hole", "free_form_hole", "irregular_hole", "random_box_hole"]
