"""The house rules that a machine can hold: layers, rooms, names and lengths.

``python tests/test_architecture.py`` prints the figures of the tree.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from helpers import source_tree as tree
from helpers.source_tree import ROOT, Import

# Where the kernel of an operator stands: file or folder of csrc, and whether kernels/ has one.
OPERATORS: dict[str, tuple[str | None, bool]] = {
    "channelwise_linear": (None, False),  # one library call, which `doctor` names
    "contextual_attention": ("attention/contextual_attention.cpp", True),
    "fused_conv2d": ("convolution", True),
    "fused_conv_transpose2d": ("convolution", True),
    "gated_conv2d": ("convolution", True),
    "id_mrf_loss": ("attention/id_mrf_loss.cpp", True),
    "instance_norm": ("norm/instance_norm.cpp", False),
    "nearest_patch": ("matching/nearest_patch.cpp", True),
    "partial_conv2d": ("convolution", True),
    "refine_patch": ("matching/refine_patch.cpp", False),
    "shift_connection": ("matching", True),
}
# From the lowest to the highest: a module imports from its own layer and from those below. The
# longest name that a module begins with decides; ".*" is for what is inside a package alone.
LAYERS: dict[str, tuple[str, ...]] = {
    "helpers": (
        *("_C", "program", "atomic", "backends", "checks", "checkpoints", "progress"),
        # The rule for changed weights asks the extension for fingerprints; the loaders import no
        # other part of the package.
        *("ops.weight_state", "ops.extension", "ops.extension_objects", "ops.native", "ops.triton"),
    ),
    # Below the operators, which run it where the extension or a kernel is missing.
    "reference": ("reference",),
    "dispatch": ("ops.*",),
    "convolution": ("ops.convolution",),
    "operators": ("ops", *(f"ops.{op}" for op in OPERATORS), "kernels"),
    "layers": ("layers", "losses", "needed"),
    "pictures": ("exemplar", "masks", "images", "features", "blending"),
    "data": ("data",),
    "drop-in": ("compat", "conversion", "exporting"),
    "package": ("",),
    "methods": ("models",),
    "training": ("training", "evaluation", "visualize", "distributed"),
    # `kernels.tune` is a command: it measures the layers that the benchmarks know.
    "programs": ("cli", "doctor", "serving", "benchmarks", "kernels.tune"),
}

# Imports inside functions that close a cycle and may, each with its reason: (module, module).
CYCLES_ALLOWED: dict[tuple[str, str], str] = {}

# Operators that are measured in another case than their own.
MEASURED_IN = {"refine_patch": "exemplar"}

ROOM = {"__init__.py", "model.py", "networks.py", "layouts.py", "recipe.py"}
NO_ROOMS = {"blocks", "weights"}

# Where the tests of a folder are that has no folder of tests of its own.
TESTED_IN = {
    "layers": "ops",  # beside their operators
    "reference": "ops",  # every operator is held to it
    "kernels": "interpreter",
}
# Folders of tests that mirror no folder.
TESTS_OF_THEIR_OWN = {
    *("examples", "fuzz", "golden", "gpu", "helpers", "interpreter", "manifests", "mutants"),
    "project",
}

LINES_OF_A_FILE = 400
LINES_OF_A_TEST_FILE = 1000
# Without its docstring; Triton compiles a kernel as one function.
LINES_OF_A_FUNCTION = 80
LINES_OF_A_KERNEL = 180


def short(module: str) -> str:
    """A module's name inside the package."""
    return module.removeprefix("inpaint_ops").removeprefix(".")


def begins(name: str, prefix: str) -> bool:
    """Whether a module's name is one of those that a layer names so."""
    if prefix.endswith(".*"):
        return name.startswith(prefix[:-1])
    return name == prefix or (bool(prefix) and name.startswith(f"{prefix}."))


def layer(module: str) -> int | None:
    """The number of a module's layer."""
    found = [
        (len(prefix), number)
        for number, prefixes in enumerate(LAYERS.values())
        for prefix in prefixes
        if begins(short(module), prefix)
    ]
    return max(found)[1] if found else None


