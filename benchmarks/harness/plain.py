"""The public formula with its weights inside, as other engines take it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from inpaint_ops.exporting.graph import OPSET
from inpaint_ops.exporting.tracing import recording


@dataclass(frozen=True)
class Plain:
    """A formula for engines that have no operator of ours.

    Args:
        inputs: float32, contiguous.
        write: writes the formula as ONNX for inputs of these sizes.
        build: returns it as a function of PyTorch in a memory format, compiled or not.
    """

    inputs: tuple[Tensor, ...]
    write: Callable[[Path], None]
    build: Callable[[torch.memory_format, bool], Callable[..., Any]]


def of_module(module: nn.Module, inputs: tuple[Tensor, ...]) -> Plain:
    """Return the formula that a module of plain PyTorch is."""
    inputs = tuple(x.detach().contiguous() for x in inputs)
    module = module.eval().requires_grad_(False)

    def build(layout: torch.memory_format, compiled: bool) -> Callable[..., Any]:
        arranged = module.to(memory_format=layout)  # type: ignore[call-overload]
        function: Callable[..., Any] = (
            torch.compile(arranged, dynamic=False) if compiled else arranged
        )
        return function

    return Plain(inputs, partial(_write, module, inputs), build)


def _write(module: nn.Module, inputs: tuple[Tensor, ...], path: Path) -> None:
    import onnxscript.optimizer

    # Not optimised: onnxscript takes x + 1e-8, which public code has, for x. Engines do it better.
    with recording():
        program = torch.onnx.export(
            module, inputs, dynamo=True, verbose=False, optimize=False, opset_version=OPSET
        )
    assert program is not None
    # Constants alone: some converters know few operators that make them.
    onnxscript.optimizer.fold_constants(program.model)
    program.save(path)
