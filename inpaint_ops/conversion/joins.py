"""Partial convolutions that read a concatenation, such as the decoder of a U-Net.

The operator reads several pictures where they lie, doubled or not: neither the doubled nor the
concatenated pictures and masks are made.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx

from inpaint_ops.conversion import recognition
from inpaint_ops.conversion.attributes import hookless
from inpaint_ops.conversion.flow import Flow, source_of
from inpaint_ops.conversion.partial import ConvertedPartial
from inpaint_ops.conversion.record import record_of
from inpaint_ops.conversion.steps import doubles

Part = tuple[fx.Node, int]


def join(flow: Flow) -> int:
    """Replace such calls; return how many there were."""
    count = 0
    for node in list(flow.graph.nodes):
        if node.op != "call_module" or len(node.args) != 2 or node.kwargs:
            continue
        module = flow.called(node)
        record = record_of(module)
        if not isinstance(module, ConvertedPartial) or record is None:
            continue
        if not record.allows(recognition.CALL) or not hookless(module):
            continue
        absorbed: list[fx.Node] = []
        pictures, masks = (_parts(flow, node, arg, absorbed) for arg in node.args)
        if not pictures or not masks:
            continue
        if [up for _, up in pictures] != [up for _, up in masks]:
            continue
        first = min(absorbed, key=lambda n: flow.order[n])
        if not flow.adjacent(first, node, absorbed):
            continue
        node.args = tuple(tuple(x for x, _ in part) for part in (pictures, masks))
        node.kwargs = {"upsample": tuple(up for _, up in pictures)}
        for n in sorted(absorbed, key=lambda n: -flow.order[n]):
            flow.graph.erase_node(n)
        count += 1
    return count


def share_planes(flow: Flow) -> None:
    """Let masks that only partial convolutions read stay one plane of memory."""
    partials = {
        node
        for node in flow.graph.nodes
        if node.op == "call_module"
        and isinstance(flow.called(node), ConvertedPartial)
        and hookless(flow.called(node))
    }
    for node in partials:
        masks = [n for n in node.users if n.target is operator.getitem and n.args[1] == 1]
        taken = all(n.target is operator.getitem for n in node.users)
        if taken and all(user in partials for mask in masks for user in mask.users):
            node.kwargs = {**node.kwargs, "views": True}


def _parts(flow: Flow, reader: fx.Node, arg: Any, absorbed: list[fx.Node]) -> list[Part] | None:
    """Return what a concatenation is made of, with the factors of upsampling before it."""
    if not isinstance(arg, fx.Node) or arg.target not in (torch.cat, torch.concat):
        return None
    parts: Any = arg.args[0] if arg.args else arg.kwargs.get("tensors")
    dim = arg.args[1] if len(arg.args) > 1 else arg.kwargs.get("dim", 0)
    if dim not in (1, -3) or set(arg.users) != {reader} or not isinstance(parts, (list, tuple)):
        return None
    absorbed.append(arg)
    found: list[Part] = []
    for part in parts:
        if not isinstance(part, fx.Node):
            return None
        if set(part.users) == {arg} and doubles(flow, part):
            absorbed.append(part)
            found.append((source_of(part), 2))
        else:
            found.append((part, 1))
    return found
