"""Context Encoder (Pathak et al., CVPR 2016): a picture's missing part from its surroundings.

`model.ContextEncoder` crops or resizes pictures for its variants and completes with them;
`networks` has the encoder-decoder, the AlexNet form and both discriminators; `layouts` the files of
BoyuanJiang's and eriklindernoren's ports; `recipe` the training with L2 and an adversary, and that
of the AlexNet form. MSNPS takes its networks from here.
"""

from inpaint_ops.models.context_encoder.model import ContextEncoder
from inpaint_ops.models.context_encoder.recipe import AlexNetRecipe, RegionRecipe
from inpaint_ops.models.registry import register_model

register_model(
    "context_encoder",
    ContextEncoder,
    recipe=RegionRecipe,
    variant_recipes={"alexnet": AlexNetRecipe},
)

__all__ = ["ContextEncoder"]
