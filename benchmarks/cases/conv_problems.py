"""Benchmarks of the convolution operators: cases and contestants from the list of layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property, lru_cache, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import inpaint_ops
from inpaint_ops.benchmarks.cases.conv_layers import Layer, all_layers
from inpaint_ops.benchmarks.harness.accuracy import Error
from inpaint_ops.benchmarks.harness.case import Case, Problem, Target, Work, difference
from inpaint_ops.benchmarks.harness.machine import available_cpus
from inpaint_ops.benchmarks.harness.timing import thread_count
from inpaint_ops.reference.fused_conv2d import activate

LAYERS = {layer.id: layer for layer in all_layers()}
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
# Of the seconds that a whole method gets: there are hundreds of these.
_SHARE = 0.3
# Sums of order one err by a hundredth of this in float32.
_KINK = 1e-4
_APART = 2e-2


def target_of(layer: Layer, backward: bool) -> Target:
    """What the design promises for a layer."""
    tiled = layer.op == "gated" and layer.kernel == 3 and layer.stride == 1
    if backward:
        return Target(must=1.5, aim=2.5) if tiled else Target(must=1.0, aim=1.3)
    if tiled:
        return Target(must=3.5, aim=6) if layer.upsample > 1 else Target(must=2.5, aim=4)
    return Target(must=1.0, aim=1.3)


def cases(op: str, kind: str) -> tuple[Case, ...]:
    """Forward, and forward with backward, of every layer of one kind."""
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
                    memory=layer.id in MEMORY,
                    compile=layer.id in QUICK,
                    share=_SHARE,
                )
            )
    return tuple(found)


def draw(layer: Layer) -> tuple[Tensor, ...]:
    """Input or its parts in channels_last, weight and bias; sums of order one."""
    generator = torch.Generator().manual_seed(layer.multiplications % 2**31)
    images = [
        torch.randn(1, channels, *[layer.size // factor] * 2, generator=generator)
        for channels, factor in layer.parts or ((layer.channels, 1),)
    ]
    shape = (layer.filters, layer.channels)
    if layer.op == "transposed":
        shape = (layer.channels, layer.filters)
    weight = torch.randn(*shape, layer.kernel, layer.kernel, generator=generator)
    weight /= (layer.channels * layer.kernel**2) ** 0.5
    bias = torch.randn(layer.filters, generator=generator)
    last = (x.contiguous(memory_format=torch.channels_last) for x in images)
    return *last, weight, bias


def upstream(layer: Layer) -> Tensor:
    """A gradient for the layer's result, in channels_last.

    Zero where the activation has its kink: rounding decides there which slope an implementation
    takes, and float64 may take the other.
    """
    generator = torch.Generator().manual_seed(1)
    shape = (1, layer.out, layer.out_size, layer.out_size)
    gradient = torch.randn(shape, generator=generator)
    if layer.activation in ("relu", "leaky_relu"):
        with torch.no_grad():
            near = public(replace(layer, activation="identity"))(*draw(layer)).abs() < _KINK
        gradient.masked_fill_(near, 0)
    return gradient.contiguous(memory_format=torch.channels_last)


def masks(layer: Layer) -> tuple[Tensor, ...]:
    """One of one channel for each part.

    A centred hole of a quarter of the image in the last part: what an encoder passes on.
    """
    found = tuple(torch.ones(1, 1, *[layer.size // factor] * 2) for _, factor in layer.parts)
    quarter = layer.size // 4
    found[-1][..., quarter : 3 * quarter, quarter : 3 * quarter] = 0
    return found


def ours(layer: Layer) -> Callable[..., Any]:
    """Our operator with the layer's options."""
    where: dict[str, Any] = {"stride": layer.stride, "padding": layer.pad}
    if layer.op == "transposed":
        return lambda x, weight, bias: inpaint_ops.fused_conv_transpose2d(
            x, weight, bias, activation=layer.activation, **where
        )
    if layer.op == "partial":
        valid, factors = masks(layer), tuple(factor for _, factor in layer.parts)

        def partial_layer(*args: Tensor) -> Tensor:
            *images, weight, bias = args
            known = tuple(one.to(weight.device) for one in valid)
            return inpaint_ops.partial_conv2d(
                tuple(images), known, weight, bias, upsample=factors, **where
            )[0]

        return partial_layer
    function = getattr(inpaint_ops, f"{layer.op}_conv2d")
    where.update(
        dilation=layer.dilation,
        upsample=layer.upsample,
        padding_mode=layer.padding_mode,
        activation=layer.activation,
    )
    return lambda x, weight, bias: function(x, weight, bias, **where)


def partial_public(
    x: Tensor, mask: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int
) -> tuple[Tensor, Tensor]:
    """The formula of NVIDIA/partialconv: models/partialconv2d.py, commit 610d373f."""
    window = weight[0].numel()
    with torch.no_grad():
        total = F.conv2d(mask, torch.ones_like(weight), None, stride, padding)
        ratio = window / (total + 1e-8)
        updated = total.clamp(0, 1)
        ratio = ratio * updated
    raw = F.conv2d(x * mask, weight, bias, stride, padding)
    if bias is None:
        return raw * ratio, updated
    view = bias.view(1, -1, 1, 1)
    return ((raw - view) * ratio + view) * updated, updated


def concatenated(layer: Layer, images: Sequence[Tensor]) -> Tensor:
    """What the public code makes of the parts of an image or of their masks."""
    whole = [
        x if factor == 1 else F.interpolate(x, scale_factor=factor, mode="nearest")
        for x, (_, factor) in zip(images, layer.parts)
    ]
    return whole[0] if len(whole) == 1 else torch.cat(whole, 1)


