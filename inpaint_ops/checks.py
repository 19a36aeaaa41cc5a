"""Argument checks shared by operators, layers and models."""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch._subclasses import FakeTensor
from torch._subclasses.functional_tensor import FunctionalTensor

FLOAT_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
MASK_DTYPES = (torch.bool, torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64)


def check_image(
    op: str, name: str, x: Tensor, dtypes: Sequence[torch.dtype] = FLOAT_DTYPES
) -> None:
    """Check an image: an (N, C, H, W) floating tensor with at least one channel."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{op}: {name} must be a Tensor, got {type(x).__name__}")
    if x.dtype not in dtypes:
        wanted = ", ".join(str(d).removeprefix("torch.") for d in dtypes)
        raise TypeError(
            f"{op}: {name} must have dtype {wanted}, got {x.dtype}; .float() converts it"
        )
    if x.dim() != 4:
        hint = "; [None] adds the batch" if x.dim() == 3 else ""
        raise ValueError(f"{op}: {name} must have shape (N, C, H, W), got {tuple(x.shape)}{hint}")
    if x.shape[1] == 0:
        raise ValueError(f"{op}: {name} must have at least one channel, got {tuple(x.shape)}")


class Note(UserWarning):
    """Warning of one line for who runs a program: what was made of the input."""


# The state of torch.jit.trace, None while it does not record.
tracing = torch._C._get_tracing_state


def untraced(call: Callable[[], Any]) -> Any:
    """Return what a call gives without torch.jit.trace, for which sizes are tensors."""
    state = tracing()
    torch._C._set_tracing_state(None)  # type: ignore[attr-defined]
    try:
        return call()
    finally:
        torch._C._set_tracing_state(state)  # type: ignore[attr-defined]


def sizes(x: Tensor) -> Sequence[int]:
    """Return the sizes of a tensor to check, as numbers also while torch.jit.trace records."""
    return numbers(x.shape)


def numbers(values: Sequence[int]) -> Sequence[int]:
    """Return sizes, or what was made of them, as numbers also while torch.jit.trace records."""
    if tracing() is None:
        return values
    result: Sequence[int] = untraced(lambda: tuple(map(int, values)))
    return result


def known(condition: bool) -> bool:
    """Return a condition on sizes; False where torch.compile or torch.export leaves it open.

    Other than ``if condition``, which ties what is compiled to sizes that meet it.
    """
    if type(condition) is bool and not torch.compiler.is_compiling():
        return condition
    # Loads sympy, as every compilation does.
    from torch.fx.experimental.symbolic_shapes import statically_known_true

    return statically_known_true(condition)


def check_kinds(op: str, **arguments: Any) -> None:
    """Check that tensors, alone or in lists, have strides and memory.

    Costs more than the checks of shape and dtype: operators ask only where something about their
    arguments is out of the ordinary.

    Raises:
        TypeError: another layout, named dimensions, a storage without memory, a FakeTensor among
            other tensors, or one that outlived the vmap that made it.
    """
    if torch.compiler.is_compiling():  # tensors are torch's own then
        return
    tensors = [
        (name, value)
        for name, argument in arguments.items()
        for value in (argument if isinstance(argument, list) else [argument])
        if isinstance(value, Tensor)
    ]
    for name, tensor in tensors:
        _check_kind(op, name, tensor)
    fake = [(name, tensor) for name, tensor in tensors if isinstance(tensor, FakeTensor)]
    if 0 < len(fake) < len(tensors) and not fake[0][1].fake_mode.allow_non_fake_inputs:
        raise TypeError(
            f"{op}: {fake[0][0]} must have memory as other tensors do, got a FakeTensor"
        )


def _check_kind(op: str, name: str, x: Tensor) -> None:
    if x.layout is not torch.strided:
        raise TypeError(f"{op}: {name} must be a dense (strided) tensor, got layout {x.layout}")
    if x.is_nested:
        raise TypeError(f"{op}: {name} must be a dense (strided) tensor, got a nested tensor")
    names = getattr(x, "names", ())  # of dimensions, in releases of torch before 2.13
    if any(axis is not None for axis in names):
        raise TypeError(f"{op}: {name} must have no named dimensions, got {names}")
    if torch._C._functorch.is_batchedtensor(x):
        if not torch._C._are_functorch_transforms_active():
            raise TypeError(f"{op}: {name} must not outlive the vmap that made it")
    elif type(x) in (Tensor, torch.nn.Parameter) and x.is_cpu and x.numel() and not _has_memory(x):
        raise TypeError(f"{op}: {name} must have memory, got a tensor whose storage was freed")


def _has_memory(x: Tensor) -> bool:
    try:
        return x.data_ptr() != 0
    except RuntimeError:  # a wrapper of a transform, which has none of its own
        return True


def check_same(op: str, names: str, a: Tensor, b: Tensor) -> None:
    """Check that two tensors have one dtype and are on one device."""
    if a.dtype != b.dtype:
        raise TypeError(
            f"{op}: {names} must have one dtype, got {a.dtype} and {b.dtype}; .to(dtype) converts"
        )
    if a.device != b.device:
        raise ValueError(
            f"{op}: {names} must be on one device, got {a.device} and {b.device}; .to(device) moves"
        )


def check_mask(
    op: str, name: str, mask: Tensor, batch: int, size: tuple[int, int], device: torch.device
) -> None:
    """Check an (N or 1, 1, H, W) mask; its values are checked where it is read, by `binary`."""
    if not isinstance(mask, Tensor):
        raise TypeError(f"{op}: {name} must be a Tensor, got {type(mask).__name__}")
    if mask.dtype not in MASK_DTYPES:
        raise TypeError(
            f"{op}: {name} must be bool, uint8 or floating, got {mask.dtype}; .bool() converts it"
        )
    check_mask_shape(op, name, mask, [(batch, 1, *size), (1, 1, *size)])
    if mask.device != device:
        raise ValueError(
            f"{op}: {name} must be on {device}, got {mask.device}; .to(device) moves it"
        )


def check_mask_shape(op: str, name: str, mask: Tensor, shapes: Sequence[tuple[int, ...]]) -> None:
    """Check that a mask has one of a few shapes.

    Traced sizes have no hash, and an order would tie them to numbers: they are compared, no more.
    """
    shape = tuple(mask.shape)
    for wanted in shapes:
        if shape == wanted:
            return
    words = " or ".join(dict.fromkeys(map(str, shapes)))
    raise ValueError(f"{op}: {name} must have shape {words}, got {shape}")


# Steps, paddings and sizes beyond it are mistakes, and products of two of them leave 64 bits.
_MOST = 2**31 - 1


def check_int(op: str, name: str, value: int, minimum: int = 1, maximum: int = _MOST) -> None:
    """Check an int of at least `minimum` and at most `maximum`."""
    if isinstance(value, bool) or not isinstance(value, (int, torch.SymInt)):
        raise TypeError(f"{op}: {name} must be an int, got {type(value).__name__}")
    if value < minimum:
        raise ValueError(f"{op}: {name} must be at least {minimum}, got {value}")
    if value > maximum:
        raise ValueError(f"{op}: {name} must be at most {maximum}, got {value}")


def check_result(op: str, name: str, shape: Sequence[int], value: object) -> None:
    """Check that the bytes of a result, or of an image on the way to it, can be counted."""
    # Sizes that are traced stay free.
    if all(type(size) is int for size in shape) and prod(shape) >= 2**59:
        raise ValueError(
            f"{op}: {name} must leave fewer than 2**59 values, got {value} and {tuple(shape)}"
        )


def check_finite(op: str, name: str, value: float) -> None:
    """Check a finite number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{op}: {name} must be a number, got {type(value).__name__}")
    if value != value or value in (float("inf"), float("-inf")):
        raise ValueError(f"{op}: {name} must be finite, got {value}")


