"""What drop-in classes print: sizes, and the options that the layers inside do not tell."""

import pytest
from torch import nn

from inpaint_ops.compat import (
    daa233,
    naoto0804,
    nipponjo,
    nipponjo_tf,
    nvidia,
    shepnerd,
    zhaoyiyan,
    zhaoyuzhi,
)

SIZES = "kernel_size=(3, 3), stride=(2, 2)"
# Each a class, its arguments and what the text must hold.
TABLE = [
    (nvidia.PartialConv2d, (3, 4, 3, 2), {"return_mask": True}, ("3, 4", SIZES, "return_mask=T")),
    (naoto0804.PartialConv, (3, 4, 3, 2), {"bias": False}, ("3, 4", SIZES, "bias=False")),
    (naoto0804.PCBActiv, (3, 4), {"activ": "leaky"}, ("3, 4", "BatchNorm2d(4", "LeakyReLU")),
    (naoto0804.PConvUNet, (5,), {}, ("layer_size=5", "upsampling_mode='nearest'", "(dec_5)")),
    (
        *(nipponjo.GConv, (3, 4, 3, 2), {"gated": False}),
        ("gated=False, ksize=3, stride=2, padding=1, rate=1", "(activation): ELU", "3, 4", SIZES),
    ),
    (nipponjo.GDeConv, (3, 4), {}, ("gated=True", "3, 8")),
    (nipponjo.ContextualAttention, (), {"fuse": True}, ("rate=1", "fuse=True")),
    (nipponjo.Conv2DSpectralNorm, (3, 4, 3, 2), {"n_iter": 2}, ("3, 4", SIZES, "n_iter=2")),
    (nipponjo.DConv, (3, 4), {}, ("3, 4", "n_iter=1, eps=1e-12", "LeakyReLU")),
    (
        *(nipponjo_tf.GConv, (3, 4, 3, 2), {}),
        ("4 channels out, ksize=3, stride=2, rate=1, padding='same'", "3, 8", SIZES),
    ),
    (nipponjo_tf.ContextualAttention, (), {}, ("fuse=True", "pick='align_corners'")),
    (daa233.Conv2dBlock, (3, 4, 3, 2), {"norm": "in"}, ("3, 4", SIZES, "InstanceNorm2d(4")),
    (daa233.ContextualAttention, (), {"rate": 2}, ("rate=2", "key_norm='sum'")),
    (zhaoyuzhi.GatedConv2d, (3, 4, 3, 2), {}, ("3, 4", SIZES, "(mask_conv2d)", "LeakyReLU")),
    (zhaoyuzhi.TransposeConv2dLayer, (3, 4, 3), {}, ("scale_factor=2", "3, 4")),
    (zhaoyuzhi.TransposeGatedConv2d, (3, 4, 3), {"scale_factor": 4}, ("scale_factor=4", "3, 4")),
    (zhaoyuzhi.LayerNorm, (4,), {"affine": False}, ("4, eps=1e-08, affine=False",)),
    (
        *(zhaoyuzhi.SpectralNorm, (nn.Conv2d(3, 4, 3, 2),), {}),
        ("name='weight', power_iterations=1", "3, 4", SIZES),
    ),
    (zhaoyiyan.InnerShiftTriple, (), {"triple_weight": 2}, ("triple_weight=2",)),
    (zhaoyiyan.InnerCos, (), {"strength": 2, "crit": "L1"}, ("strength=2", "crit='L1'")),
    (shepnerd.SpectralNorm, (nn.Conv2d(3, 4, 3, 2),), {}, ("power_iterations=1", SIZES)),
    (shepnerd.ConfidenceDrivenMaskLayer, (33,), {}, ("size=33, sigma=0.025, iters=7",)),
    (shepnerd.PureUpsampling, (4, "nearest"), {}, ("scale=4, mode='nearest'",)),
    (
        *(shepnerd.IDMRFLoss, (nn.Identity,), {}),
        ("style={'relu3_2': 1.0, 'relu4_2': 1.0}", "nn_stretch_sigma=0.5", "bias=1.0"),
    ),
]


@pytest.mark.parametrize(("kind", "given", "options", "parts"), TABLE)
def test_text_has_sizes_and_options(kind, given, options, parts):
    text = repr(kind(*given, **options))
    assert text.startswith(f"{kind.__name__}(")
    assert [part for part in parts if part not in text] == []
