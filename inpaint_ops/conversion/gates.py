"""Gated convolutions in the flow of a forward: features * sigmoid(gates)."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from inpaint_ops.conversion.chains import Chain
from inpaint_ops.conversion.flow import Flow, Site, only_user, source_of
from inpaint_ops.conversion.growth import convertible, with_start
from inpaint_ops.conversion.leaves import ConvertedConv2d
from inpaint_ops.conversion.steps import activation_of

_PRODUCTS = (operator.mul, torch.mul, torch.multiply)


def is_product(node: fx.Node) -> bool:
    """Return whether a node is the product of two others."""
    if node.kwargs or len(node.args) != 2 or not all(isinstance(a, fx.Node) for a in node.args):
        return False
    if node.op == "call_method":
        return node.target == "mul"
    return node.op == "call_function" and node.target in _PRODUCTS


def gated_site(flow: Flow, product: fx.Node) -> Site | None:
    """Return the gated convolution that ends in a product."""
    for i in (0, 1):
        features, gates = product.args[i], product.args[1 - i]
        assert isinstance(features, fx.Node)
        assert isinstance(gates, fx.Node)
        if activation_of(flow, gates) != "sigmoid" or only_user(gates) is not product:
            continue
        nodes, activation = [product, gates], "identity"
        name = activation_of(flow, features)
        if name is not None and only_user(features) is product:
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
    if not isinstance(module, ConvertedConv2d) or not convertible(module):
        return None
    if module.groups != 1 or module.out_channels % 2 or only_user(layer) is not cut:
        return None
    if not _halves(cut, module.out_channels):
        return None
    chain = Chain(gate="split", activation=activation)
    site = Site(layer, chain, [*nodes, f, g, cut, layer], source_of(layer), end)
    return with_start(flow, site, [layer])


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
    if not (convertible(first) and convertible(second)) or first.groups != 1:
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
    return with_start(flow, site, [f, g])
