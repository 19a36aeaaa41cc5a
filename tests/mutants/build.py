"""Builds the extension with one mutated file, from the objects of the ordinary build."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from mutants.mutation import Mutation

ROOT = Path(__file__).resolve().parents[2]


class BuildError(RuntimeError):
    """A mutation that no longer applies or does not compile."""


def objects_folder() -> Path:
    """Where setup.py keeps its objects; they must be there and up to date."""
    folders = sorted((ROOT / "build").glob("temp.*"))
    if not folders:
        raise BuildError("build the extension first: there are no objects under build/temp.*")
    return folders[-1]


def mutated(mutation: Mutation) -> str:
    """The text of a file with its mutation."""
    text = (ROOT / "csrc" / mutation.file).read_text()
    if text.count(mutation.before) != 1:
        raise BuildError(f"{mutation.name}: its text occurs {text.count(mutation.before)} times")
    return text.replace(mutation.before, mutation.after)


def _users(objects: Path, isa: str, file: str) -> list[Path]:
    """Objects of an instruction set that a file of csrc is part of."""
    found = []
    for record in sorted((objects / isa / "csrc").rglob("*.d")):
        names = record.read_text().replace("\\\n", " ").split()
        if f"csrc/{file}" in names:
            found.append(record.with_suffix(".o"))
    return found


def in_order(objects: Path) -> list[Path]:
    """What setup.py links, in its order: the baseline's inline functions run anywhere."""
    module = f"module-{sys.implementation.cache_tag}"
    found = []
    for name in (module, "shared", "baseline", "avx2", "avx512_shaped", "avx512"):
        for one in sorted((objects / name / "csrc").rglob("*.o")):
            # Of a file that was renamed the old object stays.
            if (ROOT / one.relative_to(objects / name)).with_suffix(".cpp").is_file():
                found.append(one)
    return found


def build(mutation: Mutation, isa: str, folder: Path) -> Path:
    """Makes a tree with the mutated extension.

    Args:
        mutation: what to change.
        isa: the instruction set that gets it; the others stay sound.
        folder: scratch, overwritten.

    Returns:
        The folder that belongs on the path.
    """
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(ROOT / "csrc", folder / "csrc")
    (folder / "csrc" / mutation.file).write_text(mutated(mutation))
    objects = objects_folder()
    changed: dict[Path, Path] = {}
    for number, sound in enumerate(_users(objects, isa, mutation.file)):
        built = folder / f"{number}.o"
        source = (folder / sound.relative_to(objects / isa)).with_suffix(".cpp")
        _compile(source, sound, isa, folder, built)
        changed[sound] = built
    if not changed:
        raise BuildError(f"{mutation.name}: nothing is built from {mutation.file}")
    tree = folder / "tree"
    shutil.copytree(
        ROOT / "inpaint_ops", tree / "inpaint_ops", ignore=shutil.ignore_patterns("_C*")
    )
    for name in ("kernels", "models", "benchmarks"):
        shutil.copytree(ROOT / name, tree / "inpaint_ops" / name)
    linked = [str(changed.get(one, one)) for one in in_order(objects)]
    target = tree / "inpaint_ops" / f"_C{sysconfig.get_config_var('EXT_SUFFIX')}"
    _run([_compiler(), "-shared", *linked, "-fopenmp", "-o", str(target)], ROOT)
    return tree


def _compile(source: Path, sound: Path, isa: str, folder: Path, built: Path) -> None:
    flags = sound.with_suffix(".flags").read_text().split()
    where = f"-I{folder / 'csrc'}"
    macro = f"-DINPAINT_ISA={isa}"
    _run(
        [_compiler(), "-fPIC", macro, where, *flags, "-w", "-c", str(source), "-o", str(built)],
        ROOT,
    )


def _compiler() -> str:
    return os.environ.get("CXX", "g++")


def _run(command: list[str], where: Path) -> None:
    done = subprocess.run(command, cwd=where, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BuildError(f"{' '.join(command[:3])} ...: {done.stderr[-2000:]}")
