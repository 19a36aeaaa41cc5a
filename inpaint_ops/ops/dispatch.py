"""Operators of torch: their definition for each device, and how a call finds it.

A call goes `Registered.__call__` > the device's implementation where nothing watches (`shortcut`),
and through torch's dispatcher otherwise. Gradients are recorded by `recording`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import Any, NamedTuple

import torch
from torch import Tensor

from inpaint_ops import checks
from inpaint_ops.backends import backend, current_backend
from inpaint_ops.ops import derivatives, partly, recording, shortcut, triton
from inpaint_ops.ops.native import extension
from inpaint_ops.ops.recording import SetupContext, applied

_library = torch.library.Library("inpaint_ops", "DEF")


@dataclass(frozen=True)
class Operator:
    """One operator; `cuda` says what its GPU implementation is made of, if it has one.

    `library` names the library call that is all there is to it, on every device. `reference` is
    what `register` got under that name, for the arguments of `overload`'s schema.
    """

    name: str
    cuda: str | None = None
    library: str | None = None
    overload: Any = None
    reference: Callable[..., Any] | None = None


OPERATORS: dict[str, Operator] = {}

Backward = Callable[[Any, Sequence[Any], Tensor], Sequence[Any]]


class Group(NamedTuple):
    """Arguments of a schema that implementations take as one tuple.

    Schemas know no tuples, so only calls that go through the dispatcher take them apart.

    Args:
        at: place of the first, and of the tuple.
        make: the tuple from the arguments.
        size: number of the arguments; what else the tuple holds is not in the schema.
    """

    at: int
    make: Callable[..., tuple[Any, ...]]
    size: int

    def flat(self, args: Sequence[Any]) -> Sequence[Any]:
        """Return the arguments as the schema has them."""
        return (*args[: self.at], *args[self.at][: self.size], *args[self.at + 1 :])

    def nested(self, args: Sequence[Any]) -> Sequence[Any]:
        """Return the arguments as implementations take them."""
        end = self.at + self.size
        return (*args[: self.at], self.make(*args[self.at : end]), *args[end:])


class Registered:
    """A registered operator, the thing to call, with positional arguments.

    Ordinary tensors that nothing watches go straight to their device's implementation, recorded for
    autograd if need be. The dispatcher would do the same by way of three conversions of all
    arguments between C++ and Python. On one Zen 4 core layers of 4 channels, 4 x 4, then take 1.3
    to 1.6 times as long, 10 to 35 us a call, and with gradients 1.2 to 1.4 times, 60 to 200 us.
    Everything else is the dispatcher's.
    """

    def __init__(
        self,
        name: str,
        overload: Any,
        cpu: Callable[..., Any],
        gpu: Callable[..., Any],
        group: Group | None,
    ) -> None:
        self.name = name
        self._overload, self._cpu, self._gpu, self._group = overload, cpu, gpu, group
        self._names = [argument.name for argument in overload._schema.arguments]
        self._keep = self._place_of_keep()
        self._function: Any = None
        self._apply: Any = None
        self._transformed: Any = None
        self._formula: Callable[..., Any] | None = None
        self.pullback: derivatives.Pullback | None = None
        # The backward pass, once there is one: `recording.Gradients` that chooses the backend.
        self.gradients: recording.Gradients = _no_gradients
        _library.impl(name, self._autograd, "Autograd", with_keyset=True)

    def __call__(self, *args: Any) -> Any:
        """Call the operator."""
        if torch.compiler.is_dynamo_compiling():
            return self._dispatched(*args)
        tensors = recording.tensors_of(args)
        if not shortcut.AVAILABLE or not shortcut.is_open(tensors):
            return self._watched(args)
        implementation = self._cpu if tensors[0].is_cpu else self._gpu
        if not recording.is_needed(tensors):
            return implementation(*args)
        if self._apply is None:
            return self._dispatched(*args)
        return applied(self._apply, implementation, args)

    def _dispatched(self, *args: Any) -> Any:
        return self._overload(*(args if self._group is None else self._group.flat(args)))

    def _watched(self, args: Sequence[Any]) -> Any:
        flat = args if self._group is None else self._group.flat(args)
        checks.check_kinds(self.name, **dict(zip(self._names, flat)))
        if torch._C._are_functorch_transforms_active():
            if derivatives.are_pushed_forward(recording.tensors_of(flat)):
                return self._with_tangents(args)
            if self._transformed is not None:
                return applied(self._transformed.apply, self._dispatched, args)
        return self._overload(*flat)

    def _with_tangents(self, args: Sequence[Any]) -> Any:
        """The call in forward mode: by torch's own operators, which carry tangents."""
        if self._formula is None:
            raise NotImplementedError(
                f"{self.name}: there is no derivative in forward mode, got tensors with tangents"
            )
        return self._formula(*args)

    def _autograd(self, keys: Any, *flat: Any) -> Any:
        """The dispatcher's kernel for autograd: records the call, or refuses what it cannot."""
        tensors = recording.tensors_of(flat)

        def below(*args: Any) -> Any:
            with torch._C._AutoDispatchBelowAutograd():
                below_keys = keys & torch._C._after_autograd_keyset
                args = args if self._group is None else tuple(self._group.flat(args))
                return self._overload.redispatch(below_keys, *args)

        args = flat if self._group is None else self._group.nested(flat)
        if derivatives.have_tangents(tensors):
            return self._with_tangents(args)
        recorded = recording.is_needed(tensors)
        if not recorded or self._function is None:
            return below(*args)
        if torch._C._are_functorch_transforms_active():
            raise NotImplementedError(
                f"{recording.public(self.name)}: torch.func takes derivatives of the public "
                f"function, not of torch.ops.inpaint_ops.{self.name}"
            )
        if self._keep is not None and not args[self._keep]:
            # Who traces a call cannot know whether the trace will be differentiated.
            args = (*args[: self._keep], True, *args[self._keep + 1 :])
        return applied(self._function.apply, below, args)

    def _place_of_keep(self) -> int | None:
        """The place of `keep`, the wish for what a backward pass needs, among the arguments."""
        if "keep" not in self._names:
            return None
        place = self._names.index("keep")
        return place if self._group is None else place - self._group.size + 1

    def differentiate(
        self,
        backward: Backward,
        setup_context: SetupContext,
        *,
        formula: Callable[..., Any],
        second: derivatives.Second,
        shared: derivatives.Shared = derivatives.SHARED_NOTHING,
    ) -> None:
        """Attach a backward pass.

        Args:
            backward: gradients of the arguments from (ctx, which arguments need one, gradient of
                the first result); the other results have none. It runs on the backend that was in
                force in the forward pass.
            setup_context: keeps in its ctx what `backward` needs, of the arguments and the results.
            formula: the operator in torch's differentiable operators, for forward mode.
            second: the gradients of `backward`'s results; also runs on that backend.
            shared: the tensors that vmap cannot fold into one batch.
        """

        def setup(ctx: Any, inputs: Sequence[Any], output: Sequence[Any]) -> None:
            # Otherwise zeros as large as the other results come with every gradient.
            ctx.set_materialize_grads(False)
            ctx.mark_non_differentiable(*output[1:])
            ctx.backend = current_backend()
            setup_context(ctx, inputs, output)

        pullback = derivatives.Pullback(self.name, backward, second, shared)

        def gradients(ctx: Any, needs: Sequence[Any], grad: Tensor | None) -> Sequence[Any]:
            if grad is None:
                return [[None] * len(need) if isinstance(need, list) else None for need in needs]
            if ctx.backend == current_backend():
                return pullback(ctx, needs, grad)
            with backend(ctx.backend):
                return pullback(ctx, needs, grad)

        self.pullback, self._formula, self.gradients = pullback, formula, gradients
        self._record(gradients, setup, shared.arguments)

    def compute_partly(
        self,
        reads: Callable[..., partly.Reads | None],
        compute: Callable[..., Any],
        touched: Callable[..., Tensor | None],
    ) -> None:
        """Attach the computation of some pixels alone; see `partly.Partly`."""
        nested = tuple if self._group is None else self._group.nested
        partly.PARTLY[self._overload] = partly.Partly(
            lambda wanted, *args, anchor=None: reads(wanted, *nested(args), anchor=anchor),
            lambda wanted, *args: compute(wanted, *nested(args)),
            lambda changed, anchor, *args: touched(changed, anchor, *nested(args)),
        )

    def forbid_derivative(self) -> None:
        """Make the derivative an error; for the operator of a backward pass.

        Derivatives of gradients are those of the forward operator's `second`.
        """

        def backward(ctx: Any, needs: Sequence[Any], grad: Tensor | None) -> Any:
            raise RuntimeError(
                f"{recording.public(self.name)}: derivatives of gradients are those of the public "
                f"function, not of torch.ops.inpaint_ops.{self.name}"
            )

        self._record(backward, lambda ctx, inputs, output: None)

    def _record(
        self,
        gradients: recording.Gradients,
        setup: SetupContext,
        shared: tuple[int, ...] | None = None,
    ) -> None:
        self._function = recording.ordinary_function(self.name, gradients, setup)
        self._apply = recording.plain_apply(self._function)
        self._transformed = recording.transformed_function(self.name, gradients, setup, shared)


