"""Layers of public ports, recognised by what they do to random inputs.

A candidate is told by its structure: the parameters it holds and the arguments of its forward. It
is taken for an operator if a copy of it agrees with the operator, under one choice of options, in
results and gradients on all probes. Names of classes play no part.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from inpaint_ops.conversion.leaves import allowed
from inpaint_ops.conversion.sample import difference, results

# How the layer itself is called, in the place of a chain.
CALL = "call"


def probed(module: nn.Module) -> nn.Module | None:
    """Return a copy that probes may change, without hooks, or None where there can be none."""
    try:
        twin = copy.deepcopy(module)
    except Exception:
        return None
    for m in twin.modules():
        m._forward_hooks.clear()
        m._backward_hooks.clear()
        m._backward_pre_hooks.clear()
        for key, hook in list(m._forward_pre_hooks.items()):
            if not _of_torch(hook):
                del m._forward_pre_hooks[key]
    return twin


def agreement(
    ours: Callable[[], Any], theirs: Callable[[], Any], wanted: list[Tensor]
) -> float | None:
    """Return the difference of two functions, or None if one of them fails."""
    try:
        with torch.enable_grad():
            a, b = ours(), theirs()
            if _shape(a) != _shape(b):
                return None
            return difference(results(lambda: a, wanted), results(lambda: b, wanted))
    except Exception:
        return None


def _shape(value: Any) -> Any:
    """Return the nesting of a result."""
    if isinstance(value, Tensor):
        return "tensor"
    if isinstance(value, (tuple, list)):
        return tuple, *(_shape(v) for v in value)
    return type(value)


def may_run(module: nn.Module) -> bool:
    """Return whether the operator may stand for a recognised layer now."""
    return allowed(module, CALL) and quiet(module)


def quiet(module: nn.Module) -> bool:
    """Return whether no hook waits for calls of the modules inside, which will not come."""
    if nn.modules.module._has_any_global_hook():
        return False
    for m in module.modules():
        if m is module:
            continue
        if m._forward_hooks or m._backward_hooks or m._backward_pre_hooks:
            return False
        if any(not _of_torch(hook) for hook in m._forward_pre_hooks.values()):
            return False
    return True


def _of_torch(hook: Any) -> bool:
    return type(hook).__module__.startswith("torch.nn.utils.")
