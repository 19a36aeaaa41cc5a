"""GMCNN (Wang et al., NeurIPS 2018): three columns of different receptive fields.

`networks` has the columns, the generator that joins them, and the two critics; `layouts` the files
of the authors' PyTorch version; `recipe` the training with the confidence-driven loss
(`losses.confidence_l1`), ID-MRF and the critics.
"""

from inpaint_ops.models.gmcnn.model import GMCNN
from inpaint_ops.models.gmcnn.recipe import GMCNNRecipe
from inpaint_ops.models.registry import register_model

register_model("gmcnn", GMCNN, recipe=GMCNNRecipe)

__all__ = ["GMCNN"]
