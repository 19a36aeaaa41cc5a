"""Operators of torch: their definition for each device, and the way past the dispatcher."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from inpaint_ops import checks
from inpaint_ops.backends import backend, current_backend
from inpaint_ops.ops import triton
from inpaint_ops.ops.native import extension

_library = torch.library.Library("inpaint_ops", "DEF")


@dataclass(frozen=True)
class Operator:
    """One operator; `cuda` says what its GPU implementation is made of, if it has one.

    `library` names the library call that is all there is to it, on every device.
    """

    name: str
    cuda: str | None = None
    library: str | None = None


OPERATORS: dict[str, Operator] = {}

Backward = Callable[[Any, Sequence[Any], Tensor], Sequence[Any]]
SetupContext = Callable[[Any, Sequence[Any], Sequence[Any]], None]


class Registered:
    """A registered operator, the thing to call, with positional arguments.

    Ordinary CPU tensors that nothing watches go straight to the CPU implementation, recorded for
    autograd if need be. The dispatcher would do the same by way of three conversions of all
    arguments between C++ and Python: on one Zen 4 core 20 us a call, 150 us with gradients, as
    much as the sums of a small layer. Everything else is the dispatcher's.
    """

    def __init__(self, name: str, overload: Any, cpu: Callable[..., Any]) -> None:
        self.name = name
        self._overload, self._cpu = overload, cpu
        self._names = [argument.name for argument in overload._schema.arguments]
        self._function: Any = None
        self._transformed: Any = None
        _library.impl(name, self._autograd, "Autograd", with_keyset=True)

    def __call__(self, *args: Any) -> Any:
        """Call the operator."""
        if not _TELLING or torch.compiler.is_compiling():
            return self._overload(*args)
        tensors = _tensors(args)
        if not _plain(tensors):
            return self._watched(args)
        if not (torch.is_grad_enabled() and any(t.requires_grad for t in tensors)):
            return self._cpu(*args)
        if self._function is None:
            return self._overload(*args)
        return _applied(self._function, self._cpu, args)

    def _watched(self, args: Sequence[Any]) -> Any:
        checks.check_kinds(self.name, **dict(zip(self._names, args)))
        if self._transformed is not None and torch._C._are_functorch_transforms_active():
            return _applied(self._transformed, self._overload, args)
        return self._overload(*args)

    def _autograd(self, keys: Any, *args: Any) -> Any:
        """The dispatcher's kernel for autograd: records the call, or refuses what it cannot."""
        tensors = _tensors(args)
        refuse_tangents(self.name, tensors)

        def below(*args: Any) -> Any:
            with torch._C._AutoDispatchBelowAutograd():
                return self._overload.redispatch(keys & torch._C._after_autograd_keyset, *args)

        recorded = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
        if not recorded or self._function is None:
            return below(*args)
        if torch._C._are_functorch_transforms_active():
            raise NotImplementedError(
                f"{_public(self.name)}: torch.func takes derivatives of the public function, "
                f"not of torch.ops.inpaint_ops.{self.name}"
            )
        return _applied(self._function, below, args)

    def differentiate(self, backward: Backward, setup_context: SetupContext) -> None:
        """Attaches a backward pass.

        Args:
            backward: gradients of the arguments from (ctx, which arguments need one, gradient of
                the first result); the other results have none. It runs on the backend that was in
                force in the forward pass.
            setup_context: keeps in its ctx what `backward` needs, of the arguments and the results.
        """

        def setup(ctx: Any, inputs: Sequence[Any], output: Sequence[Any]) -> None:
            # Otherwise zeros as large as the other results come with every gradient.
            ctx.set_materialize_grads(False)
            ctx.mark_non_differentiable(*output[1:])
            ctx.backend = current_backend()
            setup_context(ctx, inputs, output)

        def gradients(ctx: Any, needs: Sequence[Any], grad: Tensor | None) -> Sequence[Any]:
            if grad is None:
                return [[None] * len(need) if isinstance(need, list) else None for need in needs]
            with backend(ctx.backend):
                return backward(ctx, needs, grad)

        self._record(gradients, setup)

    def forbid_derivative(self) -> None:
        """Makes the derivative an error that says so; for the operator of a backward pass."""
        name = self.name.removesuffix("_backward")

        def backward(ctx: Any, needs: Sequence[Any], grad: Tensor | None) -> Any:
            raise RuntimeError(f"{name}: second derivatives are not implemented")

        self._record(backward, lambda ctx, inputs, output: None)

    def _record(self, gradients: Callable[..., Sequence[Any]], setup: SetupContext) -> None:
        """Makes the autograd functions: one for ordinary calls, one for torch.func's transforms.

        The second is the form that transforms ask for, whose call costs more.
        """
        name = self.name

        def run(ctx: Any, call: _Call, *flat: Any) -> Any:
            result = call(flat)
            setup(ctx, _nested(flat, call.lengths), result)
            ctx.lengths = call.lengths
            return result

        def run_backward(ctx: Any, grad: Tensor | None, *_: Any) -> tuple[Any, ...]:
            grads = gradients(ctx, _nested(ctx.needs_input_grad[1:], ctx.lengths), grad)
            return None, *_flat(grads, ctx.lengths)

        def transformed(call: _Call, *flat: Any) -> Any:
            return call(flat)

        def setup_transformed(ctx: Any, inputs: Sequence[Any], output: Any) -> None:
            call, *flat = inputs
            setup(ctx, _nested(flat, call.lengths), output)
            ctx.lengths = call.lengths

        def jvp(ctx: Any, *tangents: Any) -> Any:
            raise NotImplementedError(_NO_FORWARD_MODE.format(_public(name)))

        def vmap(info: Any, dims: Sequence[Any], *inputs: Any) -> Any:
            if info.batch_size == 0:
                raise ValueError(f"{_public(name)}: vmap must have a batch that is not empty")
            results = []
            for i in range(info.batch_size):
                one = (
                    x.select(dim, i) if isinstance(dim, int) else x for x, dim in zip(inputs, dims)
                )
                results.append(self._transformed.apply(*one))
            if isinstance(results[0], Tensor):
                return torch.stack(results), 0
            return tuple(map(torch.stack, zip(*results))), (0,) * len(results[0])

        ordinary: dict[str, Callable[..., Any]] = {"forward": run, "backward": run_backward}
        other: dict[str, Callable[..., Any]] = {
            "forward": transformed,
            "setup_context": setup_transformed,
            "backward": run_backward,
            "jvp": jvp,
            "vmap": vmap,
        }
        self._function, self._transformed = (
            type(
                name,
                (torch.autograd.Function,),
                {key: staticmethod(method) for key, method in methods.items()},
            )
            for methods in (ordinary, other)
        )


