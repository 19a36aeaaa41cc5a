"""Build of the torch-free extension ``inpaint_ops._C``; everything else is in pyproject.toml."""

import math
import os
import platform
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from pybind11.setup_helpers import Pybind11Extension
from setuptools import find_packages, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
X86 = platform.machine().lower() in ("x86_64", "amd64")

# Each kernel file is compiled once for each instruction set; the choice is made at run time.
INSTRUCTION_SETS: dict[str, list[str]] = {"baseline": []}
# avx512_shaped, vectors of AVX-512 in instructions of AVX2: see csrc/base/simd.h.
TEST_BUILD = X86 and bool(os.environ.get("INPAINT_OPS_TEST_BUILD"))
TEST_FLAGS = ["-DINPAINT_TEST_BUILD"] if TEST_BUILD else []
# For the machine that builds, whose fastest instruction set alone is compiled: a third of the time.
NATIVE_BUILD = X86 and bool(os.environ.get("INPAINT_OPS_NATIVE_BUILD"))
if X86:
    # For processors of before 2013 alone; at -O3 it takes half as long again to compile.
    INSTRUCTION_SETS["baseline"] = ["-O2"]
    INSTRUCTION_SETS["avx2"] = ["-mavx2", "-mfma"]
    if TEST_BUILD:
        INSTRUCTION_SETS["avx512_shaped"] = [
            # Twice as many instructions: at -O3 some files take a minute.
            *("-O2", "-mavx2", "-mfma", "-DINPAINT_AVX512_SHAPED", *TEST_FLAGS),
        ]
    INSTRUCTION_SETS["avx512"] = [
        *("-mavx512f", "-mavx512vl", "-mavx512bw", "-mavx512dq", "-mavx2", "-mfma"),
        "-mprefer-vector-width=512",
    ]

SOURCES = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "csrc").rglob("*.cpp"))
# Bindings alone depend on the version of Python; plans, and what the machine has, are with them the
# same for every instruction set.
BINDINGS = [s for s in SOURCES if Path(s).parent.name == "python"]
MODULE = str(Path("csrc/python/module.cpp"))  # which includes the other bindings
SHARED_SOURCES = [s for s in SOURCES if Path(s).stem in ("costs", "cpu", "pack", "plan")]
KERNEL_SOURCES = [s for s in SOURCES if s not in BINDINGS + SHARED_SOURCES]
HEADERS = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "csrc").rglob("*.h"))

# No -march=native and no -ffast-math: a wheel runs anywhere and NaN keeps its meaning.
# The two -fno flags only give up errno and floating-point traps, which nothing here reads. No
# contraction: the code says which products are fused with sums, see multiply_add in simd.h.
COMPILE_FLAGS = [
    *("-std=c++17", "-O3", "-g0", "-Wall", "-Wextra", "-Wno-psabi", "-fvisibility=hidden"),
    *("-fno-math-errno", "-fno-trapping-math", "-ffp-contract=off", f"-ffile-prefix-map={ROOT}=."),
]
OPENMP_FLAGS = [] if platform.system() == "Darwin" else ["-fopenmp"]
# A wheel meets another libgomp than the one it was linked with: PyTorch brings its own, which it
# makes global, and two in one process would be two teams of threads. So a wheel names none.
FOR_OTHERS = bool(os.environ.get("INPAINT_OPS_WHEEL"))
LINK_FLAGS = [] if FOR_OTHERS else OPENMP_FLAGS
# Without a compiler the package still installs and runs on its reference path.
REQUIRED = FOR_OTHERS or bool(os.environ.get("INPAINT_OPS_REQUIRE_EXTENSION"))
if NATIVE_BUILD and (FOR_OTHERS or TEST_BUILD):
    raise SystemExit("INPAINT_OPS_NATIVE_BUILD is not for wheels (INPAINT_OPS_WHEEL) nor for tests")
SANITIZE_FLAGS = (
    ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-O2", "-g"]
    if os.environ.get("INPAINT_OPS_SANITIZE")
    else []
)


def native_set(compiler: list[str]) -> str | None:
    """The fastest of the instruction sets that this machine runs, or None if nothing tells it."""
    command = [*compiler, "-march=native", "-dM", "-E", "-x", "c++", os.devnull]
    try:
        macros = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    have = {line.split()[1] for line in macros.splitlines() if line.startswith("#define ")}
    runs = [
        name
        for name, flags in INSTRUCTION_SETS.items()
        if all(f"__{f[2:].upper()}__" in have for f in flags if f[:2] == "-m" and "=" not in f)
    ]
    return runs[-1]


def is_current(built: Path, flags: list[str]) -> bool:
    """Whether an object was built with these flags after the last change of what it includes."""
    record, includes = built.with_suffix(".flags"), built.with_suffix(".d")
    if not (built.exists() and includes.exists() and record.exists()):
        return False
    if record.read_text() != " ".join(flags):
        return False
    _, _, used = includes.read_text().replace("\\\n", " ").partition(":")
    age = built.stat().st_mtime
    return all(Path(file).exists() and Path(file).stat().st_mtime < age for file in used.split())


