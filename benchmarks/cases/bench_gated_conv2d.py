"""gated_conv2d over the layers of DeepFill v2, and its first stage as a whole."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from torch import Tensor

from inpaint_ops.benchmarks.cases import conv_contestants, conv_problems
from inpaint_ops.benchmarks.cases.conv_layers import Layer
from inpaint_ops.benchmarks.harness.case import Case, Problem, Target

_STAGE = "stage-1-512x512"
CASES = (
    Case("gated_conv2d", _STAGE, {"layer": _STAGE}, target=Target(must=2.5, aim=4), quick=True),
    Case(
        "gated_conv2d",
        f"forward-backward-{_STAGE}",
        {"layer": _STAGE, "backward": True},
        target=Target(must=1.5, aim=2.5),
        compile=False,
    ),
    *conv_problems.cases("gated_conv2d", "gated"),
)


def _stage() -> list[Layer]:
    """Return the 17 layers of stage 1 in order."""
    ids = [
        "gated-5-24-512x512-k5-elu",
        "gated-24-48-512x512-k3-s2-elu",
        "gated-48-48-256x256-k3-elu",
        "gated-48-96-256x256-k3-s2-elu",
        *["gated-96-96-128x128-k3-elu"] * 2,
        *(f"gated-96-96-128x128-k3-d{d}-elu" for d in (2, 4, 8, 16)),
        *["gated-96-96-128x128-k3-elu"] * 2,
        "gated-96-48-128x128-k3-up2-elu",
        "gated-48-48-256x256-k3-elu",
        "gated-48-24-256x256-k3-up2-elu",
        "gated-24-12-512x512-k3-elu",
        "fused-12-3-512x512-k3-tanh",
    ]
    layers = [conv_problems.LAYERS[name] for name in ids]
    assert all(a.out == b.channels and a.out_size == b.size for a, b in pairwise(layers))
    return layers


def setup(case: Case) -> Problem:
    """Return the problem of one layer or of the stage, with all gradients if `backward`."""
    if case.sizes["layer"] != _STAGE:
        return conv_problems.setup(case)
    layers = _stage()
    x = conv_contestants.draw(layers[0])[0]
    # Products of features and gates shrink from layer to layer without a gain.
    weights = [(2 * w, b) for _, w, b in map(conv_contestants.draw, layers)]

    def chain(functions: list[Any], x: Tensor, flat: tuple[Tensor, ...]) -> Tensor:
        for function, weight, bias in zip(functions, flat[::2], flat[1::2]):
            x = function(x, weight, bias)
        return x

    mine = [conv_contestants.ours(layer) for layer in layers]
    theirs = [conv_contestants.public(layer) for layer in layers]
    # 17 layers pass their errors on.
    return conv_problems.network(
        layers,
        (x, *(t for pair in weights for t in pair)),
        lambda x, *flat: chain(mine, x, flat),
        lambda x, *flat: chain(theirs, x, flat),
        backward=case.sizes.get("backward", False),
        terms=64 * 10**4,
    )
