"""Ten inpainting methods: networks, weights in public layouts, completion, one training step."""

from inpaint_ops.checkpoints import WeightsNote
from inpaint_ops.models.context_encoder.model import ContextEncoder
from inpaint_ops.models.deepfill_v1.model import DeepFillV1
from inpaint_ops.models.deepfill_v2.model import DeepFillV2
from inpaint_ops.models.edge_connect.model import EdgeConnect
from inpaint_ops.models.glcic.model import GLCIC
from inpaint_ops.models.gmcnn.model import GMCNN
from inpaint_ops.models.method import InpaintingModel
from inpaint_ops.models.msnps.model import MSNPS
from inpaint_ops.models.partial_conv_unet.model import PartialConvUNet
from inpaint_ops.models.patch_gan.model import PatchGAN
from inpaint_ops.models.registry import (
    create_model,
    list_models,
    model_class,
    parameter_counts,
    register_model,
)
from inpaint_ops.models.shift_net.model import ShiftNet
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
    "Implied",
    "InpaintingModel",
    "Layout",
    "PartialConvUNet",
    "PatchGAN",
    "Phase",
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
