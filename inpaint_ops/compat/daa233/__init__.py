"""daa233/generative-inpainting-pytorch: model/networks.py."""

from inpaint_ops.compat.daa233.layers import ContextualAttention, Conv2dBlock, dis_conv, gen_conv
from inpaint_ops.compat.daa233.networks import (
    CoarseGenerator,
    DisConvModule,
    FineGenerator,
    Generator,
    GlobalDis,
    LocalDis,
)

__all__ = [
    "CoarseGenerator",
    "ContextualAttention",
    "Conv2dBlock",
    "DisConvModule",
    "FineGenerator",
    "Generator",
    "GlobalDis",
    "LocalDis",
    "dis_conv",
    "gen_conv",
]
