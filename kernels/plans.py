"""Plans: what options, shapes and settings decide of a call, made once."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from inpaint_ops.kernels import tables, tuning
from inpaint_ops.kernels.launch import HALF


def tf32_convolutions() -> bool:
    """True where torch may round the factors of float32 convolutions to TF32; so by default."""
    return bool(torch.backends.cudnn.conv.fp32_precision == "tf32")  # type: ignore[attr-defined]


def tf32_products() -> bool:
    """The same for matrix products, off until ``torch.set_float32_matmul_precision("high")``."""
    return bool(torch.backends.cuda.matmul.fp32_precision == "tf32")


_ALL: list[Plans] = []


class Plans:
    """What options and shapes decide, made once and found by one lookup."""

    _MOST = 4096

    def __init__(self, make: Callable[..., Any]) -> None:
        self._make = make
        self._made: dict[Any, Any] = {}
        _ALL.append(self)

    def forget(self) -> None:
        """Make all plans anew."""
        self._made.clear()

    def of(self, x: Tensor, *options: Any) -> Any:
        """The plan for tensors of x's dtype, shape and device; made as ``make(x, *options)``."""
        key = (x.shape, x.dtype, x.device, options, _circumstances(x.dtype))
        plan = self._made.get(key)
        if plan is None:
            if len(self._made) >= self._MOST:
                self._made.clear()
            plan = self._make(x, *options)
            if not tuning.postponed(x.device):
                self._made[key] = plan
        return plan


def forget() -> None:
    """Make all plans anew, and read the tables of measured choices anew for them."""
    tables.forget()
    for one in _ALL:
        one.forget()


def _circumstances(dtype: torch.dtype) -> tuple[Any, ...]:
    """Settings that plans follow."""
    forced = os.environ.get("INPAINT_OPS_CONV"), os.environ.get("INPAINT_OPS_TUNED")
    return forced if dtype in HALF else (*forced, tf32_convolutions(), tf32_products())
