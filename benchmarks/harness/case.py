"""Types that a file of cases gives to the runner: `Case` in CASES, `Problem` from setup(case)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

import torch

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor

    from inpaint_ops.benchmarks.harness.accuracy import Error
    from inpaint_ops.benchmarks.harness.plain import Plain

# Each is a file cases/bench_<op>.py.
OPS = (
    "fused_conv2d",
    "gated_conv2d",
    "partial_conv2d",
    "fused_conv_transpose2d",
    "contextual_attention",
    "id_mrf_loss",
    "instance_norm",
    "channelwise_linear",
    "nearest_patch",
    "shift_connection",
    "models",
    "training",
    "needed",
    "exemplar",
)


class Unavailable(Exception):
    """A case needs something that is not installed; the text names it and tells how to get it."""


@dataclass(frozen=True)
class Target:
    """Ratio to a contestant that ours must reach, and the one it aims at."""

    must: float
    aim: float
    against: str = "eager"


@dataclass(frozen=True)
class Case:
    """One problem size of one operator.

    Args:
        op: name of the operator.
        id: unique within the operator; readable.
        sizes: everything `setup` needs, shown in the reports.
        dtype: of the inputs.
        target: the promised ratio, where one is promised.
        curve: cases of one curve are drawn as time and memory against x.
        x: place on the curve.
        quick: part of the short report.
        usual: part of the report that nothing else is asked of, with the quick ones.
        peers: other engines can take part.
        memory: measure peak memory.
        compile: measure the public formula under torch.compile.
        compiled_memory: measure its peak memory too, for which it compiles once more.
        time_share: fraction of the seconds that a case is timed; many small cases need less each.
        once: for calls of minutes. Every contestant runs a single time, in a process of its own at
            the largest thread count, which gives time, memory and verdict.
    """

    op: str
    id: str
    sizes: Mapping[str, Any]
    dtype: str = "float32"
    target: Target | None = None
    curve: str = ""
    x: int = 0
    quick: bool = False
    usual: bool = False
    peers: bool = False
    memory: bool = True
    compile: bool = True
    compiled_memory: bool = False
    time_share: float = 1.0
    once: bool = False


@dataclass(frozen=True)
class Missing:
    """A contestant that cannot take part here."""

    reason: str


@dataclass(frozen=True)
class Work:
    """Least work of a machine for a problem.

    Args:
        flops: 2 for each multiply-add. A lone addition or comparison counts 2 as well, since it
            takes the place of a multiply-add in the pipeline.
        moved: bytes of the inputs, read once, and of the results, written once.
    """

    flops: float
    moved: float


@dataclass
class Problem:
    """Inputs, contestants and judge of one case.

    Args:
        inputs: arguments of every implementation.
        implementations: "ours" and others; "eager" is the public formula, which the runner also
            compiles.
        check: takes an outcome of `run`; returns None if it is right, otherwise the reason.
        work: for the floor; None where no floor is known.
        gradient: of the first result. If given, the backward pass is part of the run.
        trained: of the inputs those that a training changes: by a last bit before each run.
        quality: figures for information.
        errors: of each part of an outcome against float64, by name. If given, ours may err at
            most `accuracy.LIMIT` times as much as eager.
        picture: an outcome as (H, W, 3) uint8.
        shown: pictures that are no outcome, such as the input.
        limited: the limit holds; otherwise errors are for information, and only computed where
            other engines take part.
        compiled: builds the compiled contestant where compiling "eager" as a whole would not do.
        plain: makes the public formula as other engines take it, where they can.
    """

    inputs: tuple[Any, ...]
    implementations: dict[str, Callable[..., Any] | Missing]
    check: Callable[[Any], str | None]
    work: Work | None = None
    gradient: Tensor | None = None
    trained: tuple[Tensor, ...] = ()
    quality: Callable[[Any], dict[str, float]] | None = None
    errors: Callable[[Any], dict[str, Error]] | None = None
    picture: Callable[[Any], npt.NDArray[np.uint8]] | None = None
    shown: dict[str, npt.NDArray[np.uint8]] = field(default_factory=dict)
    limited: bool = True
    compiled: Callable[[], Callable[..., Any]] | None = None
    plain: Callable[[], Plain] | None = None

    def run(self, implementation: Callable[..., Any]) -> Any:
        """Return the results, or (results, gradients of the inputs that require one)."""
        for weight in self.trained:
            weight.detach().view(-1)[:1].view(torch.int32).bitwise_xor_(1)
        results = implementation(*self.inputs)
        if self.gradient is None:
            return results
        first = results[0] if isinstance(results, tuple) else results
        wanted = [x for x in self.inputs if isinstance(x, torch.Tensor) and x.requires_grad]
        return results, torch.autograd.grad(first, wanted, self.gradient)


class BenchModule(Protocol):
    """A file bench_<op>.py."""

    CASES: tuple[Case, ...]

    def setup(self, case: Case) -> Problem:
        """Build the inputs, from a fixed seed, and the contestants."""


def load(op: str) -> BenchModule:
    """Return the file of cases of an operator.

    Raises:
        ValueError: there is none of that name.
    """
    if op not in OPS:
        raise ValueError(f"unknown operator {op!r}, known: {', '.join(OPS)}")
    module: Any = import_module(f"inpaint_ops.benchmarks.cases.bench_{op}")
    return module  # type: ignore[no-any-return]


def difference(name: str, got: Tensor, expected: Tensor, terms: int = 1) -> str | None:
    """Return the reason to refuse float32 results that are sums of `terms` terms, or None.

    Tolerance: 1e-5 of the largest expected value, growing with sqrt(terms / 64).
    """
    if got.shape != expected.shape:
        return f"{name} has shape {tuple(got.shape)}, expected {tuple(expected.shape)}"
    if got.numel() == 0:
        return None
    error = (got.detach().double() - expected.double()).abs().max().item()
    tolerance = 1e-5 * math.sqrt(max(1.0, terms / 64)) * expected.abs().max().item()
    if error <= tolerance:
        return None
    return f"{name} is off by {error:.2g}, allowed {tolerance:.2g}"
