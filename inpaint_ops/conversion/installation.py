"""Which module of a model becomes what."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from inpaint_ops.conversion import (
    attention,
    containers,
    leaves,
    partial,
    shift,
    signatures,
    tracing,
)
from inpaint_ops.conversion.attributes import Refused
from inpaint_ops.conversion.record import Record, base_class, install
from inpaint_ops.conversion.report import LEFT, Row
from inpaint_ops.conversion.sample import preserved


def install_all(model: nn.Module) -> dict[str, Row]:
    """Convert all that is recognised; return rows of what looked like it and is not."""
    left: dict[str, Row] = {}
    inside: set[nn.Module] = set()
    for name, module in model.named_modules():
        if module in inside or isinstance(module, torch.jit.ScriptModule):
            inside.update(module.modules())
            continue
        cls = base_class(module)
        found = leaves.match(cls, module)
        if found is None and not tracing.plain_torch(module):
            found = _recognise(module)
        if isinstance(found, str):
            left[name] = Row(name, LEFT, reason=found)
        elif found is not None:
            install(module, *found)
            inside.update(module.modules())
    for module in reversed(list(model.modules())):
        if module not in inside:
            _contain(module)
    return left


def _recognise(module: nn.Module) -> Any:
    if "forward" in module.__dict__ or isinstance(module, (nn.ModuleList, nn.ModuleDict)):
        return None
    for attempt in (partial.recognise, attention.recognise, shift.recognise):
        with preserved(module):
            found = attempt(module)
        if found is not None:
            return found
    return None


def _contain(module: nn.Module) -> None:
    """Convert a module whose forward has chains; the deepest come first."""
    if tracing.plain_torch(module) or "forward" in module.__dict__:
        return
    if isinstance(module, (nn.ModuleList, nn.ModuleDict, torch.jit.ScriptModule)):
        return
    arguments = signatures.expected_arguments(module)
    if arguments is None:
        return
    try:
        plan = containers.Plan(module, arguments)
    except Refused:
        return
    if plan.useful:
        install(module, containers.ConvertedContainer, Record("container"))
