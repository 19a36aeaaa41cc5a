"""Declaration, choice of a configuration, and launch of a Triton kernel.

A kernel file states the arguments of the kernel and the rows of the table it may run in::

    TYPES = {"x_ptr": "*T", "y_ptr": "*T", "factor_ptr": "*fp32", "size": "i32"}

    @jit(TYPES)
    def _scale_fwd_kernel(x_ptr, y_ptr, factor_ptr, size, ACT: tl.constexpr, BLOCK: tl.constexpr):
        ...

    SCALE = Kernel(
        _scale_fwd_kernel,
        TYPES,
        [
            Row("half", "half", {"BLOCK": 2048}, vectors=("x_ptr",)),
            Row("fp32", "fp32", {"BLOCK": 1024}, vectors=("x_ptr",)),
        ],
        free={"ACT": (1, 0)},
    )

    SCALE("half", (cdiv(x.numel(), 2048),), x_ptr=x, y_ptr=y, ..., size=x.numel(), ACT=0)

Rules by which a row of the table is exactly one compiled program:

* Integers are never specialised on their value: `jit` sees to it. The compiler learns from
  arithmetic (``units * 8``) or constexprs that a row length is a multiple of 16 bytes.
* Pointers are always specialised: every tensor given must start at a multiple of 16 bytes
  (`aligned` copies one that does not).
* Each constexpr is either in the row or `free`, with a closed set of values. The first value needs
  most registers and stands for the others in the compile budget.
* "T" in a type is the dtype of the row: "half" (float16 and bfloat16, budgeted as bfloat16) or
  "fp32".

Offsets that may pass 2**31 are 64-bit inside the kernels; sizes of one axis are 32-bit.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, reduce
from operator import itemgetter, or_
from typing import Any

import torch
import triton
from torch import Tensor

import inpaint_ops.kernels
from inpaint_ops.kernels.program import Call, Program, check_sizes, current_device, current_stream
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
        archs: architectures that the row is for; several rows may have one name, each for others.
        dot: true for a matrix product; in half precision it must use the tensor cores.
        tensor_cores: the same for a row in fp32, true for TF32.
        vectors: the main operands, which must be loaded by 16 bytes.
        occupancy: warps that must fit on one multiprocessor by registers and shared memory.
        paced: the main loop must keep up with the tensor cores; false where the product has so few
            columns that its loads take longer whatever else the loop does.
    """

    name: str
    dtype: str
    constexprs: Mapping[str, Any]
    warps: int = 4
    stages: int = 3
    archs: tuple[str, ...] = ARCHITECTURES
    dot: bool = False
    tensor_cores: bool | None = None
    vectors: tuple[str, ...] = ()
    occupancy: int = 8
    paced: bool = True

    @property
    def needs_tensor_cores(self) -> bool:
        """True where the compiled program has to hold matrix instructions."""
        return self.dot and (
            self.dtype == "half" if self.tensor_cores is None else self.tensor_cores
        )

    @property
    def options(self) -> dict[str, Any]:
        """Of the compiler. Products and sums are one instruction, the default until Triton 3.10."""
        return {"num_warps": self.warps, "num_stages": self.stages, "enable_fp_fusion": True}


def jit(types: Mapping[str, str]) -> Callable[[Callable[..., None]], Any]:
    """Decorate as ``triton.jit`` does, with one program whatever the values of the integers."""
    scalars = [name for name, kind in types.items() if not kind.startswith("*")]
    decorator: Any = triton.jit(do_not_specialize=scalars)
    return decorator  # type: ignore[no-any-return]


_DECLARED: list[Kernel] = []


