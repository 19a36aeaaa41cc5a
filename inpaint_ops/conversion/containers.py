"""Modules whose forward runs the chains in it fused.

The forward is the one that torch.fx noted, with chains replaced. It holds for what it was noted
for: before each call the attributes of all modules that were looked into, and the hooks and options
of those that take part, are compared with those of that time. Where they differ the data flow is
noted anew; where that is not possible the module's own forward runs.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx, nn

from inpaint_ops.conversion import flow as flow_of
from inpaint_ops.conversion import joins, layout, patterns, restart, signatures, tracing
from inpaint_ops.conversion.attributes import Refused, Snapshot, hookless
from inpaint_ops.conversion.leaves import Watch, elsewhere
from inpaint_ops.conversion.record import Converted, record_of

_MOST_PLANS = 6
_MOST_SIZES = 256
_lock = threading.RLock()


class Plan:
    """A forward with its chains fused, and what it holds for."""

    def __init__(self, root: nn.Module, arguments: Sequence[Any]) -> None:
        """Note the data flow of a call.

        Raises:
            Refused: it cannot be known.
        """
        leaves = tracing.leaves_of(root)
        self.root = root
        self.other_sizes: set[Any] = set()
        survey(root)
        leaves.update({m: "" for m in root.modules() if why_opaque(m)})
        graph, looked_into = tracing.trace(root, arguments, leaves)
        flow = flow_of.Flow(root, graph)
        if restart.needed(flow) and not restart.possible(flow):
            raise Refused("its forward branches on sizes, and has effects")
        found = patterns.sites(flow)
        steps = {node for site in found for node in site.nodes}
        called = {n: flow.called(n) for n in graph.nodes if n.op == "call_module"}
        members = {m for n, m in called.items() if n in steps or record_of(m) is not None}
        self.attributes = [Snapshot(m) for m in (*looked_into, *members)]
        self.bare = [m for m in looked_into if m is not root]
        self.hooks = [(m, _hooks(m)) for m in members]
        self.arguments = list(arguments)
        self.sites = patterns.rewrite(flow, found)
        flow = flow_of.Flow(root, graph)
        self.joined = joins.join(flow)
        joins.share_planes(flow)
        self.run = _compiled(graph)
        self.run_last = None
        flow = flow_of.Flow(root, graph)
        if layout.arrange(flow):
            self.run_last = _compiled(graph)

    def __call__(self, module: Any, tensors: Sequence[torch.Tensor]) -> Any:
        """Run the forward, in channels_last inside if all came as planes."""
        weights = (p for m, _ in self.hooks for p in m.parameters(recurse=False))
        last = self.run_last
        if last is not None and all(map(_planes, tensors)) and all(map(_planes, weights)):
            return last(module, *tensors)
        return self.run(module, *tensors)

    def missed(self, sizes: Any) -> None:
        """Keep sizes that it is not for; of many only the last."""
        if len(self.other_sizes) >= _MOST_SIZES:
            self.other_sizes.clear()
        self.other_sizes.add(sizes)

    @property
    def useful(self) -> bool:
        """Return whether it differs from the module's own forward."""
        return bool(self.sites or self.joined) or self.run_last is not None

    def holds(self, arguments: Sequence[Any]) -> bool:
        """Return whether the plan is for a call now."""
        if len(arguments) != len(self.arguments):
            return False
        for a, seen in zip(arguments, self.arguments):
            if (seen is tracing.TENSOR) != isinstance(a, torch.Tensor):
                return False
            if seen is not tracing.TENSOR and (type(a) is not type(seen) or a != seen):
                return False
        return (
            all(hookless(m) for m in self.bare)
            and all(_hooks(m) == hooks for m, hooks in self.hooks)
            and all(seen.holds() for seen in self.attributes)
        )


def _planes(x: torch.Tensor) -> bool:
    """Return whether a tensor lies in memory as planes, so that what is made of it does."""
    if x.dim() != 4:
        return True
    return x.is_contiguous()


def _hooks(module: nn.Module) -> tuple[int, ...]:
    """Return the class and the hooks of a module: what runs when it is called."""
    return (
        id(type(module)),
        len(module._forward_hooks),
        len(module._backward_hooks),
        len(module._backward_pre_hooks),
        *(id(hook) for hook in module._forward_pre_hooks.values()),
    )