def uphill() -> list[Import]:
    """Imports from a layer above."""
    return [one for one in tree.imports() if (layer(one.source) or 0) < (layer(one.target) or 0)]


def cycles() -> list[list[str]]:
    """Groups of modules that import each other, through functions and for types too."""
    return tree.cycles([i for i in tree.imports() if (i.source, i.target) not in CYCLES_ALLOWED])


def parent(module: str) -> str:
    """The package that a module lies in."""
    path = tree.modules().get(module)
    is_package = path is not None and path.stem == "__init__"
    return module if is_package else module.rpartition(".")[0]


def trespasses() -> list[str]:
    """Imports of another package's private modules and names, and uses of them.

    A private module belongs to the package it lies in and all inside that; a private name to the
    modules beside its own.
    """
    found = []
    for one in tree.imports():
        owner, _, name = one.target.rpartition(".")
        inside = f"{parent(one.source)}.".startswith(f"{owner}.")
        if tree.is_private(name) and not inside:
            found.append(str(one))
        elif parent(one.source) != parent(one.target):
            found += [f"{one}: {name}" for name in one.names if tree.is_private(name)]
    for module in tree.modules():
        for other, name, line in tree.private_attributes(module):
            if parent(module) != parent(other):
                found.append(f"{module}:{line}: {other}.{name}")
    return found


def sources(*folders: str) -> list[Path]:
    """Files of code in folders of the top level."""
    files = (file for folder in folders for file in (ROOT / folder).rglob("*"))
    return sorted(file for file in files if file.suffix in (".py", ".cpp", ".h"))


SHIPPED = ("inpaint_ops", "kernels", "models", "benchmarks", "csrc")


def stems(folder: str) -> set[str]:
    """Names of the modules of a folder."""
    return {file.stem for file in (ROOT / folder).glob("*.py") if file.stem != "__init__"}


def methods() -> list[str]:
    """The rooms of models/."""
    folders = {file.parent.name for file in (ROOT / "models").glob("*/__init__.py")}
    return sorted(folders - NO_ROOMS)


def test_every_module_has_a_layer():
    assert [module for module in tree.modules() if layer(module) is None] == []


def test_every_layer_has_its_modules():
    """A layer that names what is gone would let anything pass under that name later."""
    known = [short(module) for module in (*tree.modules(), tree.EXTENSION)]
    named = [prefix for prefixes in LAYERS.values() for prefix in prefixes]
    assert [p for p in named if not any(begins(name, p) for name in known)] == []


def test_no_import_goes_uphill():
    assert list(map(str, uphill())) == []


def test_no_modules_import_each_other():
    assert cycles() == []


def test_allowed_cycles_exist_and_are_deferred():
    deferred = {(i.source, i.target) for i in tree.imports() if i.deferred}
    assert set(CYCLES_ALLOWED) <= deferred
    assert all(CYCLES_ALLOWED.values())


def test_private_names_stay_at_home():
    assert trespasses() == []


def test_kernels_are_loaded_by_ops_triton_alone():
    """Importing Triton takes a second, and is an error where it is not installed."""
    outside = [i for i in tree.imports() if short(i.target).startswith("kernels")]
    bad = [i for i in outside if not short(i.source).startswith(("kernels", "benchmarks.gpu"))]
    assert list(map(str, bad)) == []


def test_kernels_need_no_more_than_operators_do():
    allowed = ("kernels", "ops", "checks", "reference", "atomic")
    programs = LAYERS["programs"]
    used = [i for i in tree.imports() if short(i.source).startswith("kernels")]
    used = [i for i in used if not short(i.source).startswith(programs)]
    assert [str(i) for i in used if not short(i.target).startswith(allowed)] == []


def test_every_operator_is_stated():
    names = {
        alias
        for one in tree.imports_of("inpaint_ops.ops")
        for alias in one.names
        if not tree.is_private(alias)
    }
    assert names == set(OPERATORS)


