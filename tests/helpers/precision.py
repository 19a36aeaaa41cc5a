"""Dtypes and contexts that tests of precision share."""

from contextlib import nullcontext

import torch

HALVES = (torch.float16, torch.bfloat16)


def word(dtype):
    return str(dtype).removeprefix("torch.")


def autocast(dtype):
    """Autocast on the CPU to a dtype; None: nothing."""
    return nullcontext() if dtype is None else torch.autocast("cpu", dtype)


def gap(got, expected):
    """The norm of the difference by that of the expected values."""
    got, expected = got.double(), expected.double()
    return float((got - expected).norm() / expected.norm().clamp_min(1e-12))
