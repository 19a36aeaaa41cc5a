"""Files for other programs: models and layers as ONNX, or as programs of torch.export.

`export` checks and chooses; `graph` is what a model says about its inputs; `tracing` makes a
program of a module and puts formulas in place of our operators; `onnx_file` writes ONNX.
"""

from inpaint_ops.exporting.export import export
from inpaint_ops.exporting.graph import Graph

__all__ = ["Graph", "export"]
