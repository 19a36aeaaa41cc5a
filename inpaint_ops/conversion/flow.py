"""The graph of a forward with its modules, and the chains found in it."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, fx, nn

from inpaint_ops.conversion.attributes import hookless
from inpaint_ops.conversion.chains import Chain
from inpaint_ops.conversion.leaves import ConvertedConv2d, ConvertedConvTranspose2d


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
        inner: the chain without the padding and the upsampling before it.
    """

    layer: fx.Node
    chain: Chain
    nodes: list[fx.Node]
    source: fx.Node
    end: fx.Node
    gate: fx.Node | None = None
    residual: fx.Node | None = None
    inner: Site | None = None


@dataclass
class Flow:
    """A graph with the modules that its nodes call."""

    root: nn.Module
    graph: fx.Graph
    order: dict[fx.Node, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.number()

    def number(self) -> None:
        """Number the nodes in the order in which they run."""
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


def source_of(node: fx.Node) -> Any:
    """Return the first argument of a node."""
    return node.args[0] if node.args else node.kwargs.get("input")


def only_user(node: fx.Node) -> fx.Node | None:
    """Return the node that alone reads another, or None."""
    return next(iter(node.users)) if len(node.users) == 1 else None


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


def tensors_only(arguments: Sequence[Any]) -> bool:
    """Return whether all arguments are tensors or plain constants."""
    return all(
        a is None or type(a) in (bool, int, float, str) or isinstance(a, Tensor) for a in arguments
    )
