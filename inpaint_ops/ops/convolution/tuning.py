"""Measures what kinds of work cost on this machine, and whether choices become better by it.

Every algorithm runs on a short list of layers. The costs are fitted to the times; they replace the
table's only where the choices that they make on the list are, measured once more, no slower.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from inpaint_ops.ops.convolution import calls, costs, plan
from inpaint_ops.ops.convolution.spec import Geometry
from inpaint_ops.ops.tensors import native

# What the processor spent on the thread tells more than the clock does, where it is fine enough.
_now = time.thread_time if sys.platform == "linux" else time.perf_counter
# Of the time of packing: a training packs at every step, other calls once for many.
_PACKING = 0.25
# What it costs a fit to move away from where it begins: kinds of work occur together.
_STIFFNESS = 0.3
# A choice that takes longer by more is slower; less is the noise of the measurement.
_NOISE = 1.02
# Floats of weights that take turns, so that no cache holds them: as in a network.
_COLD = 12 << 20


class Layer(NamedTuple):
    """A convolution of the list.

    Args:
        channels, filters: of the weight.
        kernel, stride: of both axes.
        size: of the result; of a transposed convolution, of its input.
        transposed: whether it is one.
    """

    channels: int
    filters: int
    kernel: int
    stride: int
    size: int
    transposed: bool = False

    def __str__(self) -> str:
        """As in "3x3 stride 2, 64 to 128, 64x64"."""
        parts = ["transposed "] if self.transposed else []
        parts.append(f"{self.kernel}x{self.kernel}")
        parts.append(f" stride {self.stride}" if self.stride > 1 else "")
        parts.append(f", {self.channels} to {self.filters}, {self.size}x{self.size}")
        return "".join(parts)

    @property
    def geometry(self) -> Geometry:
        """Zero padding that keeps the size, or divides it by the stride."""
        pad = (self.kernel - 1) // 2
        return Geometry((self.stride,) * 2, (pad,) * 4, (1, 1))

    @property
    def weight(self) -> tuple[int, int, int, int]:
        """Shape of the weight."""
        pair = (self.filters, self.channels)
        return (*(pair[::-1] if self.transposed else pair), self.kernel, self.kernel)


LAYERS = (
    Layer(64, 64, 3, 1, 64),
    Layer(128, 128, 3, 1, 32),
    Layer(256, 256, 3, 1, 32),
    Layer(512, 512, 3, 1, 16),
    Layer(512, 256, 3, 1, 8),
    Layer(64, 128, 3, 2, 64),
    Layer(128, 128, 3, 2, 64),
    Layer(256, 256, 3, 2, 16),
    Layer(4, 32, 5, 1, 128),
    Layer(128, 128, 5, 1, 32),
    Layer(64, 128, 5, 2, 64),
    Layer(256, 256, 5, 2, 16),
    Layer(3, 64, 7, 1, 128),
    Layer(64, 64, 7, 1, 64),
    Layer(4, 64, 4, 2, 128),
    Layer(128, 256, 4, 2, 32),
    Layer(256, 512, 4, 2, 16),
    Layer(256, 128, 4, 2, 32, transposed=True),
    Layer(512, 256, 4, 2, 8, transposed=True),
)


class Choice(NamedTuple):
    """What was measured of a layer whose algorithm changes.

    Args:
        layer: the layer.
        before, after: the algorithms that the table's costs and the machine's choose.
        seconds: of both.
    """

    layer: Layer
    before: str
    after: str
    seconds: tuple[float, float]


class Outcome(NamedTuple):
    """The outcome of a tuning.

    Args:
        costs: picoseconds that were measured and proved no slower; None: the table's stay.
        choices: of the layers whose algorithm they change.
        errors: of the table's costs and of the measured ones: typical relative differences of
            predicted and measured times.
    """

    costs: tuple[float, ...] | None
    choices: list[Choice]
    errors: tuple[float, float]


def tune(
    layers: Sequence[Layer],
    *,
    rounds: int = 7,
    progress: Callable[[float], None] = lambda done: None,
) -> Outcome:
    """Measure this machine in the instruction set in use, by one thread; nothing is stored.

    Args:
        layers: to be measured.
        rounds: times that each algorithm runs.
        progress: is called with the share that is done.
    """
    name = native().instruction_set()
    table = tuple(native().measured_costs(name))
    times: dict[Layer, dict[str, float]] = {}
    with _one_thread():
        for number, layer in enumerate(layers):
            times[layer] = measure(layer, rounds)
            progress(0.9 * (number + 1) / len(layers))
        fitted = fit(table, times)
        errors = (_error(table, times), _error(fitted, times))
        outcome = Outcome(None, [], errors)
        # The whole way to the measured costs, or as far as no choice becomes slower.
        for share in (1.0, 0.5, 0.25):
            blend = tuple(a ** (1 - share) * b**share for a, b in zip(table, fitted))
            choices = [_compared(layer, table, blend, rounds) for layer in layers]
            changed = [choice for choice in choices if choice is not None]
            if changed and all(
                choice.seconds[1] <= _NOISE * choice.seconds[0] for choice in changed
            ):
                outcome = Outcome(blend, changed, errors)
                break
    progress(1.0)
    return outcome


def measure(layer: Layer, rounds: int, algorithms: Sequence[str] | None = None) -> dict[str, float]:
    """Return the least seconds of each algorithm that takes a layer, a quarter of packing counted.

    Args:
        layer: a layer.
        rounds: times that each runs, in turns.
        algorithms: to be measured; None: all.
    """
    generator = torch.Generator().manual_seed(0)
    count = math.prod(layer.weight)
    weights = [
        torch.randn(layer.weight, generator=generator) for _ in range(min(8, 1 + _COLD // count))
    ]
    side = layer.size if layer.transposed else layer.size * layer.stride
    x = torch.randn(1, layer.channels, side, side, generator=generator)
    x = x.contiguous(memory_format=torch.channels_last)
    out = layer.size * layer.stride if layer.transposed else layer.size
    y = torch.empty(1, layer.filters, out, out).contiguous(memory_format=torch.channels_last)
    runs: dict[str, Callable[[int], float]] = {}
    for name in native().algorithms if algorithms is None else algorithms:
        made = _made(layer, name)
        if made is not None:
            runs[name] = _run(made, weights, x, y)
    least = dict.fromkeys(runs, math.inf)
    for number in range(rounds):
        for name, run in runs.items():
            least[name] = min(least[name], run(number))
    return least


def _run(
    made: plan.Plan, weights: Sequence[Tensor], x: Tensor, y: Tensor
) -> Callable[[int], float]:
    assert made.form is not None
    kernels = made.kernels
    assert kernels is not None
    options = made.form.options
    spare = native().pack_weight(weights[0], *options, threads=1, spare=None)
    # A few of them: the largest forms leave every cache by themselves.
    few = min(len(weights), 1 + 4 * _COLD // spare.size)
    forms = [
        native().pack_weight(weight, *options, threads=1, spare=None) for weight in weights[:few]
    ]
    nothing: Any = (None, y, None, None, None, None, (0, 0), 1)

    def run(number: int) -> float:
        begun = _now()
        native().pack_weight(weights[number % len(weights)], *options, threads=1, spare=spare)
        packing = _now() - begun
        begun = _now()
        kernels.run([x], [None], forms[number % len(forms)], *nothing)
        return _now() - begun + _PACKING * packing

    return run


def _made(layer: Layer, algorithm: str) -> plan.Plan | None:
    """The plan of an algorithm, or None if it does not take the layer."""
    if algorithm == "unpacked":
        return None
    try:
        return plan.made(_what(layer), _shapes(layer), algorithm)
    except ValueError:
        return None


def _what(layer: Layer) -> plan.Convolution:
    return plan.Convolution(layer.geometry, kind="transposed" if layer.transposed else "forward")


def _shapes(layer: Layer) -> plan.Shapes:
    return plan.Shapes(1, (layer.size,) * 2, layer.weight, ((1, (layer.channels,)),))


def chosen(layer: Layer, prices: Sequence[float]) -> str:
    """Return the algorithm that costs choose for a layer."""
    return plan.choose(_what(layer), _shapes(layer), prices=prices)


def fit(start: Sequence[float], times: Mapping[Layer, Mapping[str, float]]) -> tuple[float, ...]:
    """Return costs that predict measured seconds, beginning with others.

    Costs of which the times say little stay where the machine's speed as a whole puts them.
    """
    rows = list(_rows(times))
    scale = _median([seconds / _predicted(start, work) for work, seconds, _ in rows])
    begin = [scale * cost for cost in start]
    prices = list(begin)
    step = 0.2
    while step > 0.01:
        better = False
        for term in range(len(prices)):
            for factor in (1 + step, 1 / (1 + step)):
                tried = [*prices]
                tried[term] *= factor
                if _loss(tried, begin, rows) < _loss(prices, begin, rows) - 1e-9:
                    prices, better = tried, True
        if not better:
            step /= 2
    return tuple(prices)


def _loss(
    prices: Sequence[float],
    begin: Sequence[float],
    rows: Sequence[tuple[Sequence[float], float, float]],
) -> float:
    away = sum(math.log(a / b) ** 2 for a, b in zip(prices, begin))
    off = sum(
        weight * math.log(_predicted(prices, work) / seconds) ** 2 for work, seconds, weight in rows
    )
    return off + _STIFFNESS * away


def _rows(
    times: Mapping[Layer, Mapping[str, float]],
) -> Iterator[tuple[Sequence[float], float, float]]:
    """Work, seconds, and what they count: algorithms that are far from the best hardly do."""
    for layer, its in times.items():
        least = min(its.values())
        kind = "transposed" if layer.transposed else "forward"
        for name, seconds in its.items():
            work = native().convolution_work(
                name,
                kind,
                1,
                layer.weight,
                layer.geometry.stride,
                (1, 1),
                (layer.size,) * 2,
            )
            counted = dict(zip(native().cost_names, work))
            counted["packing"] = _PACKING * counted["packed"]
            yield list(counted.values()), seconds, (least / seconds) ** 2


def _predicted(prices: Sequence[float], work: Sequence[float]) -> float:
    return 1e-12 * sum(a * b for a, b in zip(prices, work))


def _error(prices: Sequence[float], times: Mapping[Layer, Mapping[str, float]]) -> float:
    rows = list(_rows(times))
    ratios = [math.log(seconds / _predicted(prices, work)) for work, seconds, _ in rows]
    middle = _median(ratios)
    return math.expm1(_median([abs(ratio - middle) for ratio in ratios]))


def _median(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]


def _compared(
    layer: Layer, table: Sequence[float], other: Sequence[float], rounds: int
) -> Choice | None:
    """Measure a layer's two algorithms once more; None if they are one."""
    before, after = chosen(layer, table), chosen(layer, other)
    if before == after:
        return None
    times = measure(layer, 2 * rounds, (before, after))
    return Choice(layer, before, after, (times[before], times[after]))


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def keep(outcome: Outcome) -> Any:
    """Store the costs of an outcome and use them from now on; or forget those of an earlier one.

    Returns:
        The file, or None if the table stays.

    Raises:
        OSError: the folder cannot be made or written to.
    """
    name = native().instruction_set()
    path = None
    if outcome.costs is None:
        costs.file_of(name).unlink(missing_ok=True)
    else:
        path = costs.store(outcome.costs, name)
    choose_anew()
    return path


def choose_anew() -> None:
    """Forget costs, and every choice that was made by them."""
    costs.current.cache_clear()
    plan.forget()
    calls.forget()
