"""Fused kernels for deep image inpainting: operators, layers, methods and a photo filler.

In reading order: `layers` hold parameters and call the operators in `ops`. An operator checks its
arguments and runs a kernel of the CPU (csrc, compiled to `_C`), a kernel of the GPU (`kernels`), or
the formula in `reference`. `models` are the ten methods, with `losses` and `features` for their
training. `exemplar` is the training-free filler, `images` and `masks` read and write pictures and
holes, `blending` joins predictions to pictures. `cli` is the program, `benchmarks` measure, and
`doctor` says what this installation has.

Helpers at the root import nothing else of the package: `checks` (arguments), `backends` (choice of
implementation), `checkpoints` (files of weights), `atomic` (files that appear whole), `program`
(Ctrl-C and streams of the program), `progress` (how far long work is).
"""

from importlib.metadata import PackageNotFoundError, version

from inpaint_ops import program as program  # answers Ctrl-C while the rest loads

# isort: split

from inpaint_ops import layers, ops, reference
from inpaint_ops.backends import backend
from inpaint_ops.conversion import convert, revert
from inpaint_ops.exemplar import fill_exemplar
from inpaint_ops.exporting import export
from inpaint_ops.layers import (
    ChannelwiseLinear,
    ContextualAttention,
    FusedConv2d,
    FusedConvTranspose2d,
    GatedConv2d,
    GuidanceLoss,
    IDMRFLoss,
    PartialConv2d,
    ShiftConnection,
)
from inpaint_ops.ops import (
    channelwise_linear,
    contextual_attention,
    fused_conv2d,
    fused_conv_transpose2d,
    gated_conv2d,
    id_mrf_loss,
    nearest_patch,
    partial_conv2d,
    shift_connection,
)
from inpaint_ops.ops.convolution.memory import memory_held, release_memory
from inpaint_ops.ops.weight_state import frozen

try:
    __version__ = version("inpaint-ops")
except PackageNotFoundError:  # run from a source tree that was never installed
    __version__ = "0+unknown"

__all__ = [
    "ChannelwiseLinear",
    "ContextualAttention",
    "FusedConv2d",
    "FusedConvTranspose2d",
    "GatedConv2d",
    "GuidanceLoss",
    "IDMRFLoss",
    "PartialConv2d",
    "ShiftConnection",
    "__version__",
    "backend",
    "channelwise_linear",
    "contextual_attention",
    "convert",
    "export",
    "fill_exemplar",
    "frozen",
    "fused_conv2d",
    "fused_conv_transpose2d",
    "gated_conv2d",
    "id_mrf_loss",
    "layers",
    "memory_held",
    "nearest_patch",
    "ops",
    "partial_conv2d",
    "reference",
    "release_memory",
    "revert",
    "shift_connection",
]
