"""The plan of a convolution on the CPU: all that its options and its shapes decide, made once."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from inpaint_ops.ops.convolution import costs
from inpaint_ops.ops.convolution.spec import Geometry, Pair
from inpaint_ops.ops.extension_objects import ConvPlan
from inpaint_ops.ops.tensors import native

# (filters, channels of a group, kh, kw); of a transposed convolution (channels, filters, kh, kw).
WeightShape = tuple[int, int, int, int]


class Form(NamedTuple):
    """Options of a packed weight.

    Args:
        algorithm: one of the extension's `algorithms`.
        stride: of the convolution.
        gated: whether the filters are features and gates.
        flipped: for the gradient of the input: filters and channels exchanged, taps reversed.
        step: stride of a transposed convolution, whose weight is (channels, filters, kh, kw);
            0: an ordinary one.
        padding: of the transposed convolution.
        summed: for the gradient of an image from that of its doubling: taps are the sums of two by
            two neighbours.
    """

    algorithm: str
    stride: Pair = (1, 1)
    gated: bool = False
    flipped: bool = False
    step: int = 0
    padding: Pair = (0, 0)
    summed: bool = False

    @property
    def options(self) -> tuple[str, Pair, bool, bool, int, Pair]:
        """What the extension packs by: all but `summed`, which is done before."""
        return self[:6]


class Convolution(NamedTuple):
    """A convolution by one weight, its shapes apart.

    Args:
        geometry: where it reads; of a "transposed" one, where the convolution that it is the
            adjoint of reads.
        gated: whether the filters are features and gates.
        activation: of the features.
        kind: "forward"; "transposed"; "scattered", the same by a weight that is read where it lies
            or not at all; "flipped", with filters and channels of the weight exchanged and its taps
            reversed; "doubled", that by the sums of neighbouring taps, see `cpu_backward`; or
            "weight_gradient".
        backward: whether it forms the gradient of an input. A training changes the weight before
            the next one, so the choice of an algorithm counts its packing.
    """

    geometry: Geometry
    gated: bool = False
    activation: str = "identity"
    kind: str = "forward"
    backward: bool = False


class Shapes(NamedTuple):
    """The shapes that a convolution meets.

    Args:
        batch: images.
        size: height and width of the result; of a "transposed" or "scattered" convolution, of its
            input.
        weight: of the weight.
        tensors: of each tensor of the input its upsampling factor and the channels that each plane
            of its mask speaks for.
        in_place: whether the weight may be read where it lies, see `in_place`.
    """

    batch: int
    size: Pair
    weight: WeightShape
    tensors: tuple[tuple[int, tuple[int, ...]], ...]
    in_place: bool = False


class Plan(NamedTuple):
    """How a convolution is computed.

    Args:
        algorithm: one of the extension's `algorithms`, or "aten" for PyTorch's own convolution.
        form: in which the weight is packed; None: it is read where it lies, or by aten.
        kernels: the extension's `ConvPlan`; None for aten and for gradients of weights.
    """

    algorithm: str
    form: Form | None = None
    kernels: ConvPlan | None = None


def plan(what: Convolution, shapes: Shapes, allowed: str) -> Plan:
    """Return the plan; `allowed`: one of `spec.ALGORITHMS`."""
    return _plan(what, shapes, allowed, native().instruction_set())


@lru_cache(maxsize=4096)
def _plan(what: Convolution, shapes: Shapes, allowed: str, instruction_set: str) -> Plan:
    """Make a plan; the algorithms' choice and what they take depend on the instruction set."""
    if what.kind == "doubled":
        # Winograd's algorithms take 0.5 to 0.7 of the time, 0.8 to 0.9 of a layer's forward and
        # backward pass, and err 5.5 to 7.6 times as much as eager where direct sums err 1.2 times.
        return made(what, shapes, "direct")
    algorithm = choose(what, shapes, allowed)
    # The caller wants a weight read where it lies, or goes another way itself.
    if what.kind == "scattered" and algorithm != "unpacked":
        algorithm = "aten"
    return made(what, shapes, algorithm)


def forget() -> None:
    """Forget all plans: costs have changed."""
    _plan.cache_clear()


def made(what: Convolution, shapes: Shapes, algorithm: str) -> Plan:
    """Make the plan of an algorithm.

    Raises:
        ValueError: it does not take the convolution.
    """
    g, kind = what.geometry, what.kind
    first, second, *kernel = shapes.weight
    if kind == "doubled":
        kernel = [size + 1 for size in kernel]
    if algorithm == "aten" or kind == "weight_gradient":
        return Plan(algorithm)
    transposed = kind in ("transposed", "scattered")
    stride, step, padding = g.stride, 0, (g.padding[0], g.padding[2])
    if transposed and algorithm == "unpacked":
        step = 1
    elif transposed:
        stride, step = (1, 1), g.stride[0]
    form = Form(
        algorithm,
        stride,
        what.gated,
        flipped=kind in ("flipped", "doubled"),
        step=step,
        padding=padding if step else (0, 0),
        summed=kind == "doubled",
    )
    kernels = native().ConvPlan(
        algorithm,
        (kernel[0], kernel[1]),
        stride,
        g.dilation,
        padding,
        g.padding_mode,
        shapes.tensors,
        first if kind == "forward" else second,
        what.gated,
        what.activation,
        step,
    )
    return Plan(algorithm, None if algorithm == "unpacked" else form, kernels)


def choose(
    what: Convolution,
    shapes: Shapes,
    allowed: str = "auto",
    prices: Sequence[float] | None = None,
) -> str:
    """Return the algorithm of a float32 convolution, chosen by csrc/convolution/choose.cpp.

    It depends on the shapes, on what is allowed, and on `prices`, by default those of
    `costs.current`: the same for one machine, whatever is masked, wanted or recorded for gradients.

    `_plan` overrules the choice for two kinds of gradients of inputs, "doubled" and "scattered".
    """
    g = what.geometry
    weight = shapes.weight
    if what.kind == "flipped":
        weight = (weight[1], weight[0], weight[2], weight[3])
    name: str = native().choose_algorithm(
        {"scattered": "transposed", "flipped": "forward"}.get(what.kind, what.kind),
        shapes.batch,
        weight,
        g.groups,
        g.stride,
        g.dilation,
        (g.padding[0], g.padding[2]),
        g.upsample,
        shapes.size,
        allowed != "direct",
        allowed == "auto",
        shapes.in_place and allowed != "direct",
        what.backward,
        costs.current(native().instruction_set()) if prices is None else prices,
    )
    return name


def in_place(weight: Tensor) -> bool:
    """Return whether the kernels can read a weight where it lies."""
    return weight.dtype == torch.float32 and weight.is_contiguous()
