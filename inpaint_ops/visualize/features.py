"""Maps of a layer side by side."""

from __future__ import annotations

import math

from torch import Tensor

from inpaint_ops import checks
from inpaint_ops.visualize.sheets import Picture, enlarged, sheet

_OP = "feature_grid"


def feature_grid(
    features: Tensor,
    *,
    sample: int = 0,
    most: int = 64,
    columns: int | None = None,
    shared: bool = False,
    scale: int = 1,
) -> Picture:
    """Draw the maps of a layer in grey, row by row.

    Args:
        features: (N, C, H, W) floating; NaN and infinite values are black.
        sample: of the batch.
        most: maps that are shown, from the first on.
        columns: maps in a row; None: about as many as rows.
        shared: all maps share one range of values; otherwise each has its own. The least value is
            black, the greatest white; a constant map is black.
        scale: pixels of the picture for each value, along each axis.

    Returns:
        A PIL image with a gap of 2 pixels between maps.

    Raises:
        ImportError: Pillow is not installed; the extra is named.
        TypeError, ValueError: wrong type, shape or option.
    """
    checks.check_image(_OP, "features", features)
    if 0 in features.shape:
        raise ValueError(f"{_OP}: features must hold values, got {tuple(features.shape)}")
    checks.check_int(_OP, "sample", sample, 0, features.shape[0] - 1)
    checks.check_int(_OP, "most", most)
    checks.check_int(_OP, "scale", scale)
    checks.check_flag(_OP, "shared", shared)
    maps = features[sample, :most].detach().cpu().double()
    if columns is None:
        columns = math.ceil(math.sqrt(len(maps)))
    checks.check_int(_OP, "columns", columns)
    finite = maps.isfinite()
    # What is not finite counts in neither end of the range.
    low = maps.masked_fill(~finite, math.inf).flatten(1).amin(1)
    high = maps.masked_fill(~finite, -math.inf).flatten(1).amax(1)
    if shared:
        low, high = low.amin().expand_as(low), high.amax().expand_as(high)
    low, high = (end[:, None, None] for end in (low, high))
    spread = (high - low).clamp_min(1e-300)
    grey = ((maps - low) / spread).masked_fill(~finite | (high <= low), 0.0).clamp(0, 1)
    pictures = enlarged(grey.float()[:, None].expand(-1, 3, -1, -1), scale)
    return sheet(list(pictures), min(columns, len(pictures)))
