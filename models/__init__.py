"""Ten inpainting methods: networks, weights in public layouts, completion, one training step.

In reading order: `method` is the base class, which completes pictures of any size; `training` the
base class of recipes; `registry` builds methods by name; `weights` reads and writes files; `blocks`
has what several methods share. Each method is a folder of the same five files: `__init__`
(registers the method and its recipe), `model`, `networks`, `layouts` (names of public weights) and
`recipe` (training).
"""

from inpaint_ops.checkpoints import WeightsNote
from inpaint_ops.models.context_encoder import ContextEncoder
from inpaint_ops.models.deepfill_v1 import DeepFillV1
from inpaint_ops.models.deepfill_v2 import DeepFillV2
from inpaint_ops.models.edge_connect import EdgeConnect
from inpaint_ops.models.glcic import GLCIC
from inpaint_ops.models.gmcnn import GMCNN
from inpaint_ops.models.method import InpaintingModel
from inpaint_ops.models.msnps import MSNPS
from inpaint_ops.models.partial_conv_unet import PartialConvUNet
from inpaint_ops.models.patch_gan import PatchGAN
from inpaint_ops.models.registry import (
    create_model,
    list_models,
    model_class,
    parameter_counts,
    register_model,
)
from inpaint_ops.models.session import Session
from inpaint_ops.models.shift_net import ShiftNet
from inpaint_ops.models.squares import HoleNote
from inpaint_ops.models.training import Phase, TrainingRecipe
from inpaint_ops.models.weights.files import load_weights
from inpaint_ops.models.weights.layouts import Implied, Layout
from inpaint_ops.models.weights.saving import save_weights

__all__ = [
    "GLCIC",
    "GMCNN",
    "MSNPS",
    "ContextEncoder",
    "DeepFillV1",
    "DeepFillV2",
    "EdgeConnect",
    "HoleNote",
    "Implied",
    "InpaintingModel",
    "Layout",
    "PartialConvUNet",
    "PatchGAN",
    "Phase",
    "Session",
    "ShiftNet",
    "TrainingRecipe",
    "WeightsNote",
    "create_model",
    "list_models",
    "load_weights",
    "model_class",
    "parameter_counts",
    "register_model",
    "save_weights",
]