def public(layer: Layer) -> Callable[..., Any]:
    """What the public code of the method does, in the layout it does it."""

    def transposed(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        z = F.conv_transpose2d(x, weight, bias, layer.stride, layer.pad)
        return activate(z, layer.activation)

    def convolved(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        padding = layer.pad
        if layer.upsample > 1:
            x = F.interpolate(x, scale_factor=layer.upsample, mode="nearest")
        if layer.padding_mode != "zeros":
            x = F.pad(x, [padding] * 4, mode=layer.padding_mode)
            padding = 0
        z = F.conv2d(x, weight, bias, layer.stride, padding, layer.dilation)
        if layer.op == "fused":
            return activate(z, layer.activation)
        features, gates = z.chunk(2, 1)
        return activate(features, layer.activation) * torch.sigmoid(gates)

    if layer.op == "transposed":
        return transposed
    if layer.op == "partial":
        # The public layer has masks of as many channels as the images.
        valid = [
            mask.repeat(1, channels, 1, 1) for mask, (channels, _) in zip(masks(layer), layer.parts)
        ]

        def partial_layer(*args: Tensor) -> Tensor:
            *images, weight, bias = args
            x = concatenated(layer, images)
            mask = concatenated(layer, [one.to(x) for one in valid])
            return partial_public(x, mask, weight, bias, layer.stride, layer.pad)[0]

        return partial_layer
    return convolved


def setup(case: Case) -> Problem:
    """One layer; eager gets the image in the layout the public code has, ours in channels_last."""
    layer = LAYERS[case.sizes["layer"]]
    leaves = draw(layer)
    plain = [x.contiguous() for x in leaves[:-2]]
    backward = case.sizes["backward"]
    if backward:
        leaves = tuple(t.requires_grad_() for t in leaves)
    formula = public(layer)

    def eager(*args: Tensor) -> Any:
        # Without a gradient the copy made beforehand stands for x; with one it must be x itself.
        ready = args[0] is leaves[0] and not backward
        images = plain if ready else [x.contiguous() for x in args[:-2]]
        return formula(*images, *args[-2:])

    passes = 3 if backward else 1
    read = sum(t.numel() for t in leaves[:-1])
    moved = 4.0 * passes * (read + layer.out * layer.out_size**2)
    return Problem(
        inputs=leaves,
        implementations={"ours": ours(layer), "eager": eager},
        check=partial(judge, layer),
        errors=partial(errors, layer),
        # As direct sums: with fewer multiplications ours may pass this floor.
        work=Work(2.0 * passes * layer.multiplications, moved),
        gradient=upstream(layer) if backward else None,
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
    """Layers in a row: the image, in channels_last, and all weights and biases are the arguments.

    `terms`: of the sums whose rounding the results may show, see `difference`. `kinks`: whether
    there are activations with one, see `_apart`.
    """
    plain = leaves[0].contiguous()
    gradient = upstream(layers[-1]) if backward else None
    if backward:
        leaves = tuple(t.requires_grad_() for t in leaves)

    def eager(image: Tensor, *flat: Tensor) -> Tensor:
        ready = image is leaves[0] and not backward
        return formula(plain if ready else image.contiguous(), *flat)

    def check(outcome: Any) -> str | None:
        wide = [t.detach().double() for t in leaves]
        if gradient is None:
            return difference("y", outcome, formula(*wide), terms=terms)
        wide = [t.requires_grad_() for t in wide]
        y = formula(*wide)
        expected = (y.detach(), *torch.autograd.grad(y, wide, gradient.double()))
        wrong = difference("y", outcome[0], expected[0], terms=terms)
        for number, (got, want) in enumerate(zip(outcome[1], expected[1:])):
            name = f"gradient {number}"
            wrong = wrong or (
                _apart(name, got, want) if kinks else difference(name, got, want, terms=terms)
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
    )


def _apart(name: str, got: Tensor, expected: Tensor) -> str | None:
    """What is wrong with a gradient behind activations with a kink, by the root mean square.

    Rounding decides on which side of the kink a few of the millions of sums fall, and the gradient
    through each of these changes wholly: eager is off by 1e-3, ours by 5e-3, and either by 1e-5
    with a smooth activation in their place.
    """
    share = (got.double() - expected).norm().item() / expected.norm().item()
    return None if share <= _APART else f"{name} is off by {share:.2g}, allowed {_APART:g}"


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
        """Of input, weight and bias."""
        with thread_count(available_cpus()):
            found = torch.autograd.grad(self._graph, self._leaves, upstream(self._layer).double())
        del self._graph
        return found


@lru_cache(maxsize=1)
def exact(name: str) -> _Exact:
    """Of a layer by its id; kept for the next case, which as a rule is the same layer."""
    return _Exact(LAYERS[name])


def _expected(layer: Layer, outcome: Any) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Name, result and exact value of each part of an outcome, with or without gradients."""
    kept = exact(layer.id)
    if isinstance(outcome, Tensor):
        yield "y", outcome, kept.y
    else:
        several = len(layer.parts) > 1
        images = [f"grad x {i + 1}" for i in range(len(layer.parts))] if several else ["grad x"]
        names = ("y", *images, "grad weight", "grad bias")
        yield from zip(names, (outcome[0], *outcome[1]), (kept.y, *kept.gradients))


def judge(layer: Layer, outcome: Any) -> str | None:
    """What is wrong with the outcome of a layer, or None."""
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
    """Of each part of an outcome against float64."""
    return {name: Error.of(got, want) for name, got, want in _expected(layer, outcome)}
