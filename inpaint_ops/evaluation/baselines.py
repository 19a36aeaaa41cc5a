"""Fillers of other libraries that need no training, to compare models with."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from inpaint_ops import checks

if TYPE_CHECKING:
    from inpaint_ops.evaluation.running import Fill

_HINT = "pip install 'inpaint-ops[fillers]'"
# In pixels, the value of OpenCV's tutorial.
_OPENCV_RADIUS = 3


def baseline(name: str) -> Fill:
    """Return a filler for `evaluate`.

    Args:
        name: one of `BASELINES`: "telea" or "navier-stokes" of OpenCV, "biharmonic" of
            scikit-image, whose time grows much faster than the hole.

    Raises:
        ImportError: the library is not installed; the extra is named.
        ValueError: unknown name.
    """
    checks.check_choice("baseline", "name", name, tuple(BASELINES))
    return BASELINES[name]()


def _opencv(method: str) -> Fill:
    try:
        import cv2
    except ImportError as exc:
        raise ImportError(f"OpenCV is not installed: {_HINT}", name=exc.name) from exc
    flag = getattr(cv2, method)

    def fill(pixels: Any, missing: Any) -> Any:
        cv2.setNumThreads(torch.get_num_threads())
        return cv2.inpaint(pixels, missing.astype(np.uint8), _OPENCV_RADIUS, flag)

    return _of_pixels(fill)


def _biharmonic() -> Fill:
    try:
        from skimage.restoration import inpaint_biharmonic
    except ImportError as exc:
        raise ImportError(f"scikit-image is not installed: {_HINT}", name=exc.name) from exc

    def fill(pixels: Any, missing: Any) -> Any:
        filled = inpaint_biharmonic(pixels, missing, channel_axis=-1)
        return np.rint(np.clip(filled, 0, 1) * 255).astype(np.uint8)

    return _of_pixels(fill)


def _of_pixels(fill: Callable[[Any, Any], Any]) -> Fill:
    """Return a filler of tensors, of one that takes and returns (H, W, 3) uint8."""

    def tensors(image: Tensor, hole: Tensor, *, seed: int = 0) -> Tensor:
        pixels = (image[0].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
        filled = fill(np.ascontiguousarray(pixels), hole[0, 0].numpy())
        return torch.from_numpy(filled).permute(2, 0, 1)[None].float() / 255

    return tensors


# Name to a function that imports the library and returns the filler.
BASELINES: dict[str, Callable[[], Fill]] = {
    "telea": lambda: _opencv("INPAINT_TELEA"),
    "navier-stokes": lambda: _opencv("INPAINT_NS"),
    "biharmonic": _biharmonic,
}
