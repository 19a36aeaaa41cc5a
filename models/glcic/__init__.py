"""GLCIC (Iizuka et al., SIGGRAPH 2017): globally and locally consistent image completion.

`networks` has the completion network and the discriminator with its global and local trunk;
`layouts` the files of otenim's port and of the converted official weights; `recipe` the three
phases of training by Adadelta.
"""

from inpaint_ops.models.glcic.model import GLCIC
from inpaint_ops.models.glcic.recipe import GLCICRecipe
from inpaint_ops.models.registry import register_model

register_model("glcic", GLCIC, recipe=GLCICRecipe)

__all__ = ["GLCIC"]
