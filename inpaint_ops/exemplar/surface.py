"""The least bent surface through known pixels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from inpaint_ops.backends import current_backend
from inpaint_ops.exemplar.chebyshev import chebyshev
from inpaint_ops.exemplar.levels import box_any, diffuse, halve
from inpaint_ops.ops import tensors
from inpaint_ops.ops.native import extension

# Bounds of the eigenvalues of the system. A gap of w pixels has (4.73 / (w + 1))^4 or more; the
# curvature adds at most 64, the tension at most 8 times its weight. Gaps so large that they fall
# below the least bound begin with the right values; only their bend converges slowly.
_BOUNDS = (0.05, 65.0)
_STEPS = 80
# Weight of the slope beside the curvature: keeps the surface from swinging over edges.
_TENSION = 0.1


def surface(image: Tensor, hole: Tensor) -> Tensor:
    """Return the picture with its hole on the least bent surface through the known pixels.

    A wide hole starts from the surface of the picture at half the size.

    Args:
        image: (1, C, h, w) float32; the hole may hold anything finite.
        hole: (1, 1, h, w) bool.
    """
    if min(hole.shape[2:]) < 16 or not bool((~box_any(~hole, 5, 5)).any()):
        start = diffuse(image, hole)
    else:
        small = F.pad(hole, (0, hole.shape[3] % 2, 0, hole.shape[2] % 2), value=True)
        small = ~box_any(~small, 2, 2)[..., ::2, ::2]
        coarse = surface(torch.where(small, 0.0, halve(image, ~hole)), small)
        fine = _enlarged(coarse)
        start = torch.where(hole, fine[..., : hole.shape[2], : hole.shape[3]], image)
    return bent_surface(start, hole, torch.ones_like(hole))


def _enlarged(x: Tensor) -> Tensor:
    """Return x at twice the size, bilinear.

    Results of `torch.nn.functional.interpolate` differ in their last bits between one thread and
    several.
    """
    for axis in (2, 3):
        size = x.shape[axis]
        before = torch.cat([x.narrow(axis, 0, 1), x.narrow(axis, 0, size - 1)], axis)
        after = torch.cat([x.narrow(axis, 1, size - 1), x.narrow(axis, size - 1, 1)], axis)
        both = [0.25 * side + 0.75 * x for side in (before, after)]
        x = torch.stack(both, axis + 1).flatten(axis, axis + 1)
    return x


def bent_surface(start: Tensor, free: Tensor, inside: Tensor) -> Tensor:
    """Return the least bent surface, from a guess of its free pixels.

    It minimises the sum of squared second differences, of which the mixed ones count twice, plus
    tension times the sum of squared first differences.

    Args:
        start: (1, C, h, w) float32.
        free: (1, 1, h, w) bool, pixels that move.
        inside: (1, 1, h, w) bool, pixels whose differences count; a difference counts where all its
            pixels do. Free pixels are inside.

    Source: the thin plate under tension, as in Franke, "Thin plate splines with tension" (CAGD
    1985).
    """
    native = None if current_backend() == "reference" else extension()
    if native is None:
        differences, moving = _Differences(inside.to(start.dtype)), free.to(start.dtype)
        return chebyshev(lambda u: -differences.bend(u) * moving, start, _BOUNDS, _STEPS)
    result = start.clone(memory_format=torch.contiguous_format)
    free, inside = (mask[:, 0].contiguous().view(torch.uint8) for mask in (free, inside))
    native.bent_surface(result, free, inside, _TENSION, *_BOUNDS, _STEPS, tensors.threads())
    return result


class _Differences:
    """Weights of differences (0 where one reaches into the solid hole) and their adjoint sum."""

    def __init__(self, inside: Tensor) -> None:
        self.across = inside[..., :-2] * inside[..., 1:-1] * inside[..., 2:]
        self.down = inside[..., :-2, :] * inside[..., 1:-1, :] * inside[..., 2:, :]
        right, below = inside[..., :-1] * inside[..., 1:], inside[..., :-1, :] * inside[..., 1:, :]
        self.right, self.below = _TENSION * right, _TENSION * below
        self.twist = 2 * right[..., :-1, :] * right[..., 1:, :]

    def bend(self, u: Tensor) -> Tensor:
        """Return half the gradient of the energy at u."""
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
