"""Scattered hole pixels: what of a hole counts as scattered, and a smooth surface through the rest.

Dead pixels, dead rows and salt and pepper leave hardly a patch whole. The filler copies whole known
patches, so these pixels are estimated first, and the estimates then count as known.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from inpaint_ops._chebyshev import chebyshev
from inpaint_ops._exemplar_levels import _touching, diffuse

# A square of missing pixels of this side or more is a hole to be filled with copies.
_SOLID, _LARGEST = 5, 15
# Eigenvalues of the system: a gap of w pixels has (4.73 / (w + 1))^4 and more, the curvature at
# most 64, the tension 8 times its weight. Below the least bound, in wide gaps, the first guess has
# the values right and only their bend comes slowly.
_BOUNDS = (0.05, 65.0)
_STEPS = 80
# Weight of the slope beside the curvature: keeps the surface from swinging over edges.
_TENSION = 0.1


def split(hole: Tensor, patch_size: int) -> tuple[Tensor, Tensor]:
    """The scattered pixels of a hole and the rest of it.

    Nothing is scattered while most patches that the solid parts leave whole are whole.

    Args:
        hole: (1, 1, h, w) bool.
        patch_size: side of a patch, pixels; a smaller picture counts as one patch.
    """
    patch_size = min(patch_size, *hole.shape[2:])
    side = _SOLID
    solid = _opened(hole, side)
    if 2 * _whole(hole, patch_size) >= _whole(solid, patch_size):
        return torch.zeros_like(hole), hole
    # Dense scatter has full squares by chance.
    enough = _whole(_opened(hole, _LARGEST), patch_size) / 2
    while side < _LARGEST and _whole(solid, patch_size) < enough:
        side += 2
        solid = _opened(hole, side)
    return hole & ~solid, solid


def _whole(hole: Tensor, patch_size: int) -> int:
    return int((~_touching(hole, patch_size)).sum())


def _opened(hole: Tensor, side: int) -> Tensor:
    """Hole pixels in or beside a square of hole pixels."""
    height, width = hole.shape[2:]
    tall, wide = min(side, height), min(side, width)
    full = -F.max_pool2d(-hole.float(), (tall, wide), stride=1)
    grown = F.max_pool2d(F.pad(full, (wide, wide, tall, tall)), (tall + 2, wide + 2), stride=1)
    return hole & (grown > 0)


def interpolate(
    image: Tensor,
    scattered: Tensor,
    solid: Tensor,
    after_step: Callable[[float], None] = lambda share: None,
) -> Tensor:
    """Picture with its scattered pixels on the least bent surface through the known ones.

    Minimises the sum of squared second differences plus tension times that of the first ones;
    differences that reach into the solid hole do not count.

    Args:
        image: (1, C, h, w) float32.
        scattered: (1, 1, h, w) bool, the pixels to estimate.
        solid: (1, 1, h, w) bool, pixels that are neither known nor estimated.
        after_step: called with the done share.

    Source: the thin plate under tension, as in Franke, "Thin plate splines with tension" (CAGD
    1985).
    """
    differences = _Differences((~solid).to(image.dtype))
    free = scattered.to(image.dtype)
    surface = chebyshev(
        lambda u: -differences.bend(u) * free,
        diffuse(image, scattered | solid, scattered),
        _BOUNDS,
        _STEPS,
        after_step,
    )
    return torch.where(scattered, surface.clamp(0, 1), image)


class _Differences:
    """Which differences lie in the picture and outside the solid hole, and their adjoint sum."""

    def __init__(self, inside: Tensor) -> None:
        self.across = inside[..., :-2] * inside[..., 1:-1] * inside[..., 2:]
        self.down = inside[..., :-2, :] * inside[..., 1:-1, :] * inside[..., 2:, :]
        right, below = inside[..., :-1] * inside[..., 1:], inside[..., :-1, :] * inside[..., 1:, :]
        self.right, self.below = _TENSION * right, _TENSION * below
        self.twist = 2 * right[..., :-1, :] * right[..., 1:, :]

    def bend(self, u: Tensor) -> Tensor:
        """Half the gradient of the energy at u."""
        g = torch.zeros_like(u)
        d = (u[..., :-2] - 2 * u[..., 1:-1] + u[..., 2:]) * self.across
        g[..., :-2] += d
        g[..., 1:-1] -= 2 * d
        g[..., 2:] += d
        d = (u[..., :-2, :] - 2 * u[..., 1:-1, :] + u[..., 2:, :]) * self.down
        g[..., :-2, :] += d
        g[..., 1:-1, :] -= 2 * d
        g[..., 2:, :] += d
        step = u[..., 1:] - u[..., :-1]
        d = (step[..., 1:, :] - step[..., :-1, :]) * self.twist
        g[..., 1:, 1:] += d
        g[..., 1:, :-1] -= d
        g[..., :-1, 1:] -= d
        g[..., :-1, :-1] += d
        d = step * self.right
        g[..., 1:] += d
        g[..., :-1] -= d
        d = (u[..., 1:, :] - u[..., :-1, :]) * self.below
        g[..., 1:, :] += d
        g[..., :-1, :] -= d
        return g