class BuildKernels(build_ext):
    """Compiles the kernel files once for each instruction set, then the module."""

    def build_extension(self, ext: Pybind11Extension) -> None:
        flags = COMPILE_FLAGS + OPENMP_FLAGS + SANITIZE_FLAGS
        # Linked anew each time: a module of before may have other flags, and if a file now fails to
        # compile, it is no longer of this tree.
        linked = Path(self.get_ext_fullpath(ext.name))
        linked.unlink(missing_ok=True)
        if getattr(self, "editable_mode", False):  # which copies it into the tree
            (ROOT / "inpaint_ops" / linked.name).unlink(missing_ok=True)
        sets, only = INSTRUCTION_SETS, TEST_FLAGS
        if NATIVE_BUILD and (name := native_set(self.compiler.compiler_so_cxx)):
            sets, only = {name: INSTRUCTION_SETS[name]}, [f"-DINPAINT_ONLY={name}"]
        # Objects are linked in this order, what fewer machines run later: an inline function of the
        # standard library that several of them hold is taken from the first, which runs wherever
        # the others do.
        module = f"module-{sys.implementation.cache_tag}"
        jobs = [(MODULE, module, flags + only, ext.include_dirs)]
        jobs += [(s, "shared", flags + only, ["csrc"]) for s in SHARED_SOURCES]
        for name, isa_flags in sets.items():
            jobs += [(source, name, flags + isa_flags, ["csrc"]) for source in KERNEL_SOURCES]
        # What takes long first, so that no processor waits for it at the end.
        sizes = [math.inf if s == MODULE else Path(s).stat().st_size for s, *_ in jobs]
        order = sorted(range(len(jobs)), key=lambda i: -sizes[i])
        built: dict[int, str] = {}
        self.tell(0, len(jobs))
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            running = {pool.submit(self.compile_once, *jobs[i]): i for i in order}
            try:
                for done in as_completed(running):
                    built[running[done]] = done.result()
                    self.tell(len(built), len(jobs))
            except BaseException:  # after an error, or Ctrl-C, nothing more is begun
                pool.shutdown(cancel_futures=True)
                raise
        ext.extra_objects = [built[i] for i in range(len(jobs))]
        ext.sources = []
        ext.language = "c++"
        ext.extra_link_args = LINK_FLAGS + SANITIZE_FLAGS
        super().build_extension(ext)

    def objects(self) -> Path:
        """The folder of objects; an editable install keeps them, too, instead of a passing one."""
        if getattr(self, "editable_mode", False):
            return ROOT / "build" / f"temp.{self.plat_name}-{sys.implementation.cache_tag}"
        return Path(self.build_temp)

    def tell(self, count: int, total: int) -> None:
        """Shows how far the build is, where somebody looks."""
        if sys.stdout.isatty() or os.environ.get("INPAINT_OPS_SHOW_BUILD"):
            end = "\r" if sys.stdout.isatty() and count < total else "\n"
            print(f"compiled {count} of {total} files", end=end, flush=True)

    def compile_once(self, source: str, name: str, flags: list[str], include: list[str]) -> str:
        """Compiles a file for an instruction set unless its object is still right."""
        folder = str(self.objects() / name)
        (built,) = self.compiler.object_filenames([source], output_dir=folder)
        record = Path(built).with_suffix(".flags")
        if self.force or not is_current(Path(built), flags):
            # Gone until the object is whole: a killed build leaves none that says it is right.
            record.unlink(missing_ok=True)
            self.compiler.compile(
                [source],
                output_dir=folder,
                macros=[("INPAINT_ISA", name)] if name in INSTRUCTION_SETS else [],
                include_dirs=include,
                extra_postargs=[*flags, "-MMD"],
            )
            record.write_text(" ".join(flags))
        return str(built)


class Wheel(bdist_wheel):
    """A wheel named for one Python and machine only if it has the extension; else py3-none-any."""

    def run_command(self, command: str) -> None:
        super().run_command(command)
        if command == "build":
            (module,) = self.get_finalized_command("build_ext").get_outputs()
            if not Path(module).exists():
                self.warn("the extension was not built: the wheel is pure, its operators are slow")
                self.distribution.ext_modules = []
                self.root_is_pure = True


# Folders of the top level that are installed inside the package.
INNER = ("kernels", "models", "benchmarks")
PACKAGES = find_packages(include=["inpaint_ops", "inpaint_ops.*"])
for inner in INNER:
    nested = [inner, *(f"{inner}.{name}" for name in find_packages(inner))]
    PACKAGES += [f"inpaint_ops.{name}" for name in nested]


setup(
    packages=PACKAGES,
    include_package_data=False,  # MANIFEST.in is the sdist's list
    package_dir={f"inpaint_ops.{inner}": inner for inner in INNER},
    package_data={
        "inpaint_ops": ["py.typed"],
        "inpaint_ops.benchmarks.gpu": ["budget*.json"],
        "inpaint_ops.kernels": ["measured/*.json"],
        "inpaint_ops.serving": ["page/*"],
    },
    ext_modules=[
        Pybind11Extension(
            "inpaint_ops._C",
            [MODULE],
            cxx_std=17,
            include_dirs=["csrc"],
            depends=[*HEADERS, *SOURCES],
            optional=not REQUIRED,
        )
    ],
    cmdclass={"build_ext": BuildKernels, "bdist_wheel": Wheel},
)