@pytest.mark.parametrize("op", OPERATORS)
def test_every_operator_has_its_files(op):
    csrc, on_gpu = OPERATORS[op]
    wanted = [
        f"inpaint_ops/ops/{op}.py",
        f"inpaint_ops/reference/{op}.py",
        f"tests/ops/test_{op}.py",
        f"benchmarks/cases/bench_{MEASURED_IN.get(op, op)}.py",
    ]
    wanted += [] if csrc is None else [f"csrc/{csrc}"]
    assert [file for file in wanted if not (ROOT / file).exists()] == []
    assert (ROOT / f"kernels/{op}.py").exists() == on_gpu


def test_every_layer_and_every_reference_is_that_of_an_operator():
    assert stems("inpaint_ops/layers") <= set(OPERATORS)
    assert stems("inpaint_ops/reference") == set(OPERATORS)
    assert {name.removeprefix("bench_") for name in stems("benchmarks/cases")} >= (
        set(OPERATORS) - set(MEASURED_IN)
    )


def test_the_battery_knows_every_operator():
    source = (ROOT / "tests/helpers/operators.py").read_text(encoding="utf-8")
    assert [op for op in OPERATORS if f'"{op}": Operator(' not in source] == []


@pytest.mark.parametrize("method", methods())
def test_every_method_is_a_room_of_the_same_files(method):
    have = {file.name for file in (ROOT / "models" / method).glob("*.py")}
    assert ROOM - have == set()
    assert (ROOT / f"tests/models/test_{method}.py").exists()


def test_there_are_ten_methods():
    assert len(methods()) == 10


def test_tests_mirror_the_package():
    folders = {file.parent.name for file in (ROOT / "inpaint_ops").glob("*/*.py")} | {*tree.INNER}
    have = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir()} - {"__pycache__"}
    assert {TESTED_IN.get(folder, folder) for folder in folders} - have == set()
    assert have - folders == TESTS_OF_THEIR_OWN & have


def test_files_are_short():
    long = {str(f.relative_to(ROOT)): tree.lines(f) for f in sources(*SHIPPED)}
    assert {file: n for file, n in long.items() if n > LINES_OF_A_FILE} == {}
    tests = {str(f.relative_to(ROOT)): tree.lines(f) for f in sources("tests")}
    assert {file: n for file, n in tests.items() if n > LINES_OF_A_TEST_FILE} == {}


def test_functions_are_short():
    long = []
    for file in sources(*SHIPPED, "tests"):
        if file.suffix == ".py":
            kernel = file.is_relative_to(ROOT / "kernels")
            most = LINES_OF_A_KERNEL if kernel else LINES_OF_A_FUNCTION
            long += [(file.name, name, n) for name, n in tree.functions(file) if n > most]
    assert long == []


def report() -> str:
    """The figures of the tree."""
    rows = Counter()
    for file in sources(*SHIPPED, "tests"):
        rows["/".join(file.relative_to(ROOT).parent.parts[:2])] += tree.lines(file)
    text = [f"{count:6}  {folder}" for folder, count in sorted(rows.items())]
    for what, folders in (("sources", SHIPPED), ("tests", ("tests",))):
        files = sources(*folders)
        longest = max(files, key=tree.lines)
        text.append(f"{tree.lines(longest):6}  longest file of {what}: {longest.relative_to(ROOT)}")
        function = max(
            (lines, name, file.relative_to(ROOT))
            for file in files
            if file.suffix == ".py"
            for name, lines in tree.functions(file)
        )
        text.append(f"{function[0]:6}  longest function of {what}: {function[1]}, {function[2]}")
    for what, found in (
        ("cycles", [", ".join(group) for group in cycles()]),
        ("uphill imports", uphill()),
        ("uses of private names", trespasses()),
    ):
        text += [f"{len(found):6}  {what}", *(f"        {one}" for one in found)]
    return "\n".join(text)


if __name__ == "__main__":
    print(report())
