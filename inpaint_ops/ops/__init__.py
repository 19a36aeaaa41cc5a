"""Public operators, a file each, all of one shape.

The public function checks its arguments and calls the operator; `_fake`, `_cpu`, `_cuda` and
`_reference` compute it for shapes, the CPU, GPUs and every other device; `_setup_context` and
`_backward` are its gradient. `fused_conv2d` and `gated_conv2d` have these in
`convolution/operator`, once for both. What all share: `dispatch` registers an operator and finds
the implementation of a call (`shortcut`, `recording`), `native` and `triton` hold the kernels,
`tensors` the rules of dtypes and layouts, `convolution` all that the convolutions have in common.
"""

from inpaint_ops.ops.channelwise_linear import channelwise_linear
from inpaint_ops.ops.contextual_attention import contextual_attention
from inpaint_ops.ops.fused_conv2d import fused_conv2d
from inpaint_ops.ops.fused_conv_transpose2d import fused_conv_transpose2d
from inpaint_ops.ops.gated_conv2d import gated_conv2d
from inpaint_ops.ops.id_mrf_loss import id_mrf_loss
from inpaint_ops.ops.instance_norm import instance_norm
from inpaint_ops.ops.nearest_patch import nearest_patch
from inpaint_ops.ops.partial_conv2d import partial_conv2d
from inpaint_ops.ops.refine_patch import refine_patch
from inpaint_ops.ops.shift_connection import shift_connection

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
    "refine_patch",
    "shift_connection",
]
