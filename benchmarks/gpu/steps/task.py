"""Types of a step, and the table of the steps."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

import inpaint_ops

Outcome = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """What every step needs to know.

    Args:
        device: "cuda", or "cpu" for a rehearsal in Triton's interpreter.
        folder: of the results.
        seconds: of timing for each contestant of a case.
    """

    device: torch.device
    folder: Path
    seconds: float = 0.02

    @property
    def small(self) -> bool:
        """Whether this is a rehearsal: a few tiny cases of each kind."""
        return self.device.type == "cpu"


@dataclass(frozen=True)
class Task:
    """One case of a step: its name, unique in the step, and what gives its outcome.

    An outcome has "status": "ok" or "wrong", then "detail"; everything else is for the report.
    """

    id: str
    run: Callable[[], Outcome]


@dataclass(frozen=True)
class Step:
    """A step of the check.

    Args:
        name: of the module.
        code: bit of the exit status that says that something failed here.
        seconds: after which the next step begins.
        limit: seconds after which one case counts as hung.
        shares: processes that share the cases, where nothing is timed.
    """

    name: str
    code: int
    seconds: float
    limit: float
    shares: int = 1

    def file(self, share: int) -> str:
        """Name of the file of results of one process."""
        return f"{self.name}-{share}"

    def tasks(self, settings: Settings) -> list[Task]:
        """Return the cases in the order of their worth: time may run out."""
        module: Any = import_module(f"inpaint_ops.benchmarks.gpu.steps.{self.name}")
        return list(module.tasks(settings))


# 1 and 2 are Python's: an uncaught exception, wrong usage. The seconds sum up to 9 minutes.
STEPS = (
    Step("right", 4, 90, 45, shares=6),
    Step("warm", 8, 40, 40, shares=8),
    Step("tuning", 8, 70, 40),
    Step("layers", 16, 120, 40),
    Step("matching", 32, 60, 30),
    Step("networks", 64, 100, 45),
    Step("compiled", 128, 60, 60),
)

HALF = {"fp16": torch.float16, "bf16": torch.bfloat16}
# "tf32" is float32 whose factors may be rounded, as torch's convolutions do by default.
DTYPES = {"fp32": torch.float32, "tf32": torch.float32, **HALF}


@contextmanager
def precision(name: str) -> Iterator[torch.dtype]:
    """Dtype of a name of `DTYPES`, with torch's switches for float32 products set to it.

    For half precision they stay as they are: what is float32 there is no product.
    """
    if name in HALF:
        yield HALF[name]
        return
    settings: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)  # type: ignore[attr-defined]
    before = [one.fp32_precision for one in settings]
    for one in settings:
        one.fp32_precision = "tf32" if name == "tf32" else "ieee"
    try:
        yield DTYPES[name]
    finally:
        for one, value in zip(settings, before):
            one.fp32_precision = value


@contextmanager
def on_kernels(settings: Settings) -> Iterator[None]:
    """Run the GPU kernels on CPU tensors too, in a rehearsal."""
    if settings.small:
        with inpaint_ops.backend("triton"):
            yield
    else:
        yield


@contextmanager
def multiplied_by(way: str) -> Iterator[None]:
    """Force the fused kernel ("fused") or the library and a pass after it ("library")."""
    before = os.environ.get("INPAINT_OPS_CONV")
    if way:
        os.environ["INPAINT_OPS_CONV"] = way
    try:
        yield
    finally:
        if before is not None:
            os.environ["INPAINT_OPS_CONV"] = before
        else:
            os.environ.pop("INPAINT_OPS_CONV", None)