@dataclass(eq=False)
class Kernel:
    """A jitted function and the rows it may run in; declared at module level, once.

    Args:
        function: decorated by `jit`.
        types: of the run-time arguments, in their order: "*T", "*fp32", "*u8", "*i32", "*i64", "T",
            "i32", "i64" or "fp32".
        rows: the table.
        free: values allowed for each other constexpr, the costliest first.
    """

    function: Any
    types: Mapping[str, str]
    rows: Sequence[Row]
    free: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        plain = self.function.fn  # the interpreter's stand-in hides the name
        # Without underscore and "_kernel", such as "conv_fwd"; unique.
        self.name = str(plain.__name__).strip("_").removesuffix("_kernel")
        self.pointers = [key for key, kind in self.types.items() if kind.startswith("*")]
        self.numbers = [key for key, kind in self.types.items() if not kind.startswith("*")]
        names = list(inspect.signature(plain).parameters)
        self._constexprs = names[len(self.types) :]
        if names[: len(self.types)] != [*self.pointers, *self.numbers]:
            raise TypeError(
                f"{self.name}: pointers must come first, numbers after them, got {names}"
            )
        self._pointers_of = _values_of(self.pointers)
        self._numbers_of = _values_of(self.numbers)
        self._free_of = _values_of(list(self.free))
        # By row, values of `free`, dtypes and device: all that a compiled program depends on.
        self.programs: dict[Any, Program] = {}
        _DECLARED.append(self)

    def row(self, name: str, arch: str) -> Row:
        """The row of that name for an architecture."""
        for row in self.rows:
            if row.name == name and arch in row.archs:
                return row
        raise LookupError(f"{self.name} has no row {name!r} for {arch}")

    def has(self, name: str, arch: str) -> bool:
        """Whether there is a row of that name for an architecture."""
        return any(row.name == name and arch in row.archs for row in self.rows)

    def __call__(self, name: str, grid: tuple[int, ...], **arguments: Any) -> None:
        """Launch a row on the current stream; a grid with a zero in it launches nothing.

        Dtypes, devices and alignment are checked first: a mistake would read wild addresses.

        Args:
            name: of the row.
            grid: programs along one to three axes.
            arguments: of the kernel, but those in the row. None in the place of a tensor, other
                than the first, is a pointer that is never read with these constexprs.
        """
        self._check_arguments(arguments, len(self.types))
        self.run(self._call(name, grid, arguments), self._pointers_of(arguments))

    def plan(self, name: str, grid: tuple[int, ...], **arguments: Any) -> Call:
        """Return all of a launch but its tensors; the arguments are those without the pointers."""
        self._check_arguments(arguments, len(self.numbers))
        return self._call(name, grid, arguments)

    def _check_arguments(self, arguments: Mapping[str, Any], count: int) -> None:
        if len(arguments) != count + len(self.free):
            raise TypeError(f"{self.name}: takes other arguments, got {sorted(arguments)}")

    def _call(self, name: str, grid: tuple[int, ...], arguments: Mapping[str, Any]) -> Call:
        call = Call(name, grid, self._numbers_of(arguments), self._free_of(arguments))
        if 0 not in grid:
            check_sizes(self.name, self.numbers, grid, call.numbers)
        return call

    def run(self, call: Call, pointers: Sequence[Tensor | None]) -> None:
        """Launch what `plan` made of the other arguments; pointers in the kernel's order."""
        if 0 in call.grid:
            return
        first: Any = pointers[0]
        tensors = [first if tensor is None else tensor for tensor in pointers]
        addresses = [tensor.data_ptr() for tensor in tensors]
        indices = [tensor.get_device() for tensor in tensors]
        dtypes = [tensor.dtype for tensor in tensors]
        key = (call.row, *call.free, *dtypes, *indices)
        program = self.programs.get(key)
        if program is None or reduce(or_, addresses) & 15:
            self._launch_first(call, key, pointers)
            return
        index = indices[0]
        if index == current_device():
            program.launch(call.grid, current_stream(index), addresses, call.numbers)
        else:
            with torch.cuda.device(index):
                program.launch(call.grid, current_stream(index), addresses, call.numbers)

    def _launch_first(
        self, call: Call, key: tuple[Any, ...], pointers: Sequence[Tensor | None]
    ) -> None:
        """Check everything, launch by way of Triton, and keep the program that it compiled."""
        device = next(tensor.device for tensor in pointers if tensor is not None)
        row = self.row(call.row, architecture(device))
        given: dict[str, Any] = {}
        for pointer, tensor in zip(self.pointers, pointers, strict=True):
            if tensor is None:
                tensor = _anything(_dtype_of(self.types[pointer], row), device)
            _check_pointer(self, row, pointer, tensor, device)
            given[pointer] = tensor
        for constexpr, value in zip(self.free, call.free, strict=True):
            if value not in self.free[constexpr]:
                raise LookupError(f"{self.name}: {constexpr}={value!r} has no compile budget")
            given[constexpr] = value
        given.update(zip(self.numbers, call.numbers, strict=True))
        guard = torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()
        with guard:
            compiled = self.function[call.grid](**given, **row.constexprs, **row.options)
        if compiled is not None:  # the interpreter compiles nothing
            constexprs = {**row.constexprs, **given}
            self.programs[key] = Program(compiled, [constexprs[k] for k in self._constexprs])


