"""Public functions as torch's own: whoever watches functions sees each as one call.

Watchers are `torch.fx.symbolic_trace`, Tensor subclasses and modes with ``__torch_function__``. A
public function asks for them in its first statement, as the functions of torch.nn.functional do:

    if (has_override(x, weight) or tracing()) and not inside():
        return call(fused_conv2d, locals())

`torch.jit.trace` watches operators and sizes. Sizes that are only checked are no part of a trace,
so there the function runs with numbers for them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from functools import lru_cache
from typing import Any, TypeVar

from torch import Tensor
from torch.overrides import (
    TorchFunctionMode,
    handle_torch_function,
    has_torch_function,
    has_torch_function_variadic,
)

from inpaint_ops import checks

has_override = has_torch_function_variadic
tracing = checks.tracing

_Result = TypeVar("_Result")
_inside: ContextVar[bool] = ContextVar("inpaint_ops_untraced_sizes", default=False)
_SIZES = frozenset({Tensor.shape.__get__, Tensor.size, Tensor.numel})  # type: ignore[attr-defined]


def inside() -> bool:
    """Return whether `call` runs the function already."""
    return _inside.get()


def call(function: Callable[..., _Result], arguments: Mapping[str, Any]) -> _Result:
    """Return what the watchers make of a call of a public function.

    Args:
        function: the public function.
        arguments: its arguments by name.
    """
    positional, keyword = _parameters(function)
    args = [arguments[name] for name in positional]
    kwargs = {name: arguments[name] for name in keyword}
    leaves = [
        leaf
        for value in (*args, *kwargs.values())
        for leaf in (value if isinstance(value, (tuple, list)) else [value])
    ]
    if has_torch_function(leaves):
        watched: _Result = handle_torch_function(function, leaves, *args, **kwargs)
        return watched
    token = _inside.set(True)
    try:
        with _UntracedSizes():
            return function(*args, **kwargs)
    finally:
        _inside.reset(token)


@lru_cache
def _parameters(function: Callable[..., Any]) -> tuple[list[str], list[str]]:
    """The names of the positional and of the keyword arguments."""
    parameters = inspect.signature(function).parameters.values()
    positional = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    return positional, [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]


class _UntracedSizes(TorchFunctionMode):
    """Gives sizes as numbers while torch.jit.trace records."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _SIZES:
            return checks.untraced(lambda: func(*args, **(kwargs or {})))
        return func(*args, **(kwargs or {}))
