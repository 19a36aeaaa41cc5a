"""What must hold of the installed package: imports, fallbacks, metadata, sdist."""

import os
import platform
import re
import runpy
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections import Counter
from importlib import metadata
from pathlib import Path

import pytest
import setuptools

from inpaint_ops.ops import native

ROOT = Path(__file__).resolve().parents[2]


def run(code, **environment):
    """Runs Python code in a fresh process."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        check=False,
    )


def check(result, *texts):
    assert result.returncode == 0, result.stderr
    for text in texts:
        assert text in result.stdout


def test_import_needs_torch_and_numpy_only():
    blocked = ("triton", "PIL", "click", "rich", "matplotlib", "skimage", "cv2", "scipy")
    blocked += ("accelerate", "tensorboard", "safetensors", "torchmetrics")
    code = f"""
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ImportError("blocked: " + name)
sys.meta_path.insert(0, Blocker())
import inpaint_ops, inpaint_ops.images, inpaint_ops.masks, inpaint_ops.cli, torch
import inpaint_ops.data, inpaint_ops.evaluation, inpaint_ops.training
print(inpaint_ops.nearest_patch(torch.ones(1, 1, 3, 3), torch.ones(1, 1, 3, 3))[0].item())
print([m for m in {blocked!r} if m in sys.modules])
"""
    check(run(code), "0\n[]")


@pytest.mark.parametrize("first", ["torch", "inpaint_ops", "numpy"])
def test_import_order_keeps_one_openmp(first):
    code = f"""
import {first}
import inpaint_ops, torch
x = torch.randn(1, 8, 16, 16)
inpaint_ops.nearest_patch(x, x)
(x @ x).sum()
maps = open("/proc/self/maps").read() if __import__("os").path.exists("/proc/self/maps") else ""
print(len({{l.split()[-1] for l in maps.splitlines() if "libgomp" in l}}) <= 1)
"""
    check(run(code), "True")


def test_without_extension_one_warning_and_right_results():
    code = """
import warnings, torch
import inpaint_ops
from inpaint_ops import doctor
x = torch.randn(1, 3, 12, 12)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    first = inpaint_ops.nearest_patch(x, x)
    inpaint_ops.shift_connection(x, x, torch.zeros(1, 1, 12, 12))
