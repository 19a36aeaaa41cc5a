"""The types that mypy reads for the extension are those of the built module."""

import ast
import re
from pathlib import Path

import pytest

from inpaint_ops.ops import extension, extension_objects, native

pytestmark = pytest.mark.skipif(not native.status().available, reason="needs the extension")

TREES = [
    ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
    for module in (extension, extension_objects)
]
CLASSES = {
    node.name: node for tree in TREES for node in tree.body if isinstance(node, ast.ClassDef)
}


def declared(node):
    """Name to the set of signatures; a signature is (argument, may be None) of each argument."""
    found = {}
    for method in node.body:
        if isinstance(method, ast.FunctionDef):
            arguments = [*method.args.args, *method.args.kwonlyargs][1:]
            assert not method.args.defaults, f"{method.name}: the test knows no defaults"
            signature = [(a.arg, ast.unparse(a.annotation).endswith("| None")) for a in arguments]
            found.setdefault(method.name, set()).add(tuple(signature))
    return found


def split(text):
    """The parts between commas that stand in no bracket."""
    parts, depth = [""], 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts if part.strip()]


def built(function):
    """The signatures in the docstring that pybind11 writes: one line for each overload."""
    name = re.escape(function.__name__)
    lines = re.findall(rf"^(?:\d+\. )?{name}\((.*)\) -> .*$", function.__doc__, re.MULTILINE)
    signatures = set()
    for line in lines:
        arguments = [part.partition(": ") for part in split(line)]
        signatures.add(
            tuple((name, kind.endswith("| None")) for name, _, kind in arguments if name != "self")
        )
    # Overloads that differ in dtypes alone are one for Python.
    signatures.discard((("*args", False), ("**kwargs", False)))
    return signatures


def public(thing):
    return {name: value for name, value in vars(thing).items() if not name.startswith("_")}


def test_every_member_is_declared():
    node = CLASSES["Extension"]
    constants = {entry.target.id for entry in node.body if isinstance(entry, ast.AnnAssign)}
    functions = set(declared(node))
    members = public(native.extension())
    assert {name for name, value in members.items() if callable(value)} - functions == {
        name for name, value in members.items() if isinstance(value, type)
    }
    assert constants | functions == set(members)
    assert not constants & functions


def test_functions_have_the_declared_arguments():
    module = native.extension()
    for name, signatures in declared(CLASSES["Extension"]).items():
        assert built(getattr(module, name)) == signatures, name


def test_classes_have_the_declared_methods_and_arguments():
    module = native.extension()
    classes = {name: value for name, value in public(module).items() if isinstance(value, type)}
    assert classes.keys() | {"Extension"} == CLASSES.keys()
    for name, value in classes.items():
        signatures = declared(CLASSES[name])
        assert {*public(value), "__init__"} == signatures.keys(), name
        for method, expected in signatures.items():
            assert built(getattr(value, method)) == expected, f"{name}.{method}"


@pytest.mark.parametrize(
    ("text", "parts"),
    [("", []), ("a: int, b: tuple[int, int] | None", ["a: int", "b: tuple[int, int] | None"])],
)
def test_split(text, parts):
    assert split(text) == parts
