"""All entries: every public operator and layer."""

from fuzz.attention import ContextualAttention, IDMRFLoss
from fuzz.convolutions import Convolution, TransposedConvolution
from fuzz.matching import NearestPatch, RefinePatch, ShiftConnection, VotePatches
from fuzz.norms import ChannelwiseLinear, InstanceNorm
from fuzz.partial import PartialConvolution

_ALL = (
    Convolution("fused_conv2d", layer=False, gated=False),
    Convolution("FusedConv2d", layer=True, gated=False),
    Convolution("gated_conv2d", layer=False, gated=True),
    Convolution("GatedConv2d", layer=True, gated=True),
    TransposedConvolution("fused_conv_transpose2d", layer=False),
    TransposedConvolution("FusedConvTranspose2d", layer=True),
    PartialConvolution("partial_conv2d", layer=False),
    PartialConvolution("PartialConv2d", layer=True),
    ContextualAttention("contextual_attention", layer=False),
    ContextualAttention("ContextualAttention", layer=True),
    ShiftConnection("shift_connection", layer=False),
    ShiftConnection("ShiftConnection", layer=True),
    NearestPatch(),
    RefinePatch(),
    VotePatches(),
    IDMRFLoss("id_mrf_loss", layer=False),
    IDMRFLoss("IDMRFLoss", layer=True),
    ChannelwiseLinear("channelwise_linear", layer=False),
    ChannelwiseLinear("ChannelwiseLinear", layer=True),
    InstanceNorm("instance_norm", layer=False),
    InstanceNorm("InstanceNorm2d", layer=True),
)
ENTRIES = {entry.name: entry for entry in _ALL}