ours = [w for w in caught if "compiled extension is missing" in str(w.message)]
print(len(ours), ours[0].category.__name__, __file__ if False else ours[0].filename)
print(torch.equal(first[0].flatten(), torch.arange(100)))
print(doctor.backends()["nearest_patch"]["cpu"])
"""
    result = run(code, INPAINT_OPS_DISABLE_EXTENSION="1")
    check(result, "1 RuntimeWarning", "True", "reference")


@pytest.mark.skipif(not native.status().available, reason="needs the extension")
def test_instruction_set_from_environment():
    for name in native.status().instruction_sets:
        code = "import inpaint_ops.ops.native as e; print(e.status().instruction_set)"
        check(run(code, INPAINT_OPS_INSTRUCTION_SET=name), name)
    result = run("import inpaint_ops", INPAINT_OPS_INSTRUCTION_SET="mmx")
    assert result.returncode != 0
    assert "INPAINT_OPS_INSTRUCTION_SET: instruction set must be one of baseline" in result.stderr


LISTING = """
#include "base/cpu.h"
#include <cstdio>
int main() {
  for (const std::string& name : inpaint::instruction_sets()) std::puts(name.c_str());
  for (const std::string& name : inpaint::built_sets()) std::printf("built %s\\n", name.c_str());
}
"""


@pytest.mark.skipif(not native.status().available, reason="needs the extension")
@pytest.mark.parametrize("only", ["baseline", "avx2", "avx512", "of_another_machine"])
def test_build_for_one_set_holds_it_where_the_machine_runs_it(only, tmp_path):
    (tmp_path / "main.cpp").write_text(LISTING)
    sources = [str(tmp_path / "main.cpp"), str(ROOT / "csrc" / "base" / "cpu.cpp")]
    built = str(tmp_path / "listing")
    flags = ["-std=c++17", f"-I{ROOT / 'csrc'}", f"-DINPAINT_ONLY={only}"]
    subprocess.run([os.environ.get("CXX", "c++"), *flags, *sources, "-o", built], check=True)
    done = subprocess.run([built], capture_output=True, text=True, check=True)
    built_sets = [] if only == "of_another_machine" else [f"built {only}"]
    runs = [s for s in native.status().instruction_sets if s == only]
    assert done.stdout.splitlines() == runs + built_sets


def given_setup(monkeypatch, **environment):
    """What setup.py defines under these variables."""
    monkeypatch.setattr(setuptools, "setup", lambda **options: None)
    monkeypatch.chdir(ROOT)
    for name in ("NATIVE_BUILD", "TEST_BUILD", "WHEEL"):
        monkeypatch.setenv(f"INPAINT_OPS_{name}", environment.get(name, ""))
    return runpy.run_path("setup.py")


@pytest.mark.skipif(not native.status().available, reason="needs the extension")
def test_native_build_takes_the_fastest_set_of_the_machine(monkeypatch):
    native_set = given_setup(monkeypatch, NATIVE_BUILD="1")["native_set"]
    sets = [name for name in native.status().instruction_sets if name != "avx512_shaped"]
    assert native_set([os.environ.get("CXX", "c++")]) == sets[-1]
    assert native_set(["env", os.environ.get("CXX", "c++"), "-O3"]) == sets[-1]
    assert native_set(["no-such-compiler"]) is None
    assert native_set(["false"]) is None


class DyingCompiler:
    """Writes its object, and is killed before it says so."""

    killed = False

    def object_filenames(self, sources, output_dir):
        return [f"{output_dir}/{Path(source).stem}.o" for source in sources]

    def compile(self, sources, output_dir, **options):
        for built in map(Path, self.object_filenames(sources, output_dir)):
            built.parent.mkdir(parents=True, exist_ok=True)
            built.with_suffix(".d").write_text(f"{built}: {sources[0]}")
            built.write_text("")
        if self.killed:
            raise KeyboardInterrupt


def test_object_of_a_killed_build_passes_for_no_other(monkeypatch, tmp_path):
    given = given_setup(monkeypatch)
    build = given["BuildKernels"](setuptools.Distribution())
    build.compiler, build.build_temp = DyingCompiler(), str(tmp_path)
    source = given["SHARED_SOURCES"][0]
    built = Path(build.compile_once(source, "shared", ["-DBEFORE"], []))
    assert given["is_current"](built, ["-DBEFORE"])
    build.compiler.killed = True
    with pytest.raises(KeyboardInterrupt):
        build.compile_once(source, "shared", ["-DNOW"], [])
    assert not given["is_current"](built, ["-DBEFORE"])


def test_failed_editable_build_leaves_no_module_of_before(monkeypatch, tmp_path):
    command = given_setup(monkeypatch)["BuildKernels"]
    monkeypatch.setitem(command.build_extension.__globals__, "ROOT", tmp_path)
    extension = setuptools.Extension("inpaint_ops._C", [])
    build = command(setuptools.Distribution({"ext_modules": [extension]}))
    build.build_lib = str(tmp_path / "lib")
    build.ensure_finalized()
    build.compiler, build.editable_mode = DyingCompiler(), True
    build.compiler.compiler_so_cxx = ["no-such-compiler"]
    build.compiler.killed = True
    before = tmp_path / "inpaint_ops" / Path(build.get_ext_fullpath("inpaint_ops._C")).name
    before.parent.mkdir()
    before.write_text("")
    with pytest.raises(KeyboardInterrupt):
        build.build_extension(extension)
    assert not before.exists()


@pytest.mark.skipif(platform.machine() != "x86_64", reason="elsewhere there is one set")
@pytest.mark.parametrize("other", ["TEST_BUILD", "WHEEL"])
def test_native_build_is_refused_where_others_run_it(other, monkeypatch):
    with pytest.raises(SystemExit, match="INPAINT_OPS_NATIVE_BUILD is not for"):
        given_setup(monkeypatch, NATIVE_BUILD="1", **{other: "1"})


# By the namespace in a mangled name, strongest first: registers and forms of instructions that no
# machine of that set need have. What bears none of these names is for all machines.
_BEYOND_AVX2 = re.compile(r"%zmm|%k[0-7]|%[xy]mm(1[6-9]|2\d|3[01])")
BEYOND = {
    "6avx512": None,
    "13avx512_shaped": _BEYOND_AVX2,
    "4avx2": _BEYOND_AVX2,
    "": re.compile(r"%[yz]mm|\tv\w+ .*%xmm"),
}


@pytest.mark.skipif(platform.machine() != "x86_64", reason="instructions of x86")
@pytest.mark.skipif(not native.status().available, reason="needs the extension")
@pytest.mark.skipif(shutil.which("objdump") is None, reason="needs objdump")
def test_no_function_uses_instructions_beyond_its_set():
    """Functions of the standard library that the sets share are those of the weakest."""
    command = ["objdump", "-d", "--no-show-raw-insn", native.extension().__file__]
    bad, functions = [], Counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        name, beyond = "", None
        for line in process.stdout:
            if line.endswith(">:\n"):
                name = line
                # A clone is known to its own object alone: only one set calls it.
                clone = re.search(r"\.(isra|constprop|part)\.", name)
                owner = "6avx512" if clone else next(part for part in BEYOND if part in name)
                functions[owner] += 1
                beyond = BEYOND[owner]
            elif beyond is not None and beyond.search(line):
                bad.append((name, line))
    assert not bad
    assert min(functions["6avx512"], functions["4avx2"], functions[""]) > 100


def test_metadata():
    import inpaint_ops

    assert inpaint_ops.__version__ == metadata.version("inpaint-ops")
    required = [r for r in metadata.requires("inpaint-ops") if "extra ==" not in r]
    names = {re.split(r"[^a-zA-Z0-9_-]", r, maxsplit=1)[0] for r in required}
    assert names == {"torch", "numpy"}


def test_public_names_exist_and_are_documented():
    import inpaint_ops

    for name in inpaint_ops.__all__:
        value = getattr(inpaint_ops, name)
        if name != "__version__":
            assert value.__doc__, name


def test_every_package_is_found_by_setup():
    code = "import runpy, setuptools; setuptools.setup = lambda **given: print(*given['packages'])"
    code += "; runpy.run_path('setup.py')"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    found = set()
    for folder in ("inpaint_ops", "kernels", "models", "benchmarks"):
        for file in (ROOT / folder).rglob("*.py"):
            parts = file.parent.relative_to(ROOT).parts
            found.add(".".join(parts if parts[0] == "inpaint_ops" else ("inpaint_ops", *parts)))
    assert set(done.stdout.split()) == found


def test_files_beside_the_code_are_installed(tmp_path):
    command = [sys.executable, "setup.py", "-q", "build_py", "--build-lib", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    code = (".py", ".pyc", ".so", ".pyi", ".md")
    wanted = {
        "/".join((() if folder == "inpaint_ops" else ("inpaint_ops",)) + path.parts)
        for folder in ("inpaint_ops", "kernels", "models", "benchmarks")
        for path in (file.relative_to(ROOT) for file in (ROOT / folder).rglob("*.*"))
        if path.suffix not in code
    }
    assert {"inpaint_ops/serving/page/index.html", "inpaint_ops/serving/page/main.js"} <= wanted
    assert [name for name in sorted(wanted) if not (tmp_path / name).is_file()] == []


def build_wheel(folder, **environment):
    """Makes a wheel in a process; returns that and the wheels made."""
    command = [sys.executable, "setup.py", "egg_info", "--egg-base", str(folder)]
    command += ["build", "--build-base", str(folder / "build")]
    command += ["bdist_wheel", "--bdist-dir", str(folder / "raw"), "--dist-dir", str(folder)]
    result = subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "INPAINT_OPS_REQUIRE_EXTENSION": "", **environment},
        check=False,
    )
    return result, list(folder.glob("*.whl"))


def test_wheel_without_compiler_is_named_pure(tmp_path):
    """Not for a version of Python and a machine, as if it had the extension of before."""
    library = f"lib.{sysconfig.get_platform()}-{sys.implementation.cache_tag}"
    stale = tmp_path / "build" / library / f"inpaint_ops/_C{sysconfig.get_config_var('EXT_SUFFIX')}"
    stale.parent.mkdir(parents=True)
    stale.touch()
    result, wheels = build_wheel(tmp_path, CC="false", CXX="false")
    assert result.returncode == 0, result.stderr
    (wheel,) = wheels
    assert wheel.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as files:
        names = files.namelist()
        (about,) = [files.read(name).decode() for name in names if name.endswith("/WHEEL")]
    assert "Root-Is-Purelib: true" in about
    assert {"inpaint_ops/ops/native.py", "inpaint_ops/kernels/launch.py"} <= set(names)
    assert not [name for name in names if "/_C" in name or ".data/" in name]


@pytest.mark.parametrize("required", ["INPAINT_OPS_REQUIRE_EXTENSION", "INPAINT_OPS_WHEEL"])
def test_wheel_that_requires_the_extension_is_refused_without_compiler(tmp_path, required):
    result, wheels = build_wheel(tmp_path, CC="false", CXX="false", **{required: "1"})
    assert result.returncode != 0
    assert not wheels


def test_sdist_holds_what_a_build_needs(tmp_path):
    code = f"""
import os, sys
os.chdir({str(ROOT)!r})
from setuptools import build_meta
print(build_meta.build_sdist({str(tmp_path)!r}))
"""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        names = {name.split("/", 1)[1] for name in tar.getnames() if "/" in name}
    folders = ("csrc", "inpaint_ops", "kernels", "models", "benchmarks")
    sources = [path for folder in folders for path in (ROOT / folder).rglob("*.*")]
    sources = [path for path in sources if path.suffix not in (".so", ".pyc")]
    # The README shows a picture of docs, links to a page of it and names targets of the Makefile.
    for path in [*sources, *(ROOT / "docs").iterdir(), ROOT / "Makefile"]:
        assert str(path.relative_to(ROOT)) in names
    assert {"setup.py", "pyproject.toml", "LICENSE", "README.md", "inpaint_ops/py.typed"} <= names
    assert not [name for name in names if name.endswith(".so")]
