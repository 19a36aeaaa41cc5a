"""Chains of layers in the data flow of a forward, and their replacement by one call.

A step is taken into a chain only if the chain alone reads what comes before it, and if nothing that
may write into a tensor runs between them.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from inpaint_ops.conversion.chains import ALONE, Chain
from inpaint_ops.conversion.leaves import (
    ConvertedConv2d,
    ConvertedConvTranspose2d,
    ConvertedInstanceNorm2d,
)
from inpaint_ops.conversion.record import record_of
from inpaint_ops.conversion.tracing import hookless

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
_PRODUCTS = (operator.mul, torch.mul, torch.multiply)
_SUMS = (operator.add, torch.add)


@dataclass
class Site:
    """A chain in a graph.

    Attributes:
        layer: node of the convolution or norm (the features' where there are two).
        chain: what stands around it.
        nodes: all nodes of the chain.
        source: node that the chain reads.
        end: node that others read.
        gate: node of the gates' convolution.
        residual: node that is added.
    """

    layer: fx.Node
    chain: Chain
    nodes: list[fx.Node]
    source: fx.Node
    end: fx.Node
    gate: fx.Node | None = None
    residual: fx.Node | None = None


@dataclass
class Flow:
    """A graph with the modules that its nodes call."""

    root: nn.Module
    graph: fx.Graph
    order: dict[fx.Node, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.order = {node: i for i, node in enumerate(self.graph.nodes)}

    def module(self, node: Any) -> nn.Module | None:
        """Return the module that a node calls with one input and nothing else."""
        if not isinstance(node, fx.Node) or node.op != "call_module":
            return None
        return None if node.kwargs or len(node.args) != 1 else self.called(node)

    def called(self, node: fx.Node) -> nn.Module:
        """Return the module that a node calls."""
        return self.root.get_submodule(str(node.target))

    def absorbed(self, node: Any, kinds: dict[type, str]) -> nn.Module | None:
        """Return the module of a node if it is of these kinds, and nothing else hangs on it."""
        module = self.module(node)
        if module is None or type(module) not in kinds or not hookless(module):
            return None
        return None if "forward" in module.__dict__ else module

    def adjacent(self, first: fx.Node, last: fx.Node, within: Sequence[fx.Node]) -> bool:
        """Return whether only nodes of the chain run from `first` to `last`."""
        low, high = self.order[first], self.order[last]
        return all(
            node in within or node.op == "get_attr"
            for node, i in self.order.items()
            if low < i < high
        )


def fold_channels(flow: Flow) -> None:
    """Put numbers for the channels of a convolution's result, and for what is computed of them."""
    for node in list(flow.graph.nodes):
        number = _channels(flow, node)
        counts = len(node.args) == 2 and all(type(a) is int for a in node.args)
        if counts and node.target in (operator.floordiv, operator.mul):
            number = node.target(*node.args)
        if number is None:
            continue

        def put(n: fx.Node, node: fx.Node = node, number: int = number) -> Any:
            return number if n is node else n

        for user in list(node.users):
            user.args = fx.map_arg(user.args, put)
            user.kwargs = fx.map_arg(user.kwargs, put)
        graph = node.graph
        source = node.args[0] if node.args else None
        graph.erase_node(node)
        if isinstance(source, fx.Node) and not source.users and source.target is getattr:
            graph.erase_node(source)


def _channels(flow: Flow, node: fx.Node) -> int | None:
    """Return the number that a node asks for: x.size(1), x.shape[1] of a convolution's result."""
    source: Any = None
    if node.op == "call_method" and node.target == "size" and node.args[1:] == (1,):
        source = node.args[0]
    elif node.op == "call_function" and node.target is operator.getitem and node.args[1:] == (1,):
        shape: Any = node.args[0]
        if isinstance(shape, fx.Node) and shape.target is getattr and shape.args[1:] == ("shape",):
            source = shape.args[0]
        elif isinstance(shape, fx.Node) and (shape.op, shape.target) == ("call_method", "size"):
            source = shape.args[0] if len(shape.args) == 1 and not shape.kwargs else None
    if not isinstance(source, fx.Node) or source.op != "call_module":
        return None
    module = flow.called(source)
    if not isinstance(module, (ConvertedConv2d, ConvertedConvTranspose2d)):
        return None
    return module.out_channels


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


def _padding(flow: Flow, node: fx.Node) -> tuple[str, tuple[int, int]] | None:
    """Return mode and (height, width) of a padding, equal on opposite sides."""
    module = flow.absorbed(node, _PADS)
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
    module = flow.absorbed(node, {nn.Upsample: "", nn.UpsamplingNearest2d: ""})
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


def source_of(node: fx.Node) -> Any:
    """Return the first argument of a node."""
    return node.args[0] if node.args else node.kwargs.get("input")


def _only_user(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def sites(flow: Flow) -> list[Site]:
    """Return the chains of a graph, no node in two of them."""
    fold_channels(flow)
    flow.__post_init__()
    found: list[Site] = []
    taken: set[fx.Node] = set()

    def take(site: Site | None) -> None:
        if site is not None and site.chain != ALONE and not taken.intersection(site.nodes):
            found.append(site)
            taken.update(site.nodes)

    for node in flow.graph.nodes:
        if _is_product(node):
            take(_gated(flow, node))
    for node in flow.graph.nodes:
        if node in taken:
            continue
        module = flow.module(node)
        if isinstance(module, (ConvertedConv2d, ConvertedConvTranspose2d)):
            if _convertible(module):
                take(_convolution(flow, node, module))
        elif isinstance(module, ConvertedInstanceNorm2d) and _convertible(module):
            take(_norm(flow, node))
    return found


def _convertible(module: nn.Module) -> bool:
    """Return whether no hook of a layer sees its input or its result."""
    if record_of(module) is None:
        return False
    if module._forward_hooks or module._backward_hooks or module._backward_pre_hooks:
        return False
    return all(
        type(hook).__module__.startswith("torch.nn.utils.")
        for hook in module._forward_pre_hooks.values()
    )


def _with_activation(flow: Flow, node: fx.Node, nodes: list[fx.Node]) -> tuple[str, fx.Node]:
    """Return the activation after a node, and the last node of both."""
    user = _only_user(node)
    name = None if user is None else activation_of(flow, user)
    if user is None or name is None:
        return "identity", node
    nodes.append(user)
    return name, user


def _convolution(flow: Flow, node: fx.Node, module: nn.Module) -> Site | None:
    nodes = [node]
    activation, end = _with_activation(flow, node, nodes)
    site = Site(node, Chain(activation=activation), nodes, source_of(node), end)
    return _with_start(flow, site, [node]) if isinstance(module, ConvertedConv2d) else site


def _with_start(flow: Flow, site: Site, layers: list[fx.Node]) -> Site:
    """Return a site with the padding and the upsampling before it."""
    module = flow.called(layers[0])
    assert isinstance(module, nn.Conv2d)
    last = max(layers, key=lambda n: flow.order[n])
    chain, nodes = site.chain, list(site.nodes)
    before = site.source

    def alone(node: Any, readers: list[fx.Node]) -> bool:
        return isinstance(node, fx.Node) and set(node.users) == set(readers)

    readers = layers
    if alone(before, readers):
        pad = _padding(flow, before)
        unpadded = module.padding in (0, (0, 0), "valid")
        if pad is not None and unpadded and flow.adjacent(before, last, nodes):
            chain = chain._replace(padding_mode=pad[0], padding=pad[1])
            nodes, readers, before = [*nodes, before], [before], source_of(before)
    if alone(before, readers) and doubles(flow, before) and flow.adjacent(before, last, nodes):
        chain = chain._replace(upsample=2)
        nodes, before = [*nodes, before], source_of(before)
    return Site(site.layer, chain, nodes, before, site.end, site.gate)


def _norm(flow: Flow, node: fx.Node) -> Site:
    nodes = [node]
    activation, end = _with_activation(flow, node, nodes)
    site = Site(node, Chain(activation=activation), nodes, source_of(node), end)
    total = _only_user(end)
    if total is None or not _is_sum(total) or not flow.adjacent(node, total, nodes):
        return site
    other = total.args[1] if total.args[0] is end else total.args[0]
    if not isinstance(other, fx.Node) or other is end:
        return site
    site.chain = site.chain._replace(residual=True)
    site.nodes, site.end, site.residual = [*nodes, total], total, other
    return site


def _is_sum(node: fx.Node) -> bool:
    plain = not node.kwargs and len(node.args) == 2
    return plain and node.op == "call_function" and node.target in _SUMS


def _is_product(node: fx.Node) -> bool:
    if node.kwargs or len(node.args) != 2 or not all(isinstance(a, fx.Node) for a in node.args):
        return False
    if node.op == "call_method":
        return node.target == "mul"
    return node.op == "call_function" and node.target in _PRODUCTS


def _gated(flow: Flow, product: fx.Node) -> Site | None:
    """Return the gated convolution that ends in a product."""
    for i in (0, 1):
        features, gates = product.args[i], product.args[1 - i]
        assert isinstance(features, fx.Node)
        assert isinstance(gates, fx.Node)
        if activation_of(flow, gates) != "sigmoid" or _only_user(gates) is not product:
            continue
        nodes, activation = [product, gates], "identity"
        name = activation_of(flow, features)
        if name is not None and _only_user(features) is product:
            nodes, activation, features = [*nodes, features], name, source_of(features)
        g = source_of(gates)
        match: Callable[..., Site | None]
        for match in (_split, _pair):
            site = match(flow, product, features, g, nodes, activation)
            if site is not None:
                return site
    return None


def _split(
    flow: Flow, end: fx.Node, f: Any, g: Any, nodes: list[fx.Node], activation: str
) -> Site | None:
    """Return a site whose features and gates are the halves of one convolution."""
    for node, index in ((f, 0), (g, 1)):
        if not isinstance(node, fx.Node) or node.target is not operator.getitem:
            return None
        if node.args[1] != index or len(node.users) != 1:
            return None
    cut = f.args[0]
    if g.args[0] is not cut or not isinstance(cut, fx.Node) or set(cut.users) != {f, g}:
        return None
    layer = source_of(cut)
    module = flow.module(layer)
    if not isinstance(module, ConvertedConv2d) or not _convertible(module):
        return None
    if module.groups != 1 or module.out_channels % 2 or _only_user(layer) is not cut:
        return None
    if not _halves(cut, module.out_channels):
        return None
    chain = Chain(gate="split", activation=activation)
    site = Site(layer, chain, [*nodes, f, g, cut, layer], source_of(layer), end)
    return _with_start(flow, site, [layer])


def _halves(cut: fx.Node, channels: int) -> bool:
    """Return whether a node cuts so many channels into halves."""
    name = cut.target if cut.op == "call_method" else getattr(cut.target, "__name__", "")
    if cut.op == "call_function" and cut.target not in (torch.chunk, torch.split):
        return False
    if cut.op not in ("call_method", "call_function") or name not in ("chunk", "split"):
        return False
    label = (
        "chunks"
        if name == "chunk"
        else "split_size"
        if cut.op == "call_method"
        else ("split_size_or_sections")
    )
    rest = dict(cut.kwargs)
    size = cut.args[1] if len(cut.args) > 1 else rest.pop(label, None)
    dim = cut.args[2] if len(cut.args) > 2 else rest.pop("dim", 0)
    rest.pop("input", None)
    wanted = (2,) if name == "chunk" else (channels // 2, [channels // 2] * 2)
    size = list(size) if isinstance(size, (tuple, list)) else size
    return not rest and dim in (1, -3) and size in wanted


def _pair(
    flow: Flow, end: fx.Node, f: Any, g: Any, nodes: list[fx.Node], activation: str
) -> Site | None:
    """Return a site whose features and gates come from two convolutions of one tensor."""
    first, second = flow.module(f), flow.module(g)
    if not isinstance(first, ConvertedConv2d) or not isinstance(second, ConvertedConv2d):
        return None
    if f is g or source_of(f) is not source_of(g) or len(f.users) != 1 or len(g.users) != 1:
        return None
    if not (_convertible(first) and _convertible(second)) or first.groups != 1:
        return None
    names = (
        *("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation"),
        *("groups", "padding_mode"),
    )
    if any(getattr(first, name) != getattr(second, name) for name in names):
        return None
    if (first.bias is None) != (second.bias is None):
        return None
    nodes = [*nodes, f, g]
    ordered = sorted((f, g), key=lambda n: flow.order[n])
    if not flow.adjacent(ordered[0], ordered[1], nodes):
        return None
    site = Site(f, Chain(gate="pair", activation=activation), nodes, source_of(f), end, g)
    return _with_start(flow, site, [f, g])


def rewrite(flow: Flow, found: list[Site]) -> list[Site]:
    """Replace the chains that their layers allow, each by one call; return those."""
    done = []
    made: dict[Any, fx.Node] = {}
    for site in found:
        site.source = made.get(site.source, site.source)
        site.residual = made.get(site.residual, site.residual)
        record = record_of(flow.called(site.layer))
        if record is None or not record.allows(site.chain):
            continue
        done.append(site)
        graph = flow.graph
        # A norm with something added runs where that is known; others where their layer stood.
        place = (
            site.end
            if site.residual is not None
            else min(
                (n for n in (site.layer, site.gate) if n is not None), key=lambda n: flow.order[n]
            )
        )
        with graph.inserting_before(place):
            options: dict[str, Any] = {"chain": tuple(site.chain)}
            if site.gate is not None:
                options["gate"] = graph.call_module(
                    str(site.gate.target), (site.source,), {"chain": "parameters"}
                )
            if site.residual is not None:
                options["residual"] = site.residual
            call = graph.call_module(str(site.layer.target), (site.source,), options)
        site.end.replace_all_uses_with(call)
        made[site.end] = call
        for node in sorted(site.nodes, key=lambda n: -flow.order[n]):
            graph.erase_node(node)
    return done


def tensors_only(arguments: Sequence[Any]) -> bool:
    """Return whether all arguments are tensors or plain constants."""
    return all(
        a is None or type(a) in (bool, int, float, str) or isinstance(a, Tensor) for a in arguments
    )
