"""Shift-Net (Yan et al., ECCV 2018): a U-Net that moves known features into the hole.

`networks` has the U-Net with its shift connection and the patch discriminator; `mirrored_shift` the
variant for faces, which also looks into the mirrored picture; `layouts` the files of the authors'
PyTorch version; `recipe` the training of the paper and that of the PyTorch version.
"""

from inpaint_ops.models.registry import register_model
from inpaint_ops.models.shift_net.model import ShiftNet
from inpaint_ops.models.shift_net.recipe import ShiftNetRecipe

register_model("shift_net", ShiftNet, recipe=ShiftNetRecipe)

__all__ = ["ShiftNet"]
