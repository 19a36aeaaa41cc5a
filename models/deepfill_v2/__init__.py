"""DeepFill v2 (Yu et al., ICCV 2019): free-form inpainting with gated convolution.

`networks` has the official generator, whose stages are built from the tables in `blocks.two_stage`,
and the SN-PatchGAN critic; `zhaoyuzhi` the other network of that name; `layouts` the files of
nipponjo's two ports and of zhaoyuzhi's; `recipe` the training with l1 and the hinge loss.
"""

from inpaint_ops.models.deepfill_v2.model import DeepFillV2
from inpaint_ops.models.deepfill_v2.recipe import DeepFillV2Recipe
from inpaint_ops.models.registry import register_model

register_model("deepfill_v2", DeepFillV2, recipe=DeepFillV2Recipe)

__all__ = ["DeepFillV2"]
