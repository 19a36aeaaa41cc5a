"""`export`: a model or a layer as a file for other programs."""

from __future__ import annotations

import contextlib
import inspect
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from inpaint_ops import checks
from inpaint_ops.exporting.graph import OPSET, OPSETS, Graph

# The formats, and the ending of a file's name that stands for each.
FORMATS = {"onnx": ".onnx", "torch_export": ".pt2"}


def export(
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    format: str | None = None,
    dynamic: bool = True,
    sample: Tensor | Sequence[Tensor] | None = None,
    opset: int = OPSET,
) -> None:
    """Write a model or a layer to a file that other programs run.

    A method of `inpaint_ops.models` becomes what its `complete` computes, padding, order of
    channels, range and composition included: image (N, 3, H, W) RGB in [0, 1] and hole (N or 1, 1,
    H, W), 1 = missing, both float32, to picture (N, 3, H, W) in [0, 1], whose known pixels are
    those of the image bit for bit. What the image holds in the hole has no influence. EdgeConnect
    has a third input, edges (N, 1, H, W), see its `hints`. Nothing checks the inputs' values: what
    is not 0 in the hole is missing. Another module becomes its ``forward`` of the tensors in
    `sample`. All run in evaluation mode, whose change is undone, and without gradients.

    Args:
        model: a method, one of our layers, or a module that may hold our layers.
        path: the file; it appears whole or not at all. ONNX weights of more than 2 GB go to a file
            beside it, of this name and ".data".
        format: "onnx": standard operators alone, ours among them as their formulas (needs the
            extra `export`); "torch_export": a program of torch.export with our operators, for
            ``torch.export.load``, which needs ``import inpaint_ops`` before. None: by the ending
            of the file's name, ".onnx" or ".pt2".
        dynamic: batch, height and width of every (N, C, H, W) input, and the first axis of any
            other, may have any size; False: those of the sample.
        sample: inputs, one tensor or several, of which only dtypes and sizes count. Methods need
            none; without one, dynamic=False fixes 1 picture of 256 x 256.
        opset: version of ONNX's operators, 18 to 23.

    Raises:
        ImportError: a package of the extra `export` is missing.
        OSError: the file cannot be written.
        TypeError: wrong type.
        ValueError: no such format or opset, inputs are missing or wrong, the model cannot be
            recorded, or not with sizes that are free.
    """
    target = _check(model, path, dynamic, opset)
    chosen = _format(target, format)
    from inpaint_ops.exporting import onnx_file, tracing

    if chosen == "onnx":
        onnx_file.packages()
    graph = _graph(model, sample, dynamic)
    # A file holds the dtypes of the model, whatever is in force around the call.
    with _without_autocast():
        try:
            program = tracing.traced(graph)
        except tracing.UntraceableError as exc:
            raise ValueError(_why(graph, model, exc)) from exc.__cause__
        if chosen == "onnx":
            onnx_file.write(onnx_file.converted(program, graph, opset), target)
        else:
            tracing.save(program, target)


@contextlib.contextmanager
def _without_autocast() -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        yield


def _check(model: nn.Module, path: str | os.PathLike[str], dynamic: bool, opset: int) -> Path:
    if not isinstance(model, nn.Module):
        raise TypeError(f"export: model must be an nn.Module, got {type(model).__name__}")
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"export: path must be a str or a path, got {type(path).__name__}")
    if not isinstance(dynamic, bool):
        raise TypeError(f"export: dynamic must be a bool, got {type(dynamic).__name__}")
    checks.check_int("export", "opset", opset, OPSETS[0], OPSETS[-1])
    target = Path(path)
    if target.is_dir():
        raise IsADirectoryError(f"export: path must be a file, got the folder {target}")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"export: path must lie in a folder, there is no {target.parent}")
    return target


def _format(path: Path, format: str | None) -> str:
    if format is not None:
        checks.check_choice("export", "format", format, tuple(FORMATS))
        return format
    for name, ending in FORMATS.items():
        if path.suffix.lower() == ending:
            return name
    endings = " or ".join(FORMATS.values())
    raise ValueError(
        f"export: path must end in {endings}, or format be one of {', '.join(FORMATS)}, got "
        f"{path.name!r}"
    )