def _no_gradients(ctx: Any, needs: Sequence[Any], grad: Any) -> Sequence[Any]:
    raise NotImplementedError("the operator has no backward pass")


def _owned(results: Any, args: Sequence[Any]) -> Any:
    """The results, none of them a view, which autograd would not let be changed in place."""
    if isinstance(results, Tensor):
        return _no_view(results, args) if results._is_view() else results
    for result in results:
        if not isinstance(result, Tensor) or result._is_view():
            return type(results)([_owned(result, args) for result in results])
    return results


def _is_double(args: Sequence[Any]) -> bool:
    for a in args:  # noqa: SIM110 - a generator costs as much as all of this
        if isinstance(a, Tensor) and a.dtype == torch.float64:
            return True
    return False


# The dispatcher's keys of autocast, one for each type of device.
_AUTOCAST = {
    name: torch._C.DispatchKeySet(key)
    for name, key in torch._C.DispatchKey.__members__.items()
    if name.startswith("Autocast")
}


def _leave_autocast(name: str, overload: Any) -> None:
    """Run an operator without autocast, which would round what its implementations multiply.

    The public functions have given its arguments the dtype of autocast's rule before.
    """
    every = reduce(or_, _AUTOCAST.values())

    def without(*flat: Any) -> Any:
        with torch._C._ExcludeDispatchKeyGuard(every):
            return overload(*flat)

    for key in _AUTOCAST:
        _library.impl(name, without, key)


