"""What an exported file holds: a module, and what its inputs and outputs are called."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

# The version of ONNX's operators that files are written in, and those that may be asked for. From
# 18 on Resize filters as it shrinks.
OPSET, OPSETS = 20, range(18, 24)


@dataclass(frozen=True)
class Graph:
    """A module to be exported.

    A model says by a method ``for_export()``, which returns one, how it is exported.

    Args:
        module: computes the outputs from the inputs.
        sample: its inputs, as large as any.
        inputs: their names.
        outputs: names of the results.
        axes: for each input the axes that may have any size, and what those are called.
    """

    module: nn.Module
    sample: tuple[Tensor, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    axes: tuple[Mapping[int, str], ...]