def _graph(model: Any, sample: Tensor | Sequence[Tensor] | None, dynamic: bool) -> Graph:
    """Return what is exported, with the inputs to record it with."""
    own: Graph | None = model.for_export() if hasattr(model, "for_export") else None
    if sample is None and own is None:
        raise ValueError(f"export: sample must hold the inputs of {type(model).__name__}, got None")
    if sample is not None:
        given = _inputs(sample)
        graph = _of_module(model, given) if own is None else _checked(own, given)
    else:
        assert own is not None
        graph = own if dynamic else replace(own, sample=tuple(map(_fixed, own.sample)))
    if not dynamic:
        return replace(graph, axes=tuple({} for _ in graph.axes))
    return replace(graph, sample=_doubled(graph.sample))


def _inputs(sample: Tensor | Sequence[Tensor]) -> tuple[Tensor, ...]:
    given = (sample,) if isinstance(sample, Tensor) else sample
    if not isinstance(given, (tuple, list)) or not given:
        raise TypeError(
            f"export: sample must be a Tensor or a tuple of them, got {type(sample).__name__}"
        )
    for value in given:
        if not isinstance(value, Tensor):
            raise TypeError(f"export: sample must hold Tensors alone, got {type(value).__name__}")
    return tuple(given)


def _of_module(model: nn.Module, given: tuple[Tensor, ...]) -> Graph:
    """Return the graph of a module whose ``forward`` takes the tensors in their order."""
    try:
        bound = inspect.signature(model.forward).bind(*given)
    except TypeError as exc:
        raise ValueError(
            f"export: sample must hold the inputs of {type(model).__name__}.forward, got "
            f"{len(given)} tensors: {exc}"
        ) from exc
    names: list[str] = []
    for name, value in bound.arguments.items():
        several = isinstance(value, tuple)
        names += [f"{name}_{i}" for i in range(len(value))] if several else [name]
    spatial = {0: "batch", 2: "height", 3: "width"}
    axes = tuple(spatial if x.dim() == 4 else {0: "batch"} if x.dim() else {} for x in given)
    return Graph(model, given, tuple(names), (), axes)


def _checked(own: Graph, given: tuple[Tensor, ...]) -> Graph:
    if len(given) != len(own.inputs):
        raise ValueError(
            f"export: sample must hold {', '.join(own.inputs)}, got {len(given)} tensors"
        )
    for name, wanted, value in zip(own.inputs, own.sample, given):
        if value.dim() != wanted.dim() or value.shape[1] != wanted.shape[1]:
            raise ValueError(
                f"export: {name} in sample must have shape (N, {wanted.shape[1]}, H, W), got "
                f"{tuple(value.shape)}"
            )
    return replace(own, sample=tuple(x.to(w) for x, w in zip(given, own.sample)))


def _fixed(x: Tensor) -> Tensor:
    return x.new_zeros((1, x.shape[1], 256, 256))


def _doubled(sample: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return inputs of two samples for those of one, whose size would be taken for fixed."""
    if any(x.dim() and x.shape[0] != 1 for x in sample):
        return sample
    return tuple(x.repeat(2, *(1 for _ in x.shape[1:])) if x.dim() else x for x in sample)


def _why(graph: Graph, model: nn.Module, exc: Exception) -> str:
    """Return what to tell about a module that cannot be recorded."""
    from inpaint_ops.exporting import tracing

    name = type(model).__name__
    if any(graph.axes):
        try:
            tracing.traced(replace(graph, axes=tuple({} for _ in graph.axes)))
        except tracing.UntraceableError as static:
            return f"export: model must be one that torch.export records, {name} is not: {static}"
        return f"export: dynamic must be False for {name}, whose sizes are not free: {exc}"
    return f"export: model must be one that torch.export records, {name} is not: {exc}"
