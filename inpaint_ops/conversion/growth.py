"""Steps around a convolution that join its chain."""

from __future__ import annotations

from typing import Any

from torch import fx, nn

from inpaint_ops.conversion.flow import Flow, Site, only_user, source_of
from inpaint_ops.conversion.record import record_of
from inpaint_ops.conversion.steps import activation_of, doubles, padding_of


def convertible(module: nn.Module) -> bool:
    """Return whether no hook of a layer sees its input or its result."""
    if record_of(module) is None:
        return False
    if module._forward_hooks or module._backward_hooks or module._backward_pre_hooks:
        return False
    return all(
        type(hook).__module__.startswith("torch.nn.utils.")
        for hook in module._forward_pre_hooks.values()
    )


def with_activation(flow: Flow, node: fx.Node, nodes: list[fx.Node]) -> tuple[str, fx.Node]:
    """Return the activation after a node, and the last node of both."""
    user = only_user(node)
    name = None if user is None else activation_of(flow, user)
    if user is None or name is None:
        return "identity", node
    nodes.append(user)
    return name, user


def with_start(flow: Flow, site: Site, layers: list[fx.Node]) -> Site:
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
        pad = padding_of(flow, before)
        unpadded = module.padding in (0, (0, 0), "valid")
        if pad is not None and unpadded and flow.adjacent(before, last, nodes):
            chain = chain._replace(padding_mode=pad[0], padding=pad[1])
            nodes, readers, before = [*nodes, before], [before], source_of(before)
    if alone(before, readers) and doubles(flow, before) and flow.adjacent(before, last, nodes):
        chain = chain._replace(upsample=2)
        nodes, before = [*nodes, before], source_of(before)
    if chain == site.chain:
        return site
    return Site(site.layer, chain, nodes, before, site.end, site.gate, inner=site)
