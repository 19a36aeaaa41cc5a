"""DeepFill v1 (Yu et al., CVPR 2018): two stages of plain convolutions with contextual attention.

`networks` has the generator, whose stages are built from the tables in `blocks.two_stage`, and the
critic; `layouts` the files of daa233's port, its own and those converted from the official weights;
`recipe` the training with Wasserstein critics and gradient penalty.
"""

from inpaint_ops.models.deepfill_v1.model import DeepFillV1
from inpaint_ops.models.deepfill_v1.recipe import DeepFillV1Recipe
from inpaint_ops.models.registry import register_model

register_model("deepfill_v1", DeepFillV1, recipe=DeepFillV1Recipe)

__all__ = ["DeepFillV1"]
