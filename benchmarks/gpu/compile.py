"""Compile every row of every GPU kernel ahead of time, without a GPU, and hold it to its budget.

``make gpu-compile`` (``ALL=1`` for every architecture) checks of each row on each architecture:
no register spills, shared memory within the chip's limit, matrix instructions where half-precision
products are formed, the main operands loaded by 16 bytes, the planned occupancy, and in the main
loop no more instructions of a warp than its matrix unit takes cycles. Registers and
instructions may be a tenth more than those stored in budget.json, or in budget_3.6.json for Triton
3.6; ``--update`` stores new ones, so that a change of a kernel shows as a diff.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from inpaint_ops.atomic import write_atomically
from inpaint_ops.benchmarks.gpu import disassembly

# Figures of the newest Triton; an older release has a file of its own beside it.
STORED = Path(__file__).resolve().parent / "budget.json"
DEFAULT = ("sm_80", "sm_90", "sm_100")
EVERY = ("sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120", "gfx942")
GROWTH = 1.10
# Issue slots of the main loop for each cycle of a matrix unit; the aim is 0.6.
PACE = 1.0
# Triton 3.6 takes up to 13 instructions more to describe the factors to sm_100, all in one warp.
SLOWER = {("3.6", "sm_100"): 1.05}
# Constexprs of the usual call, where the costliest ones make another loop: compiled as well.
COMMON: dict[str, dict[str, Any]] = {
    "conv_fwd": {"PAD": 0, "LINEAR": True, "KEEP": False},
}

# Names of kernel, row and architecture; whether with the constexprs of the usual call.
Task = tuple[str, str, str, bool]


@dataclass(frozen=True)
class Chip:
    """Limits of one architecture: shared memory of a program and of a multiprocessor, its warps."""

    program_bytes: int
    processor_bytes: int
    warps: int


_KB = 1024
CHIPS = {
    "sm_80": Chip(163 * _KB, 164 * _KB, 64),
    "sm_86": Chip(99 * _KB, 100 * _KB, 48),
    "sm_89": Chip(99 * _KB, 100 * _KB, 48),
    "sm_90": Chip(227 * _KB, 228 * _KB, 64),
    "sm_100": Chip(227 * _KB, 228 * _KB, 64),
    "sm_120": Chip(99 * _KB, 100 * _KB, 48),
    # 4 SIMDs of 8 wavefronts; 512 vector registers a lane.
    "gfx942": Chip(64 * _KB, 64 * _KB, 32),
}


@dataclass(frozen=True)
class Measured:
    """Figures of the program that the compiler made of one row for one architecture.

    `matrix` counts tensor-core instructions, `vector_loads` global loads of 16 bytes (asynchronous
    copies and bulk copies included), `narrow_async` asynchronous copies of less, `occupancy` the
    warps that fit on a multiprocessor; `slots`, `cycles` and `barriers` as in `disassembly.Loop`.
    """

    registers: int
    spills: int
    shared: int
    instructions: int
    matrix: int
    vector_loads: int
    narrow_async: int
    occupancy: int
    slots: int = 0
    cycles: int = 0
    barriers: int = 0


def _kernel(name: str) -> Any:
    from inpaint_ops.kernels import launch

    for kernel in launch.all_kernels():
        if kernel.name == name:
            return kernel
    raise LookupError(f"no kernel {name}")


def measure(name: str, row_name: str, arch: str, common: bool = False) -> Measured:
    """Compile and disassemble one row of the kernel of a name; `common`: as the usual call does.

    Raises:
        LookupError: no such kernel or row.
        RuntimeError: Triton's interpreter stands in for the compiler.
    """
    kernel = _kernel(name)
    return _measure(kernel, kernel.row(row_name, arch), arch, COMMON[name] if common else {})


def _measure(kernel: Any, row: Any, arch: str, common: dict[str, Any]) -> Measured:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from inpaint_ops.kernels import launch

    if launch.interpreted():
        raise RuntimeError("compile: unset TRITON_INTERPRET: it replaces the compiler")
    element = "bf16" if row.dtype == "half" else "fp32"
    costliest = {name: values[0] for name, values in kernel.free.items()}
    constants = {**costliest, **row.constexprs, **common}
    names = kernel.function.arg_names
    signature = {
        name: "constexpr" if name in constants else kernel.types[name].replace("T", element)
        for name in names
    }
    attributes = {
        (index,): [["tt.divisibility", 16]]
        for index, name in enumerate(names)
        if signature[name].startswith("*")
    }
    source = ASTSource(kernel.function, signature, constants, attributes)
    if arch.startswith("sm_"):
        target = GPUTarget("cuda", int(arch[3:]), 32)
    else:
        target = GPUTarget("hip", arch, 64)
    compiled = triton.compile(source, target=target, options=row.options)
    if getattr(compiled.metadata, "global_scratch_size", 0):
        raise RuntimeError("compile: a launch would allocate memory past torch's caching allocator")
    of_program = _of_cubin if arch.startswith("sm_") else _of_amdgcn
    return of_program(compiled, row.warps, arch)


def _of_cubin(compiled: Any, warps: int, arch: str) -> Measured:
    cubin, shared = compiled.asm["cubin"], compiled.metadata.shared
    name = f"{hashlib.sha256(cubin).hexdigest()}.loop.json"
    store = Path(os.environ["TRITON_CACHE_DIR"]) / name
    if not store.exists():
        with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
            file.write(cubin)
            file.flush()
            usage = _tool("cuobjdump", "-res-usage", file.name)
            code = disassembly.of_sass(_tool("cuobjdump", "-sass", file.name))
        multiply = r"tc_gen5_mma .*?memdesc<\d+x\d+x\w+,.*?memdesc<\d+x(\d+)x"
        columns = re.search(multiply, compiled.asm["ttgir"])
        loop = disassembly.main_loop(code, arch, warps, int(columns.group(1)) if columns else 0)
        opcodes = Counter(one.opcode for one in code)
        facts = {"usage": usage, "opcodes": opcodes, "loop": asdict(loop) if loop else {}}
        with write_atomically(store) as stream:
            stream.write(json.dumps(facts).encode())
    facts = json.loads(store.read_text(encoding="utf-8"))
    opcodes = facts["opcodes"]

    def count(pattern: str) -> int:
        return sum(n for opcode, n in opcodes.items() if re.match(pattern, opcode))

    registers = int(_found(r"REG:(\d+)", facts["usage"]))
    local = int(_found(r"LOCAL:(\d+)", facts["usage"]))
    return Measured(
        registers=registers,
        spills=local + count(r"LDL|STL"),
        shared=shared,
        instructions=sum(opcodes.values()),
        matrix=count(r"HMMA|HGMMA|UTC\w*MMA|OMMA|QMMA"),
        vector_loads=count(r"(LDG|LDGSTS)\..*128|UTMALDG"),
        narrow_async=count(r"LDGSTS") - count(r"LDGSTS\..*128"),
        occupancy=_occupancy(
            65536 // (-(-registers // 8) * 8 * 32 * warps), shared, warps, CHIPS[arch]
        ),
        **facts["loop"],
    )


def _of_amdgcn(compiled: Any, warps: int, arch: str) -> Measured:
    text, shared = compiled.asm["amdgcn"], compiled.metadata.shared
    code = disassembly.of_amdgcn(text)
    opcodes = Counter(one.opcode for one in code)
    loop = disassembly.main_loop(code, arch, warps)

    def count(pattern: str) -> int:
        return sum(n for opcode, n in opcodes.items() if re.match(pattern, opcode))

    vector = int(_found(r"\.vgpr_count:\s+(\d+)", text))
    # A spilled scalar register goes to a lane of a vector register, not to memory.
    spilled = int(_found(r"\.vgpr_spill_count:\s+(\d+)", text)) + int(
        _found(r"\.private_segment_fixed_size:\s+(\d+)", text)
    )
    # 512 registers a lane, four SIMDs share the wavefronts of a program.
    programs = 4 * (512 // max(vector, 1)) // warps
    return Measured(
        registers=vector,
        spills=spilled,
        shared=shared,
        instructions=len(code),
        matrix=count(r"v_mfma"),
        vector_loads=count(r"(global|buffer)_load_dwordx4"),
        narrow_async=0,
        occupancy=_occupancy(programs, shared, warps, CHIPS[arch]),
        **(asdict(loop) if loop else {}),
    )


def _occupancy(by_registers: int, shared: int, warps: int, chip: Chip) -> int:
    # The driver keeps 1 KB of shared memory for each program.
    by_shared = chip.processor_bytes // (shared + _KB) if shared else chip.warps
    return warps * min(by_registers, by_shared, chip.warps // warps)


def _found(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    if match is None:
        raise ValueError(f"compile: {pattern} not found in {text[:200]!r}")
    return match.group(1)


def _tool(name: str, *arguments: str) -> str:
    import triton

    path = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / name
    done = subprocess.run([path, *arguments], capture_output=True, text=True, check=True)
    return done.stdout


def violations(row: Any, arch: str, got: Measured, paced: bool = True) -> list[str]:
    """Sentences that name each limit exceeded; `paced`: whether `PACE` is one of them."""
    chip = CHIPS[arch]
    pace = SLOWER.get((_release(), arch), PACE)
    fast = got.slots <= pace * got.cycles or not (paced and row.paced and row.needs_tensor_cores)
    checks = [
        (got.spills == 0, f"{got.spills} spills"),
        (got.shared <= chip.program_bytes, f"{got.shared} bytes shared of {chip.program_bytes}"),
        (got.matrix > 0 or not row.needs_tensor_cores, "no matrix instruction"),
        (
            got.vector_loads >= len(row.vectors),
            f"{got.vector_loads} loads of 16 bytes for {len(row.vectors)} operands",
        ),
        (
            got.narrow_async == 0 or row.constexprs.get("PIECE") == 8,
            f"{got.narrow_async} asynchronous copies under 16 bytes",
        ),
        (got.occupancy >= row.occupancy, f"{got.occupancy} warps fit, {row.occupancy} planned"),
        (fast, f"{got.slots} instructions a step for {got.cycles} cycles of products"),
    ]
    return [text for holds, text in checks if not holds]


def growth(before: dict[str, int] | None, got: Measured) -> tuple[str, bool]:
    """Change against the stored figures in words; true if it is too much or nothing is stored."""
    if before is None:
        return "new", True
    now = asdict(got)
    changes = [f"{k} {before.get(k)}->{v}" for k, v in now.items() if before.get(k) != v]
    large = any(
        now[k] > GROWTH * before.get(k, now[k])
        for k in ("registers", "instructions", "slots", "barriers")
    )
    return ", ".join(changes), large


def tasks(archs: Iterable[str], only: str = "") -> list[Task]:
    """Everything to compile: kernels and rows whose labels contain `only`."""
    from inpaint_ops.kernels import launch

    wanted = list(archs)
    every = [
        (kernel.name, row.name, arch, common)
        for kernel in launch.all_kernels()
        for row in kernel.rows
        for arch in wanted
        for common in ((False, True) if _has_common(kernel.name, row) else (False,))
        if arch in row.archs
    ]
    return [task for task in every if only in label(task)]


def _has_common(name: str, row: Any) -> bool:
    return name in COMMON and row.needs_tensor_cores and not row.constexprs["MASKED"]


def _attempt(task: Task) -> tuple[Measured | None, list[str], float]:
    begun = time.perf_counter()
    try:
        got = measure(*task)
    except Exception as error:
        return None, [f"{type(error).__name__}: {error}"], time.perf_counter() - begun
    return got, _broken(task, got), time.perf_counter() - begun


def _broken(task: Task, got: Measured) -> list[str]:
    name, row_name, arch, common = task
    row = _kernel(name).row(row_name, arch)
    return violations(row, arch, got, common or not _has_common(name, row))


def label(task: Task) -> str:
    """Kernel and row, as they stand in the report and in budget.json."""
    name, row, _, common = task
    return f"{name} {row}{' common' if common else ''}"


def compile_all(work: list[Task], processes: int) -> list[Any]:
    """Outcomes of the tasks, in order: figures if it compiled, problems, seconds."""
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        return list(pool.map(_attempt, work))


def main(arguments: list[str] | None = None) -> int:
    """Command line: 0 if everything is within its budget, 1 if not."""
    parser = argparse.ArgumentParser(
        prog="python -m inpaint_ops.benchmarks.gpu.compile", description=__doc__
    )
    parser.add_argument("--all", action="store_true", help="all architectures, not the three")
    parser.add_argument("--arch", action="append", choices=EVERY)
    parser.add_argument("--only", default="", help="part of kernel and row name")
    parser.add_argument("--update", action="store_true", help="store the figures as the new ones")
    parser.add_argument("--out", default="reports/gpu_compile.json")
    parser.add_argument("--cache", default="build/triton-cache")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args(arguments)
    os.environ["TRITON_CACHE_DIR"] = str(Path(options.cache).resolve())
    Path(options.cache).mkdir(parents=True, exist_ok=True)
    archs = options.arch or (EVERY if options.all else DEFAULT)
    work = tasks(archs, options.only)
    begun = time.perf_counter()
    outcomes = compile_all(work, options.processes)
    budget = stored_for(_release())
    stored = json.loads(budget.read_text(encoding="utf-8")) if budget.exists() else {}
    same_compiler = stored.get("triton") == _triton_version()
    figures: dict[str, dict[str, dict[str, int]]] = {}
    failed = 0
    print(_line("kernel row", "arch", *Measured.__dataclass_fields__))
    for task, (got, problems, _) in zip(work, outcomes):
        change = ""
        if got is not None:
            figures.setdefault(task[2], {})[label(task)] = asdict(got)
            change, large = growth(stored.get(task[2], {}).get(label(task)), got)
            if large and same_compiler and not options.update:
                problems.append("grew beyond the stored figures: see --update")
        failed += bool(problems)
        print(_line(label(task), task[2], *(asdict(got).values() if got else ())))
        for text in [f"  stored: {change}"] * bool(change) + [f"  FAILED: {t}" for t in problems]:
            print(text)
    seconds = time.perf_counter() - begun
    print(f"{len(work)} programs, {failed} failed, {seconds:.0f} s")
    _write(Path(options.out), {"triton": _triton_version(), "seconds": seconds, **figures})
    if options.update and not failed:
        _update(budget, stored, figures, partly=bool(options.only))
    return 1 if failed else 0


def _update(path: Path, stored: dict[str, Any], figures: dict[str, Any], partly: bool) -> None:
    merged = {arch: rows for arch, rows in stored.items() if arch in EVERY}
    for arch, rows in figures.items():
        merged[arch] = {**(merged.get(arch, {}) if partly else {}), **rows}
    _write(path, {**merged, "triton": _triton_version()})


def stored_for(release: str) -> Path:
    """File of the figures that a release of Triton is held to."""
    own = STORED.with_name(f"budget_{release}.json")
    return own if own.exists() else STORED


def _release() -> str:
    return ".".join(_triton_version().split(".")[:2])


def _triton_version() -> str:
    import triton

    return str(triton.__version__)


def _line(name: str, arch: str, *values: object) -> str:
    return f"{name:<58} {arch:<7}" + "".join(f" {value!s:>12}" for value in values)


def _write(path: Path, data: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(path) as file:
        file.write(json.dumps(data, indent=1, sort_keys=True).encode() + b"\n")


if __name__ == "__main__":
    sys.exit(main())
