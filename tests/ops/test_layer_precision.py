"""Dtypes of layers and losses, and scaled training steps of layers."""

import copy

import pytest
import torch
from precision import HALVES, autocast, gap, word
from support import check_close
from torch import nn

from inpaint_ops import layers, losses


class Features(nn.Module):
    """A feature network of one convolution, as layers of a loss want it."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 5, 4)

    def forward(self, x):
        return {"relu3_2": self.conv(x), "relu4_2": self.conv(x)[:, :, 1:]}


class Guided(layers.GuidanceLoss):
    def forward(self, x, hole):
        self.set_target(x.flip(0))
        return super().forward(x, hole)


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


X, PICTURE = draw(2, 4, 16, 16), draw(2, 3, 32, 32)
HOLE = torch.zeros(2, 1, 32, 32)
HOLE[:, :, 8:20, 8:24] = 1
VALID = 1 - HOLE[:, :, ::2, ::2]
OURS, FLOAT32, KEPT = "autocast's", "float32", "of x"
# Layer: how to make it, its inputs, and the dtype of its result under autocast.
LAYERS = {
    "FusedConv2d": (
        lambda: layers.FusedConv2d(4, 6, 3, padding=1, activation="elu"),
        (X,),
        OURS,
    ),
    "GatedConv2d": (lambda: layers.GatedConv2d(4, 6, 3, padding=1), (X,), OURS),
    "PartialConv2d": (
        lambda: layers.PartialConv2d(4, 6, 3, padding=1, return_mask=True),
        (X, VALID),
        OURS,
    ),
    "FusedConvTranspose2d": (lambda: layers.FusedConvTranspose2d(4, 6, 4, 2, 1), (X,), OURS),
    "FusedConvTranspose2d of one pixel": (
        lambda: layers.FusedConvTranspose2d(4, 6, 4),
        (X[..., :1, :1],),
        OURS,
    ),
    "ChannelwiseLinear": (lambda: layers.ChannelwiseLinear(4, (16, 16)), (X,), OURS),
    "InstanceNorm2d": (
        lambda: layers.InstanceNorm2d(4, affine=True, activation="elu"),
        (X, X.flip(0)),
        KEPT,
    ),
    "ContextualAttention": (
        lambda: layers.ContextualAttention(n_down=1, softmax_scale=1.0),
        (X, X.flip(0), HOLE),
        FLOAT32,
    ),
    "ShiftConnection": (layers.ShiftConnection, (X.abs() + 0.1, HOLE), KEPT),
    "GuidanceLoss": (Guided, (X, HOLE), FLOAT32),
    "IDMRFLoss": (lambda: layers.IDMRFLoss(Features()), (PICTURE, PICTURE.flip(0)), FLOAT32),
}


def test_every_layer_is_listed():
    modules = {name for name in layers.__all__ if isinstance(getattr(layers, name), type)}
    assert {name.partition(" ")[0] for name in LAYERS} == modules


def made(name):
    torch.manual_seed(0)
    return LAYERS[name][0]()


def step(layer, inputs, lower=None):
    """The first result, and the gradients of the first input and of the parameters."""
    inputs = [x.detach().clone() for x in inputs]
    inputs[0].requires_grad_()
    with autocast(lower):
        result = layer(*inputs)
    result = result[0] if isinstance(result, tuple) else result
    result.float().square().sum().backward()
    return result.detach(), [inputs[0].grad, *(p.grad for p in layer.parameters())]


SHARE = {torch.float64: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}


# A match of one feature rather than another moves whole vectors.
LEAPS = ("ShiftConnection",)
# Gradients are those of squares, and of choices between matches, on the way back once more.
BACKWARD = {"IDMRFLoss": 16.0, "ContextualAttention": 4.0}


@pytest.mark.parametrize("dtype", [*HALVES, torch.float64], ids=word)
@pytest.mark.parametrize("name", LAYERS)
def test_layers_in_a_dtype(name, dtype):
    layer = made(name)
    expected, gradients = step(copy.deepcopy(layer), LAYERS[name][1])
    layer.to(dtype)
    got, ours = step(layer, [x.to(dtype) for x in LAYERS[name][1]])
    loss = "Loss" in name and dtype != torch.float64
    assert got.dtype == (torch.float32 if loss else dtype)
    assert [g.dtype for g in ours] == [dtype] * len(ours)
    check_step(name, got, ours, expected, gradients, dtype)


def check_step(name, got, ours, expected, gradients, dtype):
    assert all(bool(g.isfinite().all()) for g in ours)
    if name in LEAPS:
        return
    assert gap(got, expected) <= SHARE[dtype]
    factor = BACKWARD.get(name, 2.0)
    for one, other in zip(ours, gradients, strict=True):
        assert gap(one, other) <= factor * SHARE[dtype]


@pytest.mark.parametrize("given", [torch.float32, torch.bfloat16], ids=word)
@pytest.mark.parametrize("dtype", HALVES, ids=word)
@pytest.mark.parametrize("name", LAYERS)
def test_layers_under_autocast(name, dtype, given):
    layer, inputs = made(name), LAYERS[name][1]
    expected, gradients = step(copy.deepcopy(layer), inputs)
    got, ours = step(layer, [inputs[0].to(given), *inputs[1:]], dtype)
    assert got.dtype == {OURS: dtype, FLOAT32: torch.float32, KEPT: given}[LAYERS[name][2]]
    coarsest = torch.bfloat16 if torch.bfloat16 in (dtype, given) else dtype
    assert [p.dtype for p in ours[1:]] == [torch.float32] * (len(ours) - 1)
    check_step(name, got, ours, expected, gradients, coarsest)


def test_layers_refuse_another_dtype_as_torch_does():
    for name in ("FusedConv2d", "GatedConv2d", "PartialConv2d", "FusedConvTranspose2d"):
        with pytest.raises(TypeError, match="must have one dtype"):
            made(name).bfloat16()(*LAYERS[name][1])


A, B = draw(2, 3, 70, 70).sigmoid(), draw(2, 3, 70, 70, seed=1).sigmoid()
MASK = torch.zeros(2, 1, 70, 70)
MASK[:, :, 20:40, 24:44] = 1
LOSSES = {
    "adversarial_term": lambda a, b: losses.adversarial_term(a, True),
    "confidence_l1": lambda a, b: losses.confidence_l1(a, b, MASK, losses.confidence_mask(MASK)),
    "confidence_mask": lambda a, b: losses.confidence_mask(MASK.to(a.dtype)) + 0 * a.float(),
    "discount_mask": lambda a, b: losses.discount_mask(70, 70) + 0 * a.float(),
    "discounted_l1": lambda a, b: losses.discounted_l1(a, b, (4, 4, 20, 20)),
    "discriminator_loss": lambda a, b: losses.discriminator_loss(a, b, "relativistic_average"),
    "feature_matching_loss": lambda a, b: losses.feature_matching_loss([a], [b]),
    "frame_weight": lambda a, b: losses.frame_weight(70, 70) + 0 * a.float(),
    "generator_loss": lambda a, b: losses.generator_loss(a, "lsgan"),
    "gradient_penalty": lambda a, b: losses.gradient_penalty(
        lambda x: x.square().mean((1, 2, 3)) + a.square().mean().to(x.dtype),
        a,
        b,
        MASK,
        generator=torch.Generator().manual_seed(0),
    ),
    "gram_matrix": lambda a, b: losses.gram_matrix(a),
    "l1_loss": lambda a, b: losses.l1_loss(a, b, MASK, per=MASK),
    "l2_loss": lambda a, b: losses.l2_loss(a, b),
    "perceptual_loss": lambda a, b: losses.perceptual_loss([a], [b]),
    "style_loss": lambda a, b: losses.style_loss([a], [b], distance="l2"),
    "total_variation": lambda a, b: losses.total_variation(a, MASK),
}


def test_every_loss_is_listed():
    assert set(LOSSES) == set(losses.__all__)


@pytest.mark.parametrize("loss", LOSSES)
def test_losses_are_formed_in_float32(loss):
    expected = LOSSES[loss](A, B)
    assert expected.dtype == torch.float32
    for dtype in HALVES:
        with autocast(dtype):
            assert torch.equal(LOSSES[loss](A, B), expected)
        half = [x.to(dtype).requires_grad_() for x in (A, B)]
        got = LOSSES[loss](*half)
        assert got.dtype == torch.float32
        check_close(got.detach(), expected.double(), dtype=dtype)
        if got.requires_grad:
            got.sum().backward()
            assert half[0].grad is None or half[0].grad.dtype == dtype
    assert LOSSES[loss](A.double(), B.double()).dtype in (torch.float32, torch.float64)


def test_reduced_holes_do_not_depend_on_autocast():
    hole = (draw(1, 1, 64, 64) > 0).float()
    expected = layers.reduce_hole(hole, (8, 8), "convolution")
    with autocast(torch.bfloat16):
        assert torch.equal(layers.reduce_hole(hole, (8, 8), "convolution"), expected)


SCALED = ["FusedConv2d", "GatedConv2d", "PartialConv2d", "FusedConvTranspose2d", "InstanceNorm2d"]


@pytest.mark.parametrize("name", SCALED)
def test_scaler_skips_steps_with_infinite_gradients(name):
    layer = made(name)
    optimiser = torch.optim.SGD(layer.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**60, growth_interval=1)
    before = [p.detach().clone() for p in layer.parameters()]
    scales = []
    for _ in range(2):
        optimiser.zero_grad()
        with autocast(torch.float16):
            result = layer(*LAYERS[name][1])
        result = result[0] if isinstance(result, tuple) else result
        scaler.scale(result.half().square().mean()).backward()
        scaler.step(optimiser)
        scaler.update(None if scales else 2.0**8)
        moved = [not torch.equal(p, q) for p, q in zip(layer.parameters(), before, strict=True)]
        scales.append(any(moved))
    assert scales == [False, True]
    assert all(bool(p.isfinite().all()) for p in layer.parameters())
