"""Every operator in plain PyTorch, written as its paper states it, with the signature of the op.

One file an operator. The references serve devices without a kernel, tests and benchmarks, and run
under ordinary autograd. They import torch and one another alone, so that no fault of the operators
can hide in them. Begin with `fused_conv2d`, whose padding and activations the other convolutions
share, and `nearest_patch`, which shows the patches that all matching works with.
"""

from inpaint_ops.reference.channelwise_linear import channelwise_linear
from inpaint_ops.reference.contextual_attention import contextual_attention
from inpaint_ops.reference.fused_conv2d import fused_conv2d
from inpaint_ops.reference.fused_conv_transpose2d import fused_conv_transpose2d
from inpaint_ops.reference.gated_conv2d import gated_conv2d
from inpaint_ops.reference.id_mrf_loss import id_mrf_loss
from inpaint_ops.reference.instance_norm import instance_norm
from inpaint_ops.reference.nearest_patch import nearest_patch, patch_origins
from inpaint_ops.reference.partial_conv2d import partial_conv2d
from inpaint_ops.reference.refine_patch import refine_patch
from inpaint_ops.reference.shift_connection import shift_connection

__all__ = [
    "channelwise_linear",
    "contextual_attention",
    "fused_conv2d",
    "fused_conv_transpose2d",
    "gated_conv2d",
    "id_mrf_loss",
    "instance_norm",
    "nearest_patch",
    "partial_conv2d",
    "patch_origins",
    "refine_patch",
    "shift_connection",
]
