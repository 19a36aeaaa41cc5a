"""PartialConv U-Net (Liu et al., ECCV 2018): irregular holes by partial convolutions.

`networks` has the U-Net; `layouts` the files of naoto0804's port and of mmagic; `recipe` the
training with pixel, perceptual, style and variation losses and its fine-tuning phase.
"""

from inpaint_ops.models.partial_conv_unet.model import PartialConvUNet
from inpaint_ops.models.partial_conv_unet.recipe import PartialConvUNetRecipe
from inpaint_ops.models.registry import register_model

register_model("partial_conv_unet", PartialConvUNet, recipe=PartialConvUNetRecipe)

__all__ = ["PartialConvUNet"]
