"""Layers over the operators, drop-in for the public layers they name."""

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
