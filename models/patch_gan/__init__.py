"""Patch-based GAN: dilated residual generator, discriminator with a global and a patch head."""

from inpaint_ops.models.patch_gan.model import PatchGAN

__all__ = ["PatchGAN"]
