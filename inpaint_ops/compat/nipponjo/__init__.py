"""nipponjo/deepfillv2-pytorch: model/networks.py."""

from inpaint_ops.compat._deepfill import output_to_image
from inpaint_ops.compat.nipponjo.layers import (
    ContextualAttention,
    Conv2DSpectralNorm,
    DConv,
    GConv,
    GDeConv,
    GDownsamplingBlock,
    GUpsamplingBlock,
)
from inpaint_ops.compat.nipponjo.networks import (
    CoarseGenerator,
    Discriminator,
    FineGenerator,
    Generator,
)

__all__ = [
    "CoarseGenerator",
    "ContextualAttention",
    "Conv2DSpectralNorm",
    "DConv",
    "Discriminator",
    "FineGenerator",
    "GConv",
    "GDeConv",
    "GDownsamplingBlock",
    "GUpsamplingBlock",
    "Generator",
    "output_to_image",
]
