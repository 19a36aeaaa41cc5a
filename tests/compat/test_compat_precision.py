"""Classes of the public ports in half and double precision and under autocast."""

import copy

import pytest
import torch
from compat.agreement import randomised
from compat.test_signatures import SIGNATURES
from precision import HALVES, autocast, gap, word
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


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


X, PICTURE = draw(2, 4, 16, 16), draw(2, 3, 32, 32)
HOLE = torch.zeros(2, 1, 32, 32)
HOLE[..., 8:20, 8:24] = 1
MASK = (draw(2, 1, 16, 16, seed=1) > -0.8).float().expand(2, 4, 16, 16).contiguous()
SEEN = torch.cat([PICTURE, torch.ones_like(HOLE), HOLE], 1)
FEATURES, LARGE = X.relu() + 0.1, torch.zeros(1, 1, 64, 64)
LARGE[..., 16:40, 16:32] = 1
DAA = {"input_dim": 3, "ngf": 8, "ndf": 4}


def with_mask(layer):
    mask = torch.zeros(2, 1, 128, 128, dtype=torch.bool)
    mask[..., 32:64, 32:80] = True
    layer.set_mask(mask)
    return layer


def attention(port, **options):
    return lambda: port.ContextualAttention(rate=2, softmax_scale=1.0, n_down=1, **options)


# How to make it, and its inputs.
CLASSES = {
    nvidia.PartialConv2d: (
        lambda: nvidia.PartialConv2d(4, 6, 3, padding=1, multi_channel=True, return_mask=True),
        (X, MASK),
    ),
    naoto0804.PartialConv: (lambda: naoto0804.PartialConv(4, 6, 3, padding=1), (X, MASK)),
    naoto0804.PCBActiv: (lambda: naoto0804.PCBActiv(4, 6, sample="down-5"), (X, MASK)),
    naoto0804.PConvUNet: (
        lambda: naoto0804.PConvUNet(layer_size=3),
        (PICTURE, (1 - HOLE).expand(2, 3, 32, 32)),
    ),
    nipponjo.GConv: (lambda: nipponjo.GConv(4, 6, 3), (X,)),
    nipponjo.GDeConv: (lambda: nipponjo.GDeConv(4, 6), (X,)),
    nipponjo.GDownsamplingBlock: (lambda: nipponjo.GDownsamplingBlock(4, 6), (X,)),
    nipponjo.GUpsamplingBlock: (lambda: nipponjo.GUpsamplingBlock(4, 6), (X,)),
    nipponjo.ContextualAttention: (attention(nipponjo), (X, X.flip(0), HOLE)),
    nipponjo.Conv2DSpectralNorm: (lambda: nipponjo.Conv2DSpectralNorm(4, 6, 3, 1, 1), (X,)),
    nipponjo.DConv: (lambda: nipponjo.DConv(4, 6), (X,)),
    nipponjo.CoarseGenerator: (lambda: nipponjo.CoarseGenerator(5, 3, 8), (SEEN,)),
    nipponjo.FineGenerator: (lambda: nipponjo.FineGenerator(3, 3, 8), (PICTURE, HOLE)),
    nipponjo.Generator: (lambda: nipponjo.Generator(cnum=8), (SEEN, HOLE)),
    nipponjo.Discriminator: (lambda: nipponjo.Discriminator(5, 4), (SEEN,)),
    nipponjo_tf.Generator: (lambda: nipponjo_tf.Generator(cnum=8), (SEEN, HOLE)),
    nipponjo_tf.Discriminator: (lambda: nipponjo_tf.Discriminator(5, 4), (SEEN,)),
    nipponjo_tf.GConv: (lambda: nipponjo_tf.GConv(4, 6, 3), (X,)),
    nipponjo_tf.GDeConv: (lambda: nipponjo_tf.GDeConv(4, 6), (X,)),
    nipponjo_tf.ContextualAttention: (attention(nipponjo_tf, fuse=False), (X, X.flip(0), HOLE)),
    nipponjo_tf.Conv2DSpectralNorm: (lambda: nipponjo_tf.Conv2DSpectralNorm(4, 6, 3, 1, 1), (X,)),
    nipponjo_tf.DConv: (lambda: nipponjo_tf.DConv(4, 6), (X,)),
    daa233.ContextualAttention: (
        lambda: daa233.ContextualAttention(rate=2, softmax_scale=1.0),
        (X, X.flip(0), LARGE),
    ),
    daa233.Conv2dBlock: (
        lambda: daa233.Conv2dBlock(4, 6, 3, 1, 1, activation="elu", norm="in", weight_norm="sn"),
        (X,),
    ),
    daa233.Generator: (lambda: daa233.Generator(DAA, False, None), (PICTURE, HOLE)),
    daa233.CoarseGenerator: (lambda: daa233.CoarseGenerator(3, 8, False), (PICTURE, HOLE)),
    daa233.FineGenerator: (
        lambda: daa233.FineGenerator(3, 8, False),
        (PICTURE, PICTURE.flip(0), HOLE),
    ),
    daa233.LocalDis: (lambda: daa233.LocalDis(DAA, False), (draw(1, 3, 128, 128),)),
    daa233.GlobalDis: (lambda: daa233.GlobalDis(DAA, False), (draw(1, 3, 256, 256),)),
    daa233.DisConvModule: (lambda: daa233.DisConvModule(3, 4, False), (PICTURE,)),
    zhaoyuzhi.Conv2dLayer: (
        lambda: zhaoyuzhi.Conv2dLayer(4, 6, 3, 1, 1, norm="ln", sn=True),
        (X,),
    ),
    zhaoyuzhi.GatedConv2d: (
        lambda: zhaoyuzhi.GatedConv2d(4, 6, 3, 1, 1, norm="in", sn=True),
        (X,),
    ),
    zhaoyuzhi.TransposeConv2dLayer: (
        lambda: zhaoyuzhi.TransposeConv2dLayer(4, 6, 3, 1, 1, norm="bn"),
        (X,),
    ),
    zhaoyuzhi.TransposeGatedConv2d: (lambda: zhaoyuzhi.TransposeGatedConv2d(4, 6, 3, 1, 1), (X,)),
    zhaoyuzhi.LayerNorm: (lambda: zhaoyuzhi.LayerNorm(4), (X,)),
    zhaoyuzhi.SpectralNorm: (
        lambda: zhaoyuzhi.SpectralNorm(nn.Conv2d(4, 6, 3, padding=1)),
        (X,),
    ),
    zhaoyiyan.InnerShiftTriple: (lambda: with_mask(zhaoyiyan.InnerShiftTriple()), (FEATURES,)),
    zhaoyiyan.InnerCos: (lambda: with_mask(zhaoyiyan.InnerCos()), (FEATURES,)),
    shepnerd.SpectralNorm: (lambda: shepnerd.SpectralNorm(nn.Linear(16, 3)), (X,)),
    shepnerd.ConfidenceDrivenMaskLayer: (
        lambda: shepnerd.ConfidenceDrivenMaskLayer(9, iters=3),
        (HOLE,),
    ),
    shepnerd.PureUpsampling: (shepnerd.PureUpsampling, (X,)),
}
SHARE = {torch.float16: 5e-3, torch.bfloat16: 4e-2, torch.float64: 1e-4}
# A match of one feature rather than another moves whole vectors.
LEAPS = (zhaoyiyan.InnerShiftTriple,)


