"""Layers over the operators: they hold parameters and options and call one operator each.

Where public code has such a layer, ours has its constructor, forward and state dict.
`fused_conv2d` is the base of `gated_conv2d`; `fused_conv_transpose2d`, `partial_conv2d` and
`instance_norm` extend or mirror layers of torch.nn. `contextual_attention`, `shift_connection`
(with its guidance loss) and `id_mrf_loss` match patches. `channelwise_linear` belongs to the
Context Encoder.
"""

from inpaint_ops.layers.channelwise_linear import ChannelwiseLinear
from inpaint_ops.layers.contextual_attention import ContextualAttention, flow_picture
from inpaint_ops.layers.fused_conv2d import FusedConv2d
from inpaint_ops.layers.fused_conv_transpose2d import FusedConvTranspose2d
from inpaint_ops.layers.gated_conv2d import GatedConv2d
from inpaint_ops.layers.id_mrf_loss import IDMRFLoss
from inpaint_ops.layers.instance_norm import InstanceNorm2d
from inpaint_ops.layers.partial_conv2d import PartialConv2d
from inpaint_ops.layers.shift_connection import GuidanceLoss, ShiftConnection, reduce_hole

__all__ = [
    "ChannelwiseLinear",
    "ContextualAttention",
    "FusedConv2d",
    "FusedConvTranspose2d",
    "GatedConv2d",
    "GuidanceLoss",
    "IDMRFLoss",
    "InstanceNorm2d",
    "PartialConv2d",
    "ShiftConnection",
    "flow_picture",
    "reduce_hole",
]
