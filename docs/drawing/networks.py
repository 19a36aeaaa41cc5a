"""The networks of the ten methods, drawn from their definitions: nothing here names a layer.

A network runs once on tensors without memory. Hooks note each layer, and every tensor remembers
which layers it was made from, so that skip connections and branches show by themselves.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from canvas import ACCENT, BLUE, GOLD, GREY, HOLE, INK, KNOWN, LINE, Canvas
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from inpaint_ops.models import create_model

# Layers that are drawn as one box, by the names of their classes: what it says and its colour.
KINDS = {
    "GatedConv2d": ("gated convolution", BLUE),
    "PartialConv2d": ("partial convolution", KNOWN),
    "PartialBlock": ("partial convolution", KNOWN),
    "FusedConv2d": ("convolution", GREY),
    "ConvBlock": ("convolution", GREY),
    "FusedConvTranspose2d": ("transposed convolution", GOLD),
    "Conv2d": ("convolution", GREY),
    "Linear": ("linear layer", HOLE),
    "ChannelwiseLinear": ("channel-wise linear layer", HOLE),
    "ContextualAttention": ("contextual attention", HOLE),
    "ShiftConnection": ("shift connection", HOLE),
    "GuidanceLoss": ("guidance", HOLE),
}
_STEP, _LANE, _TOP = 30, 132, 50
_GREATEST, _LEAST = 84, 12
# Channels of a picture, at most.
_PICTURE = 3
# Operators that may add one layer's result to another's.
_SUMS = ("aten.add", "instance_norm")
Sources = frozenset[int]


@dataclass
class Node:
    """A layer as it was called."""

    name: str
    kind: str
    colour: str
    channels: int
    side: int
    words: str
    sources: Sources
    column: int = 0
    lane: int = 0
    stage: int = 0


@dataclass
class Trace:
    """Layers in the order of their calls, and the layers that each tensor was made from."""

    nodes: list[Node] = field(default_factory=list)
    made_from: dict[int, Sources] = field(default_factory=dict)
    # Tensors stay alive, so that no other one gets their identity.
    kept: list[Tensor] = field(default_factory=list)
    inside: int = 0

    def sources(self, values: Any) -> Sources:
        """Return the layers that tensors, in lists or alone, were made from."""
        found: Sources = frozenset()
        for tensor in _tensors(values):
            found |= self.made_from.get(id(tensor), frozenset())
        return found

    def note(self, values: Any, sources: Sources) -> None:
        """Remember what tensors were made from."""
        for tensor in _tensors(values):
            self.made_from[id(tensor)] = sources
            self.kept.append(tensor)


def _tensors(values: Any) -> Iterator[Tensor]:
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, dict):
        yield from _tensors(list(values.values()))
    elif isinstance(values, (list, tuple)):
        for value in values:
            yield from _tensors(value)


class _Follow(TorchDispatchMode):
    def __init__(self, trace: Trace) -> None:
        super().__init__()
        self.trace = trace

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        sources = self.trace.sources([args, kwargs or {}])
        if any(name in str(func) for name in _SUMS) and len(sources) > 1:
            # The last layer before a sum stands for it, and the other summand skips to that layer.
            *_, before, last = sorted(sources)
            self.trace.nodes[last].sources |= {before}
            sources = frozenset([last])
        self.trace.note(result, sources)
        return result


def _kind(module: nn.Module) -> tuple[str, str] | None:
    """Return what a layer is called and its colour; None for what is no box."""
    # Spectral normalisation derives a class from that of the layer.
    return next((KINDS[c.__name__] for c in type(module).__mro__[:2] if c.__name__ in KINDS), None)


def _pair(value: Any) -> int:
    return int(value[0] if isinstance(value, tuple) else value)


def _described(module: nn.Module) -> tuple[str, str, str]:
    """Return kind, colour and options of a layer."""
    kind, colour = _kind(module) or ("", "")
    conv: Any = getattr(module, "conv", module)
    if getattr(module, "transposed", False) or "Transpose" in type(conv).__name__:
        kind, colour = KINDS["FusedConvTranspose2d"]
    words = []
    if hasattr(conv, "kernel_size"):
        words.append(f"{_pair(conv.kernel_size)}x{_pair(conv.kernel_size)}")
        if _pair(conv.stride) != 1:
            words.append(f"stride {_pair(conv.stride)}")
        if _pair(conv.dilation) != 1:
            words.append(f"dilation {_pair(conv.dilation)}")
        factor = getattr(conv, "upsample", 1)
        if (max(factor) if isinstance(factor, tuple) else factor) != 1:
            words.append("after doubling")
    return kind, colour, ", ".join(words)


@contextmanager
def _hooks(network: nn.Module, trace: Trace) -> Iterator[None]:
    handles = []
    for name, module in network.named_modules():
        if _kind(module) is None:
            continue

        def before(module: nn.Module, args: Any, kwargs: Any) -> None:
            trace.inside += 1
            if trace.inside == 1:
                module.__dict__["_asked"] = trace.sources([args, kwargs])

        def after(module: nn.Module, args: Any, kwargs: Any, result: Any, name: str = name) -> None:
            trace.inside -= 1
            if trace.inside:
                return
            first = next(_tensors(result))
            kind, colour, words = _described(module)
            trace.nodes.append(
                Node(name, kind, colour, first.shape[1], first.shape[-1], words, module._asked)
            )
            trace.note(result, frozenset([len(trace.nodes) - 1]))

        handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
        handles.append(module.register_forward_hook(after, with_kwargs=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def trace(method: str, **options: Any) -> list[Node]:
    """Return the layers that a method runs to complete a picture, in order."""
    with torch.device("meta"):
        model = create_model(method, **options).eval()
    noted = Trace()
    with torch.no_grad(), _hooks(model, noted), _Follow(noted):
        network = model.get_submodule(model.completion_networks[0])
        # Some see a square of one size around a hole, whose place no trace can tell.
        if (size := getattr(network, "input_size", None)) is not None:
            network(torch.empty(1, 3, *size, device="meta"))
        else:
            graph = model.for_export()
            side = max(256, model.minimum)
            inputs = [torch.empty(1, x.shape[1], side, side, device="meta") for x in graph.sample]
            graph.module(*inputs)
    _place(noted.nodes)
    return noted.nodes


def _place(nodes: Sequence[Node]) -> None:
    """Give each layer a column, one after the last of its sources, and a free lane.

    A layer that makes a picture, or a map of edges, ends a stage; the next one is drawn below.
    """
    taken: set[tuple[int, int, int]] = set()
    stage = 0
    for node in nodes:
        node.stage = stage
        sources = [nodes[s] for s in node.sources if nodes[s].stage == stage]
        node.column = 1 + max((source.column for source in sources), default=-1)
        node.lane = max(sources, key=lambda source: source.column).lane if sources else 0
        while (stage, node.column, node.lane) in taken:
            node.lane += 1
        taken.add((stage, node.column, node.lane))
        stage += node.channels <= _PICTURE


def _height(side: int) -> float:
    return max(_LEAST, _GREATEST - 11 * math.log2(256 / side)) if side else _LEAST


def _join(
    canvas: Canvas,
    before: Node,
    after: Node,
    start: tuple[float, float],
    end: tuple[float, float],
) -> None:
    """Draw how one layer's result reaches another layer, past others in an arc."""
    (x0, y0), (x1, y1) = start, end
    if after.column - before.column == 1 or after.lane != before.lane:
        canvas.line(x0 + 9, y0, x1 - 10, y1, colour=LINE)
        return
    top0, top1 = y0 - _height(before.side) / 2, y1 - _height(after.side) / 2
    high = min(top0, top1) - 14 - 5 * math.sqrt(after.column - before.column)
    path = f"M{x0:g} {top0:g}C{x0:g} {high:g} {x1:g} {high:g} {x1:g} {top1:g}"
    canvas.curve(path, colour=ACCENT)


