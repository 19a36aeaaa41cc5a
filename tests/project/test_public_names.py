"""The names that docs/reference/stability.md promises. A change here is a change for users."""

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PUBLIC = {
    "inpaint_ops": """ChannelwiseLinear ContextualAttention FusedConv2d FusedConvTranspose2d
        GatedConv2d GuidanceLoss IDMRFLoss PartialConv2d ShiftConnection __version__ backend
        channelwise_linear contextual_attention convert export fill_exemplar frozen fused_conv2d
        fused_conv_transpose2d gated_conv2d id_mrf_loss layers nearest_patch ops partial_conv2d
        reference memory_held release_memory revert shift_connection""",
    "inpaint_ops.ops": """channelwise_linear contextual_attention fused_conv2d
        fused_conv_transpose2d gated_conv2d id_mrf_loss instance_norm nearest_patch partial_conv2d
        refine_patch shift_connection""",
    "inpaint_ops.layers": """ChannelwiseLinear ContextualAttention FusedConv2d FusedConvTranspose2d
        GatedConv2d GuidanceLoss IDMRFLoss InstanceNorm2d PartialConv2d ShiftConnection flow_picture
        reduce_hole""",
    "inpaint_ops.losses": """adversarial_term confidence_l1 confidence_mask discount_mask
        discounted_l1 discriminator_loss feature_matching_loss frame_weight generator_loss
        gradient_penalty gram_matrix l1_loss l2_loss perceptual_loss style_loss total_variation""",
    "inpaint_ops.models": """GLCIC GMCNN MSNPS ContextEncoder DeepFillV1 DeepFillV2 EdgeConnect
        HoleNote Implied InpaintingModel Layout PartialConvUNet PatchGAN Phase Session ShiftNet
        TrainingRecipe WeightsNote create_model list_models load_weights model_class
        parameter_counts register_model save_weights""",
    "inpaint_ops.images": """MAX_PIXELS READ_SUFFIXES WRITE_SUFFIXES Photo load_hole load_lines
        load_photo read_hole read_photo save_hole""",
    "inpaint_ops.masks": """HOLE_KINDS HOLE_RATIO_BINS center_hole draw_hole free_form_hole
        irregular_hole random_box_hole""",
    "inpaint_ops.data": """Batch DrawnHoles Fault Framing HoleFiles Holes Order Picture Pictures
        Rows Sample Samples Whole batches check_pictures find_pictures""",
    "inpaint_ops.training": "Config NonFiniteLossError Progress Stopped read_config train",
    "inpaint_ops.evaluation": """BASELINES MEASURES Fill FrechetFeatures ModelFailedError
        PerceptualDistance Results Row baseline check_folder compare evaluate frechet_distance
        write_results""",
    "inpaint_ops.visualize": """feature_grid hole_overlay mask_updates match_arrows match_map
        updated_masks""",
}
# Modules without a list of their own.
HELD = {
    "inpaint_ops.distributed": ("BatchError", "InpaintBatch"),
    "inpaint_ops.features": ("FeatureNetwork",),
    "inpaint_ops.blending": ("poisson_blend",),
    "inpaint_ops.needed": ("lazy", "computed"),
}


@pytest.mark.parametrize("module", PUBLIC)
def test_public_names_are_those_that_are_promised(module):
    assert sorted(importlib.import_module(module).__all__) == sorted(PUBLIC[module].split())


def test_the_reference_has_the_operators_and_no_operator_lacks_one():
    operators = set(PUBLIC["inpaint_ops.ops"].split())
    assert operators <= set(importlib.import_module("inpaint_ops.reference").__all__)


@pytest.mark.parametrize("module", HELD)
def test_modules_without_a_list_hold_their_names(module):
    found = importlib.import_module(module)
    assert all(callable(getattr(found, name)) for name in HELD[module])


def test_the_note_names_every_module():
    page = (ROOT / "docs" / "reference" / "stability.md").read_text(encoding="utf-8")
    for module in (*PUBLIC, *HELD):
        last = module.rpartition(".")[2]
        assert re.search(rf"`(inpaint_ops)?\.?{last}`", page), module


def test_every_public_class_and_function_is_documented():
    pages = "".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs").rglob("*.md"))
    for module, names in PUBLIC.items():
        for name in names.split():
            value = getattr(importlib.import_module(module), name)
            if callable(value):
                assert re.search(rf":: inpaint_ops[\w.]*\.{name}$", pages, re.M), (module, name)
