"""How a Triton kernel is declared, which of its configurations is taken, and how it is launched.

A kernel file says what the kernel takes and in which rows of a table it may run::

    TYPES = {"x_ptr": "*T", "y_ptr": "*T", "factor_ptr": "*fp32", "size": "i32"}

    @jit(TYPES)
    def _scale_fwd_kernel(x_ptr, y_ptr, factor_ptr, size, ACT: tl.constexpr, BLOCK: tl.constexpr):
        ...

    SCALE = Kernel(
        _scale_fwd_kernel,
        TYPES,
        [
            Row("half", "half", {"BLOCK": 2048}, warps=4, wide=("x_ptr",)),
            Row("fp32", "fp32", {"BLOCK": 1024}, warps=4, wide=("x_ptr",)),
        ],
        free={"ACT": (1, 0)},
    )

    SCALE("half", (triton.cdiv(x.numel(), 2048),), x_ptr=x, y_ptr=y, ..., size=x.numel(), ACT=0)

Rules that make a table row one and only one compiled program:

* Integers are never specialised on their value (`jit` sees to it), pointers always are: every
  tensor given must start at a multiple of 16 bytes (`aligned` copies one that does not). What the
  compiler has to know about a row length it learns from arithmetic (``units * 8``) or constexprs.
* All constexprs are either in the row or `free`: of a closed set of values, the first of which
  needs most registers and stands for the others in the compile budget.
* "T" in a type is the dtype of the row: "half" (float16 and bfloat16, budgeted as bfloat16) or
  "fp32".

Offsets that may pass 2**31 are 64-bit inside the kernels; sizes of one axis are 32-bit.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import triton
from torch import Tensor

from inpaint_ops.ops import triton as ops_triton

ARCHITECTURES = ("sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120", "gfx942")
HALF = (torch.float16, torch.bfloat16)
_POINTER_DTYPES = {
    "*fp32": torch.float32,
    "*i8": torch.int8,
    "*u8": torch.uint8,
    "*i32": torch.int32,
    "*i64": torch.int64,
}


@dataclass(frozen=True)
class Row:
    """One configuration of a kernel.

    Args:
        name: unique among the rows of one kernel and architecture.
        dtype: "half" or "fp32", the element type written T.
        constexprs: values of the constexprs that are not free.
        warps: per program.
        stages: of the software pipeline.
        archs: where the row is offered; rows of one name may share the architectures out.
        dot: it multiplies matrices; a half-precision product must use the tensor cores.
        tensor_cores: the same for a row in fp32, true for TF32.
        wide: the main operands, which must be loaded by 16 bytes.
        occupancy: warps that must fit on one multiprocessor by registers and shared memory.
    """

    name: str
    dtype: str
    constexprs: Mapping[str, Any]
    warps: int = 4
    stages: int = 3
    archs: tuple[str, ...] = ARCHITECTURES
    dot: bool = False
    tensor_cores: bool | None = None
    wide: tuple[str, ...] = ()
    occupancy: int = 8

    @property
    def needs_tensor_cores(self) -> bool:
        """Whether the compiled program has to hold matrix instructions."""
        return self.dot and (
            self.dtype == "half" if self.tensor_cores is None else self.tensor_cores
        )


def jit(types: Mapping[str, str]) -> Callable[[Callable[..., None]], Any]:
    """``triton.jit`` that compiles one program whatever the values of the integers."""
    scalars = [name for name, kind in types.items() if not kind.startswith("*")]
    decorator: Any = triton.jit(do_not_specialize=scalars)
    return decorator  # type: ignore[no-any-return]


class Unfit(Exception):
    """Raised by a call under tuning: this row does not serve that problem."""


KERNELS: list[Kernel] = []


@dataclass(eq=False)
class Kernel:
    """A jitted function and the rows it may run in; declared at module level, once.

    Args:
        function: decorated by `jit`.
        types: of the run-time arguments, in their order: "*T", "*fp32", "*u8", "*i32", "*i64", "T",
            "i32", "i64" or "fp32".
        rows: the table.
        free: values allowed for each other constexpr, the costliest first.
        tunes: what `tune` measures: takes a device and yields (key, call), where call(row name)
            runs one problem of the ten models, or raises `Unfit`; the fastest row is kept under
            the key, which `tuned` is later asked for.
    """

    function: Any
    types: Mapping[str, str]
    rows: Sequence[Row]
    free: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    tunes: Callable[[torch.device], Any] | None = None

    def __post_init__(self) -> None:
        KERNELS.append(self)

    @property
    def name(self) -> str:
        """Module and function, e.g. "gated_conv2d:_gated_conv2d_fwd_kernel"."""
        plain = self.function.fn  # the interpreter's stand-in hides where it was written
        return f"{plain.__module__.rpartition('.')[2]}:{plain.__name__}"

    def row(self, name: str, arch: str) -> Row:
        """The row of that name for an architecture."""
        for row in self.rows:
            if row.name == name and arch in row.archs:
                return row
        raise LookupError(f"{self.name} has no row {name!r} for {arch}")

    def __call__(self, name: str, grid: tuple[int, ...], **arguments: Any) -> None:
        """Launches a row; `grid` with a zero in it launches nothing.

        The arguments are checked: a mistake here would read wild addresses on a device.
        """
        if 0 in grid:
            return
        tensors = {k: v for k, v in arguments.items() if isinstance(v, Tensor)}
        device = next(iter(tensors.values())).device
        row = self.row(name, architecture(device))
        for key, tensor in tensors.items():
            _check_pointer(self, row, key, tensor, device)
        for key, value in arguments.items():
            if key in self.free and value not in self.free[key]:
                raise LookupError(f"{self.name}: {key}={value!r} has no compile budget")
        guard = torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()
        with guard:
            self.function[grid](
                **arguments, **row.constexprs, num_warps=row.warps, num_stages=row.stages
            )


def _check_pointer(kernel: Kernel, row: Row, key: str, tensor: Tensor, device: Any) -> None:
    kind = kernel.types[key]
    if kind == "*T":
        fits = tensor.dtype in HALF if row.dtype == "half" else tensor.dtype == torch.float32
    else:
        fits = tensor.dtype == _POINTER_DTYPES[kind]
    if not fits:
        raise TypeError(f"{kernel.name}: {key} must be {kind} of {row.dtype}, got {tensor.dtype}")
    if tensor.device != device:
        raise ValueError(f"{kernel.name}: {key} must be on {device}, got {tensor.device}")
    if tensor.data_ptr() % 16:
        raise ValueError(f"{kernel.name}: {key} must start at a multiple of 16 bytes")


def dtype_class(dtype: torch.dtype) -> str:
    """The dtype of the rows that serve tensors of that type."""
    return "half" if dtype in HALF else "fp32"


def aligned(x: Tensor) -> Tensor:
    """x, or a copy if it does not start at a multiple of 16 bytes.

    A view with an odd offset would otherwise turn every 16-byte load into scalar ones: the same
    convolution then has 662 spills instead of none.
    """
    return x.clone(memory_format=torch.preserve_format) if x.data_ptr() % 16 else x


def dense(x: Tensor) -> Tensor:
    """X contiguous and aligned; a copy only where it is not."""
    return aligned(x.contiguous())


def channels_last(x: Tensor, vector: int = 1) -> Tensor:
    """(N, C, H, W) as dense NHWC memory, aligned, C padded with zeros to a multiple of `vector`.

    Without a copy where it already is all that.
    """
    n, c, h, w = x.shape
    padded = -(-c // vector) * vector
    if padded != c:
        # One pass for the padding and the layout.
        result = torch.zeros((n, h, w, padded), dtype=x.dtype, device=x.device)
        result = result.permute(0, 3, 1, 2)
        result[:, :c].copy_(x)
        return result
    if x.permute(0, 2, 3, 1).is_contiguous():
        return aligned(x)
    # Not contiguous(channels_last): that leaves sizes of 1 with any stride.
    return x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)


def architecture(device: torch.device) -> str:
    """The row of `ARCHITECTURES` that a device falls under.

    Raises:
        RuntimeError: the device is older than any of them.
    """
    if device.type != "cuda":
        return "sm_80"  # the interpreter: any will do
    return _architecture(device.index if device.index is not None else torch.cuda.current_device())


@lru_cache
def _architecture(index: int) -> str:
    if torch.version.hip is not None:
        return "gfx942"
    return closest_architecture(*torch.cuda.get_device_capability(index))


def closest_architecture(major: int, minor: int) -> str:
    """The newest known CUDA architecture of that generation that the device can stand for."""
    if major == 11:
        return "sm_100"
    known = sorted(int(name[3:]) for name in ARCHITECTURES if name.startswith("sm_"))
    fitting = [number for number in known if number // 10 == major and number % 10 <= minor]
    if fitting:
        return f"sm_{fitting[-1]}"
    if major > 12:
        return "sm_120"
    raise RuntimeError(
        f"inpaint_ops: GPU kernels need compute capability 8.0 or newer, this device has "
        f'{major}.{minor}; `with inpaint_ops.backend("reference")` runs plain PyTorch'
    )


def size_class(value: int) -> int:
    """Logarithm to base 4, rounded: sizes of one class share a tuned row."""
    return max(0, value.bit_length() - 1) // 2


def tuned(kernel: Kernel, key: str, device: torch.device, otherwise: str) -> str:
    """The row that `tune` found fastest for a key on this kind of device, else `otherwise`.

    The table is the file that the environment variable INPAINT_OPS_TUNED names.
    """
    path = os.environ.get("INPAINT_OPS_TUNED")
    if not path:
        return otherwise
    table = _tuned_table(path).get(architecture(device), {}).get(kernel.name, {})
    name = table.get(key, otherwise)
    known = {row.name for row in kernel.rows if architecture(device) in row.archs}
    return name if name in known else otherwise


@lru_cache(maxsize=4)
def _tuned_table(path: str) -> Any:
    return json.loads(Path(path).read_text(encoding="utf-8"))


def tf32_allowed() -> bool:
    """Whether float32 products may be rounded to TF32: off unless the user asked torch for it.

    ``torch.set_float32_matmul_precision("high")`` switches it on; torch's switch for convolutions
    alone, which is on by default, can only switch it off again.
    """
    matmul = torch.backends.cuda.matmul.fp32_precision
    conv = torch.backends.cudnn.conv.fp32_precision  # type: ignore[attr-defined]
    return bool(matmul == "tf32" and conv != "ieee")


def interpreted() -> bool:
    """Whether kernels run in Triton's interpreter."""
    return ops_triton.interpreted()