class _Call:
    """A call whose arguments and results are flat, as autograd's functions want them."""

    def __init__(self, call: Callable[..., Any], args: Sequence[Any]) -> None:
        self.lengths = tuple(_length(arg) for arg in args)
        self.result_lengths: tuple[int | None, ...] = ()
        self._call = call

    def __call__(self, flat: Sequence[Any]) -> Any:
        results = self._call(*_nested(flat, self.lengths))
        if isinstance(results, Tensor):
            return results
        self.result_lengths = tuple(_length(result) for result in results)
        return tuple(_flat(results, self.result_lengths))


def _applied(function: Any, call: Callable[..., Any], args: Sequence[Any]) -> Any:
    """The results of the call, recorded by a function of autograd."""
    own = _Call(call, args)
    results = function.apply(own, *_flat(args, own.lengths))
    return _nested(results, own.result_lengths)


_NO_FORWARD_MODE = "{}: forward-mode derivatives are not implemented"


def _public(name: str) -> str:
    """The operator that users know, of it or of its backward pass."""
    return name.removesuffix("_backward")


def may_be_recorded(tensors: Iterable[Tensor | None]) -> bool:
    """Whether a call with them may be differentiated; inside transforms tensors do not show it."""
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors):
        return True
    active: bool = torch._C._are_functorch_transforms_active()
    return active


def refuse_tangents(name: str, tensors: Iterable[Tensor]) -> None:
    """Raises where a derivative in forward mode comes with one of the tensors.

    Autograd itself would go on without it, which gives zeros.

    Raises:
        NotImplementedError: one of the tensors has a tangent.
    """
    level = forward_ad._current_level
    if level < 0:
        return
    for tensor in tensors:
        if torch._VF._unpack_dual(tensor, level=level)[1] is not None:
            raise NotImplementedError(_NO_FORWARD_MODE.format(_public(name)))


_PLAIN_TYPES = (Tensor, torch.nn.Parameter)
# What the dispatcher takes first for a CPU tensor that nothing but autograd watches, and below
# autograd; in inference mode there is nothing above.
_BELOW = frozenset({torch._C.DispatchKey.BackendSelect, torch._C.DispatchKey.CPU})
_PLAIN_KEYS = _BELOW | {torch._C.DispatchKey.AutogradCPU, torch._C.DispatchKey.ADInplaceOrView}