def draw(method: str, title: str, **options: Any) -> Canvas:
    """Draw a method's networks as they run when it completes a picture."""
    nodes = trace(method, **options)
    stages = [[n for n in nodes if n.stage == s] for s in range(1 + max(n.stage for n in nodes))]
    lanes = [1 + max(node.lane for node in stage) for stage in stages]
    columns = 1 + max(node.column for node in nodes)
    kinds = {node.kind: node.colour for node in nodes}
    width = max(40 + columns * _STEP, 190 * min(len(kinds), 3), 420)
    legend = _TOP + sum(lanes) * _LANE + 14
    canvas = Canvas(width, legend + 26 * math.ceil(len(kinds) / 3) + 14, title)
    canvas.text(12, 22, title, anchor="start", bold=True)

    def centre(node: Node) -> tuple[float, float]:
        lane = node.lane + sum(lanes[: node.stage])
        return 30 + node.column * _STEP, _TOP + 62 + lane * _LANE

    for node in nodes:
        for source in sorted(node.sources):
            if nodes[source].stage == node.stage:
                _join(canvas, nodes[source], node, centre(nodes[source]), centre(node))
    for node in nodes:
        x, y = centre(node)
        tall = _height(node.side)
        about = (
            f"{node.name}: {node.kind} {node.words}, {node.channels} x {node.side} x {node.side}"
        )
        canvas.rect(x - 9, y - tall / 2, 18, tall, node.colour, stroke=INK, round=2, title=about)
        canvas.text(x, y + tall / 2 + 12, str(node.channels), size=9)
        mark = _mark(node.words)
        if mark:
            canvas.text(x, y + tall / 2 + 23, mark, size=9, colour=ACCENT)
    for number, (kind, colour) in enumerate(kinds.items()):
        x, y = 14 + 190 * (number % 3), legend + 26 * (number // 3)
        canvas.rect(x, y - 11, 14, 14, colour, stroke=INK, round=2)
        canvas.text(x + 22, y, kind, anchor="start", size=12)
    return canvas


def _mark(words: str) -> str:
    for name, short in (("stride ", "/"), ("dilation ", "d")):
        if name in words:
            return short + words.split(name)[1].split(",")[0]
    return "x2" if "doubling" in words else ""
