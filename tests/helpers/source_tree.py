"""The sources as a graph of imports, read without running any of them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Folders of the top level that are installed inside the package.
INNER = ("kernels", "models", "benchmarks")


@dataclass(frozen=True)
class Import:
    """One import: the module that holds it, the module it needs, the names it takes from there.

    `deferred`: inside a function, so that it runs at a call. `typing`: under TYPE_CHECKING.
    """

    source: str
    target: str
    line: int
    names: tuple[str, ...] = ()
    deferred: bool = False
    typing: bool = False

    def __str__(self) -> str:
        kind = ", in a function" if self.deferred else ", for types" if self.typing else ""
        return f"{self.source}:{self.line} -> {self.target}{kind}"


def module_of(path: Path) -> str:
    """The dotted name under which a file of the package is imported."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    if parts[0] in INNER:
        parts = ("inpaint_ops", *parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def modules() -> dict[str, Path]:
    """Every module of the package and its file."""
    folders = ("inpaint_ops", *INNER)
    files = (file for folder in folders for file in (ROOT / folder).rglob("*.py"))
    return {module_of(file): file for file in sorted(files)}


EXTENSION = "inpaint_ops._C"


@cache
def tree_of(path: Path) -> ast.Module:
    """The syntax tree of a file."""
    return ast.parse(path.read_text(encoding="utf-8"))


def _statements(body: list[ast.stmt], deferred: bool, typing: bool) -> Iterator[tuple]:
    """Import statements, each with whether it is in a function and whether it is for types."""
    for node in body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node, deferred, typing
        inside = deferred or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        guarded = typing or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test))
        for field in ("body", "orelse", "finalbody"):
            yield from _statements(getattr(node, field, []), inside, guarded and field == "body")
        for handler in getattr(node, "handlers", []):
            yield from _statements(handler.body, inside, typing)


@cache
def _hidden_by(package: str) -> frozenset[str]:
    """Names that a package's own file takes from elsewhere: they hide modules of the same name."""
    return frozenset(
        alias.asname or alias.name
        for node in tree_of(modules()[package]).body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if f"{node.module}.{alias.name}" not in modules()
    )


def _taken(source: str, name: str) -> tuple[str, tuple[str, ...]]:
    """The module that ``from source import name`` needs, and the name if it is not the module."""
    inner = f"{source}.{name}"
    if inner == EXTENSION:
        return inner, ()
    package = modules().get(source)
    hidden = package is not None and package.stem == "__init__" and name in _hidden_by(source)
    return (inner, ()) if inner in modules() and not hidden else (source, (name,))


def imports_of(module: str) -> list[Import]:
    """Imports of the package's own modules by one of them.

    That a module runs the files of the packages around it is no import of theirs.
    """
    found = []
    for node, deferred, typing in _statements(tree_of(modules()[module]).body, False, False):
        wanted: list[tuple[str, tuple[str, ...]]]
        if isinstance(node, ast.Import):
            wanted = [(alias.name, ()) for alias in node.names]
        else:
            wanted = [_taken(node.module or "", alias.name) for alias in node.names]
        for target, names in wanted:
            if (target in modules() or target == EXTENSION) and target != module:
                found.append(Import(module, target, node.lineno, names, deferred, typing))
    return found


def private_attributes(module: str) -> list[tuple[str, str, int]]:
    """(other module, underscore name, line) of each ``other._name`` in a module."""
    tree = tree_of(modules()[module])
    aliases: dict[str, str] = {}
    for node, _, _ in _statements(tree.body, False, False):
        for alias in node.names:
            if isinstance(node, ast.Import):
                target, names = alias.name, ()
            else:
                target, names = _taken(node.module or "", alias.name)
            if target in modules() and not names:
                aliases[alias.asname or alias.name] = target
    return [
        (aliases[node.value.id], node.attr, node.lineno)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id in aliases
        and is_private(node.attr)
    ]


def is_private(name: str) -> bool:
    """Whether a name begins with an underscore and is no name of Python's own."""
    return name.startswith("_") and not name.startswith("__")


@cache
def imports() -> tuple[Import, ...]:
    """All imports of the package's modules by each other."""
    return tuple(one for module in modules() for one in imports_of(module))


def cycles(edges: list[Import]) -> list[list[str]]:
    """Groups of modules each of which reaches the others: none where there is no cycle."""
    graph: dict[str, set[str]] = {}
    for edge in edges:
        graph.setdefault(edge.source, set()).add(edge.target)
        graph.setdefault(edge.target, set())

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        waiting = list(graph[start])
        while waiting:
            module = waiting.pop()
            if module not in seen:
                seen.add(module)
                waiting += graph[module]
        return seen

    everything = {module: reached(module) for module in graph}
    groups = {
        frozenset(other for other in seen if module in everything[other])
        for module, seen in everything.items()
        if module in seen
    }
    return sorted(sorted(group) for group in groups)


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """Each function of a file and how many lines it has, without its docstring."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0]
            text = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
            told = (first.end_lineno or 0) - first.lineno + 1 if text else 0
            yield node.name, (node.end_lineno or 0) - node.lineno + 1 - told


def lines(path: Path) -> int:
    """How many lines a file has."""
    return path.read_text(encoding="utf-8").count("\n")
