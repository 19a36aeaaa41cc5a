"""Operators of torch: their definition for each device, and the way past the dispatcher."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from inpaint_ops import _triton
from inpaint_ops._backend import backend, current_backend
from inpaint_ops._extension import extension

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
        self._function: Any = None

    def __call__(self, *args: Any) -> Any:
        if not _TELLING or torch.compiler.is_compiling():
            return self._overload(*args)
        tensors = []
        for arg in args:
            if isinstance(arg, Tensor):
                tensors.append(arg)
            elif _length(arg):
                tensors += arg
        if not _plain(tensors):
            return self._overload(*args)
        if not (torch.is_grad_enabled() and any(t.requires_grad for t in tensors)):
            return self._cpu(*args)
        if self._function is None:
            return self._overload(*args)
        lengths = tuple(_length(arg) for arg in args)
        return self._function.apply(lengths, *_flat(args, lengths))

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

        def dispatched(ctx: Any, grad: Tensor | None, *_: Any) -> tuple[Any, ...]:
            return tuple(gradients(ctx, ctx.needs_input_grad, grad))

        torch.library.register_autograd(
            f"inpaint_ops::{self.name}", dispatched, setup_context=setup, lib=_library
        )
        cpu = self._cpu

        def run(ctx: Any, lengths: Sequence[int | None], *flat: Any) -> Any:
            args = _nested(flat, lengths)
            result = cpu(*args)
            setup(ctx, args, result)
            ctx.lengths = lengths
            return result

        def run_backward(ctx: Any, grad: Tensor | None, *_: Any) -> tuple[Any, ...]:
            grads = gradients(ctx, _nested(ctx.needs_input_grad[1:], ctx.lengths), grad)
            return None, *_flat(grads, ctx.lengths)

        methods = {"forward": staticmethod(run), "backward": staticmethod(run_backward)}
        self._function = type(self.name, (torch.autograd.Function,), methods)

    def forbid_derivative(self) -> None:
        """Makes the derivative an error that says so; for the operator of a backward pass."""
        name = self.name.removesuffix("_backward")

        def backward(ctx: Any, *grads: Tensor) -> Any:
            raise RuntimeError(f"{name}: second derivatives are not implemented")

        torch.library.register_autograd(
            f"inpaint_ops::{self.name}",
            backward,
            setup_context=lambda ctx, inputs, output: None,
            lib=_library,
        )


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
    keys = torch._C._dispatch_tls_local_include_set()
    for tensor in tensors:
        if type(tensor) not in _PLAIN_TYPES or not tensor.is_cpu:
            return False
        keys = keys | torch._C._dispatch_keys(tensor)
    keys = keys - torch._C._dispatch_tls_local_exclude_set()
    below = keys & torch._C._after_ADInplaceOrView_keyset
    return keys.highestPriorityTypeId() in _PLAIN_KEYS and below.highestPriorityTypeId() in _BELOW


def _is_telling() -> bool:
    """Whether `_plain` can tell: not all that it asks is public, a release of torch may lack it."""
    try:
        _plain([torch.empty(0)])
    except AttributeError:
        return False
    return True


_TELLING = _is_telling()


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
            if not _triton.interpreted():
                raise RuntimeError(
                    f'{name}: backend("triton") runs on CPU tensors only in Triton\'s interpreter; '
                    "start the process with TRITON_INTERPRET=1"
                )
            return gpu(*args)
        native = chosen != "reference" and extension() is not None
        return cpu(*args) if native else reference(*args)

    def gpu(*args: Any) -> Any:
        wide = any(isinstance(a, Tensor) and a.dtype == torch.float64 for a in args)
        if cuda is None or wide or current_backend() == "reference":
            return reference(*args)
        return cuda(*args)

    _library.define(name + schema)
    _library.impl(name, reference, "CompositeExplicitAutograd")
    _library.impl(name, cpu_or_reference, "CPU")
    if cuda is not None:
        _library.impl(name, gpu, "CUDA")
    torch.library.register_fake(f"inpaint_ops::{name}", fake, lib=_library)
    if not name.endswith("_backward"):
        OPERATORS[name] = Operator(name, None if cuda is None else cuda_means)
    overload = getattr(torch.ops.inpaint_ops, name).default
    return Registered(name, overload, cpu_or_reference)
