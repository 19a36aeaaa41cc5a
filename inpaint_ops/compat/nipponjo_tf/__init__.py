"""nipponjo/deepfillv2-pytorch: model/networks_tf.py, for weights of the TensorFlow original."""

from inpaint_ops.compat._deepfill import output_to_image
from inpaint_ops.compat.nipponjo_tf.layers import (
    ContextualAttention,
    Conv2DSpectralNorm,
    DConv,
    GConv,
    GDeConv,
)
from inpaint_ops.compat.nipponjo_tf.networks import Discriminator, Generator

__all__ = [
    "ContextualAttention",
    "Conv2DSpectralNorm",
    "DConv",
    "Discriminator",
    "GConv",
    "GDeConv",
    "Generator",
    "output_to_image",
]
