"""Layouts and dtypes of operators' tensors: what autocast, half precision and kernels ask for."""

from collections.abc import Sequence
from typing import overload

import torch
from torch import Tensor

from inpaint_ops.checks import binary, known
from inpaint_ops.ops.extension import Extension
from inpaint_ops.ops.native import extension


def native() -> Extension:
    """Return the extension, inside a CPU implementation."""
    module = extension()
    assert module is not None
    return module


def threads() -> int:
    """Threads a kernel may use: torch's own setting."""
    return torch.get_num_threads()


@overload
def bytes_of(op: str, name: str, mask: Tensor) -> Tensor: ...
@overload
def bytes_of(op: str, name: str, mask: Tensor | None) -> Tensor | None: ...
def bytes_of(op: str, name: str, mask: Tensor | None) -> Tensor | None:
    """The mask as packed (N, H, W) bytes for a kernel, or None."""
    if mask is None:
        return None
    return binary(op, name, mask)[:, 0].contiguous().view(torch.uint8)


def memory_format(x: Tensor) -> torch.memory_format:
    """The layout a result takes: channels_last where the channels of `x` lie together."""
    together = x.shape[1] > 1 and x.stride(1) == 1 and not known(x.shape[2] * x.shape[3] <= 1)
    return torch.channels_last if together else torch.contiguous_format


def autocast_is_on(device: torch.device) -> bool:
    """Return whether autocast is in force for a device type; not all types know it."""
    kind = device.type
    available = kind == "cpu" or torch.amp.is_autocast_available(kind)
    return available and torch.is_autocast_enabled(kind)


# Under autocast an operator follows the rule of torch's peer of it: convolutions and products take
# autocast's dtype, norms, matches and losses float32. float64 stays, as in torch's own.


def autocast_to_lower(
    x: Tensor, weight: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return the tensors in autocast's dtype where it is on: convolutions and products."""
    if not autocast_is_on(x.device):
        return x, weight, bias
    dtype = torch.get_autocast_dtype(x.device.type)

    def cast(t: Tensor) -> Tensor:
        return t if t.dtype == torch.float64 else t.to(dtype)

    return cast(x), cast(weight), None if bias is None else cast(bias)


def autocast_to_float32(device: torch.device, *tensors: Tensor) -> Sequence[Tensor]:
    """Return the tensors in float32 where autocast is on: norms, softmax, matches, losses."""
    if not autocast_is_on(device):
        return tensors
    return [x if x.dtype == torch.float64 else x.float() for x in tensors]


def compute_dtype(x: Tensor) -> Tensor:
    """float16 and bfloat16 widened to float32, where sums are formed."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def packed_image(x: Tensor) -> Tensor:
    """An image as the kernels of layers read it: where sums are formed, packed in channels_last."""
    return in_layout(compute_dtype(x), torch.channels_last)


def in_layout(x: Tensor, layout: torch.memory_format) -> Tensor:
    """Return a tensor (N, C, H, W) in a memory format; inside operators of the CPU.

    PyTorch's own copy of planes to pixels takes up to ten times as long as the kernel.
    """
    if x.is_contiguous(memory_format=layout):
        return x
    planes = layout == torch.channels_last and x.stride(3) == 1
    pixels = layout != torch.channels_last and x.is_contiguous(memory_format=torch.channels_last)
    if not (planes or pixels) or x.dtype != torch.float32 or not x.is_cpu or x.numel() == 0:
        return x.contiguous(memory_format=layout)
    result = torch.empty_like(x, memory_format=layout)
    native().relayout(x, result, threads())
    return result
