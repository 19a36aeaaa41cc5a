"""Arguments of every class: the port's names, order and defaults; wrong kinds raise."""

import pytest
import torch
from compat.agreement import signature
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

ATTENTION = "ksize=3, stride=1, rate=1, fuse_k=3, softmax_scale=10"
LAYER = "in_channels, out_channels, kernel_size, stride=1, padding=0, dilation=1"
SIGNATURES = {
    nvidia.PartialConv2d: LAYER
    + ", groups=1, bias=True, padding_mode='zeros', device=None, dtype=None",
    naoto0804.PartialConv: LAYER + ", groups=1, bias=True",
    naoto0804.PCBActiv: "in_ch, out_ch, bn=True, sample='none-3', activ='relu', conv_bias=False",
    naoto0804.PConvUNet: "layer_size=7, input_channels=3, upsampling_mode='nearest'",
    nipponjo.GConv: "cnum_in, cnum_out, ksize, stride=1, padding='auto', rate=1, "
    "activation=ELU(alpha=1.0), bias=True, gated=True",
    nipponjo.GDeConv: "cnum_in, cnum_out, padding=1",
    nipponjo.GDownsamplingBlock: "cnum_in, cnum_out, cnum_hidden=None",
    nipponjo.GUpsamplingBlock: "cnum_in, cnum_out, cnum_hidden=None",
    nipponjo.ContextualAttention: ATTENTION
    + ".0, n_down=2, fuse=False, return_flow=False, device_ids=None",
    nipponjo.Conv2DSpectralNorm: "cnum_in, cnum_out, kernel_size, stride, padding=0, bias=True, "
    "n_iter=1, eps=1e-12",
    nipponjo.DConv: "cnum_in, cnum_out, ksize=5, stride=2, padding='auto'",
    nipponjo.CoarseGenerator: "cnum_in, cnum_out, cnum",
    nipponjo.FineGenerator: "cnum_in, cnum_out, cnum, return_flow=False",
    nipponjo.Generator: "cnum_in=5, cnum_out=3, cnum=48, return_flow=False, checkpoint=None",
    nipponjo.Discriminator: "cnum_in, cnum",
    nipponjo_tf.Generator: "cnum_in=5, cnum=48, return_flow=False, checkpoint=None",
    nipponjo_tf.Discriminator: "cnum_in, cnum",
    nipponjo_tf.GConv: "cnum_in, cnum_out, ksize, stride=1, rate=1, padding='same', "
    "activation=ELU(alpha=1.0)",
    nipponjo_tf.GDeConv: "cnum_in, cnum_out, padding=1",
    nipponjo_tf.ContextualAttention: ATTENTION
    + ".0, n_down=2, fuse=True, return_flow=False, device_ids=None",
    nipponjo_tf.Conv2DSpectralNorm: "cnum_in, cnum_out, kernel_size, stride, padding=0, n_iter=1, "
    "eps=1e-12, bias=True",
    nipponjo_tf.DConv: "cnum_in, cnum_out, ksize=5, stride=2",
    daa233.ContextualAttention: ATTENTION + ", fuse=False, use_cuda=False, device_ids=None",
    daa233.Conv2dBlock: "input_dim, output_dim, kernel_size, stride, padding=0, conv_padding=0, "
    "dilation=1, weight_norm='none', norm='none', activation='relu', pad_type='zero', "
    "transpose=False",
    daa233.Generator: "config, use_cuda, device_ids",
    daa233.CoarseGenerator: "input_dim, cnum, use_cuda=True, device_ids=None",
    daa233.FineGenerator: "input_dim, cnum, use_cuda=True, device_ids=None",
    daa233.LocalDis: "config, use_cuda=True, device_ids=None",
    daa233.GlobalDis: "config, use_cuda=True, device_ids=None",
    daa233.DisConvModule: "input_dim, cnum, use_cuda=True, device_ids=None",
    daa233.gen_conv: "input_dim, output_dim, kernel_size=3, stride=1, padding=0, rate=1, "
    "activation='elu'",
    daa233.dis_conv: "input_dim, output_dim, kernel_size=5, stride=2, padding=0, rate=1, "
    "activation='lrelu'",
    zhaoyuzhi.Conv2dLayer: LAYER + ", pad_type='zero', activation='lrelu', norm='none', sn=False",
    zhaoyuzhi.GatedConv2d: LAYER
    + ", pad_type='reflect', activation='lrelu', norm='none', sn=False",
    zhaoyuzhi.TransposeConv2dLayer: LAYER
    + ", pad_type='zero', activation='lrelu', norm='none', sn=False, scale_factor=2",
    zhaoyuzhi.TransposeGatedConv2d: LAYER
    + ", pad_type='zero', activation='lrelu', norm='none', sn=True, scale_factor=2",
    zhaoyuzhi.LayerNorm: "num_features, eps=1e-08, affine=True",
    zhaoyuzhi.SpectralNorm: "module, name='weight', power_iterations=1",
    zhaoyuzhi.l2normalize: "v, eps=1e-12",
    zhaoyiyan.InnerShiftTriple: "shift_sz=1, stride=1, mask_thred=1, triple_weight=1, "
    "layer_to_last=3, device='gpu'",
    zhaoyiyan.InnerCos: "crit='MSE', strength=1, skip=0, layer_to_last=3, device='gpu'",
    shepnerd.SpectralNorm: "module, name='weight', power_iteration=1",
    shepnerd.ConfidenceDrivenMaskLayer: "size=65, sigma=0.025, iters=7",
    shepnerd.PureUpsampling: "scale=2, mode='bilinear'",
}


