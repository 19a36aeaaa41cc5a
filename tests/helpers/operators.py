"""The table of operators: a new one gets every test of the battery by one entry."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from inpaint_ops import ops, reference


def draw(*size: int) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(sum(size)))


def bits(*size: int) -> Tensor:
    return (draw(*size) > 0.5).float()


def apart(*size: int) -> Tensor:
    """Another draw than `draw` gives for the same size."""
    return draw(size[0] + 1, *size[1:])[1:]


@dataclass(frozen=True)
class Operator:
    """An operator as the tests call it.

    Attributes:
        tensors: makes every tensor argument by name, small, a batch of two, float32.
        options: of the call; smooth, so that gradients of halves and of float64 agree.
        leaves: the names that have a gradient, which is that of the first result.
        masks: the names whose values are 0 and 1, in any type.
        shared: the names that hold no axis of images: weights and biases.
        variants: further options, each another way through the code.
        large: tensors on which several threads share the work; None: `tensors`.
        call: for the transforms of functions, a function of some tensors and these tensors, with
            what `tensors` leaves out: views, lists. None: the first result as that of `leaves`.
        terms: the length of the sums behind a value, for the tolerance.
        ours: whether a registered operator serves it, with the bits that docs/reference/numerics.md
            promises; else it is made of torch's own operators, derivatives of any kind included.
        autocast: "float32": it computes in float32 under autocast, and so are its results; "kept":
            likewise, with results in the dtype of its first tensor; "lower": in autocast's dtype.
    """

    tensors: Callable[[], dict[str, Tensor]]
    options: Mapping[str, Any] = field(default_factory=dict)
    leaves: Sequence[str] = ()
    masks: Sequence[str] = ()
    shared: Sequence[str] = ()
    variants: Sequence[Mapping[str, Any]] = ()
    large: Callable[[], dict[str, Tensor]] | None = None
    call: tuple[Callable[..., Tensor], list[Tensor]] | None = None
    terms: int = 64
    ours: bool = True
    autocast: str = "float32"


HOLE = (torch.arange(12) % 4 == 1).float().expand(1, 1, 12, 12)


def convolution(
    weight: Sequence[int], filters: int, size: Sequence[int] = (2, 4, 6, 6)
) -> Callable[[], dict[str, Tensor]]:
    return lambda: {"x": draw(*size), "weight": draw(*weight) / 6, "bias": draw(filters)}


def maps(*names: str, channels: int = 4) -> Callable[..., dict[str, Tensor]]:
    """Images of one size and, for the name "hole", a mask."""

    def tensors(height: int = 6, width: int = 6) -> dict[str, Tensor]:
        made = {}
        for i, name in enumerate(names):
            if name == "hole":
                made[name] = bits(1, 1, height, width)
            else:
                made[name] = draw(2 + i, channels, height, width)[i:]
        return made

    return tensors


def partial_tensors(
    weight: Sequence[int] = (4, 4, 3, 3), height: int = 6, width: int = 6
) -> dict[str, Tensor]:
    made = convolution(weight, weight[0], (2, weight[1], height, width))()
    return {"x": made.pop("x"), "valid": bits(2, 1, height, width), **made}


def norm_tensors(channels: int = 4, height: int = 6, width: int = 6) -> dict[str, Tensor]:
    return {
        "x": draw(2, channels, height, width),
        "weight": draw(channels),
        "bias": apart(channels),
        "residual": apart(2, channels, height, width),
    }


def attention_tensors(channels: int = 4, height: int = 6, width: int = 6) -> dict[str, Tensor]:
    hole = bits(1, 1, -(-height // 2), -(-width // 2))
    return {**maps("fg", "bg", channels=channels)(height, width), "hole": hole}


def matching_tensors(channels: int = 4, height: int = 6, width: int = 6) -> dict[str, Tensor]:
    return {
        **maps("query", "key", channels=channels)(height, width),
        "valid": torch.ones(1, 1, height, width),
        "where": torch.ones(1, 1, height - 2, width - 2),
    }


def refining_tensors(height: int = 6, width: int = 6) -> dict[str, Tensor]:
    made = matching_tensors(4, height, width)
    guess = torch.zeros(2, height - 2, width - 2, dtype=torch.int64)
    return {"query": made.pop("query"), "key": made.pop("key"), "guess": guess, **made}


CONVOLVED = {
    "leaves": ("x", "weight", "bias"),
    "shared": ("weight", "bias"),
    "autocast": "lower",
}

OPERATORS: dict[str, Operator] = {
    "fused_conv2d": Operator(
        convolution((4, 4, 3, 3), 4),
        {"padding": 1, "activation": "elu"},
        variants=(
            {"padding": 1, "activation": "identity"},
            {"padding": 1, "activation": "silu", "algorithm": "direct"},
            {"padding": "same", "stride": 2, "padding_mode": "reflect"},
        ),
        large=convolution((40, 40, 3, 3), 40, (2, 40, 33, 35)),
        call=(
            lambda x, w, b: ops.fused_conv2d(x, w, b, padding=1, activation="silu"),
            [draw(2, 4, 12, 12), draw(8, 4, 3, 3), draw(8)],
        ),
        terms=1024,
        **CONVOLVED,
    ),
    "gated_conv2d": Operator(
        convolution((4, 4, 3, 3), 4),
        {"padding": 1},
        variants=(
            {"padding": 1, "upsample": 2, "padding_mode": "replicate"},
            {"padding": "same", "stride": 2, "algorithm": "direct"},
        ),
        large=convolution((40, 40, 3, 3), 40, (2, 40, 33, 35)),
        call=(
            lambda x, w: ops.gated_conv2d(x, w, padding=1),
            [draw(1, 4, 12, 12), draw(8, 4, 3, 3)],
        ),
        terms=1024,
        **CONVOLVED,
    ),
    "fused_conv_transpose2d": Operator(
        convolution((4, 4, 4, 4), 4),
        {"activation": "elu"},
        variants=({"activation": "identity"}, {"activation": "silu", "algorithm": "direct"}),
        large=convolution((20, 33, 4, 4), 33, (2, 20, 21, 19)),
        call=(
            lambda x, w: ops.fused_conv_transpose2d(x, w, activation="tanh"),
            [draw(1, 4, 6, 6), draw(4, 5, 4, 4)],
        ),
        terms=1024,
        **CONVOLVED,
    ),
    "partial_conv2d": Operator(
        partial_tensors,
        {"padding": 1},
        masks=("valid",),
        variants=(
            {"padding": 1, "normalise": "sum"},
            {"padding": "same", "stride": 2, "algorithm": "direct"},
        ),
        large=lambda: partial_tensors((20, 12, 3, 3), 40, 37),
        call=(
            lambda x1, x2, w, b: ops.partial_conv2d(
                (x1, x2), (1 - HOLE[..., :6, :6], HOLE), w, b, padding=1, upsample=(2, 1)
            )[0],
            [draw(1, 3, 6, 6), draw(1, 2, 12, 12), draw(8, 5, 3, 3), draw(8)],
        ),
        terms=1024,
        **CONVOLVED,
    ),
    "instance_norm": Operator(
        norm_tensors,
        {"activation": "elu"},
        leaves=("x", "weight", "bias", "residual"),
        shared=("weight", "bias"),
        variants=({}, {"activation": "silu", "eps": 0.1}),
        large=lambda: norm_tensors(24, 37, 41),
        autocast="kept",
        call=(
            lambda x, residual: ops.instance_norm(x, residual=residual),
            [draw(2, 4, 6, 5), draw(2, 4, 6, 6)[..., :5]],
        ),
    ),
    "channelwise_linear": Operator(
        lambda: {"x": draw(2, 4, 3, 3), "weight": draw(4, 9, 9), "bias": draw(4, 9)},
        leaves=("x", "weight", "bias"),
        shared=("weight", "bias"),
        ours=False,
        autocast="lower",
    ),
    "shift_connection": Operator(
        maps("decoder", "encoder", "hole"),
        leaves=("encoder",),
        masks=("hole",),
        large=lambda: maps("decoder", "encoder", "hole", channels=70)(20, 21),
        autocast="kept",
        call=(
            lambda d, e: ops.shift_connection(d, e, HOLE)[0],
            [draw(1, 4, 12, 12), draw(1, 4, 12, 12)],
        ),
    ),
    "contextual_attention": Operator(
        attention_tensors,
        {"softmax_scale": 1.0, "return_index": True},
        leaves=("fg", "bg"),
        masks=("hole",),
        variants=(
            {"fuse": False, "hole_mode": "exclude", "overlap": "count"},
            {"key_norm": "sum", "pick": "align_corners", "softmax_scale": 1.0},
        ),
        large=lambda: attention_tensors(40, 38, 50),
        call=(
            lambda f, b: ops.contextual_attention(f, b, HOLE[..., :6, :6])[0],
            [draw(1, 4, 12, 12), draw(1, 4, 12, 12)],
        ),
        terms=64 * 81 * 4,
    ),
    "id_mrf_loss": Operator(
        maps("generated", "target"),
        {"reduction": "none"},
        leaves=("generated", "target"),
        variants=({"center": "spatial"}, {"exclude_self": True, "reduction": "mean"}),
        large=lambda: maps("generated", "target", channels=19)(17, 21),
        call=(
            lambda g, t: ops.id_mrf_loss(g, t).reshape(1),
            [draw(1, 4, 6, 6), draw(2, 4, 6, 6)[1:]],
        ),
        terms=64 * 1024,
    ),
    "nearest_patch": Operator(
        matching_tensors,
        masks=("valid", "where"),
        variants=({"metric": "l2"}, {"patch_size": 3, "stride": 1, "key_stride": 2}),
        large=lambda: matching_tensors(20, 20, 40),
    ),
    "refine_patch": Operator(
        refining_tensors,
        {"patch_size": 3},
        masks=("valid", "where"),
        variants=({"patch_size": 3, "radius": 2, "reach": 2},),
        large=lambda: refining_tensors(24, 25),
    ),
}


def run(op: str, tensors: Mapping[str, Any], options: Any = None) -> list[Tensor]:
    """All results of the operator for these tensors, as a list."""
    given = OPERATORS[op].options if options is None else options
    result = getattr(ops, op)(**tensors, **given)
    return [result] if isinstance(result, Tensor) else list(result)


def run_reference(op: str, tensors: Mapping[str, Any], options: Any = None) -> list[Tensor]:
    """What the reference makes of the same."""
    given = OPERATORS[op].options if options is None else options
    result = getattr(reference, op)(**tensors, **given)
    return [result] if isinstance(result, Tensor) else list(result)


def options_of(op: str) -> list[Mapping[str, Any]]:
    """Those of the entry and its variants."""
    return [OPERATORS[op].options, *OPERATORS[op].variants]


def _call(op: str) -> tuple[Callable[..., Tensor], list[Tensor]]:
    entry = OPERATORS[op]
    if entry.call is not None:
        return entry.call
    tensors = entry.tensors()

    def call(*leaves: Tensor) -> Tensor:
        return run(op, tensors | dict(zip(entry.leaves, leaves)))[0]

    return call, [tensors[name] for name in entry.leaves]


# Of each operator with a backward pass of its own: a function of tensors, and those tensors.
CALLS = {op: _call(op) for op, entry in OPERATORS.items() if entry.ours and entry.leaves}
EVERY_TENSOR = [(op, name) for op, entry in OPERATORS.items() for name in entry.tensors()]