def name_of(kind):
    return f"{kind.__module__.rpartition('compat.')[2]}.{kind.__name__}"


def test_every_class_is_listed():
    missing = {kind for kind in SIGNATURES if isinstance(kind, type)} - set(CLASSES)
    assert not missing, missing


def run(layer, inputs, lower=None):
    inputs = [x.detach().clone() for x in inputs]
    if inputs[0].is_floating_point():
        inputs[0].requires_grad_()
    with autocast(lower):
        results = layer(*inputs)
    results = list(results) if isinstance(results, tuple) else [results]
    leaves = [t for t in results if t is not None and t.requires_grad]
    if leaves:
        sum(t.float().square().mean() for t in leaves).backward()
    gradients = [inputs[0].grad, *(p.grad for p in layer.parameters())]
    return results[0].detach(), [g for g in gradients if g is not None]


def check(kind, got, gradients, expected, dtype):
    assert all(bool(g.isfinite().all()) for g in gradients)
    if kind not in LEAPS:
        assert gap(got, expected) <= SHARE[dtype]


@pytest.mark.parametrize("kind", CLASSES, ids=name_of)
def test_in_every_dtype_and_under_autocast(kind):
    torch.manual_seed(0)
    make, inputs = CLASSES[kind]
    layer = randomised(make())
    expected, gradients = run(copy.deepcopy(layer), inputs)
    for dtype in (*HALVES, torch.float64):
        other = copy.deepcopy(layer).to(dtype)
        got, ours = run(other, [x.to(dtype) for x in inputs])
        assert got.dtype == dtype, word(dtype)
        check(kind, got, ours, expected, dtype)
        assert {g.dtype for g in ours} <= {dtype}
    for dtype in HALVES:
        got, ours = run(copy.deepcopy(layer), inputs, dtype)
        assert got.dtype in (dtype, torch.float32), word(dtype)
        check(kind, got, ours, expected, dtype)
        assert len(ours) == len(gradients)
        assert {g.dtype for g in ours} <= {torch.float32}