def check_flag(op: str, name: str, value: object) -> None:
    """Check a bool, or 0 or 1 as option files write it: any other word would count as True."""
    if not isinstance(value, int) or value not in (0, 1):
        raise TypeError(f"{op}: {name} must be a bool, got {value!r}")


def check_choice(op: str, name: str, value: str, choices: Sequence[str]) -> None:
    """Check a word that is one of a few."""
    if value not in choices:
        raise ValueError(f"{op}: {name} must be one of {', '.join(choices)}, got {value!r}")


def check_known(op: str, image: Tensor, missing: Tensor) -> None:
    """Check that a picture is in [0, 1] but for its missing pixels, a bool that expands to it."""
    if image.numel() == 0:
        return
    # One pass where the missing pixels are, too; a NaN makes both ends NaN.
    low, high = torch.aminmax(image)
    if (low >= 0) & (high <= 1):
        return
    outside = ~((image >= 0) & (image <= 1)) & ~missing
    if outside.any():
        raise ValueError(
            f"{op}: image must be in [0, 1] where it is known, got {image[outside][0].item()}; "
            "divide levels of 8 bits by 255"
        )


def has_values(x: Tensor) -> bool:
    """Return whether a tensor holds values, and not just a place in a program that is recorded."""
    return not isinstance(x, (FakeTensor, FunctionalTensor))


def binary(op: str, name: str, mask: Tensor) -> Tensor:
    """Return the mask as bool; called inside an operator, where values may be read.

    On devices all but 0 counts as 1: to look at values, the host would have to wait for the device.

    Raises:
        ValueError: a value is neither 0 nor 1 (soft masks have no meaning for a match).
    """
    if mask.dtype == torch.bool:
        return mask
    result = mask != 0
    # A formula that is traced has no values; those on GPUs would have to be waited for.
    readable = has_values(mask) and mask.is_cpu and not torch._C._len_torch_dispatch_stack()
    if readable and not torch.equal(result.to(mask.dtype), mask):
        bad = mask[(mask != 0) & (mask != 1)].flatten()[0].item()
        raise ValueError(
            f"{op}: {name} must hold only 0 and 1, got {bad}; a comparison such as {name} > 0.5 "
            "makes it so"
        )
    return result
