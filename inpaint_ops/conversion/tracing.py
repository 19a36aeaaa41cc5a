"""The data flow of a forward, where torch.fx can tell it for certain.

torch.fx runs a forward with stand-ins for its tensors and notes what is done to them. What it
cannot note would silently be lost: no_grad blocks, autocast, checkpointing, random numbers, changes
of the module's own attributes. A forward that does any of these is refused and stays as it is.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from inpaint_ops.conversion.attributes import Refused, hookless, untouched
from inpaint_ops.conversion.record import Converted, record_of


class OtherSizes(Exception):
    """Sizes do not compare as they were taken to when the data flow was noted."""


def expect(found: Any, value: bool) -> None:
    """Check a comparison of sizes, in the forward that was noted."""
    if bool(found) is not value:
        raise OtherSizes


def _of_sizes(value: Any) -> bool:
    """Return whether a value is made of sizes of tensors and of constants alone."""
    if not isinstance(value, fx.Node):
        return isinstance(value, (int, slice, tuple, list))
    if value.target is getattr:
        return value.args[1] == "shape"
    if (value.op, value.target) == ("call_method", "size"):
        return True
    taken = value.op == "call_function" and value.target is operator.getitem
    return taken and _of_sizes(value.args[0])


class _TensorProxy(fx.Proxy):
    """A stand-in that passes for a tensor where a forward asks, and is written to in place."""

    # torch asks these of a tensor that is set as an attribute.
    _is_param = _is_buffer = False

    @property
    def __class__(self) -> Any:
        return Tensor

    @__class__.setter
    def __class__(self, value: Any) -> None:
        raise TypeError("a traced tensor keeps its class")

    def _in_place(self, function: Any, other: Any) -> Any:
        return self.tracer.create_proxy("call_function", function, (self, other), {})

    def __iadd__(self, other: Any) -> Any:
        return self._in_place(operator.iadd, other)

    def __isub__(self, other: Any) -> Any:
        return self._in_place(operator.isub, other)

    def __imul__(self, other: Any) -> Any:
        return self._in_place(operator.imul, other)

    def __itruediv__(self, other: Any) -> Any:
        return self._in_place(operator.itruediv, other)


def _state() -> tuple[bool, bool, bool]:
    hooks = torch._C._autograd._top_saved_tensors_default_hooks(True)
    return (
        torch.is_grad_enabled(),
        torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda"),
        hooks is not None,
    )


class _Tracer(fx.Tracer):
    def __init__(self, leaves: set[nn.Module]) -> None:
        super().__init__()
        self._leaves = leaves
        self._expected = _state()
        self.inlined: list[nn.Module] = []

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _TensorProxy(node, self)

    def create_arg(self, a: Any) -> Any:
        return a.node if issubclass(type(a), fx.Proxy) else super().create_arg(a)

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:
        if _state() != self._expected:
            raise Refused("a context (no_grad, autocast, checkpoint) inside its forward")
        return super().create_node(*args, **kwargs)

    def to_bool(self, obj: fx.Proxy) -> bool:
        """Take sizes that are compared for equal, as those of a skip connection are."""
        node = obj.node
        if node.target not in (operator.ne, operator.eq) or not all(map(_of_sizes, node.args)):
            return super().to_bool(obj)
        value = node.target is operator.eq
        self.create_node("call_function", expect, (node, value), {})
        return value

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        leaf = m in self._leaves
        if not leaf and m not in self.inlined:
            self.inlined.append(m)
        return leaf


def plain_torch(module: nn.Module) -> bool:
    """Return whether a module is torch's own and no container."""
    cls = type(module)
    if cls is nn.Sequential or (issubclass(cls, Converted) and cls.original is nn.Sequential):
        return False
    return cls.__module__.split(".")[0] == "torch"


def _rooted(module: nn.Module, arguments: Sequence[Any]) -> type:
    """Return a class whose forward takes the tensors of a call, its other arguments bound."""
    cls = type(module)
    forward = cls.original.forward if issubclass(cls, Converted) else cls.forward
    names = [f"a{i}" for i, a in enumerate(arguments) if a is TENSOR]
    values = [f"a{i}" if a is TENSOR else f"constants[{i}]" for i, a in enumerate(arguments)]
    space: dict[str, Any] = {"forward": forward, "constants": tuple(arguments)}
    exec(
        f"def traced({', '.join(['self', *names])}):\n"
        f"    return forward({', '.join(['self', *values])})",
        space,
    )
    return type(cls.__name__, (cls,), {"forward": space["traced"], "__module__": cls.__module__})


# Stands for a tensor among the arguments of a call.
TENSOR = object()


def trace(
    module: nn.Module, arguments: Sequence[Any], leaves: Iterable[nn.Module]
) -> tuple[fx.Graph, list[nn.Module]]:
    """Return the data flow of a call, and the modules that were looked into.

    Args:
        module: whose forward.
        arguments: of the call; `TENSOR` for each tensor, others have their value.
        leaves: modules that are not looked into.

    Raises:
        Refused: the data flow cannot be known.
    """
    graph: fx.Graph | None = None
    inlined: list[nn.Module] = []
    cls = type(module)
    for grad in (False, True):
        # Twice: a forward may switch gradients on as well as off.
        with untouched(module), torch.set_grad_enabled(grad):
            tracer = _Tracer(set(leaves) - {module})
            try:
                module.__class__ = _rooted(module, arguments)
                graph = tracer.trace(module)
            except Refused:
                raise
            except Exception as error:
                raise Refused(f"torch.fx: {_first_line(error)}") from error
            finally:
                module.__class__ = cls
            inlined = [module, *tracer.inlined]
    assert graph is not None
    for node in graph.nodes:
        if node.op == "get_attr" and "_constant" in str(node.target):
            raise Refused("its forward makes or holds tensors that are no parameters")
    return graph, inlined


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:90]


def leaves_of(model: nn.Module) -> dict[nn.Module, str]:
    """Return the modules that tracing does not look into, and why, the deepest first."""
    found: dict[nn.Module, str] = {}
    ordered = list(model.modules())
    lists = (nn.ModuleList, nn.ModuleDict, nn.ParameterList)
    for module in reversed(ordered):
        record = record_of(module)
        known = record is not None and record.kind != "container"
        if known or plain_torch(module) or isinstance(module, lists):
            found[module] = ""
        elif not hookless(module) or "forward" in module.__dict__:
            found[module] = "hooks, or a forward of its own instance"
    return found
