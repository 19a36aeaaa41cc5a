"""PartialConv U-Net: irregular holes by partial convolutions."""

from inpaint_ops.models.partial_conv_unet.model import PartialConvUNet

__all__ = ["PartialConvUNet"]
