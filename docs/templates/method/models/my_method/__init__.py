"""my_method: one line on what the method is, and what of it is in which file.

`networks`: the modules. `layouts`: public files of weights. `model`: options and completion.
`recipe`: training. Registered here, so that the model knows nothing of its training.
"""

from inpaint_ops.models.my_method.model import MyMethod
from inpaint_ops.models.my_method.recipe import MyMethodRecipe
from inpaint_ops.models.registry import register_model

register_model("my_method", MyMethod, recipe=MyMethodRecipe)

__all__ = ["MyMethod"]
