"""Modules whose forward runs the chains in it fused.

The forward is the one that torch.fx noted, with chains replaced. It holds for what it was noted
for: before each call the attributes of all modules that were looked into, and the hooks and options
of those that take part, are compared with those of that time. Where they differ the data flow is
noted anew; where that is not possible the module's own forward runs.
"""

from __future__ import annotations

import inspect
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx, nn

from inpaint_ops.conversion import patterns, tracing
from inpaint_ops.conversion.leaves import Watch, elsewhere
from inpaint_ops.conversion.record import Converted, record_of

_MOST_PLANS = 6
_lock = threading.RLock()


class Plan:
    """A forward with its chains fused, and what it holds for."""

    def __init__(self, root: nn.Module, arguments: Sequence[Any]) -> None:
        """Note the data flow of a call.

        Raises:
            Refused: it cannot be known.
        """
        leaves = tracing.leaves_of(root)
        leaves.update({m: "" for m in root.modules() if is_opaque(m)})
        graph, looked_into = tracing.trace(root, arguments, leaves)
        flow = patterns.Flow(root, graph)
        found = patterns.sites(flow)
        members = {
            flow.called(node) for site in found for node in site.nodes if node.op == "call_module"
        }
        self.attributes = [(m, tracing.attributes(m)) for m in (*looked_into, *members)]
        self.bare = [m for m in looked_into if m is not root]
        self.hooks = [(m, _hooks(m)) for m in members]
        self.arguments = list(arguments)
        self.sites = patterns.rewrite(flow, found)
        self.run = _compiled(graph)

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
            all(tracing.hookless(m) for m in self.bare)
            and all(_hooks(m) == hooks for m, hooks in self.hooks)
            and all(tracing.attributes(m) == seen for m, seen in self.attributes)
        )


def _hooks(module: nn.Module) -> tuple[int, ...]:
    return (
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


# Modules whose data flow was refused before, which others do not look into.
_opaque: weakref.WeakKeyDictionary[nn.Module, str] = weakref.WeakKeyDictionary()
# The plans of containers; None: no more are made.
_plans: weakref.WeakKeyDictionary[nn.Module, list[Plan] | None] = weakref.WeakKeyDictionary()


def is_opaque(module: nn.Module) -> bool:
    """Return whether the data flow of a module was refused."""
    return module in _opaque


def mark_opaque(module: nn.Module, reason: str) -> None:
    """Keep others from looking into a module."""
    _opaque[module] = reason


def why_opaque(module: nn.Module) -> str:
    """Return why the data flow of a module was refused."""
    return _opaque.get(module, "")


def forget_plans(module: nn.Module) -> None:
    """Drop the plans of a module; what was refused stays so."""
    _plans.pop(module, None)


def guessed(module: nn.Module) -> list[tuple[nn.Module, Any]]:
    """Return layers and chains of a converted container, of the call that one would guess."""
    record = record_of(module)
    if record is None or record.kind != "container":
        return []
    arguments = expected_arguments(module)
    assert arguments is not None
    plan = Plan(module, arguments)
    return [(module.get_submodule(str(site.layer.target)), site.chain) for site in plan.sites]


def forget(module: nn.Module) -> None:
    """Drop the plans of a module."""
    _plans.pop(module, None)
    _opaque.pop(module, None)


def plan_for(module: nn.Module, arguments: Sequence[Any]) -> Plan | None:
    """Return the plan for a call, made now if there is none."""
    plans = _plans.setdefault(module, [])
    if plans is None:
        return None
    for plan in plans:
        if plan.holds(arguments):
            return plan
    with _lock:
        if len(plans) >= _MOST_PLANS:
            _plans[module] = None
            return None
        kinds = [tracing.TENSOR if isinstance(a, torch.Tensor) else a for a in arguments]
        try:
            plan = Plan(module, kinds)
        except tracing.Refused:
            _plans[module] = None
            return None
        plans.append(plan)
        return plan


class ConvertedContainer(Converted):
    """A module of any class that runs the chains of its forward fused."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """As the class it stands for."""
        module: Any = self
        arguments = bound(module, args, kwargs)
        if arguments is None or not _usable(module, arguments):
            return super().forward(*args, **kwargs)  # type: ignore[misc]
        plan = plan_for(module, arguments)
        if plan is None or not plan.sites:
            return super().forward(*args, **kwargs)  # type: ignore[misc]
        return plan.run(self, *(a for a in arguments if isinstance(a, torch.Tensor)))


def _usable(module: nn.Module, arguments: Sequence[Any]) -> bool:
    if Watch.off or record_of(module) is None or getattr(module, "_is_replica", False):
        return False
    if elsewhere() or torch.compiler.is_compiling() or nn.modules.module._has_any_global_hook():
        return False
    if any(issubclass(type(a), fx.Proxy) for a in arguments):
        return False
    return patterns.tensors_only(arguments)


def unfused(function: Callable[[], Any]) -> Any:
    """Call a function as it ran before anything was converted."""
    Watch.off = True
    try:
        return function()
    finally:
        Watch.off = False


_signatures: dict[type, list[inspect.Parameter] | None] = {}


def parameters_of(module: nn.Module) -> list[inspect.Parameter] | None:
    """Return the parameters of forward, or None where some may be of any number."""
    cls = type(module)
    cls = cls.original if issubclass(cls, Converted) else cls
    if cls not in _signatures:
        try:
            found = list(inspect.signature(cls.forward).parameters.values())[1:]
        except (TypeError, ValueError):
            found = None
        kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.POSITIONAL_ONLY)
        if found is not None and any(p.kind not in kinds for p in found):
            found = None
        _signatures[cls] = found
    return _signatures[cls]


def bound(module: nn.Module, args: Sequence[Any], kwargs: dict[str, Any]) -> list[Any] | None:
    """Return the arguments of a call in the order of the signature, defaults filled in."""
    known = parameters_of(module)
    if known is None or len(args) > len(known):
        return None
    if len(args) == len(known) and not kwargs:
        return list(args)
    rest = dict(kwargs)
    filled = list(args)
    for p in known[len(args) :]:
        value = rest.pop(p.name, p.default)
        if value is inspect.Parameter.empty:
            return None
        filled.append(value)
    return None if rest else filled


def call_of(
    module: nn.Module, args: Sequence[Any], kwargs: dict[str, Any], count: int
) -> list[Any]:
    """Return the first `count` arguments of a call if all others have their defaults, else []."""
    arguments = bound(module, args, kwargs)
    known = parameters_of(module)
    if arguments is None or known is None or len(known) < count:
        return []
    others = zip(arguments[count:], known[count:])
    return arguments[:count] if all(a is p.default for a, p in others) else []


def expected_arguments(module: nn.Module) -> list[Any] | None:
    """Return arguments of a call as one would guess them: tensors, then the defaults."""
    known = parameters_of(module)
    if known is None:
        return None
    empty = inspect.Parameter.empty
    return [tracing.TENSOR if p.default is empty else p.default for p in known]
