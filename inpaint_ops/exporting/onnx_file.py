"""ONNX files of programs, and the files themselves."""

from __future__ import annotations

import operator
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

from inpaint_ops.atomic import write_atomically
from inpaint_ops.exporting.graph import OPSET, Graph
from inpaint_ops.exporting.tracing import first_line, free_sizes, plain, recording

# Bytes of weights beyond which they have a file of their own. A message of ONNX holds 2 GiB.
MOST_INSIDE = 2**31 - 2**26


def packages() -> Any:
    """Return onnxscript and its module of models.

    Raises:
        ImportError: a package of the extra is missing.
    """
    try:
        import onnx  # noqa: F401
        import onnx_ir
        import onnxscript
        import onnxscript.optimizer
    except ImportError as exc:
        raise ImportError(
            f"export: {exc.name} is not installed: pip install 'inpaint-ops[export]'"
        ) from exc
    return onnxscript, onnx_ir


def converted(program: ExportedProgram, graph: Graph, opset: int) -> Any:
    """Return a program as an ONNX model (`onnx_ir.Model`) of standard operators.

    Raises:
        ValueError: torch has no translation of something in it.
    """
    onnxscript, onnx_ir = packages()
    ops = getattr(onnxscript, f"opset{OPSET}")

    def floordiv(a: Any, b: Any) -> Any:
        # torch's own translation rounds towards zero, which pads too little: -(-size // 8) * 8.
        return ops.Div(ops.Sub(a, ops.Mod(a, b)), b)

    names = free_sizes(program, graph)
    options: dict[str, Any] = {
        "input_names": list(graph.inputs),
        "output_names": list(graph.outputs),
        "opset_version": opset,
        "custom_translation_table": {operator.floordiv: floordiv},
    }
    try:
        with recording():
            # onnxscript's own optimisation takes small numbers for nothing: x + 1e-8 becomes x, and
            # a quotient by it NaN. What it saves otherwise, readers do themselves.
            exported = torch.onnx.export(
                plain(program), dynamo=True, verbose=False, optimize=False, **options
            )
    except Exception as exc:  # as for `traced`
        raise ValueError(
            f"export: model must be one that ONNX can hold, torch says: {first_line(exc)}"
        ) from exc
    assert exported is not None
    model = exported.model
    onnxscript.optimizer.fold_constants(model)
    onnxscript.optimizer.remove_unused_nodes(model)
    _tidy(model, names, onnx_ir)
    return model


def _tidy(model: Any, names: dict[str, str], onnx_ir: Any) -> None:
    """Name the free sizes, and drop what torch noted on its way: paths of files, formulas of sizes.

    Readers infer the sizes in between themselves.
    """

    def named(size: Any) -> Any:
        if not isinstance(size, onnx_ir.SymbolicDim):
            return size
        return onnx_ir.SymbolicDim(names.get(str(size.value)))

    nodes = list(model.graph)
    values = [value for node in nodes for value in node.outputs]
    for value in [*model.graph.inputs, *values]:
        if value.shape is not None:
            value.shape = onnx_ir.Shape([named(size) for size in value.shape])
    for part in (model, model.graph, *nodes, *values, *model.graph.inputs):
        part.metadata_props.clear()


def write(model: Any, path: Path) -> None:
    """Write a model; weights beyond `MOST_INSIDE` go to a file beside it, FILE.data."""
    _, onnx_ir = packages()
    weights = list(model.graph.initializers.values())
    if sum(value.const_value.nbytes for value in weights) <= MOST_INSIDE:
        data = onnx_ir.serde.serialize_model(model).SerializeToString()
        with write_atomically(path) as stream:
            stream.write(data)
        return
    beside = path.with_name(f"{path.name}.data")
    with write_atomically(path) as stream:
        with write_atomically(beside) as data_stream:
            for value in weights:
                value.const_value = _moved(value.const_value, data_stream, beside, onnx_ir)
        try:
            stream.write(onnx_ir.serde.serialize_model(model).SerializeToString())
        except BaseException:
            with suppress(FileNotFoundError):
                beside.unlink()
            raise


def _moved(tensor: Any, stream: Any, path: Path, onnx_ir: Any) -> Any:
    """Append a tensor's bytes to a stream; return the tensor that refers to them."""
    offset, data = stream.tell(), tensor.tobytes()
    stream.write(data)
    return onnx_ir.ExternalTensor(
        location=path.name,
        offset=offset,
        length=len(data),
        dtype=tensor.dtype,
        shape=tensor.shape,
        name=tensor.name,
        base_dir=path.parent,
    )
