"""The templates of docs/templates: copied under new names, built, and held to the tests of all."""

import importlib.util
import os
import re
import runpy
import shutil
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import setuptools

from inpaint_ops.ops import native

ROOT = Path(__file__).resolve().parents[2]
TEMPLATES = ROOT / "docs" / "templates"
INNER = ("kernels", "models", "benchmarks")
NAMES = {
    "my_op": "scaled_planes",
    "MyOp": "ScaledPlanes",
    "my_family": "scaled_family",
    "my_method": "two_layers",
    "MyMethod": "TwoLayers",
}
OP, METHOD = NAMES["my_op"], NAMES["my_method"]

# A module of the new operator alone: to link it with all others takes a minute. One file, because
# most of the time is pybind11's.
MODULE = f"""
#include "base/cpu.h"
#include "{ROOT.as_posix()}/csrc/python/tensor.cpp"
#include "python/{OP}.cpp"
PYBIND11_MODULE(_new, m) {{
  inpaint::find_torch();
  m.def("set_instruction_set", &inpaint::set_instruction_set);
  inpaint::bind_{OP}(m);
}}
"""
# What makes it part of the extension, and follows the choice of the instruction set.
JOINED = f"""
from inpaint_ops import _new

_module.{OP} = _new.{OP}
_chosen = _module.set_instruction_set


def _set_both(name):
    _chosen(name)
    _new.set_instruction_set(name)


_module.set_instruction_set = _set_both
"""


def renamed(text):
    for old, new in NAMES.items():
        text = text.replace(old, new)
    return text


def installed(path):
    """Where a file of the tree lies in the package as it is installed."""
    return Path("inpaint_ops", path) if path.parts[0] in INNER else path


def copy_tree(target):
    """The package as it is installed, and the tests that are needed."""
    ignore = shutil.ignore_patterns("__pycache__", "_C*.so", "_C*.pyd")
    shutil.copytree(ROOT / "inpaint_ops", target / "inpaint_ops", ignore=ignore)
    (target / "inpaint_ops" / Path(native.extension().__file__).name).symlink_to(
        native.extension().__file__
    )
    for folder in INNER:
        shutil.copytree(ROOT / folder, target / "inpaint_ops" / folder, ignore=ignore)
    for folder in ("helpers", "manifests"):
        shutil.copytree(ROOT / "tests" / folder, target / "tests" / folder, ignore=ignore)
    for file in (
        *("pyproject.toml", "tests/conftest.py"),
        *("tests/ops/test_every_operator.py", "tests/ops/test_every_operator_refuses.py"),
        *("tests/ops/test_precision.py", "tests/ops/test_derivatives.py"),
        *("tests/ops/test_transforms.py", "tests/models/test_models.py"),
    ):
        (target / file).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / file, target / file)


def insert(file, before, text):
    """Puts text after the line that opens a table."""
    content = file.read_text()
    assert content.count(before) == 1, file
    file.write_text(content.replace(before, before + text))


def add_templates(target):
    for kind in ("operator", "kernel", "method"):
        for file in sorted((TEMPLATES / kind).rglob("*.*")):
            path = installed(Path(renamed(str(file.relative_to(TEMPLATES / kind)))))
            content = renamed(file.read_text())
            if file.suffix == ".entry":
                table = {"operators": "Operator", "model_cases": "ModelCase"}[file.stem]
                name = {"operators": "OPERATORS", "model_cases": "CASES"}[file.stem]
                opening = f"{name}: dict[str, {table}] = {{\n"
                insert(target / path.with_suffix(".py"), opening, content)
            else:
                (target / path).parent.mkdir(parents=True, exist_ok=True)
                assert not (target / path).exists()
                (target / path).write_text(content)
    for package, name in (("ops", OP), ("reference", OP), ("models", METHOD)):
        line = f"from inpaint_ops.{package}.{name} import {name}\n"
        if package == "models":
            line = f"import inpaint_ops.models.{name}\n"
        with (target / "inpaint_ops" / package / "__init__.py").open("a") as file:
            file.write(line)


def build(target, monkeypatch):
    """Compiles kernel, binding and a module of their own as setup.py compiles the extension's."""
    monkeypatch.setattr(setuptools, "setup", lambda **options: None)
    monkeypatch.chdir(ROOT)
    shaped = "avx512_shaped" in native.status().instruction_sets
    monkeypatch.setenv("INPAINT_OPS_TEST_BUILD", "1" if shaped else "")
    given = runpy.run_path("setup.py")
    import pybind11

    (target / "csrc" / "module.cpp").write_text(MODULE)
    # Optimised little: what counts here is that it is right.
    flags = [f for f in given["COMPILE_FLAGS"] if f != "-O3"] + ["-O1", "-fPIC", "-c"]
    flags += [*given["OPENMP_FLAGS"], *given["TEST_FLAGS"]]
    folders = [target / "csrc", ROOT / "csrc", pybind11.get_include()]
    flags += [f"-I{folder}" for folder in (*folders, sysconfig.get_path("include"))]
    kernel = target / "csrc" / NAMES["my_family"] / f"{OP}.cpp"
    shared = [target / "csrc" / "module.cpp", ROOT / "csrc" / "base" / "cpu.cpp"]
    jobs = [(file, file.stem, []) for file in shared]
    jobs += [
        (kernel, isa, [*own, f"-DINPAINT_ISA={isa}"])
        for isa, own in given["INSTRUCTION_SETS"].items()
    ]
    compiler = os.environ.get("CXX", "c++")

    def compile_one(job):
        source, name, own = job
        built = str(target / f"{name}.o")
        command = [compiler, *flags, *own, str(source), "-o", built]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return built

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compile_one, jobs))
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    link = [compiler, "-shared", *given["OPENMP_FLAGS"], *objects]
    link += ["-undefined", "dynamic_lookup"] if sys.platform == "darwin" else []
    subprocess.run([*link, "-o", str(target / "inpaint_ops" / f"_new{suffix}")], check=True)
    with (target / "inpaint_ops" / "ops" / "native.py").open("a") as file:
        file.write(JOINED)


@pytest.mark.skipif(not native.status().available, reason="needs the extension")
@pytest.mark.skipif(shutil.which(os.environ.get("CXX", "c++")) is None, reason="needs a compiler")
def test_the_templates_pass_the_tests_of_all_operators_and_methods(tmp_path, monkeypatch):
    copy_tree(tmp_path)
    add_templates(tmp_path)
    build(tmp_path, monkeypatch)
    files = list((tmp_path / "tests").rglob("test_*.py"))
    if importlib.util.find_spec("triton") is None:
        files = [file for file in files if file.parent.name != "interpreter"]
    done = subprocess.run(
        [
            *(sys.executable, "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider"),
            *("-k", f"{OP} or {METHOD}", *map(str, files)),
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path), "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    passed = int(re.search(r"(\d+) passed", done.stdout)[1])
    assert passed > 70, done.stdout


def test_contributing_lists_the_templates_files():
    listed = set(
        re.findall(r"`([\w/]*my_\w+(?:/\w+)*\.\w+)`", (ROOT / "CONTRIBUTING.md").read_text())
    )
    have = {
        str(file.relative_to(TEMPLATES / kind))
        for kind in ("operator", "kernel", "method")
        for file in (TEMPLATES / kind).rglob("*.*")
        if file.suffix != ".entry"
    }
    assert {name for name in listed if "." in name} >= {n for n in have if not n.endswith(".json")}
