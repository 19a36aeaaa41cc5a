"""Measures of one result against its picture, over all pixels and over the hole alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import ModuleType

import torch
from torch import Tensor

from inpaint_ops import checks


@dataclass(frozen=True)
class Measure:
    """A column of the tables.

    Attributes:
        title: for people.
        is_better_high: whether more is better.
        digits: behind the point, on the page.
    """

    title: str
    is_better_high: bool
    digits: int


# In the order of the columns.
MEASURES = {
    "l1": Measure("L1", False, 4),
    "l1_hole": Measure("L1, hole", False, 4),
    "psnr": Measure("PSNR (dB)", True, 2),
    "psnr_hole": Measure("PSNR, hole (dB)", True, 2),
    "ssim": Measure("SSIM", True, 4),
    "ssim_hole": Measure("SSIM, hole", True, 4),
    "ms_ssim": Measure("MS-SSIM", True, 4),
}
# An exact picture has 100 dB, so that means stay finite.
_LEAST_SQUARE = 1e-10
# Pixels a side: the window of 11 is mirrored at the edges, and MS-SSIM halves the picture four
# times.
_LEAST_SSIM, _LEAST_MS_SSIM = 6, 176


def torchmetrics() -> ModuleType:
    """Return `torchmetrics.functional.image`.

    Raises:
        ImportError: it is not installed; the extra is named.
    """
    try:
        import torchmetrics.functional.image as image
    except ImportError as exc:
        raise ImportError(
            f"{exc.name} is not installed: pip install 'inpaint-ops[evaluate]'", name=exc.name
        ) from exc
    return image


def compare(result: Tensor, truth: Tensor, hole: Tensor) -> tuple[dict[str, float | None], str]:
    """Measure a result.

    L1 is the mean absolute difference; PSNR is -10 log10 of the mean square, at most 100 dB. "hole"
    means over the missing pixels of all three channels; of SSIM, the mean of its map there. SSIM
    has Gaussian windows of 11 pixels and deviation 1.5, MS-SSIM five scales; there is none of the
    hole alone, since its scales shrink the picture.

    Args:
        result: (1, 3, H, W) float32 in [0, 1].
        truth: like result.
        hole: (1, 1, H, W) bool, True = missing.

    Returns:
        A value for each of `MEASURES`; None where there is none, and then a text that says why, ""
        otherwise.

    Raises:
        ImportError: torchmetrics is not installed.
        TypeError, ValueError: wrong types or shapes.

    Source: Wang et al., 2004 (SSIM) and 2003 (MS-SSIM).
    """
    checks.check_image("compare", "truth", truth)
    if result.shape != truth.shape:
        raise ValueError(
            f"compare: result must have the shape of truth, {tuple(truth.shape)}, got "
            f"{tuple(result.shape)}"
        )
    if hole.dtype != torch.bool or hole.shape != (1, 1, *truth.shape[2:]):
        raise ValueError(
            f"compare: hole must be bool of shape {(1, 1, *truth.shape[2:])}, got {hole.dtype} of "
            f"{tuple(hole.shape)}"
        )
    errors = result.double() - truth.double()
    missing = errors.masked_select(hole)
    values: dict[str, float | None] = dict.fromkeys(MEASURES)
    values["l1"], values["psnr"] = float(errors.abs().mean()), _psnr(errors)
    notes = []
    if len(missing):
        values["l1_hole"], values["psnr_hole"] = float(missing.abs().mean()), _psnr(missing)
    else:
        notes.append("nothing is missing")
    image, side = torchmetrics(), min(truth.shape[2:])
    if side >= _LEAST_SSIM:
        mean, similarity = image.structural_similarity_index_measure(
            result, truth, data_range=1.0, return_full_image=True
        )
        values["ssim"] = float(mean)
        if len(missing):
            values["ssim_hole"] = float(similarity.masked_select(hole).mean())
    else:
        notes.append(f"SSIM needs {_LEAST_SSIM} pixels a side, here are {side}")
    if side >= _LEAST_MS_SSIM:
        values["ms_ssim"] = float(
            image.multiscale_structural_similarity_index_measure(result, truth, data_range=1.0)
        )
    else:
        notes.append(f"MS-SSIM needs {_LEAST_MS_SSIM} pixels a side, here are {side}")
    return values, "; ".join(notes)


def _psnr(errors: Tensor) -> float:
    return -10 * math.log10(max(float(errors.square().mean()), _LEAST_SQUARE))
