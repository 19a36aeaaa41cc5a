"""Multi-scale neural patch synthesis: pixels of a prediction are optimised, coarse to fine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from inpaint_ops.features import FeatureNetwork
from inpaint_ops.models.blocks.pictures import composite, hole_box, resized, resized_hole
from inpaint_ops.models.msnps.texture_energies import (
    NoKnownPatch,
    PaperEnergy,
    ReleasedEnergy,
    Settings,
    overwritten,
)
from inpaint_ops.progress import Part, tell

Energy = Callable[[Tensor], dict[str, Tensor]]
# Steps that L-BFGS remembers, and evaluations allowed per iteration, as in the released code.
_HISTORY = 25
_EVALUATIONS = 1.25
# Pixels around the hole that the released code overwrites too, in a picture of 512 pixels.
_MARGIN = 28


@dataclass
class Trace:
    """Terms of the energy at every evaluation, a list for each scale, coarse to fine."""

    scales: list[list[dict[str, float]]] = field(default_factory=list)


def region(hole: Tensor) -> tuple[slice, slice]:
    """Return the rows and columns of the region around the hole of a (1, H, W) mask.

    Its side is twice the hole's longer side, at least 128; it is moved and cut to lie inside the
    picture.
    """
    box = hole_box(hole)
    if box is None:
        raise ValueError("msnps: hole must have a missing pixel")
    side = max(128, 2 * max(box[2] - box[0], box[3] - box[1]))
    spans = []
    for axis, size in enumerate(hole.shape[1:]):
        start = (box[axis] + box[axis + 2] - side) // 2
        start = max(0, min(start, size - side))
        spans.append(slice(start, min(start + side, size)))
    return spans[0], spans[1]


def synthesise(
    features: FeatureNetwork,
    image: Tensor,
    hole: Tensor,
    settings: Settings,
    trace: Trace | None = None,
    *,
    unknown: Tensor | None = None,
) -> Tensor:
    """Optimise the missing pixels of one picture.

    The picture is resized so that its longer side has at most `settings.size` pixels and both sides
    are multiples of 8 on the coarsest scale; each scale has twice the pixels of the one before, and
    the coarsest at least 32.

    Args:
        features: network with the layers of the energy.
        image: (1, 3, H, W) in [0, 1], the prediction in its hole.
        hole: (1, 1, H, W), 1 = missing.
        settings: of the synthesis.
        trace: gets the energies.
        unknown: (1, 1, H, W), 1 = no texture is taken from there; None: the hole.

    Returns:
        (1, 3, H, W) in [0, 1]; pixels that are not missing may differ from the image's.

    Raises:
        NoKnownPatch: no scale has a patch of known features.
    """
    closed = hole if unknown is None else unknown
    height, width = image.shape[2:]
    shrunk = min(1.0, settings.size / max(height, width))
    levels = settings.levels
    while levels > 1 and min(height, width) * shrunk < 32 << (levels - 1):
        levels -= 1
    unit = 8 << (levels - 1)
    rows, columns = (max(unit, 32, round(side * shrunk / unit) * unit) for side in (height, width))
    full = (rows, columns)
    x, optimised = image, False
    style = image
    if settings.energy == "released":
        large, missing = resized(image, full), resized_hole(closed, full)
        style = overwritten(large, missing, round(_MARGIN * max(full) / 512))
    # A scale has four times the pixels of the one before.
    work = [4**number for number in range(levels)]
    for number, level in enumerate(reversed(range(levels))):
        size = (full[0] >> level, full[1] >> level)
        content, missing = resized(image, size), resized_hole(hole, size)
        start = content if not optimised else resized(x, size)
        part = Part(sum(work[:number]) / sum(work), sum(work[: number + 1]) / sum(work))
        try:
            if settings.energy == "paper":
                start = composite(content, start, missing)
                without = resized_hole(closed, size)
                energy: Energy = PaperEnergy(features, missing, start, settings, unknown=without)
                with part:
                    x = descend(energy, start, missing, settings.iterations, trace, search=True)
            else:
                energy = ReleasedEnergy(features, content, resized(style, size))
                free, scale = torch.ones_like(missing), ReleasedEnergy.scale
                with part:
                    x = descend(energy, start, free, settings.iterations, trace, scale=scale)
        except NoKnownPatch:
            x = start
            continue
        optimised = True
    if not optimised:
        raise NoKnownPatch("msnps: hole must leave a known patch of features, it leaves none")
    return resized(x, (height, width)).clamp(0, 1)


def descend(
    energy: Energy,
    start: Tensor,
    free: Tensor,
    iterations: int,
    trace: Trace | None = None,
    *,
    search: bool = False,
    scale: float = 1.0,
) -> Tensor:
    """Minimise an energy over the free pixels of a picture by L-BFGS.

    Args:
        energy: terms to be summed, of a picture.
        start: (1, 3, H, W).
        free: (1, 1, H, W), 1 = may change.
        iterations: at most.
        trace: gets the terms of every evaluation.
        search: find step lengths by the strong Wolfe conditions, which never raise the energy; else
            all are 1 (the first: 1 / |gradient|_1 at most), as in the released code.
        scale: the variables are pixels times this.

    Returns:
        (1, 3, H, W) in [0, 1]; `start` if the result is not finite.
    """
    most = int(_EVALUATIONS * iterations)
    variable = (start * scale).detach().clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [variable],
        max_iter=iterations,
        max_eval=most,
        history_size=_HISTORY,
        tolerance_grad=0.0,
        tolerance_change=0.0,
        line_search_fn="strong_wolfe" if search else None,
    )
    record: list[dict[str, float]] = []

    def evaluate() -> Tensor:
        optimizer.zero_grad()
        terms = energy(torch.where(free > 0, variable / scale, start))
        total = torch.stack(list(terms.values())).sum()
        total.backward()
        values = {name: float(value.detach()) for name, value in terms.items()}
        record.append({**values, "total": float(total.detach())})
        tell(min(1.0, len(record) / most))
        return total

    with torch.enable_grad():
        optimizer.step(evaluate)
    if trace is not None:
        trace.scales.append(record)
    result = torch.where(free > 0, variable.detach() / scale, start)
    return result.clamp(0, 1) if bool(torch.isfinite(result).all()) else start
