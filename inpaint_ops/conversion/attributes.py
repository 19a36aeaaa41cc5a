"""The attributes of modules: whether they are as they were, and as they were again."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class Refused(Exception):
    """The data flow of a forward cannot be known; the text says why."""


# Of an nn.Module's dictionary, what is looked at in other ways or has no part in forward.
_INTERNAL = frozenset(nn.Module().__dict__) - {"training"}


def attributes(module: nn.Module) -> dict[str, Any]:
    """Return what a forward may branch on: attributes but tensors, and what is None or there."""
    found: dict[str, Any] = {
        name: _frozen(value)
        for name, value in module.__dict__.items()
        if name not in _INTERNAL and not isinstance(value, Tensor) and name[:12] != "_inpaint_ops"
    }
    found["_parameters"] = tuple((k, v is None) for k, v in module._parameters.items())
    found["_modules"] = tuple((k, id(v)) for k, v in module._modules.items())
    return found


class Snapshot:
    """The attributes of a module at one time, which are cheap to compare where all are as then."""

    def __init__(self, module: nn.Module) -> None:
        state = module.__dict__
        self._module = module
        self._all = attributes(module)
        self._size = len(state)
        kept = [n for n in self._all if n in state and n not in ("_parameters", "_modules")]
        self._same = [(n, state[n]) for n in kept]
        self._mutable = [(n, self._all[n]) for n in kept if isinstance(state[n], (list, dict))]
        self._children = dict(module._modules)
        self._missing = [v is None for v in module._parameters.values()]

    def holds(self) -> bool:
        """Return whether all are as then."""
        module = self._module
        state = module.__dict__
        if (
            len(state) == self._size
            and all(state.get(n) is v for n, v in self._same)
            and all(_frozen(state[n]) == v for n, v in self._mutable)
            and module._modules == self._children
            and [v is None for v in module._parameters.values()] == self._missing
        ):
            return True
        return attributes(module) == self._all


def _frozen(value: Any) -> Any:
    """Return what tells whether a value is still the same, contents of lists included."""
    if isinstance(value, (list, tuple)):
        return type(value), tuple(_frozen(v) for v in value)
    if isinstance(value, dict):
        return tuple((k, _frozen(v)) for k, v in value.items())
    if value is None or isinstance(value, (bool, int, float, str)):
        return type(value), value
    return type(value), id(value)


def hookless(module: nn.Module) -> bool:
    """Return whether nothing but its forward runs when a module is called."""
    return not (
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
    )


def _held(value: Any) -> Any:
    """Return what an attribute holds, by identity: the parts of containers and of plain objects."""
    if isinstance(value, (list, tuple)):
        return [id(v) for v in value]
    if isinstance(value, (dict, set)):
        return [id(v) for v in value], [id(v) for v in getattr(value, "values", tuple)()]
    if isinstance(value, (Tensor, nn.Module, type)) or callable(value):
        return None
    return [(k, id(v)) for k, v in getattr(value, "__dict__", {}).items()]


def _copied(value: Any) -> Any:
    """Return a shallow copy of what a forward may write into, or None."""
    if isinstance(value, (list, dict, set)):
        return value.copy()
    return None


class _Kept:
    """The attributes of one module, to be given back."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._state = dict(module.__dict__)
        self._buffers = dict(module._buffers)
        own = {k: v for k, v in self._state.items() if k not in _INTERNAL}
        self._held = {k: _held(v) for k, v in own.items()}
        self._copies = {k: c for k, v in own.items() if (c := _copied(v)) is not None}

    def give_back(self) -> bool:
        """Give the attributes back; return whether any had changed."""
        now, changed = self._module.__dict__, False
        if now.keys() != self._state.keys() or any(now[k] is not v for k, v in self._state.items()):
            changed = True
            now.clear()
            now.update(self._state)
        buffers = self._module._buffers
        if buffers.keys() != self._buffers.keys() or any(
            buffers[k] is not v for k, v in self._buffers.items()
        ):
            changed = True
            buffers.clear()
            buffers.update(self._buffers)
        for name, held in self._held.items():
            if _held(now[name]) != held:
                changed = True
                if name in self._copies:
                    now[name].clear()
                    add = now[name].extend if isinstance(now[name], list) else now[name].update
                    add(self._copies[name])
        return changed


@contextmanager
def untouched(module: nn.Module) -> Iterator[None]:
    """Take back what a forward does to attributes, and refuse it if there was anything."""
    before = [_Kept(m) for m in module.modules()]
    seeds = torch.get_rng_state(), random.getstate()
    try:
        yield
    finally:
        changes = [state.give_back() for state in before]
        drawn = random.getstate() != seeds[1] or not torch.equal(torch.get_rng_state(), seeds[0])
        torch.set_rng_state(seeds[0])
        random.setstate(seeds[1])
    if any(changes):
        raise Refused("its forward changes its own attributes")
    if drawn:
        raise Refused("its forward draws random numbers")
