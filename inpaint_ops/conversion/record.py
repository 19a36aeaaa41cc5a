"""The record that a converted module keeps, and the change of class that converts it.

A module is converted by a subclass of its own class, made here, in the place of that class: its
parameters, buffers, hooks, state-dict keys and `isinstance` stay, a copy of it is converted as
well, and replicas that share its dictionary compute with their own weights. The subclass has the
name of the class it stands for, since initialisers of public code look for "Conv" in it.
"""

from __future__ import annotations

import copyreg
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import nn
from torch.nn.utils import parametrize

RECORD = "_inpaint_ops_record"
_classes: dict[tuple[type, type], type] = {}
_lock = threading.Lock()


@dataclass
class Record:
    """The outcome for one module.

    Attributes:
        kind: for the report.
        allowed: chains that may run fused; None for all. A container asks its members.
        options: arguments of the operator that were recognised.
        plans: of a container, the forwards that it runs; None: no more are made. Copies make
            their own.
    """

    kind: str
    allowed: set[Any] | None = None
    options: dict[str, Any] = field(default_factory=dict)
    plans: list[Any] | None = field(default_factory=list, repr=False, compare=False)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "plans": []}

    def allows(self, key: Any) -> bool:
        """Return whether a chain may run fused."""
        return self.allowed is None or key in self.allowed


class Converted:
    """Base of the classes that stand for others; `original` is the class stood for."""

    original: type[nn.Module]
    role: type[Converted]

    def __reduce_ex__(self, protocol: Any) -> Any:
        """As for the original class, with `_rebuild` in the place of the class made here."""
        reduced = super().__reduce_ex__(max(int(protocol), 2))
        if not isinstance(reduced, tuple) or reduced[1] != (type(self),):
            return reduced
        if reduced[0] is not copyreg.__newobj__:  # type: ignore[attr-defined]
            return reduced
        return (_rebuild, (self.original, self.role), *reduced[2:])


def _rebuild(original: type[nn.Module], role: type[Converted]) -> nn.Module:
    cls = converted_class(original, role)
    module: nn.Module = cls.__new__(cls)  # type: ignore[call-overload]
    return module


def converted_class(original: type[nn.Module], role: type[Converted]) -> type:
    """Return the subclass of `original` that behaves as `role`, always the same one."""
    with _lock:
        made = _classes.get((original, role))
        if made is None:
            space = {
                "original": original,
                "role": role,
                "__module__": original.__module__,
                "__qualname__": original.__qualname__,
                "__doc__": original.__doc__,
            }
            made = type(original.__name__, (role, original), space)
            _classes[original, role] = made
    return made


def record_of(module: nn.Module) -> Record | None:
    """Return the record of a converted module."""
    found = module.__dict__.get(RECORD)
    return found if isinstance(found, Record) else None


def base_class(module: nn.Module) -> type[nn.Module]:
    """Return the class of a module without parametrisation and conversion."""
    cls: type[nn.Module] = parametrize.type_before_parametrizations(module)
    return cls.original if issubclass(cls, Converted) and "original" in vars(cls) else cls


def install(module: nn.Module, role: type[Converted], record: Record) -> None:
    """Convert one module."""
    cls = type(module)
    if parametrize.is_parametrized(module):
        # torch takes a parametrisation away by going back to the first base: it stays on top.
        module.__class__ = _on(cls, converted_class(cls.__bases__[0], role))
    else:
        module.__class__ = converted_class(cls, role)
    module.__dict__[RECORD] = record


def _on(cls: type, base: type) -> type:
    """Return a class as `cls` over another base."""
    space = {k: v for k, v in vars(cls).items() if k not in ("__dict__", "__weakref__")}
    return type(cls.__name__, (base,), space)


def uninstall(module: nn.Module) -> None:
    """Take one conversion back."""
    module.__dict__.pop(RECORD, None)
    cls = type(module)
    if issubclass(cls, Converted):
        if "original" in vars(cls):
            module.__class__ = cls.original
        elif "original" in vars(cls.__bases__[0]) and len(cls.__bases__) == 1:
            module.__class__ = _on(cls, vars(cls.__bases__[0])["original"])
        # Elsewhere, as under sharding, the class stays and without a record does nothing of ours.


def converted_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield names and modules that are converted."""
    for name, module in model.named_modules():
        if record_of(module) is not None:
            yield name, module
