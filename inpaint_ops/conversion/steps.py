"""Single nodes that may be steps of a chain: activations, paddings, upsamplings."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from inpaint_ops.conversion.flow import Flow

_FUNCTIONS: dict[Any, str] = {
    F.relu: "relu",
    F.relu_: "relu",
    torch.relu: "relu",
    torch.relu_: "relu",
    F.leaky_relu: "leaky_relu",
    F.leaky_relu_: "leaky_relu",
    F.elu: "elu",
    F.elu_: "elu",
    F.silu: "silu",
    F.tanh: "tanh",
    torch.tanh: "tanh",
    F.sigmoid: "sigmoid",
    torch.sigmoid: "sigmoid",
}
_METHODS = {
    "relu": "relu",
    "relu_": "relu",
    "tanh": "tanh",
    "tanh_": "tanh",
    "sigmoid": "sigmoid",
    "sigmoid_": "sigmoid",
}
_MODULES: dict[type, str] = {
    nn.ReLU: "relu",
    nn.LeakyReLU: "leaky_relu",
    nn.ELU: "elu",
    nn.SiLU: "silu",
    nn.Tanh: "tanh",
    nn.Sigmoid: "sigmoid",
}
# The number each takes, where our operators know one value of it.
_NUMBERS: dict[str, tuple[str, float, float]] = {
    "leaky_relu": ("negative_slope", 0.01, 0.2),
    "elu": ("alpha", 1.0, 1.0),
}
_PADS: dict[type, str] = {
    nn.ReflectionPad2d: "reflect",
    nn.ReplicationPad2d: "replicate",
    nn.ZeroPad2d: "zeros",
}


def activation_of(flow: Flow, node: fx.Node) -> str | None:
    """Return the name of the activation that a node is."""
    name: str | None = None
    number: Any = None
    if node.op == "call_module":
        module = flow.absorbed(node, _MODULES)
        if module is not None:
            name = _MODULES[type(module)]
            number = getattr(module, _NUMBERS[name][0]) if name in _NUMBERS else None
    elif node.op == "call_method" and node.target in _METHODS and len(node.args) == 1:
        return None if node.kwargs else _METHODS[str(node.target)]
    elif node.op == "call_function" and node.target in _FUNCTIONS:
        name = _FUNCTIONS[node.target]
        rest = dict(node.kwargs)
        rest.pop("inplace", None)
        label, default, _ = _NUMBERS.get(name, ("", 0.0, 0.0))
        number = node.args[1] if len(node.args) > 1 else rest.pop(label, default)
        rest.pop("input", None)
        if rest or len(node.args) > 2 or (len(node.args) > 1 and not label):
            return None
    if name in _NUMBERS and number != _NUMBERS[name][2]:
        return None
    return name


def padding_of(flow: Flow, node: fx.Node) -> tuple[str, tuple[int, int]] | None:
    """Return mode and (height, width) of a padding, equal on opposite sides."""
    module: Any = flow.absorbed(node, _PADS)
    mode: Any
    sides: Any
    if module is not None:
        mode, sides = _PADS[type(module)], module.padding
    elif node.op == "call_function" and node.target is F.pad:
        sides = node.args[1] if len(node.args) > 1 else node.kwargs.get("pad")
        mode = node.args[2] if len(node.args) > 2 else node.kwargs.get("mode", "constant")
        value = node.args[3] if len(node.args) > 3 else node.kwargs.get("value")
        if mode == "constant" and value not in (None, 0, 0.0):
            return None
        mode = {"constant": "zeros"}.get(str(mode), str(mode))
    else:
        return None
    if not isinstance(sides, (tuple, list)) or len(sides) != 4:
        return None
    if not all(isinstance(s, int) and s >= 0 for s in sides) or mode not in _PADS.values():
        return None
    left, right, top, bottom = sides
    return (mode, (top, left)) if (left, top) == (right, bottom) else None


def doubles(flow: Flow, node: fx.Node) -> bool:
    """Return whether a node is a nearest upsampling by 2."""
    options: dict[str, Any]
    module: Any = flow.absorbed(node, {nn.Upsample: "", nn.UpsamplingNearest2d: ""})
    if module is not None:
        options = {"scale_factor": module.scale_factor, "mode": module.mode, "size": module.size}
        options["antialias"] = getattr(module, "recompute_scale_factor", None)
    elif node.op == "call_function" and node.target in (F.interpolate, F.upsample):
        names = ("size", "scale_factor", "mode", "align_corners", "recompute_scale_factor")
        options = {**dict(zip(names, node.args[1:])), **node.kwargs}
        options.pop("input", None)
    else:
        return False
    factor = options.pop("scale_factor", None)
    if options.pop("mode", "nearest") != "nearest" or any(options.values()):
        return False
    return factor in (2, 2.0, (2, 2), (2.0, 2.0), [2, 2], [2.0, 2.0])