def _no_view(result: Tensor, args: Sequence[Any]) -> Tensor:
    """A tensor of its own on the memory of a view, or on a copy if that belongs to an argument."""
    storage = result.untyped_storage()
    if any(
        t.untyped_storage().data_ptr() == storage.data_ptr() for t in recording.tensors_of(args)
    ):
        return result.clone()
    place = (result.storage_offset(), result.shape, result.stride())
    return result.new_empty((0,)).set_(storage, *place)


def register(
    name: str,
    schema: str,
    *,
    cpu: Callable[..., Any],
    reference: Callable[..., Any],
    fake: Callable[..., Any],
    cuda: Callable[..., Any] | None = None,
    cuda_means: str = "triton",
    group: Group | None = None,
) -> Registered:
    """Define ``inpaint_ops::name``.

    The CPU gets `cpu`, unless the extension is missing or ``backend("reference")`` is in force.
    CUDA and ROCm devices get `cuda`, which calls ``triton.kernels(...)`` inside its body, so that
    nothing imports triton before it is needed and its absence is an error, never a silent fallback;
    they get `reference` in float64, for which no kernel is written, and under
    ``backend("reference")``. ``backend("triton")`` runs `cuda` on CPU tensors in Triton's
    interpreter. Every other device gets `reference`. All take the same arguments.

    Args:
        name: also the key in `OPERATORS`.
        schema: arguments and results.
        cpu: the native CPU kernel.
        reference: plain PyTorch.
        fake: shapes, dtypes and strides of the results.
        cuda: the GPU kernel; None: `reference` serves GPUs, and `OPERATORS` says so.
        cuda_means: what `cuda` is made of, for `OPERATORS`.
        group: arguments of the schema that all of them take as one.
    """

    def cpu_or_reference(*args: Any) -> Any:
        chosen = current_backend()
        if chosen == "triton" and cuda is not None:
            if not triton.interpreted():
                raise RuntimeError(
                    f'{name}: backend("triton") runs on CPU tensors only in Triton\'s interpreter; '
                    "start the process with TRITON_INTERPRET=1"
                )
            return gpu(*args)
        native = chosen != "reference" and extension() is not None
        return _owned(cpu(*args) if native else reference(*args), args)

    def gpu(*args: Any) -> Any:
        if cuda is None or _is_double(args) or current_backend() == "reference":
            return elsewhere(*args)
        return _owned(cuda(*args), args)

    def elsewhere(*args: Any) -> Any:
        return _owned(reference(*args), args)

    def flat(implementation: Callable[..., Any]) -> Callable[..., Any]:
        """The implementation for arguments as the schema has them."""
        return implementation if group is None else lambda *a: implementation(*group.nested(a))

    _library.define(name + schema)
    _library.impl(name, flat(elsewhere), "CompositeExplicitAutograd")
    _library.impl(name, flat(cpu_or_reference), "CPU")
    if cuda is not None:
        _library.impl(name, flat(gpu), "CUDA")
    torch.library.register_fake(f"inpaint_ops::{name}", flat(fake), lib=_library)
    overload = getattr(torch.ops.inpaint_ops, name).default
    _leave_autocast(name, overload)
    if not name.endswith("_backward"):
        made_of = None if cuda is None else cuda_means
        OPERATORS[name] = Operator(name, made_of, overload=overload, reference=flat(reference))
    return Registered(name, overload, cpu_or_reference, gpu, group)
