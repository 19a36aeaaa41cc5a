"""Training losses of the ten methods as functions of tensors; the methods hold the weights.

`reconstruction` compares pixels, `total_variation` neighbours. `feature` compares the maps of a
feature network or a discriminator. `adversarial` holds the losses of generators and discriminators.
ID-MRF and guidance losses are layers: `inpaint_ops.IDMRFLoss`, `inpaint_ops.GuidanceLoss`.

All take float16 to float64 and compute in float32 at least, under autocast or not. A pixel that a
mask leaves out is never read: NaN there reaches neither the value nor a gradient.
"""

from inpaint_ops.losses.adversarial import (
    adversarial_term,
    discriminator_loss,
    generator_loss,
    gradient_penalty,
)
from inpaint_ops.losses.feature import (
    feature_matching_loss,
    gram_matrix,
    perceptual_loss,
    style_loss,
)
from inpaint_ops.losses.reconstruction import (
    confidence_l1,
    confidence_mask,
    discount_mask,
    discounted_l1,
    frame_weight,
    l1_loss,
    l2_loss,
)
from inpaint_ops.losses.total_variation import total_variation

__all__ = [
    "adversarial_term",
    "confidence_l1",
    "confidence_mask",
    "discount_mask",
    "discounted_l1",
    "discriminator_loss",
    "feature_matching_loss",
    "frame_weight",
    "generator_loss",
    "gradient_penalty",
    "gram_matrix",
    "l1_loss",
    "l2_loss",
    "perceptual_loss",
    "style_loss",
    "total_variation",
]
