"""The photo filler against OpenCV, scikit-image and PatchMatch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from inpaint_ops.benchmarks.harness.case import Case, Missing, Problem, Unavailable
from inpaint_ops.masks import irregular_hole, random_box_hole

Pixels = npt.NDArray[np.uint8]

_HINT = "pip install 'inpaint-ops[fillers]'"
# Its sparse solve grows much faster than the picture.
_BIHARMONIC_PIXELS = 512 * 512
# Radius 3 is what its own examples use; the default of 15 is many times slower.
_PATCHMATCH_RADIUS = 3
# Radius in pixels, the value of OpenCV's tutorial.
_OPENCV_RADIUS = 3


def _case(photo: str, side: int, kind: str, seed: int, **rest: Any) -> Case:
    sizes = {"photo": photo, "side": side, "hole": kind, "seed": seed}
    case_id = f"{Path(photo).stem}-{side}-{kind}"
    return Case("exemplar", case_id, sizes, compile=False, **rest)


CASES = (
    _case("astronaut.png", 128, "box", 1, quick=True, memory=False),
    _case("astronaut.png", 256, "irregular", 2),
    _case("chelsea.png", 256, "box", 3),
    _case("coffee.png", 256, "irregular", 4),
    _case("rocket.jpg", 256, "box", 5),
    _case("brick.png", 256, "box", 6),
    _case("grass.png", 256, "irregular", 7),
    _case("gravel.png", 256, "box", 8),
    _case("coffee.png", 512, "box", 9),
    _case("gravel.png", 512, "irregular", 10),
)


def setup(case: Case) -> Problem:
    """Return the problem: a photo of scikit-image with a seeded hole of 5 to 15 %."""
    original = _photo(case.sizes["photo"], case.sizes["side"])
    height, width = original.shape[:2]
    draw = irregular_hole if case.sizes["hole"] == "irregular" else random_box_hole
    hole = draw(height, width, seed=case.sizes["seed"], ratio=(0.05, 0.15), border=8)
    missing = hole[0, 0].numpy()
    damaged = original.copy()
    # Magenta: nothing in the photos has it, so a filler that reads the hole shows.
    damaged[missing] = (255, 0, 255)

    def check(outcome: Any) -> str | None:
        filled = _pixels(outcome)
        if filled.shape != original.shape:
            return f"picture has shape {filled.shape}, expected {original.shape}"
        if isinstance(outcome, Tensor) and not bool(torch.isfinite(outcome).all()):
            return "picture is not finite"
        changed = int((filled[~missing] != original[~missing]).any(1).sum())
        return f"{changed} known pixels changed" if changed else None

    return Problem(
        inputs=(damaged, missing),
        implementations=_fillers(height * width),
        check=check,
        quality=lambda outcome: _quality(_pixels(outcome), original, missing),
        picture=_pixels,
        shown={"input": damaged, "original": original},
    )


def _photo(name: str, side: int) -> Pixels:
    """Return a photo in RGB, its longer side scaled to `side`."""
    try:
        import skimage
        from PIL import Image
    except ImportError as error:
        raise Unavailable(f"{error.name} is not installed: {_HINT}") from error
    path = Path(skimage.__file__).parent / "data" / name
    if not path.exists():
        raise Unavailable(f"this scikit-image does not bring {name}")
    with Image.open(path) as stored:
        photo = stored.convert("RGB")
    scale = side / max(photo.size)
    size = (round(photo.width * scale), round(photo.height * scale))
    return np.array(photo.resize(size, Image.Resampling.LANCZOS))


def _pixels(outcome: Any) -> Pixels:
    """Return the result of a filler as (H, W, 3) uint8."""
    if isinstance(outcome, Tensor):
        outcome = outcome[0].permute(1, 2, 0).numpy()
    if outcome.dtype == np.uint8:
        pixels: Pixels = outcome
        return pixels
    rounded: Pixels = np.rint(np.clip(outcome, 0, 1) * 255).astype(np.uint8)
    return rounded


def _quality(filled: Pixels, original: Pixels, missing: npt.NDArray[np.bool_]) -> dict[str, float]:
    """Return PSNR and SSIM inside the hole. A plausible filling may still score low."""
    from skimage.metrics import structural_similarity

    errors = (filled[missing].astype(np.float64) - original[missing]) / 255
    mean_square = max(float((errors**2).mean()), 1e-10)
    _, similarity = structural_similarity(filled, original, channel_axis=2, full=True)
    return {
        "psnr_db": -10 * float(np.log10(mean_square)),
        "ssim": float(similarity[missing].mean()),
    }


def _fillers(pixels: int) -> dict[str, Callable[..., Any] | Missing]:
    small = pixels <= _BIHARMONIC_PIXELS
    too_large = Missing(f"left out above {_BIHARMONIC_PIXELS} pixels: takes too long")
    return {
        "ours": _ours(),
        "OpenCV Telea": _opencv("INPAINT_TELEA"),
        "OpenCV Navier-Stokes": _opencv("INPAINT_NS"),
        "PatchMatch": _patchmatch(),
        "biharmonic": _biharmonic() if small else too_large,
    }


def _ours() -> Callable[..., Any] | Missing:
    try:
        from inpaint_ops.exemplar import fill_exemplar
    except ImportError as error:
        return Missing(str(error))

    def fill(damaged: Pixels, missing: npt.NDArray[np.bool_]) -> Tensor:
        image = torch.from_numpy(damaged).permute(2, 0, 1)[None].float() / 255
        filled: Tensor = fill_exemplar(image, torch.from_numpy(missing)[None, None], seed=0)
        return filled

    return fill


def _opencv(method: str) -> Callable[..., Any] | Missing:
    try:
        import cv2
    except ImportError:
        return Missing(f"OpenCV is not installed: {_HINT}")
    flag = getattr(cv2, method)

    def fill(damaged: Pixels, missing: npt.NDArray[np.bool_]) -> Pixels:
        cv2.setNumThreads(torch.get_num_threads())
        return _pixels(cv2.inpaint(damaged, missing.astype(np.uint8), _OPENCV_RADIUS, flag))

    return fill


def _patchmatch() -> Callable[..., Any] | Missing:
    try:
        import patchmatch
    except ImportError:
        return Missing(f"PyPatchMatch is not installed: {_HINT}")
    if not patchmatch.patchmatch_available:
        return Missing("PyPatchMatch was built without its library")

    def fill(damaged: Pixels, missing: npt.NDArray[np.bool_]) -> Pixels:
        patchmatch.set_random_seed(0)
        filled: Pixels = patchmatch.inpaint(damaged, missing, patch_size=_PATCHMATCH_RADIUS)
        return filled

    return fill


def _biharmonic() -> Callable[..., Any] | Missing:
    try:
        from skimage.restoration import inpaint_biharmonic
    except ImportError:
        return Missing(f"scikit-image is not installed: {_HINT}")

    def fill(damaged: Pixels, missing: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
        filled: npt.NDArray[np.float64] = inpaint_biharmonic(damaged, missing, channel_axis=-1)
        return filled

    return fill