@pytest.mark.parametrize("kind", SIGNATURES, ids=lambda k: f"{k.__module__}.{k.__name__}")
def test_signature(kind):
    assert signature(kind) == SIGNATURES[kind]


def test_every_public_class_is_listed():
    modules = (daa233, naoto0804, nipponjo, nipponjo_tf, nvidia, shepnerd, zhaoyiyan, zhaoyuzhi)
    for module in modules:
        for name, kind in vars(module).items():
            own = getattr(kind, "__module__", "").startswith("inpaint_ops.compat.")
            if isinstance(kind, type) and own and not name.startswith("_"):
                internal = name in ("Conv2d", "PortAttention", "ConvMasked2d")
                elsewhere = kind in (shepnerd.IDMRFLoss, shepnerd.VGG19FeatLayer)
                assert internal or elsewhere or kind in SIGNATURES, (module.__name__, name)


WRONG = [
    (nvidia.PartialConv2d, (3, 4, 3, 1, 0, 1, 1, "reflect"), {}, TypeError, "bias must be a bool"),
    (nvidia.PartialConv2d, (3, 4, 3), {"multi_channel": "yes"}, TypeError, "multi_channel"),
    (nvidia.PartialConv2d, (3, 4, 3), {"padding_mode": "reflect"}, ValueError, "padding_mode"),
    (naoto0804.PartialConv, (3, 4, "3"), {}, TypeError, "kernel_size must be an int"),
    (naoto0804.PartialConv, (3, 4, 3, 1, 0, 1, 1, "reflect"), {}, TypeError, "bias"),
    (naoto0804.PCBActiv, (3, 4, "down-3"), {}, TypeError, "bn must be a bool"),
    (naoto0804.PCBActiv, (3, 4), {"activ": nn.ReLU()}, TypeError, "activ must be a str"),
    (naoto0804.PConvUNet, (True,), {}, TypeError, "layer_size must be an int"),
    (naoto0804.weights_init, ("he",), {}, ValueError, "init_type must be one of"),
    (nipponjo.GConv, (3, 4, 3, 1, "reflect"), {}, TypeError, "padding must be an int"),
    (nipponjo.GConv, (3, 4, 3), {"activation": "elu"}, TypeError, "activation must be a module"),
    (nipponjo.GConv, (3, 4, 3), {"activation": nn.ELU}, TypeError, "such as nn.ELU"),
    (nipponjo.GConv, (3, 4, 3), {"activation": None}, TypeError, "activation must be a module"),
    (nipponjo.GConv, (3, 4, 3), {"bias": "reflect"}, TypeError, "bias must be a bool"),
    (nipponjo.ContextualAttention, (5,), {}, ValueError, "ksize must be 3"),
    (nipponjo.ContextualAttention, (), {"stride": 2}, ValueError, "stride must be 1"),
    (nipponjo.ContextualAttention, (), {"fuse": "yes"}, TypeError, "fuse must be a bool"),
    (nipponjo.ContextualAttention, (), {"device_ids": 0}, TypeError, "device_ids must be"),
    (nipponjo.Conv2DSpectralNorm, (3, 4, 3, 1, 0, "zeros"), {}, TypeError, "bias"),
    (nipponjo.DConv, (3, 4, 3, 1, "same"), {}, TypeError, "padding must be an int"),
    (nipponjo_tf.GConv, (3, 4, 3, 1, "same"), {}, TypeError, "rate must be an int"),
    (nipponjo_tf.GConv, (3, 4, 3, 1, 1, None), {}, TypeError, "padding must be"),
    (daa233.ContextualAttention, (), {"use_cuda": "0"}, TypeError, "use_cuda must be a bool"),
    (daa233.Conv2dBlock, (3, 4, 3, 1), {"activation": nn.ELU()}, TypeError, "activation"),
    (daa233.Conv2dBlock, (3, 4, 3, 1), {"norm": "ln"}, ValueError, "norm must be one of"),
    (daa233.gen_conv, (3, 4, 3, 1, "same"), {}, TypeError, "conv_padding must be an int"),
    (zhaoyuzhi.GatedConv2d, (3, 4, 3, 1, 1, 1, True), {}, TypeError, "pad_type must be a str"),
    (zhaoyuzhi.GatedConv2d, (3, 4, 3), {"pad_type": "zeros"}, ValueError, "pad_type must be one"),
    (zhaoyuzhi.GatedConv2d, (3, 4, 3), {"sn": "in"}, TypeError, "sn must be a bool"),
    (zhaoyuzhi.Conv2dLayer, (3, 4, 3), {"activation": None}, TypeError, "activation must be a"),
    (zhaoyuzhi.TransposeGatedConv2d, (3, 4, 3), {"scale_factor": "2"}, TypeError, "scale_factor"),
    (zhaoyuzhi.SpectralNorm, ("conv",), {}, TypeError, "module must be an nn.Module"),
    (zhaoyuzhi.SpectralNorm, (nn.ReLU(),), {}, ValueError, "must have a parameter 'weight'"),
    (zhaoyiyan.InnerShiftTriple, (2,), {}, ValueError, "shift_sz must be odd"),
    (zhaoyiyan.InnerShiftTriple, (), {"device": torch.device("cpu")}, TypeError, "device must be"),
    (zhaoyiyan.InnerShiftTriple, (), {"triple_weight": "1"}, TypeError, "triple_weight"),
    (zhaoyiyan.InnerCos, (1,), {}, TypeError, "crit must be a str"),
    (zhaoyiyan.InnerCos, (), {"skip": "no"}, TypeError, "skip must be a bool"),
    (shepnerd.IDMRFLoss, (nn.Identity(),), {}, TypeError, "featlayer must be a class"),
    (shepnerd.SpectralNorm, (nn.Linear(2, 2),), {"power_iteration": 0}, ValueError, "power_iter"),
    (shepnerd.PureUpsampling, (2.0,), {}, TypeError, "scale must be an int"),
]


@pytest.mark.parametrize(("kind", "args", "options", "error", "text"), WRONG)
def test_wrong_argument_raises(kind, args, options, error, text):
    with pytest.raises(error, match=text):
        kind(*args, **options)
