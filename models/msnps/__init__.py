"""MSNPS (Yang et al., CVPR 2017): a content prediction, then neural patch synthesis.

`networks` has the content network, a Context Encoder with ELU; `model.MSNPS` predicts with it and
hands the result to `texture_synthesis`, which optimises pixels from coarse to fine by the energies
in `texture_energies`; `layouts` has the content network's public file; `recipe` its training.
"""

from inpaint_ops.models.msnps.model import MSNPS
from inpaint_ops.models.msnps.recipe import ContentRecipe
from inpaint_ops.models.registry import register_model

register_model("msnps", MSNPS, recipe=ContentRecipe)

__all__ = ["MSNPS"]
