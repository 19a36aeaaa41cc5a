"""Fused kernels for deep image inpainting: operators, layers, methods and a photo filler."""

from importlib.metadata import PackageNotFoundError, version

from inpaint_ops import layers, ops, reference
from inpaint_ops._backend import backend
from inpaint_ops.layers import GuidanceLoss, ShiftConnection
from inpaint_ops.ops import nearest_patch, shift_connection

try:
    __version__ = version("inpaint-ops")
except PackageNotFoundError:  # run from a source tree that was never installed
    __version__ = "0+unknown"

__all__ = [
    "GuidanceLoss",
    "ShiftConnection",
    "__version__",
    "backend",
    "layers",
    "nearest_patch",
    "ops",
    "reference",
    "shift_connection",
]
