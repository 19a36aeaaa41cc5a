"""Comparison and timing: of one layer with its chain, and of the whole model on a sample."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

# Largest differences, relative to the largest value, of one layer and of a model: tile algorithms
# round more than direct sums do (docs/reference/numerics.md), and norms between layers enlarge what
# is left.
LAYER_TOLERANCE = 2e-4
MODEL_TOLERANCE = 5e-3
# Below this a layer does not count as faster.
LEAST_SPEED_UP = 1.02


class Measured(NamedTuple):
    """A comparison of two functions; `speed_up` is None where nothing was timed."""

    difference: float
    speed_up: float | None


def difference(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> float:
    """Return the largest difference, relative to the largest value of each tensor."""
    if len(ours) != len(theirs):
        return float("inf")
    worst = 0.0
    for a, b in zip(ours, theirs):
        if a.shape != b.shape or a.dtype != b.dtype:
            return float("inf")
        if a.numel() == 0:
            continue
        if not (torch.isfinite(a).all() and torch.isfinite(b).all()):
            same = torch.equal(torch.nan_to_num(a), torch.nan_to_num(b))
            if same:
                continue
            return float("inf")
        largest = b.detach().abs().max().item()
        gap = (a.detach().double() - b.detach().double()).abs().max().item()
        worst = max(worst, gap / largest if largest else float(gap > 0))
    return worst


def model_difference(
    ours: tuple[Sequence[Tensor], Sequence[Tensor]],
    theirs: tuple[Sequence[Tensor], Sequence[Tensor]],
) -> float:
    """Return the difference of the results of a model, or that of its gradients if it is larger.

    The gradients count as one vector: some of their parts may be zero but for rounding, such as
    those of a bias before a norm.
    """
    gaps = [difference(ours[0], theirs[0])]
    if len(ours[1]) != len(theirs[1]):
        return float("inf")
    if theirs[1]:
        largest = sum(t.double().square().sum().item() for t in theirs[1]) ** 0.5
        apart = sum(
            (a.double() - b.double()).square().sum().item() for a, b in zip(ours[1], theirs[1])
        )
        gaps.append(apart**0.5 / largest if largest else float(apart > 0))
    return float("inf") if any(g != g for g in gaps) else max(gaps)


def tensors_in(value: Any) -> list[Tensor]:
    """Return the tensors in nested tuples, lists and dictionaries."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (tuple, list)):
        return [t for v in value for t in tensors_in(v)]
    return []


def results(function: Callable[[], Any], wanted: Sequence[Tensor]) -> list[Tensor]:
    """Return what a function gives, and the gradients of `wanted` for a fixed upstream gradient."""
    found, grads = both_results(function, wanted)
    return found + grads


def both_results(
    function: Callable[[], Any], wanted: Sequence[Tensor]
) -> tuple[list[Tensor], list[Tensor]]:
    """As `results`, what it gives and the gradients apart."""
    found = [t for t in tensors_in(function()) if t.is_floating_point()]
    outputs = [t for t in found if t.requires_grad]
    if not wanted or not outputs:
        return [t.detach() for t in found], []
    upstream = []
    for t in outputs:
        wave = torch.arange(t.numel(), device=t.device, dtype=torch.float32)
        upstream.append(torch.cos(wave * 1.7 + 0.3).view(t.shape).to(t.dtype))
    grads = torch.autograd.grad(outputs, list(wanted), upstream, allow_unused=True)
    return [t.detach() for t in found], [g for g in grads if g is not None]


def speed_up(
    ours: Callable[[], Any],
    theirs: Callable[[], Any],
    device: torch.device,
    settle: Callable[[], Any] | None = None,
    budget: float = 0.3,
) -> float:
    """Return the ratio of median times, theirs to ours, in turns; `settle` runs before each two."""
    times: tuple[list[float], list[float]] = ([], [])
    begin = time.perf_counter()
    while True:
        if settle is not None:
            settle()
        for function, record in zip((ours, theirs), times):
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            start = time.perf_counter()
            function()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            record.append(time.perf_counter() - start)
        spent = time.perf_counter() - begin
        if len(times[0]) >= 30 or (len(times[0]) >= 5 and spent > budget):
            return statistics.median(times[1]) / max(statistics.median(times[0]), 1e-9)


def measure(
    ours: Callable[[], Any],
    theirs: Callable[[], Any],
    wanted: Sequence[Tensor],
    device: torch.device,
    timed: bool,
    settle: Callable[[], Any] | None = None,
) -> Measured:
    """Compare two functions in results and in gradients of `wanted`, and time them.

    Raises:
        Exception: what the functions raise.
    """
    gap = difference(results(ours, wanted), results(theirs, wanted))
    if not timed or not gap <= LAYER_TOLERANCE:
        return Measured(gap, None)

    def run(function: Callable[[], Any]) -> Callable[[], Any]:
        return lambda: results(function, wanted)

    return Measured(gap, speed_up(run(ours), run(theirs), device, settle))


@contextmanager
def preserved(model: nn.Module) -> Iterator[None]:
    """Give a model, its gradients and all random numbers back as they were."""
    attributes = [(m, dict(m.__dict__)) for m in model.modules()]
    registered = [(m, dict(m._buffers)) for m in model.modules()]
    buffers = [(b, b.detach().clone()) for b in model.buffers()]
    gradients = [(p, p.grad) for p in model.parameters()]
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    seeds = torch.get_rng_state(), random.getstate()
    try:
        yield
    finally:
        for m, state in attributes:
            m.__dict__.clear()
            m.__dict__.update(state)
        for m, held in registered:
            m._buffers.clear()
            m._buffers.update(held)
        with torch.no_grad():
            for b, value in buffers:
                if b.is_inference() or not torch.equal(b, value):
                    b.copy_(value)
        for p, grad in gradients:
            p.grad = grad
        torch.set_rng_state(seeds[0])
        random.setstate(seeds[1])
        if cuda is not None:
            torch.cuda.set_rng_state_all(cuda)


class Sample:
    """Calls a model with inputs that are given once."""

    def __init__(self, model: nn.Module, inputs: Any) -> None:
        """Take a tensor, a tuple or list of arguments, or a dictionary of keyword arguments."""
        self.model = model
        self.inputs = inputs

    @property
    def trained(self) -> bool:
        """Return whether gradients count: the model is in training mode and has parameters."""
        return self.model.training and any(p.requires_grad for p in self.model.parameters())

    def call(self) -> Any:
        """Run the model."""
        if isinstance(self.inputs, dict):
            return self.model(**self.inputs)
        if isinstance(self.inputs, (tuple, list)):
            return self.model(*self.inputs)
        return self.model(self.inputs)

    def results(self) -> tuple[list[Tensor], list[Tensor]]:
        """Return results and, in training, gradients of parameters; the model stays as it was."""
        wanted = [p for p in self.model.parameters() if p.requires_grad] if self.trained else []
        with preserved(self.model), torch.set_grad_enabled(bool(wanted)):
            torch.manual_seed(0)
            found, grads = both_results(self.call, wanted)
            return [t.clone() for t in found], grads

    def device(self) -> torch.device:
        """Return the device of the model."""
        tensors = [*self.model.parameters(), *tensors_in(self.inputs)]
        return tensors[0].device if tensors else torch.device("cpu")
