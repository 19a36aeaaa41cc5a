"""Canny edges of pictures with holes, by scikit-image."""

from __future__ import annotations

import torch
from torch import Tensor

_GREY = (0.2125, 0.7154, 0.0721)  # scikit-image's rgb2gray


def grey(image: Tensor) -> Tensor:
    """Return the brightness, (N, 1, H, W), of (N, 3, H, W) RGB."""
    return (image * image.new_tensor(_GREY).view(1, 3, 1, 1)).sum(1, keepdim=True)


def canny(op: str, image: Tensor, hole: Tensor | None, sigma: float) -> Tensor:
    """Return Canny edges of grey pictures by scikit-image, with its default thresholds 0.1 and 0.2.

    Args:
        op: of the message.
        image: (N, 1, H, W) in [0, 1].
        hole: (N, 1, H, W), 1 = missing: no edge is found in the hole or along it; None: no hole.
        sigma: of the smoothing, pixels.

    Returns:
        (N, 1, H, W), 1 on edges, dtype and device of image.

    Raises:
        ImportError: scikit-image is not installed.
    """
    try:
        from skimage.feature import canny as find
    except ImportError as exc:
        raise ImportError(
            f"{op}: scikit-image finds the edges and is not installed: "
            "pip install 'inpaint-ops[edges]', or give lines of your own"
        ) from exc
    # Copied, because a NumPy array over a tensor's memory makes its storage unresizable for ever.
    pictures = image.detach()[:, 0].to("cpu", torch.float64, copy=True).numpy()
    known = [None] * len(pictures) if hole is None else (hole[:, 0] == 0).cpu().numpy()
    found = [find(p, sigma=sigma, mask=k) for p, k in zip(pictures, known)]
    if not found:
        return image.clone()
    return torch.stack([torch.from_numpy(f) for f in found])[:, None].to(image)
