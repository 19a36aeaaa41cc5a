"""Total variation, over the whole image or near the hole."""

import torch.nn.functional as F
from torch import Tensor

from inpaint_ops import checks
from inpaint_ops.losses import _checks

_RULES = ("dilated", "hole", "masked", "whole")
_REDUCTIONS = ("mean", "sum")


def total_variation(
    image: Tensor,
    hole: Tensor | None = None,
    *,
    rule: str = "dilated",
    power: int = 1,
    reduction: str = "mean",
) -> Tensor:
    """Sum of |x[i, j + 1] - x[i, j]|^power and |x[i + 1, j] - x[i, j]|^power over pairs of pixels.

    Args:
        image: (N, C, H, W), floating; for the hole rules the composited one.
        hole: (N or 1, 1, H, W), 1 = missing; bool, uint8 or float. None: rule "whole".
        rule: which pairs count, and what the mean divides by.
            "dilated": both pixels in the hole grown by one pixel; all elements of the image (PConv
            as published);
            "hole": the first pixel in the hole; in each direction the number of such pairs
            (mmagic);
            "masked": all pairs of the image set to zero outside the grown hole, whose border so
            counts as an edge; in each direction all pairs (PConv-Keras);
            "whole": all pairs; in each direction their number (naoto0804).
        power: 1, or 2 for the squared variation of MSNPS.
        reduction: "mean", or "sum" over pairs and samples, divided by nothing.

    Returns:
        A scalar.

    Raises:
        TypeError, ValueError: wrong type, shape or choice.

    Source: Liu et al., ECCV 2018 (arXiv 1804.07723), section 3.3, and the implementations named;
    Yang et al., CVPR 2017 (arXiv 1611.09969).
    """
    name = "total_variation"
    x = _checks.image(name, "image", image)
    checks.check_choice(name, "rule", rule, _RULES)
    checks.check_choice(name, "reduction", reduction, _REDUCTIONS)
    if power not in (1, 2):
        raise ValueError(f"{name}: power must be 1 or 2, got {power}")
    region = None
    if hole is None:
        rule = "whole"
    elif rule != "whole":
        size = (x.shape[2], x.shape[3])
        checks.check_mask(name, "hole", hole, x.shape[0], size, x.device)
        region = hole.to(x.dtype)
    if region is not None and rule != "hole":
        region = F.max_pool2d(region, 3, 1, 1)
    if region is not None and rule == "masked":
        x, region = _checks.selected(x, region), None
    total = x.new_zeros(())
    for axis in (2, 3):
        count = x.shape[axis] - 1
        later, earlier = x.narrow(axis, 1, count), x.narrow(axis, 0, count)
        step = later - earlier
        pairs: Tensor | int = max(1, step.numel())
        if region is not None:
            weight = region.narrow(axis, 0, count)
            if rule == "dilated":
                weight, pairs = weight * region.narrow(axis, 1, count), max(1, x.numel())
            weight = weight.expand_as(step)
            step = _checks.selected(step, weight)
            if rule == "hole":
                pairs = weight.sum().clamp(min=1)
        step = step.abs() if power == 1 else step.square()
        total = total + step.sum() / (pairs if reduction == "mean" else 1)
    return total
