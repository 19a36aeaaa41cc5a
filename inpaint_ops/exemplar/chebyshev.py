"""Chebyshev iteration for symmetric positive definite systems."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def chebyshev(
    residual: Callable[[Tensor], Tensor],
    start: Tensor,
    bounds: tuple[float, float],
    steps: int,
) -> Tensor:
    """Return an approximate solution x of A x = b.

    Without inner products the result has the same bits for every number of threads, which
    conjugate gradients cannot promise.

    Args:
        residual: the function x to b - A x.
        start: first guess.
        bounds: least and largest eigenvalue of A. Components of the error with an eigenvalue below
            the least bound shrink slowly; those above the largest grow.
        steps: evaluations of the residual.

    Source: Saad, "Iterative Methods for Sparse Linear Systems" (2003), algorithm 12.1.
    """
    low, high = bounds
    centre, half = (high + low) / 2, (high - low) / 2
    x, direction, alpha = start, torch.zeros_like(start), 0.0
    for step in range(steps):
        beta = 0.0 if step == 0 else (half * alpha / 2) ** 2 * (2 if step == 1 else 1)
        alpha = 1 / centre if step == 0 else 1 / (centre - beta / alpha)
        direction = residual(x) + beta * direction
        x = x + alpha * direction
    return x
