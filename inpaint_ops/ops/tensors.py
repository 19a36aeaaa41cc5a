"""Layouts and dtypes of operators' tensors: what autocast, half precision and kernels ask for."""

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


def autocast_to_float32(device: torch.device, *tensors: Tensor) -> tuple[Tensor, ...]:
    """Under autocast matching runs in float32 (float64 stays): the rule of torch's own norms."""
    if not autocast_is_on(device):
        return tensors
    return tuple(x if x.dtype == torch.float64 else x.float() for x in tensors)


def compute_dtype(x: Tensor) -> Tensor:
    """float16 and bfloat16 widened to float32, where sums are formed."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def packed_image(x: Tensor) -> Tensor:
    """An image as the kernels of layers read it: where sums are formed, packed in channels_last."""
    return compute_dtype(x).contiguous(memory_format=torch.channels_last)
