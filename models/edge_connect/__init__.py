"""EdgeConnect (Nazeri et al., ICCV Workshops 2019): edges are completed first, then colours.

`networks` has the generator and the discriminator that
both stages use; `model.EdgeConnect` runs the stages one after the other; `layouts` has the four
files of knazeri's code; `recipe` its four phases of training.
"""

from inpaint_ops.models.edge_connect.model import EdgeConnect
from inpaint_ops.models.edge_connect.recipe import EdgeConnectRecipe
from inpaint_ops.models.registry import register_model

register_model("edge_connect", EdgeConnect, recipe=EdgeConnectRecipe)

__all__ = ["EdgeConnect"]
