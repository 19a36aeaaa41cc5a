"""Programs of modules: what torch.export records, with sizes that are free, and plain formulas."""

from __future__ import annotations

import inspect
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.export import Dim, ExportedProgram
from torch.fx.experimental import _config

from inpaint_ops.atomic import write_atomically
from inpaint_ops.exporting.graph import Graph
from inpaint_ops.ops.dispatch import OPERATORS


class UntraceableError(Exception):
    """A module that torch.export cannot record, or not with free sizes."""


def first_line(error: BaseException) -> str:
    """Return the first line of the error that started a chain of them."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = (line.strip() for line in str(error).splitlines())
    return next(filter(None, lines), type(error).__name__)


def traced(graph: Graph) -> ExportedProgram:
    """Return the program of a graph's module, in evaluation mode and without gradients.

    Our operators are in it as they are.

    Raises:
        UntraceableError: torch.export cannot record it so.
    """
    shapes = _by_argument(graph, [dict.fromkeys(axes, Dim.DYNAMIC) for axes in graph.axes])
    training = {module: module.training for module in graph.module.modules()}
    graph.module.eval()
    try:
        with recording():
            return torch.export.export(
                graph.module, graph.sample, dynamic_shapes=shapes, strict=False
            )
    except Exception as exc:  # torch has dozens of kinds, private ones among them
        raise UntraceableError(first_line(exc)) from exc
    finally:
        for module, mode in training.items():
            module.training = mode


def plain(program: ExportedProgram) -> ExportedProgram:
    """Return the program with the reference of each of our operators in its place."""
    every = OPERATORS.values()
    references = {one.overload: one.reference for one in every if one.reference is not None}
    with recording():
        decomposed: ExportedProgram = program.run_decompositions(references)
    return decomposed


def save(program: ExportedProgram, path: Path) -> None:
    """Write a program, without the inputs it was recorded with and the paths of its sources."""
    program.example_inputs = None
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                node.meta.pop("stack_trace", None)
    with write_atomically(path) as stream, quiet():
        torch.export.save(program, stream)


def free_sizes(program: ExportedProgram, graph: Graph) -> dict[str, str]:
    """Return the names of a program's free sizes, by the symbols that torch gave them.

    Sizes that prove to be equal share the name of the first.
    """
    names: dict[str, str] = {}
    inputs = set(program.graph_signature.user_inputs)
    nodes = [node for node in program.graph.find_nodes(op="placeholder") if node.name in inputs]
    for node, axes, name in zip(nodes, graph.axes, graph.inputs):
        for axis, word in axes.items():
            symbol = str(node.meta["val"].shape[axis])
            if symbol.isidentifier() and symbol not in names:
                taken = word in names.values()
                names[symbol] = f"{name}_{word}" if taken else word
    return names


def _by_argument(graph: Graph, values: list[Any]) -> dict[str, Any]:
    """Return values, one for each input, by the argument of ``forward`` that takes the input."""
    arguments = inspect.signature(graph.module.forward).bind(*values).arguments
    return dict(arguments)


@contextmanager
def recording() -> Iterator[None]:
    """Let torch record programs without gradients, and in silence."""
    patch = partial(_config.patch, backed_size_oblivious=True)  # type: ignore[attr-defined]
    # Torch asks whether tensors are packed, and would tie a program to the sizes that are so.
    with torch.no_grad(), quiet(), patch():
        yield


@contextmanager
def quiet() -> Iterator[None]:
    """Keep from users what torch's exporter says about itself: deprecations, missing packages."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        logger.setLevel(level)