def _compiled(graph: fx.Graph) -> Callable[..., Any]:
    code = graph.python_code("self")
    space = dict(code.globals)
    exec(code.src, space)
    run: Callable[..., Any] = space["forward"]
    return run


# Why others cannot look into a module; empty: they can.
_opaque: weakref.WeakKeyDictionary[nn.Module, str] = weakref.WeakKeyDictionary()


def survey(model: nn.Module) -> None:
    """Find out which modules inside a model others cannot look into; the deepest come first."""
    leaves = tracing.leaves_of(model)
    for module in reversed(list(model.modules())):
        if module is model or module in leaves or module in _opaque:
            continue
        _opaque[module] = ""
        arguments = signatures.expected_arguments(module)
        if arguments is None:
            _opaque[module] = "its forward takes any number of arguments"
            continue
        inside = {m for m in module.modules() if m in leaves or why_opaque(m)}
        try:
            tracing.trace(module, arguments, inside)
        except Refused as refused:
            _opaque[module] = str(refused)


def why_opaque(module: nn.Module) -> str:
    """Return why the data flow of a module was refused."""
    return _opaque.get(module, "")


def forget_plans(module: nn.Module) -> None:
    """Drop the plans of a module; what was refused stays so."""
    record = record_of(module)
    if record is not None:
        record.plans = []


def guessed(module: nn.Module) -> list[tuple[nn.Module, Any]]:
    """Return layers and chains of a converted container, of the call that one would guess."""
    record = record_of(module)
    if record is None or record.kind != "container":
        return []
    arguments = signatures.expected_arguments(module)
    assert arguments is not None
    plan = Plan(module, arguments)
    return [(module.get_submodule(str(site.layer.target)), site.chain) for site in plan.sites]


def forget(module: nn.Module) -> None:
    """Drop the plans of a module."""
    _opaque.pop(module, None)


def plan_for(module: nn.Module, arguments: Sequence[Any]) -> Plan | None:
    """Return the plan for a call, made now if there is none."""
    record = record_of(module)
    if record is None or record.plans is None:
        return None
    for plan in record.plans:
        # A shallow copy of a module shares its record.
        if plan.root is module and plan.holds(arguments):
            found: Plan = plan
            return found
    with _lock:
        if len(record.plans) >= _MOST_PLANS:
            record.plans = None
            return None
        kinds = [tracing.TENSOR if isinstance(a, torch.Tensor) else a for a in arguments]
        try:
            plan = Plan(module, kinds)
        except Refused:
            record.plans = None
            return None
        record.plans.append(plan)
        return plan


class ConvertedContainer(Converted):
    """A module of any class that runs the chains of its forward fused."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """As the class it stands for."""
        module: Any = self
        arguments = signatures.bound(module, args, kwargs)
        if arguments is None or not _usable(module, arguments):
            return super().forward(*args, **kwargs)  # type: ignore[misc]
        plan = plan_for(module, arguments)
        if plan is None or not plan.useful:
            return super().forward(*args, **kwargs)  # type: ignore[misc]
        tensors = [a for a in arguments if isinstance(a, torch.Tensor)]
        sizes = tuple(a.shape for a in tensors)
        if sizes not in plan.other_sizes:
            try:
                return plan(module, tensors)
            except tracing.OtherSizes:
                plan.missed(sizes)
        return super().forward(*args, **kwargs)  # type: ignore[misc]


def _usable(module: nn.Module, arguments: Sequence[Any]) -> bool:
    if Watch.off or record_of(module) is None or getattr(module, "_is_replica", False):
        return False
    if elsewhere() or torch.compiler.is_compiling() or nn.modules.module._has_any_global_hook():
        return False
    if any(issubclass(type(a), fx.Proxy) for a in arguments):
        return False
    return flow_of.tensors_only(arguments)


def unfused(function: Callable[[], Any]) -> Any:
    """Call a function as it ran before anything was converted."""
    Watch.off = True
    try:
        return function()
    finally:
        Watch.off = False