def _plain(tensors: Sequence[Tensor]) -> bool:
    """Whether the dispatcher would do no more than record for autograd and call the CPU's kernel.

    Not so for subclasses, other devices, tracing, transforms of functions, autocast, modes that
    watch operators, derivatives in forward mode and profiles, which show operators by name.
    """
    if (
        torch._C._len_torch_function_stack()
        or torch._C._autograd._profiler_enabled()
        or forward_ad._current_level >= 0
    ):
        return False
    keys = torch._C._dispatch_tls_local_include_set().raw_repr()
    for tensor in tensors:
        if type(tensor) not in _PLAIN_TYPES or not tensor.is_cpu:
            return False
        keys |= torch._C._dispatch_keys(tensor).raw_repr()
    if not _plain_keys(keys, torch._C._dispatch_tls_local_exclude_set().raw_repr()):
        return False
    try:
        for tensor in tensors:
            if not tensor.data_ptr() and tensor.numel():
                return False
    except RuntimeError:  # sparse tensors and the like have no such thing
        return False
    return True


@lru_cache(maxsize=4096)
def _plain_keys(included: int, excluded: int) -> bool:
    """Whether a call with those dispatch keys, as bits, is one that `_plain` means."""
    bits = torch._C.DispatchKeySet.from_raw_repr
    keys = bits(included) - bits(excluded)
    below = keys & torch._C._after_ADInplaceOrView_keyset
    above = keys.highestPriorityTypeId() in _PLAIN_KEYS
    return above and below.highestPriorityTypeId() in _BELOW


def _is_telling() -> bool:
    """Whether `_plain` can tell: not all that it asks is public, a release of torch may lack it."""
    try:
        _plain([torch.empty(0)])
    except AttributeError:
        return False
    return True


_TELLING = _is_telling()


def _tensors(args: Sequence[Any]) -> list[Tensor]:
    """All tensors among the arguments, those of lists too."""
    tensors: list[Tensor] = []
    for arg in args:
        if isinstance(arg, Tensor):
            tensors.append(arg)
        elif type(arg) is list and _length(arg):
            tensors += arg
    return tensors


def _length(arg: Any) -> int | None:
    """Of a list of tensors; None for anything else."""
    return len(arg) if type(arg) is list and arg and isinstance(arg[0], Tensor) else None


def _flat(values: Sequence[Any], lengths: Sequence[int | None]) -> Sequence[Any]:
    """Lists of those lengths replaced by what they hold."""
    if not any(lengths):
        return values
    flat: list[Any] = []
    for value, length in zip(values, lengths):
        flat += [value] if length is None else value
    return flat


def _nested(flat: Sequence[Any], lengths: Sequence[int | None]) -> Sequence[Any]:
    """The inverse of `_flat`."""
    if not any(lengths):
        return flat
    rest = iter(flat)
    return [
        next(rest) if length is None else [next(rest) for _ in range(length)] for length in lengths
    ]


def _owned(results: Any, args: Sequence[Any]) -> Any:
    """The results, none of them a view, which autograd would not let be changed in place."""
    if isinstance(results, Tensor):
        return _no_view(results, args) if results._is_view() else results
    return type(results)([_owned(result, args) for result in results])


def _no_view(result: Tensor, args: Sequence[Any]) -> Tensor:
    """A tensor of its own on the memory of a view, or on a copy if that belongs to an argument."""
    storage = result.untyped_storage()
    if any(t.untyped_storage().data_ptr() == storage.data_ptr() for t in _tensors(args)):
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
) -> Registered:
    """Defines ``inpaint_ops::name``.

    The CPU gets `cpu`, unless the extension is missing or ``backend("reference")`` is in force.
    CUDA and ROCm devices get `cuda`, which calls ``_triton.kernels(...)`` inside its body, so that
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
        wide = any(isinstance(a, Tensor) and a.dtype == torch.float64 for a in args)
        if cuda is None or wide or current_backend() == "reference":
            return elsewhere(*args)
        return _owned(cuda(*args), args)

    def elsewhere(*args: Any) -> Any:
        return _owned(reference(*args), args)

    _library.define(name + schema)
    _library.impl(name, elsewhere, "CompositeExplicitAutograd")
    _library.impl(name, cpu_or_reference, "CPU")
    if cuda is not None:
        _library.impl(name, gpu, "CUDA")
    torch.library.register_fake(f"inpaint_ops::{name}", fake, lib=_library)
    if not name.endswith("_backward"):
        OPERATORS[name] = Operator(name, None if cuda is None else cuda_means)
    overload = getattr(torch.ops.inpaint_ops, name).default
    return Registered(name, overload, cpu_or_reference)
