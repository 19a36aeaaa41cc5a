"""Registration and argument checks shared by the operators."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from inpaint_ops import _triton
from inpaint_ops._backend import current_backend
from inpaint_ops._extension import extension

_library = torch.library.Library("inpaint_ops", "DEF")
FLOAT_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
MASK_DTYPES = (torch.bool, torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64)


@dataclass(frozen=True)
class Operator:
    """One operator; `cuda` says what its GPU implementation is made of, if it has one.

    `library` names the library call that is all there is to it, on every device.
    """

    name: str
    cuda: str | None = None
    library: str | None = None


OPERATORS: dict[str, Operator] = {}


def register(
    name: str,
    schema: str,
    *,
    cpu: Callable[..., Any],
    reference: Callable[..., Any],
    fake: Callable[..., Any],
    cuda: Callable[..., Any] | None = None,
    cuda_means: str = "triton",
) -> Any:
    """Defines ``inpaint_ops::name`` and returns its overload, the thing to call.

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
    return getattr(torch.ops.inpaint_ops, name).default


def register_autograd(
    name: str, backward: Callable[..., Any], setup_context: Callable[..., Any]
) -> None:
    """Attaches a backward pass to a registered operator."""
    torch.library.register_autograd(
        f"inpaint_ops::{name}", backward, setup_context=setup_context, lib=_library
    )


def forbid_second_derivative(name: str) -> None:
    """Makes the derivative of ``inpaint_ops::name_backward`` an error that says so."""

    def backward(ctx: Any, *grads: Tensor) -> Any:
        raise RuntimeError(f"{name}: second derivatives are not implemented")

    register_autograd(f"{name}_backward", backward, lambda ctx, inputs, output: None)


def native() -> ModuleType:
    """The extension, inside a CPU implementation."""
    module = extension()
    assert module is not None
    return module


def threads() -> int:
    """Threads a kernel may use: torch's own setting."""
    return torch.get_num_threads()


def check_image(
    op: str, name: str, x: Tensor, dtypes: Sequence[torch.dtype] = FLOAT_DTYPES
) -> None:
    """An (N, C, H, W) floating tensor with at least one channel."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{op}: {name} must be a Tensor, got {type(x).__name__}")
    if x.dtype not in dtypes:
        wanted = ", ".join(str(d).removeprefix("torch.") for d in dtypes)
        raise TypeError(f"{op}: {name} must have dtype {wanted}, got {x.dtype}")
    if x.dim() != 4:
        raise ValueError(f"{op}: {name} must have shape (N, C, H, W), got {tuple(x.shape)}")
    if x.shape[1] == 0:
        raise ValueError(f"{op}: {name} must have at least one channel, got {tuple(x.shape)}")


def check_same(op: str, names: str, a: Tensor, b: Tensor) -> None:
    """Two tensors of one dtype on one device."""
    if a.dtype != b.dtype:
        raise TypeError(f"{op}: {names} must have one dtype, got {a.dtype} and {b.dtype}")
    if a.device != b.device:
        raise ValueError(f"{op}: {names} must be on one device, got {a.device} and {b.device}")


def check_mask(
    op: str, name: str, mask: Tensor, batch: int, size: tuple[int, int], device: torch.device
) -> None:
    """An (N or 1, 1, H, W) mask; its values are checked where it is read, by `binary`."""
    if not isinstance(mask, Tensor):
        raise TypeError(f"{op}: {name} must be a Tensor, got {type(mask).__name__}")
    if mask.dtype not in MASK_DTYPES:
        raise TypeError(f"{op}: {name} must be bool, uint8 or floating, got {mask.dtype}")
    shapes = {(n, 1, *size) for n in (batch, 1)}
    if tuple(mask.shape) not in shapes:
        wanted = " or ".join(str(s) for s in sorted(shapes, reverse=True))
        raise ValueError(f"{op}: {name} must have shape {wanted}, got {tuple(mask.shape)}")
    if mask.device != device:
        raise ValueError(f"{op}: {name} must be on {device}, got {mask.device}")


def check_int(op: str, name: str, value: int, minimum: int = 1) -> None:
    """An int of at least `minimum`."""
    if isinstance(value, bool) or not isinstance(value, (int, torch.SymInt)):
        raise TypeError(f"{op}: {name} must be an int, got {type(value).__name__}")
    if value < minimum:
        raise ValueError(f"{op}: {name} must be at least {minimum}, got {value}")


def check_finite(op: str, name: str, value: float) -> None:
    """A finite number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{op}: {name} must be a number, got {type(value).__name__}")
    if value != value or value in (float("inf"), float("-inf")):
        raise ValueError(f"{op}: {name} must be finite, got {value}")


def check_choice(op: str, name: str, value: str, choices: Sequence[str]) -> None:
    """One of a few words."""
    if value not in choices:
        raise ValueError(f"{op}: {name} must be one of {', '.join(choices)}, got {value!r}")


def binary(op: str, name: str, mask: Tensor) -> Tensor:
    """The mask as bool; called inside an operator, where values may be read.

    Raises:
        ValueError: a value is neither 0 nor 1 (soft masks have no meaning for a match).
    """
    if mask.dtype == torch.bool:
        return mask
    result = mask != 0
    if not torch.equal(result.to(mask.dtype), mask):
        bad = mask[(mask != 0) & (mask != 1)].flatten()[0].item()
        raise ValueError(f"{op}: {name} must hold only 0 and 1, got {bad}")
    return result


def bytes_of(op: str, name: str, mask: Tensor | None) -> Any:
    """The mask as packed (N, H, W) bytes for a kernel, or None."""
    if mask is None:
        return None
    return binary(op, name, mask)[:, 0].contiguous().view(torch.uint8).numpy()


def memory_format(x: Tensor) -> torch.memory_format:
    """The layout a result takes: channels_last where the channels of `x` lie together."""
    together = x.shape[1] > 1 and x.stride(1) == 1 and x.shape[2] * x.shape[3] > 1
    return torch.channels_last if together else torch.contiguous_format


def autocast_is_on(device: torch.device) -> bool:
    """Whether autocast is in force for a device type, of which not all know it."""
    return torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type)


def autocast_to_float32(device: torch.device, *tensors: Tensor) -> tuple[Tensor, ...]:
    """Under autocast matching runs in float32 (float64 stays): the rule of torch's own norms."""
    if not autocast_is_on(device):
        return tensors
    return tuple(x if x.dtype == torch.float64 else x.float() for x in tensors)


def compute_dtype(x: Tensor) -> Tensor:
    """float16 and bfloat16 widened to float32, where sums are formed."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
