"""Chains of layers in the data flow of a forward, and their replacement by one call.

A step is taken into a chain only if the chain alone reads what comes before it, and if nothing that
may write into a tensor runs between them.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx, nn

from inpaint_ops.conversion.chains import ALONE, Chain
from inpaint_ops.conversion.flow import Flow, Site, fold_channels, only_user, source_of
from inpaint_ops.conversion.gates import gated_site, is_product
from inpaint_ops.conversion.growth import convertible, with_activation, with_start
from inpaint_ops.conversion.leaves import (
    ConvertedConv2d,
    ConvertedConvTranspose2d,
    ConvertedInstanceNorm2d,
)
from inpaint_ops.conversion.record import record_of

_SUMS = (operator.add, torch.add)


def sites(flow: Flow) -> list[Site]:
    """Return the chains of a graph, no node in two of them."""
    fold_channels(flow)
    flow.number()
    found: list[Site] = []
    taken: set[fx.Node] = set()

    def take(site: Site | None) -> None:
        if site is not None and site.chain != ALONE and not taken.intersection(site.nodes):
            found.append(site)
            taken.update(site.nodes)

    for node in flow.graph.nodes:
        if is_product(node):
            take(gated_site(flow, node))
    for node in flow.graph.nodes:
        if node in taken:
            continue
        module = flow.module(node)
        if isinstance(module, (ConvertedConv2d, ConvertedConvTranspose2d)):
            if convertible(module):
                take(_convolution(flow, node, module))
        elif isinstance(module, ConvertedInstanceNorm2d) and convertible(module):
            take(_norm(flow, node))
    return found


def _convolution(flow: Flow, node: fx.Node, module: nn.Module) -> Site | None:
    nodes = [node]
    activation, end = with_activation(flow, node, nodes)
    site = Site(node, Chain(activation=activation), nodes, source_of(node), end)
    return with_start(flow, site, [node]) if isinstance(module, ConvertedConv2d) else site


def _norm(flow: Flow, node: fx.Node) -> Site:
    nodes = [node]
    activation, end = with_activation(flow, node, nodes)
    site = Site(node, Chain(activation=activation), nodes, source_of(node), end)
    total = only_user(end)
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


def _allowed(flow: Flow, site: Site) -> Site | None:
    """Return the site, or the one inside it, that its layer allows."""
    record = record_of(flow.called(site.layer))
    for choice in (site, site.inner):
        if record is None or choice is None or choice.chain == ALONE:
            continue
        if record.allows(choice.chain):
            return choice
    return None


def rewrite(flow: Flow, found: list[Site]) -> list[Site]:
    """Replace the chains that their layers allow, each by one call; return those."""
    done = []
    made: dict[Any, fx.Node] = {}
    for outer in found:
        site = _allowed(flow, outer)
        if site is None:
            continue
        site.source = made.get(site.source, site.source)
        site.residual = made.get(site.residual, site.residual)
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
