"""A stand-in for a GPU's driver: the path of a call on the host, with nothing behind it.

CPU tensors pose as the device's. Every launch of a kernel goes as far as the compiled program,
which is replaced by nothing; so are the convolutions of the vendor's library. Other operators of
PyTorch run on the CPU: their tensors should be small.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from inpaint_ops.backends import backend
from inpaint_ops.kernels import launch
from inpaint_ops.ops import triton as ops_triton

# Name of the kernel's function, grid and stream.
Launch = tuple[str, tuple[int, int, int], int]


class _Driver:
    """What Triton asks of a driver before it compiles."""

    def get_current_target(self) -> Any:
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


def _compiled(launches: list[Launch], name: str) -> Any:
    """A compiled program that only notes its launches."""
    from triton.compiler import CompiledKernel

    class Nothing(CompiledKernel):  # type: ignore[misc]
        def __init__(self) -> None:
            self.name, self.src = name, None
            self.function, self.packed_metadata = 1, ()
            self.module, self._run = object(), self._note

        def _note(self, x: int, y: int, z: int, stream: int, *_: Any) -> None:
            launches.append((name, (x, y, z), stream))

    return Nothing()


def _conv(x: Tensor, weight: Tensor, bias: Any, *options: Any) -> Tensor:
    """Memory for the result of aten's convolution."""
    stride, padding, dilation, transposed, _, groups = options
    kernel = weight.shape[2:]
    if transposed:
        size = [(x.shape[i + 2] - 1) * stride[i] - 2 * padding[i] + kernel[i] for i in (0, 1)]
        filters = weight.shape[1] * groups
    else:
        reach = [dilation[i] * (kernel[i] - 1) for i in (0, 1)]
        size = [(x.shape[i + 2] + 2 * padding[i] - reach[i] - 1) // stride[i] + 1 for i in (0, 1)]
        filters = weight.shape[0]
    shape = (x.shape[0], filters, *size)
    return torch.empty(shape, dtype=x.dtype, memory_format=torch.channels_last)


def _conv_backward(
    grad: Tensor, x: Tensor, weight: Tensor, *options: Any
) -> tuple[Tensor | None, Tensor | None, None]:
    """Memory for the results of aten's gradient of a convolution."""
    wanted = options[-1]
    like = [torch.empty_like(t) if want else None for t, want in zip((x, weight), wanted)]
    return like[0], like[1], None


@contextmanager
def stand_in_device(library: bool = True) -> Iterator[list[Launch]]:
    """Let CPU tensors pose as a GPU's inside a ``with`` block; yield the launches, as they come.

    Args:
        library: whether the library's convolutions are replaced, too.

    Raises:
        RuntimeError: Triton's interpreter takes the place of the compiler in this process.
    """
    if launch.interpreted():
        raise RuntimeError("stand_in_device: unset TRITON_INTERPRET: it launches nothing")
    import triton
    from triton.runtime.jit import JITFunction

    launches: list[Launch] = []

    def compile(function: Any, key: Any, signature: Any, device: int, *rest: Any) -> Any:
        program = _compiled(launches, function.fn.__name__)
        function.device_caches[device][0][key] = program
        return program

    aten = torch.ops.aten
    driver = triton.runtime.driver
    replaced: list[tuple[Any, str, Any]] = [
        (JITFunction, "_do_compile", compile),
        (driver, "_active", _Driver()),
        (ops_triton, "interpreted", lambda: True),
        (launch, "current_device", lambda: -1),  # the index of the CPU's tensors
        (launch, "current_stream", lambda index: 0),
    ]
    if library:
        replaced += [
            (aten.convolution, "default", _conv),
            (aten.convolution_backward, "default", _conv_backward),
        ]
    kernels = launch.all_kernels()
    with ExitStack() as stack:
        for owner, name, value in replaced:
            stack.enter_context(patch.object(owner, name, value))
        for kernel in kernels:
            stack.enter_context(patch.dict(kernel.programs, clear=True))
            stack.enter_context(patch.dict(kernel.function.device_caches, clear=True))
        stack.enter_context(backend("triton"))
        yield launches
