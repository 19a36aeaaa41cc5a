"""Tensors that are not computed yet: operators called on them are noted, as steps.

`LazyTensor` has the shape, dtype and strides of what it stands for. What torch's dispatcher brings
is noted where it can be computed later, and computed at once where it cannot: where the result's
shape or Python's next branch depends on values, where numbers are drawn, where no shape is known
without values. To compute a step at once is to compute all that it depends on whole, so that
anything works, if slowly.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from inpaint_ops import checks
from inpaint_ops.backends import ALGORITHMS, current_backend
from inpaint_ops.needed.compute import compute
from inpaint_ops.needed.needs import ALL, Need
from inpaint_ops.needed.refill import remembered
from inpaint_ops.needed.step import Ref, Step, like, like_or_self, replaced, tensors_in
from inpaint_ops.ops.native import extension

# Operators with one of these tags are computed at once.
_AT_ONCE = frozenset(
    {
        torch.Tag.data_dependent_output,
        torch.Tag.dynamic_output_shape,
        torch.Tag.nondeterministic_seeded,
    }
)


class LazyTensor(Tensor):
    """A tensor without memory that stands for the result of a step."""

    ref: Ref

    @staticmethod
    def __new__(cls, ref: Ref, device: torch.device) -> LazyTensor:
        """Return a tensor of that device, like the result."""
        make: Any = torch.Tensor._make_wrapper_subclass
        like = ref.like
        lazy: LazyTensor = make(
            cls,
            like.shape,
            strides=like.stride(),
            storage_offset=like.storage_offset(),
            dtype=like.dtype,
            device=device,
        )
        lazy.ref = ref
        return lazy

    # Torch's stubs say otherwise of both.
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        """Note the call, or compute its result."""
        return _record(func, args, kwargs or {})

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"LazyTensor({tuple(self.shape)}, {self.dtype})"


_IMAGE = 4
# Share of missing pixels up to which noting the operators may pay, and pixels from which on.
_MOST_MISSING = 0.6
_LEAST_PIXELS = 200 * 200


def saves(missing: Tensor, network: nn.Module) -> bool:
    """Return whether to compute what a hole needs instead of everything.

    Only our CPU kernels compute single pixels. Whoever watches a network, by hooks, by a mode of
    torch or by compiling it, is to see ordinary tensors.

    Args:
        missing: (N, 1, H, W) bool.
        network: whatever is to be called.
    """
    if missing.device.type != "cpu" or current_backend() not in ALGORITHMS:
        return False
    if missing.numel() < _LEAST_PIXELS or extension() is None:
        return False
    if _is_watched() or any(_is_watched_module(module) for module in network.modules()):
        return False
    return float(missing.float().mean()) <= _MOST_MISSING


def _is_watched() -> bool:
    return bool(
        torch.compiler.is_compiling()
        or checks.tracing() is not None
        or torch._C._len_torch_function_stack()
        or torch._C._len_torch_dispatch_stack()
        or torch._C._are_functorch_transforms_active()
        or nn.modules.module._has_any_global_hook()
    )


def _is_watched_module(module: nn.Module) -> bool:
    hooks = module._forward_hooks or module._forward_pre_hooks
    # By name: the module of its class takes a second to import.
    compiled = module._compiled_call_impl or type(module).__name__ == "OptimizedModule"
    return bool(hooks or compiled)


def lazy(x: Tensor) -> LazyTensor:
    """Return a tensor that stands for x, so that what is computed from it is noted.

    Args:
        x: (N, C, H, W), on the CPU; it must keep its values until the result is computed.

    Raises:
        TypeError: x is not a Tensor.
        ValueError: wrong shape or device.
    """
    checks.check_kinds("needed.lazy", x=x)
    if not isinstance(x, Tensor):
        raise TypeError(f"needed.lazy: x must be a Tensor, got {type(x).__name__}")
    if x.dim() != _IMAGE or x.device.type != "cpu":
        raise ValueError(
            f"needed.lazy: x must be (N, C, H, W) on the CPU, got {tuple(x.shape)} on {x.device}"
        )
    step = Step(None, (), {})
    step.results = [x.detach()]
    step.likes = [like(x)]
    # Its memory is the caller's: nobody may change it in place.
    return LazyTensor(Ref(step, 0, step.likes[0], is_shared=True), x.device)


def computed(x: Tensor, wanted: Tensor | None = None, *, whole: bool = False) -> Tensor:
    """Return the values of a lazy tensor, and any other tensor itself.

    Args:
        x: (N, C, H, W).
        wanted: (N or 1, 1, H, W), not 0 = the pixels that are needed; the others may hold anything.
            None: all are needed.
        whole: compute all pixels nevertheless, with tiles where `wanted` asks for them: the wanted
            ones have equal bits either way.

    Raises:
        ValueError: `wanted` has the wrong shape.
    """
    if not isinstance(x, LazyTensor):
        return x
    need: Need = ALL
    if wanted is not None:
        shapes = [(n, 1, *x.shape[2:]) for n in (x.shape[0], 1)]
        checks.check_mask_shape("needed.computed", "wanted", wanted, shapes)
        need = (wanted != 0).expand(x.shape[0], 1, *x.shape[2:])[:, 0].contiguous()
        need = need.view(torch.uint8)
    memory = remembered()
    with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
        if memory is not None and not whole:
            return memory.compute(x.ref, need)
        return compute(x.ref, need, whole)


def _ref(x: Tensor) -> Ref | Tensor:
    return x.ref if isinstance(x, LazyTensor) else x


def _record(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    if func._schema.is_mutable:
        return _without_mutation(func, args, kwargs)
    if not _AT_ONCE.isdisjoint(func.tags):
        return _at_once(func, args, kwargs)
    noted = {name: replaced(value, _ref) for name, value in kwargs.items()}
    step = Step(func, [replaced(value, _ref) for value in args], noted)
    try:
        likes = _likes(step)
    except (NotImplementedError, RuntimeError):
        return _at_once(func, args, kwargs)
    several = isinstance(likes, (list, tuple))
    step.likes = list(likes) if several else [likes]
    if not all(isinstance(one, Tensor) for one in step.likes):
        return _at_once(func, args, kwargs)
    device = next(x.device for x in _lazies_in((*args, *kwargs.values())))
    shares = _shares_memory(func)
    for x in step.inputs:
        if shares and isinstance(x, Ref):
            x.is_shared = True
    results = [LazyTensor(Ref(step, i, one, shares), device) for i, one in enumerate(step.likes)]
    return type(likes)(results) if several else results[0]


def _lazies_in(values: Sequence[Any]) -> Iterator[LazyTensor]:
    return (x for x in tensors_in(values) if isinstance(x, LazyTensor))


def _at_once(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    whole = {name: replaced(value, computed) for name, value in kwargs.items()}
    return func(*[replaced(value, computed) for value in args], **whole)


class CannotBeNoted(NotImplementedError):
    """What was called on a lazy tensor cannot be computed later."""


def _without_mutation(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """What ``relu_`` and its like do to a tensor that no other shares its memory with."""
    changed = args[0] if args else None
    name = func._schema.name.split("::")[1]
    packet = getattr(torch.ops.aten, name.removesuffix("_"), None)
    overload = getattr(packet, func._overloadname, None)
    plain = name.endswith("_") and overload is not None and torch.Tag.pointwise in overload.tags
    if plain and isinstance(changed, LazyTensor) and not changed.ref.is_shared:
        result = _record(overload, args, kwargs)
        if isinstance(result, LazyTensor) and result.shape == changed.shape:
            changed.ref = result.ref
            return changed
    raise CannotBeNoted(
        f"inpaint_ops.needed: {func} changes a tensor in place, which cannot be computed in part"
    )


def _shares_memory(func: Any) -> bool:
    """Whether the operator's results are views of its arguments."""
    return any(result.alias_info is not None for result in func._schema.returns)


def _likes(step: Step) -> Any:
    """The results on torch's device "meta", which have no values."""
    key = (
        step.func,
        torch.get_default_dtype(),
        _key(step.args),
        _key(tuple(step.kwargs.items())),
    )
    try:
        found = _known.get(key)
    except TypeError:  # something that cannot be hashed
        return _inferred(step)
    if found is None:
        if len(_known) >= _MOST_KNOWN:
            _known.clear()
        found = _known[key] = _inferred(step)
    return found


# Torch takes up to half a millisecond for the shape of a result.
_known: dict[Any, Any] = {}
_MOST_KNOWN = 4096


def _key(value: Any) -> Any:
    """All about some arguments that the results' shapes, strides and dtypes depend on."""
    if isinstance(value, (Ref, Tensor)):
        x = like_or_self(value)
        return x.shape, x.stride(), x.dtype
    if isinstance(value, (list, tuple)):
        return tuple([_key(one) for one in value])
    # 1, 1.0 and True are equal and give different dtypes.
    return type(value), value


def _inferred(step: Step) -> Any:
    args, kwargs = step.arguments(like)
    if kwargs.get("device") is not None:
        kwargs["device"] = torch.device("meta")
    return step.func(*args, **kwargs)
