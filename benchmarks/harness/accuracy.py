"""Errors against float64, in multiples of the errors of the public formula in float32."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# Ours may err `LIMIT` times as much as eager float32 on any layer, and aims at `AIM`.
LIMIT, AIM = 8.0, 3.0
# Eager may hit a result exactly by chance. So its error counts as at least this fraction of the
# values, one unit in the last place.
_LEAST = 2.0**-23


@dataclass(frozen=True)
class Error:
    """Distance of one tensor from float64, by maximum and by root mean square.

    Args:
        maximum, rms: of the differences.
        scale, rms_scale: the same of the exact values.
    """

    maximum: float
    rms: float
    scale: float
    rms_scale: float

    @classmethod
    def of(cls, got: Tensor, exact: Tensor) -> Error:
        """Compare a result with its exact value, in float64."""
        off = got.detach().double() - exact
        return cls(*_norms(off), *_norms(exact))

    def times(self, eager: Error) -> tuple[float, float]:
        """Return the quotients of this error and eager's, by maximum and by root mean square."""
        return (
            _quotient(self.maximum, max(eager.maximum, _LEAST * eager.scale)),
            _quotient(self.rms, max(eager.rms, _LEAST * eager.rms_scale)),
        )


def _norms(t: Tensor) -> tuple[float, float]:
    if t.numel() == 0:
        return 0.0, 0.0
    largest = torch.linalg.vector_norm(t, torch.inf).item()
    return largest, torch.linalg.vector_norm(t).item() / t.numel() ** 0.5


def _quotient(a: float, b: float) -> float:
    if b > 0:
        return a / b
    return 0.0 if a == 0 else float("inf")