def _values_of(keys: Sequence[str]) -> Callable[[Mapping[str, Any]], Sequence[Any]]:
    """A function that takes the values of those keys out of a mapping, without a loop if it can."""
    if len(keys) > 1:
        return itemgetter(*keys)
    return lambda mapping: [mapping[key] for key in keys]


def _dtype_of(kind: str, row: Row) -> torch.dtype:
    if kind == "*T":
        return torch.float16 if row.dtype == "half" else torch.float32
    return _POINTER_DTYPES[kind]


@lru_cache(maxsize=64)
def _anything(dtype: torch.dtype, device: torch.device) -> Tensor:
    """Memory for a pointer that is never read: Triton takes its type from it."""
    return torch.zeros(16, dtype=dtype, device=device)


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


def all_kernels() -> list[Kernel]:
    """Every kernel of the package; imports all its files, in which they are declared."""
    for module in pkgutil.walk_packages(inpaint_ops.kernels.__path__, "inpaint_ops.kernels."):
        importlib.import_module(module.name)
    return _DECLARED


def dtype_class(dtype: torch.dtype) -> str:
    """Dtype of the rows for tensors of that type: "half" or "fp32"."""
    return "half" if dtype in HALF else "fp32"


def aligned(x: Tensor) -> Tensor:
    """Return x, or a copy if it does not start at a multiple of 16 bytes.

    The compiler is told that pointers are aligned. Told otherwise, it would turn every 16-byte load
    into scalar ones: the same convolution then has 662 register spills instead of none.
    """
    return x.clone(memory_format=torch.preserve_format) if x.data_ptr() % 16 else x


def dense(x: Tensor) -> Tensor:
    """Return x contiguous and aligned; a copy only where it is not."""
    return aligned(x.contiguous())


def channels_last(x: Tensor, vector: int = 1) -> Tensor:
    """Return (N, C, H, W) as dense, aligned NHWC memory, C padded with zeros to whole vectors.

    A vector is `vector` channels. Nothing is copied where x already is all that.
    """
    c = x.shape[1]
    padded = -(-c // vector) * vector
    if padded != c:
        n, _, h, w = x.shape
        # One pass for the padding and the layout.
        result = torch.zeros((n, h, w, padded), dtype=x.dtype, device=x.device)
        result = result.permute(0, 3, 1, 2)
        result[:, :c].copy_(x)
        return result
    return aligned(x.contiguous(memory_format=torch.channels_last))


def architecture(device: torch.device) -> str:
    """Member of `ARCHITECTURES` that a device counts as.

    Raises:
        RuntimeError: the device is older than any of them.
    """
    if device.type != "cuda":
        return "sm_80"  # in the interpreter any will do
    return _architecture(device.index if device.index is not None else torch.cuda.current_device())


@lru_cache
def _architecture(index: int) -> str:
    if torch.version.hip is not None:
        return "gfx942"
    return closest_architecture(*torch.cuda.get_device_capability(index))


def closest_architecture(major: int, minor: int) -> str:
    """Newest member of `ARCHITECTURES` of the device's generation whose code it can run."""
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
    """Logarithm to base 4, rounded down: sizes of one class share a tuned row."""
    return max(0, value.bit_length() - 1) // 2


def interpreted() -> bool:
    """True where kernels run in Triton's interpreter."""
    return ops_triton.interpreted()
