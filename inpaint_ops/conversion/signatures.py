"""Arguments of a call in the order of a forward's signature."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from torch import nn

from inpaint_ops.conversion import tracing
from inpaint_ops.conversion.record import Converted

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
