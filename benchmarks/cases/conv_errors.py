"""Judges of convolution layers: errors against the public formula in float64."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property, lru_cache
from typing import Any

import torch
from torch import Tensor

from inpaint_ops.benchmarks.cases.conv_contestants import draw, public, upstream
from inpaint_ops.benchmarks.cases.conv_layers import Layer
from inpaint_ops.benchmarks.harness.accuracy import Error
from inpaint_ops.benchmarks.harness.case import difference
from inpaint_ops.benchmarks.harness.machine import available_cpus
from inpaint_ops.benchmarks.harness.timing import thread_count

_APART = 2e-2


def apart(name: str, got: Tensor, expected: Tensor) -> str | None:
    """Return the reason to refuse a gradient that passed activations with a kink, or None.

    It is judged by the root mean square. Rounding decides on which side of the kink a few of the
    millions of sums fall, and the gradient through each of these changes wholly: eager is off by
    1e-3, ours by 5e-3. With a smooth activation either is off by 1e-5.
    """
    distance = (got.double() - expected).norm().item() / expected.norm().item()
    return None if distance <= _APART else f"{name} is off by {distance:.2g}, allowed {_APART:g}"


class _Exact:
    """Result and gradients of a layer in float64, each computed when first asked for."""

    def __init__(self, layer: Layer) -> None:
        self._layer = layer
        self._leaves = [t.double().requires_grad_() for t in draw(layer)]

    @cached_property
    def _graph(self) -> Tensor:
        y: Tensor = public(self._layer)(*self._leaves)
        return y

    @cached_property
    def y(self) -> Tensor:
        with thread_count(available_cpus()):
            return self._graph.detach()

    @cached_property
    def gradients(self) -> tuple[Tensor, ...]:
        """Gradients of input, weight and bias."""
        with thread_count(available_cpus()):
            found = torch.autograd.grad(self._graph, self._leaves, upstream(self._layer).double())
        del self._graph
        return found


@lru_cache(maxsize=1)
def _exact(layer: Layer) -> _Exact:
    # The next case is as a rule the same layer with gradients.
    return _Exact(layer)


def _expected(layer: Layer, outcome: Any) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Yield name, result and exact value of each part of an outcome, with or without gradients."""
    exact = _exact(layer)
    if isinstance(outcome, Tensor):
        yield "y", outcome, exact.y
    else:
        several = len(layer.parts) > 1
        images = [f"grad x {i + 1}" for i in range(len(layer.parts))] if several else ["grad x"]
        names = ("y", *images, "grad weight", "grad bias")
        yield from zip(names, (outcome[0], *outcome[1]), (exact.y, *exact.gradients))


def judge(layer: Layer, outcome: Any) -> str | None:
    """Return the reason to refuse the outcome of a layer, or None."""
    depth = layer.channels * layer.kernel**2
    factors = [factor for _, factor in layer.parts] or [1]
    taps = layer.filters * layer.kernel**2
    terms = (depth, *(taps * factor**2 for factor in factors), *[layer.out_size**2] * 2)
    for (name, got, want), count in zip(_expected(layer, outcome), terms):
        # Winograd sums may err 4 times as much as direct ones.
        wrong = difference(name, got, want, terms=16 * max(64, count))
        if wrong:
            return wrong
    return None


def errors(layer: Layer, outcome: Any) -> dict[str, Error]:
    """Return the errors of each part of an outcome against float64."""
    return {name: Error.of(got, want) for name, got, want in _expected(layer, outcome)}
