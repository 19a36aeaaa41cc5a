"""Pictures of what operators and networks do, as PIL images.

`holes` shows a hole on its picture. `matches` shows where attention, shift connection and
`nearest_patch` took each cell from. `features` lays the maps of a layer side by side, `masks` what
partial convolutions make of a mask, layer by layer. `sheets` has what they share.

Imported on demand: ``from inpaint_ops import visualize``. Pillow, of the extra "image", is needed
when a picture is made.
"""

from inpaint_ops.visualize.features import feature_grid
from inpaint_ops.visualize.holes import hole_overlay
from inpaint_ops.visualize.masks import mask_updates, updated_masks
from inpaint_ops.visualize.matches import match_arrows, match_map

__all__ = [
    "feature_grid",
    "hole_overlay",
    "mask_updates",
    "match_arrows",
    "match_map",
    "updated_masks",
]
