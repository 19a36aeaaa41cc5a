"""Stretches of a data flow in channels_last, the layout in which our operators are fastest.

A tensor stays in channels_last if all that read it are our operators, or functions that give the
same values in any layout and stay there as well. All others read and return what they did before:
a view of a convolution's result, say, works only in the layout that it was written for.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from inpaint_ops.conversion import leaves, recognition
from inpaint_ops.conversion.attributes import hookless
from inpaint_ops.conversion.chains import ALONE, Chain
from inpaint_ops.conversion.flow import Flow
from inpaint_ops.conversion.partial import ConvertedPartial
from inpaint_ops.conversion.record import record_of

_FUNCTIONS = (
    *(F.relu, F.leaky_relu, F.elu, F.silu, F.pad, F.interpolate, torch.relu, torch.tanh, F.tanh),
    *(torch.sigmoid, F.sigmoid, torch.cat, torch.clamp, torch.add, torch.mul, torch.sub),
    *(operator.add, operator.sub, operator.mul, operator.truediv, operator.iadd),
)
_MODULES = (
    *(nn.ReLU, nn.LeakyReLU, nn.ELU, nn.SiLU, nn.Tanh, nn.Sigmoid, nn.BatchNorm2d, nn.Identity),
    *(nn.Upsample, nn.UpsamplingNearest2d, nn.ReflectionPad2d, nn.ReplicationPad2d, nn.ZeroPad2d),
)


def enter(x: Any) -> Any:
    """Return a picture in channels_last."""
    if isinstance(x, Tensor) and x.dim() == 4:
        return x.contiguous(memory_format=torch.channels_last)
    return x


def leave(x: Any) -> Any:
    """Return a tensor as planes."""
    return x.contiguous() if isinstance(x, Tensor) else x


def _ours(flow: Flow, node: fx.Node) -> bool:
    """Return whether a node gives a picture of one of our operators."""
    if node.op == "call_function" and node.target is operator.getitem and node.args[1] == 0:
        source = node.args[0]
        return isinstance(source, fx.Node) and _partial(flow, source)
    if node.op != "call_module":
        return False
    module = flow.called(node)
    record = record_of(module)
    if record is None or record.kind not in leaves.NAMES:
        return False
    chain = node.kwargs.get("chain", ALONE)
    return chain != "parameters" and record.allows(Chain(*chain))  # type: ignore[misc]


def _partial(flow: Flow, node: fx.Node) -> bool:
    if node.op != "call_module":
        return False
    module = flow.called(node)
    record = record_of(module)
    known = isinstance(module, ConvertedPartial) and record is not None
    return known and record is not None and record.allows(recognition.CALL)


def _neutral(flow: Flow, node: fx.Node) -> bool:
    """Return whether a node gives the same values in any layout, and keeps that of its input."""
    if node.op == "call_module":
        module = flow.called(node)
        return type(module) in _MODULES and hookless(module)
    return node.op == "call_function" and node.target in _FUNCTIONS


def arrange(flow: Flow) -> bool:
    """Change the graph to channels_last where that pays; return whether anything was changed."""
    graph = flow.graph
    ours = {n for n in graph.nodes if _ours(flow, n)}
    partials = {n for n in graph.nodes if _partial(flow, n)}
    readers = (ours | partials) - {n for n in ours if n.target is operator.getitem}
    inside = ours | {n for n in graph.nodes if _neutral(flow, n)}
    while True:
        out = {n for n in inside if not _stays(flow, n, inside, ours, readers)}
        if not out:
            break
        inside -= out
    # Our operators return what they are given: results that do not stay are turned back.
    leaving = [n for n in graph.nodes if n in ours and n not in inside]
    entering: dict[fx.Node, list[fx.Node]] = {}
    for node in graph.nodes:
        if node in readers or node in inside:
            for x in _pictures(node, node in partials):
                if x not in inside and x not in ours:
                    entering.setdefault(x, []).append(node)
    narrow = sum(n.op == "placeholder" for n in entering)
    final = sum(any(u.op == "output" for u in n.users) for n in leaving)
    copies = len(entering) - narrow + len(leaving) - final
    if not inside or copies > len(ours):
        return False
    for x, nodes in entering.items():
        with graph.inserting_after(x):
            copy = graph.call_function(enter, (x,))
        for node in nodes:
            node.replace_input_with(x, copy)
    for node in leaving:
        with graph.inserting_after(node):
            back = graph.call_function(leave, (node,))
        node.replace_all_uses_with(back, lambda user, back=back: user is not back)
    return True


def _pictures(node: fx.Node, partial: bool) -> list[fx.Node]:
    """Return the nodes whose values a node reads as pictures."""
    if node.target is operator.getitem:
        return []
    if partial:
        first = node.args[0]
        listed = list(first) if isinstance(first, (tuple, list)) else [first]
        return [x for x in listed if isinstance(x, fx.Node)]
    gate = node.kwargs.get("gate")
    return [x for x in node.all_input_nodes if x is not gate]


def _stays(
    flow: Flow,
    node: fx.Node,
    inside: set[fx.Node],
    ours: set[fx.Node],
    readers: set[fx.Node],
) -> bool:
    """Return whether the result of a node may stay in channels_last."""
    for user in node.users:
        if _asks_size(user):
            continue
        if user in inside and user.target is not operator.getitem:
            continue
        if user not in readers or node not in _pictures(user, user not in ours):
            return False
    if node in ours:
        return True
    read = node.all_input_nodes
    if not any(x in inside for x in read):
        return False
    # What is written in place has to be the tensor itself, not a copy in another layout.
    return _writes_nothing(flow, node) or (bool(read) and read[0] in inside)


def _asks_size(node: fx.Node) -> bool:
    """Return whether a node asks a tensor for what no layout changes."""
    if node.op == "call_method":
        return node.target in ("size", "dim")
    return node.target is getattr and node.args[1] in ("shape", "dtype", "device", "ndim")


def _writes_nothing(flow: Flow, node: fx.Node) -> bool:
    if node.op == "call_module":
        return not getattr(flow.called(node), "inplace", False)
    return node.target is not operator.iadd and not node.kwargs.get("inplace", False)
