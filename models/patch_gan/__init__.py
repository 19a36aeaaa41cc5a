"""Patch-based GAN (Demir and Unal, 2018): a dilated residual generator, a critic with two heads.

`networks` has the generator and the discriminator, whose global and patch head share their first
layers; `recipe` the training with L1 and one adversary for each head. `layouts` is empty: no
weights were published.
"""

from inpaint_ops.models.patch_gan.model import PatchGAN
from inpaint_ops.models.patch_gan.recipe import PatchGANRecipe
from inpaint_ops.models.registry import register_model

register_model("patch_gan", PatchGAN, recipe=PatchGANRecipe)

__all__ = ["PatchGAN"]
