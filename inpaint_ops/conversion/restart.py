"""The rule for forwards that may be stopped in the middle and run again from the start."""

from __future__ import annotations

from typing import Any

from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from inpaint_ops.conversion.attributes import hookless
from inpaint_ops.conversion.flow import Flow
from inpaint_ops.conversion.record import record_of
from inpaint_ops.conversion.tracing import expect, plain_torch

_DRAWING = ("dropout", "rand", "bernoulli", "batch_norm", "normal")


def needed(flow: Flow) -> bool:
    """Return whether a comparison of sizes may send the forward back to the start."""
    return any(node.target is expect for node in flow.graph.nodes)


def possible(flow: Flow) -> bool:
    """Return whether nothing in a graph leaves a trace: no state, no draw, no input written to."""
    return all(_leaves_nothing(flow, node) for node in flow.graph.nodes)


def _leaves_nothing(flow: Flow, node: fx.Node) -> bool:
    if node.op == "call_module":
        module = flow.called(node)
        if not (plain_torch(module) or record_of(module) is not None):
            return False
        if not all(map(_stateless, module.modules())):
            return False
    name = str(getattr(node.target, "__name__", node.target))
    if node.op != "call_module" and any(word in name for word in _DRAWING):
        return False
    return not _writes(flow, node) or _fresh(flow, node.args[0] if node.args else None)


def _stateless(module: nn.Module) -> bool:
    if isinstance(module, (_BatchNorm, _DropoutNd)) and module.training:
        return False
    return hookless(module) and not hasattr(module, "parametrizations")


def _writes(flow: Flow, node: fx.Node) -> bool:
    if node.op == "call_module":
        return bool(getattr(flow.called(node), "inplace", False))
    if node.kwargs.get("inplace") or node.kwargs.get("out") is not None:
        return True
    name = str(getattr(node.target, "__name__", node.target))
    in_place = name.endswith("_") and not name.endswith("__")
    return in_place or name in ("iadd", "isub", "imul", "itruediv")


def _fresh(flow: Flow, node: Any) -> bool:
    """Return whether a tensor was made in the forward, no view of an input or a parameter."""
    if not isinstance(node, fx.Node) or node.op in ("placeholder", "get_attr"):
        return False
    if node.op == "call_module" and not _writes(flow, node):
        return type(flow.called(node)) not in (nn.Identity, nn.Dropout, nn.Dropout2d, nn.Flatten)
    if getattr(node.target, "__name__", "") == "cat":
        return True
    return bool(node.args) and _fresh(flow, node.args[0])
