"""Problems of the convolution operators, for every layer of the list."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from inpaint_ops.benchmarks.cases.conv_contestants import (
    draw,
    ours,
    plain_layer,
    public,
    upstream,
)
from inpaint_ops.benchmarks.cases.conv_errors import apart, errors, judge
from inpaint_ops.benchmarks.cases.conv_layers import Layer, all_layers, other_layers
from inpaint_ops.benchmarks.harness.case import (
    Case,
    Missing,
    Problem,
    Target,
    Work,
    difference,
)

LAYERS = {layer.id: layer for layer in (*all_layers(), *other_layers())}
# Few enough to look at, one of each kind.
QUICK = {
    "gated-96-96-128x128-k3-elu",
    "gated-48-24-256x256-k3-up2-elu",
    "gated-5-24-512x512-k5-elu",
    "fused-256-256-64x64-k3",
    "fused-64-3-256x256-k7-reflect",
    "partial-192-64-256x256-k3",
    "transposed-256-128-64x64-k4-s2",
}
# Peak memory takes a process for each pass and contestant: one layer of each kind and algorithm,
# and the largest.
MEMORY = QUICK | {
    "gated-24-48-512x512-k3-s2-elu",
    "gated-24-12-512x512-k3-elu",
    "gated-96-96-128x128-k3-d16-elu",
    "fused-12-3-512x512-k3-tanh",
    "fused-32-64-256x256-k7-s2-reflect-elu",
    "fused-128-128-64x64-k7-d16-reflect-elu",
    "fused-512-512-4x4-k4-s2",
    "partial-3-64-512x512-k7-s2",
    "partial-67-3-512x512-k3",
    "transposed-1024-512-4x4-k4-s2",
}
# The usual report has these too: layers of every size and kind, on which other engines are strong.
USUAL = QUICK | {
    "fused-128-128-128x128-k1",
    "fused-3-64-256x256-k7",
    "fused-3-64-256x256-k7-s2",
    "fused-128-128-64x64-k5-reflect-elu",
    "fused-128-128-64x64-k7-reflect-elu",
    "fused-128-128-128x128-k3",
    "fused-512-512-16x16-k3",
    "fused-128-256-128x128-k3-s2",
    "fused-4-32-256x256-k7-reflect-elu",
    "fused-4-32-256x256-k3-reflect-elu",
    "fused-12-3-512x512-k3-tanh",
    "fused-4-64-256x256-k4-s2",
    "fused-512-512-8x8-k4-s2",
    "partial-3-64-512x512-k7-s2",
    "transposed-1024-512-4x4-k4-s2",
    "transposed-1024-512-8x8-k4-s2",
}
# Of the seconds that a whole method gets: there are hundreds of these.
_TIME_SHARE = 0.3


def target_of(layer: Layer, backward: bool) -> Target:
    """Return the ratios that are promised for a layer."""
    tiled = layer.op == "gated" and layer.kernel == 3 and layer.stride == 1
    if backward:
        return Target(must=1.5, aim=2.5) if tiled else Target(must=1.0, aim=1.3)
    if tiled:
        return Target(must=3.5, aim=6) if layer.upsample > 1 else Target(must=2.5, aim=4)
    return Target(must=1.0, aim=1.3)


def cases(op: str, kind: str) -> tuple[Case, ...]:
    """Return two cases for every layer of one kind: forward, and forward with backward."""
    found = []
    for layer in LAYERS.values():
        if layer.op != kind:
            continue
        for backward in (False, True):
            name = f"{'forward-backward' if backward else 'forward'}-{layer.id}"
            found.append(
                Case(
                    op,
                    name,
                    {"layer": layer.id, "method": layer.method, "backward": backward},
                    target=target_of(layer, backward),
                    quick=layer.id in QUICK and not backward,
                    usual=layer.id in USUAL and (not backward or layer.id in QUICK),
                    peers=not backward,
                    memory=layer.id in MEMORY,
                    compile=layer.id in QUICK,
                    time_share=_TIME_SHARE,
                )
            )
    return tuple(found)


def setup(case: Case) -> Problem:
    """Return the problem of one layer.

    Eager gets the image in the layout of the public code, ours in channels_last, and
    "ours_contiguous", forward alone, in that of the public code.
    """
    layer = LAYERS[case.sizes["layer"]]
    leaves = draw(layer)
    plain = [x.contiguous() for x in leaves[:-2]]
    backward = case.sizes["backward"]
    if backward:
        leaves = tuple(t.requires_grad_() for t in leaves)
    mine = ours(layer)

    def contiguous(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Tensor) -> Any:
            # Without a gradient the copy made beforehand stands for x; with one it must be x.
            ready = args[0] is leaves[0] and not backward
            images = plain if ready else [x.contiguous() for x in args[:-2]]
            return function(*images, *args[-2:])

        return call

    contestants: dict[str, Callable[..., Any] | Missing] = {
        "ours": mine,
        "eager": contiguous(public(layer)),
    }
    if not backward:
        contestants["ours_contiguous"] = contiguous(mine)

    passes = 3 if backward else 1
    read = sum(t.numel() for t in leaves[:-1])
    moved = 4.0 * passes * (read + layer.out * layer.out_size**2)
    return Problem(
        inputs=leaves,
        implementations=contestants,
        check=partial(judge, layer),
        errors=partial(errors, layer),
        # As direct sums: with fewer multiplications ours may pass this floor.
        work=Work(2.0 * passes * layer.multiplications, moved),
        gradient=upstream(layer) if backward else None,
        trained=leaves[-2:] if backward else (),
        plain=None if backward else partial(plain_layer, layer),
    )


def network(
    layers: Sequence[Layer],
    leaves: tuple[Tensor, ...],
    mine: Callable[..., Tensor],
    formula: Callable[..., Tensor],
    *,
    backward: bool,
    terms: int,
    kinks: bool = False,
) -> Problem:
    """Return the problem of layers in a row.

    Args:
        layers: in the order of the calls.
        leaves: arguments of both functions: the image in channels_last, all weights and biases.
        mine, formula: our layers in a row, and those of the public code.
        backward: run the gradients of all leaves too.
        terms: of the sums whose rounding the results may show, see `difference`.
        kinks: some activation has a kink, see `apart`.
    """
    plain = leaves[0].contiguous()
    gradient = upstream(layers[-1]) if backward else None
    if backward:
        leaves = tuple(t.requires_grad_() for t in leaves)

    def eager(image: Tensor, *flat: Tensor) -> Tensor:
        ready = image is leaves[0] and not backward
        return formula(plain if ready else image.contiguous(), *flat)

    def check(outcome: Any) -> str | None:
        exact_leaves = [t.detach().double() for t in leaves]
        if gradient is None:
            return difference("y", outcome, formula(*exact_leaves), terms=terms)
        exact_leaves = [t.requires_grad_() for t in exact_leaves]
        y = formula(*exact_leaves)
        expected = (y.detach(), *torch.autograd.grad(y, exact_leaves, gradient.double()))
        wrong = difference("y", outcome[0], expected[0], terms=terms)
        for number, (got, want) in enumerate(zip(outcome[1], expected[1:])):
            name = f"gradient {number}"
            wrong = wrong or (
                apart(name, got, want) if kinks else difference(name, got, want, terms=terms)
            )
        return wrong

    passes = 3 if backward else 1
    moved = leaves[0].numel() + sum(layer.out * layer.out_size**2 for layer in layers)
    return Problem(
        inputs=leaves,
        implementations={"ours": mine, "eager": eager},
        check=check,
        work=Work(2.0 * passes * sum(layer.multiplications for layer in layers), 4.0 * moved),
        gradient=gradient,
        trained=leaves[1:] if backward else (),
    )
