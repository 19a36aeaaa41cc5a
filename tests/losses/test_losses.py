"""Training losses: goldens of public code, formulas, masks, gradients, errors."""

import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from networks import toy_features
from support import check_close, golden
from torch import nn

from inpaint_ops import losses


def images(*shape, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(*shape, generator=generator, dtype=dtype) for _ in range(2)]


def box_hole(n, h, w):
    hole = torch.zeros(n, 1, h, w)
    for i in range(n):
        hole[i, :, 2 : 6 + i, 3 : 9 - i] = 1
    return hole


@pytest.fixture(scope="module")
def pconv():
    return golden("pconv_losses_naoto0804")


def pconv_terms(data):
    gt, out, valid = data["gt"], data["out"], data["mask"]
    composited = torch.where(valid != 0, data["input"], out)
    wanted, made, mixed = (toy_features(x) for x in (gt, out, composited))
    return {
        "hole": losses.l1_loss(out, gt, 1 - valid),
        "valid": losses.l1_loss(out, gt, valid),
        "prc": losses.perceptual_loss(made, wanted) + losses.perceptual_loss(mixed, wanted),
        "style": losses.style_loss(made, wanted) + losses.style_loss(mixed, wanted),
        "tv": losses.total_variation(composited),
    }


def test_golden_pconv_losses(pconv):
    data = dict(pconv, out=pconv["out"].clone().requires_grad_())
    weights = json.loads(str(np.asarray(data["recipe"])))["weights"]
    terms = pconv_terms(data)
    for name, value in terms.items():
        check_close(value.detach(), torch.tensor(data[f"loss_{name}"]), terms=4096)
    total = sum(weights[name] * value for name, value in terms.items())
    check_close(total.detach(), torch.tensor(data["total"]), terms=4096)
    check_close(torch.autograd.grad(total, data["out"])[0], data["gout_total"], terms=4096)
    check_close(losses.gram_matrix(data["gt"]), data["gram_gt"], terms=1280)


def test_golden_edge_connect_adversarial():
    data = golden("edgeconnect_adversarial_loss")
    logits = data["logits"]
    kinds = {"nsgan": ("log", {}), "lsgan": ("lsgan", {"sigmoid": True}), "hinge": ("hinge", {})}
    for name, (kind, options) in kinds.items():
        for label, real in (("real", True), ("fake", False)):
            term = losses.adversarial_term(logits, real, kind, **options)
            check_close(term, torch.tensor(data[f"{name}_d_{label}"]), terms=72)
        value = losses.generator_loss(logits, kind, **options)
        check_close(value, torch.tensor(data[f"{name}_g"]), terms=72)


def test_golden_gmcnn_confidence_mask():
    data = golden("gmcnn_confidence_mask")
    for count in (1, 2, 7):
        result = losses.confidence_mask(data["mask"], iterations=count)
        check_close(result, data[f"iter{count}"], terms=65 * 65)


def test_l1_and_l2_by_hand():
    a, b = images(2, 3, 8, 10)
    hole = box_hole(2, 8, 10)
    d = (a - b).double()
    check_close(losses.l1_loss(a, b), d.abs().mean())
    check_close(losses.l2_loss(a, b), d.square().mean())
    inside = hole.expand_as(d) != 0
    check_close(losses.l1_loss(a, b, hole), d[inside].abs().sum() / d.numel())
    check_close(losses.l1_loss(a, b, hole, per=hole), d[inside].abs().mean())
    check_close(losses.l1_loss(a, b, hole.bool(), per=hole.bool()), d[inside].abs().mean())
    check_close(losses.l1_loss(a, b, per=hole), d.abs().mean() / hole.double().mean())
    check_close(losses.l2_loss(a, b, 3 * hole), 3 * d[inside].square().sum() / d.numel())


def test_an_empty_divisor_keeps_the_loss_finite():
    a, b = images(1, 3, 8, 8)
    empty = torch.zeros(1, 1, 8, 8)
    assert losses.l1_loss(a, b, empty, per=empty) == 0
    assert losses.l1_loss(a, b, per=empty).isfinite()


@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_what_a_mask_leaves_out_is_never_read(poison):
    a, b = images(2, 3, 8, 10)
    hole = box_hole(2, 8, 10)
    valid = 1 - hole
    bad = torch.where(hole != 0, poison, a).requires_grad_()
    clean = torch.where(hole != 0, 0.0, a).requires_grad_()
    for loss in (losses.l1_loss, losses.l2_loss):
        values = [loss(x, b, valid, per=valid) for x in (bad, clean)]
        grads = [torch.autograd.grad(v, x)[0] for v, x in zip(values, (bad, clean))]
        assert values[0] == values[1]
        assert torch.equal(*grads)
    outside = torch.where(F.max_pool2d(hole, 3, 1, 1) != 0, a, poison)
    for rule in ("hole", "masked", "dilated"):
        assert losses.total_variation(outside, hole, rule=rule).isfinite()


def test_frame_weight():
    weight = losses.frame_weight(8, 10, border=2, value=5)
    assert weight.shape == (1, 1, 8, 10)
    assert (weight[..., 2:6, 2:8] == 1).all()
    assert weight.sum() == 24 + 5 * (80 - 24)
    assert (losses.frame_weight(4, 4, border=0) == 1).all()


def test_discount_mask_facts():
    mask = losses.discount_mask(128, 128)[0, 0].double()
    assert mask[0, 5] == mask[5, 0] == 1
    check_close(mask[-1, 64].float(), torch.tensor(0.9))
    check_close(mask[64, 64].float(), torch.tensor(0.9**64), terms=4096)
    # The sheet's mean has four digits.
    assert round(mask.mean().item(), 4) == 0.2529
    i, j = 37, 100
    check_close(mask[i, j].float(), torch.tensor(0.9 ** (128 - j)), terms=4096)
    assert (losses.discount_mask(5, 9, gamma=1.0) == 1).all()


def test_discounted_l1():
    a, b = images(2, 3, 20, 24)
    result = losses.discounted_l1(a, b, (3, 4, 10, 12), gamma=0.8)
    weight = losses.discount_mask(10, 12, gamma=0.8).double()
    expected = ((a - b).double().abs()[..., 3:13, 4:16] * weight).mean()
    check_close(result, expected)


def test_confidence_mask():
    hole = torch.zeros(2, 1, 96, 96)
    hole[0, :, 10:86, 10:86] = 1
    hole[1] = 1
    for options in ({}, {"size": 64, "padding": "zeros"}, {"size": 33, "deviation": 8.0}):
        c = losses.confidence_mask(hole, **options)
        assert not c[0][hole[0] == 0].any()
        assert c[0][hole[0] != 0].min() >= 0
        assert not c[1].any()
        # One blur does not reach the middle; more blurs do.
        first = losses.confidence_mask(hole, **options, iterations=1)
        assert (first[0, 0, 10, 10:86] > first[0, 0, 48, 48]).all()
        assert c[0, 0, 48, 48] > 0
    # Blurred once by a filter that sums to one, what is known counts as the share seen.
    once = losses.confidence_mask(hole[:1], iterations=1, size=3, deviation=1e6)
    expected = F.avg_pool2d(1 - hole[:1], 3, 1, 1) * hole[:1]
    check_close(once, expected.double(), terms=64 * 16)


def test_confidence_l1():
    a, b = images(1, 3, 40, 40)
    hole = torch.zeros(1, 1, 40, 40)
    hole[..., 10:30, 10:30] = 1
    c = losses.confidence_mask(hole)
    expected = ((a - b).abs() * c).double().mean() / hole.mean()
    check_close(losses.confidence_l1(a, b, hole, c), expected)


def test_total_variation_rules_by_hand():
    x = images(2, 2, 9, 11)[0]
    hole = box_hole(2, 9, 11)
    dv, dh = x[:, :, 1:] - x[:, :, :-1], x[..., 1:] - x[..., :-1]
    check_close(losses.total_variation(x), (dv.abs().mean() + dh.abs().mean()).double())
    whole = losses.total_variation(x, hole, rule="whole", power=2, reduction="sum")
    check_close(whole, (dv.square().sum() + dh.square().sum()).double(), terms=396)
    grown = F.max_pool2d(hole, 3, 1, 1)
    both = (dv.abs() * grown[:, :, 1:] * grown[:, :, :-1]).sum()
    both = both + (dh.abs() * grown[..., 1:] * grown[..., :-1]).sum()
    check_close(losses.total_variation(x, hole), (both / x.numel()).double(), terms=396)
    first = (dv.abs() * hole[:, :, :-1]).sum() / (2 * hole[:, :, :-1].sum())
    first = first + (dh.abs() * hole[..., :-1]).sum() / (2 * hole[..., :-1].sum())
    check_close(losses.total_variation(x, hole, rule="hole"), first.double(), terms=396)
    masked = losses.total_variation(x * grown)
    check_close(losses.total_variation(x, hole, rule="masked"), masked.double())


def test_total_variation_degenerate():
    assert losses.total_variation(torch.ones(1, 3, 1, 1)) == 0
    x = images(1, 3, 6, 6)[0]
    empty = torch.zeros(1, 1, 6, 6)
    for rule in ("dilated", "hole", "masked"):
        assert losses.total_variation(x, empty, rule=rule) == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_gram_matrix_survives_large_half_precision(dtype):
    x = torch.full((1, 4, 64, 64), 3e4, dtype=dtype)
    x = x.contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        gram = losses.gram_matrix(x)
    assert gram.dtype == torch.float32
    check_close(gram, torch.full((1, 4, 4), x.double().mean().item() ** 2 / 4), terms=4096)


def test_feature_losses_select_layers_and_detach():
    made = {"a": images(1, 2, 3, 3)[0].requires_grad_(), "b": torch.ones(1, 2, 3, 3)}
    wanted = {"a": images(1, 2, 3, 3)[1].requires_grad_(), "b": torch.zeros(1, 2, 3, 3)}
    error = (made["a"] - wanted["a"]).detach().double()
    both = losses.perceptual_loss(made, wanted, weights={"a": 2.0})
    check_close(both.detach(), 2 * error.abs().mean())
    squares = losses.perceptual_loss(made, wanted, distance="l2")
    check_close(squares.detach(), error.square().mean() + 1)
    grams = [losses.gram_matrix(m["a"].detach().double()) for m in (made, wanted)]
    style = losses.style_loss(made, wanted, weights={"a": 1.0}, distance="l2")
    check_close(style.detach(), (grams[0] - grams[1]).square().mean(), terms=640)
    (both + style).backward()
    assert made["a"].grad is not None
    assert wanted["a"].grad is None


def test_feature_matching():
    fake, real = ([x, 2 * x] for x in images(2, 3, 4, 4))
    expected = 3 * (fake[0] - real[0]).abs().mean()
    check_close(losses.feature_matching_loss(fake, real), expected.double())


KINDS = ["log", "saturating", "lsgan", "hinge", "wgan", "relativistic", "relativistic_average"]


@pytest.mark.parametrize("kind", KINDS)
def test_adversarial_losses_pull_the_right_way(kind):
    # Between 0 and 1, where least squares have one direction too.
    real, fake = (x.sigmoid().requires_grad_() for x in images(6, 1))
    critic = losses.discriminator_loss(real, fake, kind)
    grad_real, grad_fake = torch.autograd.grad(critic, (real, fake))
    assert (grad_real <= 0).all()
    assert (grad_fake >= 0).all()
    leaves = {"real": real} if kind.startswith("rel") else {}
    (grad,) = torch.autograd.grad(losses.generator_loss(fake, kind, **leaves), fake)
    assert (grad < 0).all()


def test_adversarial_formulas():
    real, fake = images(5, 1, dtype=torch.float64)
    s = torch.sigmoid
    by_hand = {
        "log": -(s(real).log().mean() + (1 - s(fake)).log().mean()),
        "lsgan": (real - 1).square().mean() + fake.square().mean(),
        "hinge": F.relu(1 - real).mean() + F.relu(1 + fake).mean(),
        "wgan": fake.mean() - real.mean(),
        "relativistic": -s(real - fake).log().mean(),
        "relativistic_average": -(
            s(real - fake.mean()).log().mean() + (1 - s(fake - real.mean())).log().mean()
        ),
    }
    for kind, expected in by_hand.items():
        check_close(losses.discriminator_loss(real, fake, kind), expected)
    check_close(losses.generator_loss(fake, "saturating"), (1 - s(fake)).log().mean())
    check_close(losses.generator_loss(fake), -s(fake).log().mean())
    swapped = losses.discriminator_loss(fake, real, "relativistic_average")
    check_close(losses.generator_loss(fake, "relativistic_average", real=real), swapped)


def test_log_losses_of_extreme_logits_are_finite():
    logits = torch.tensor([1e4, -1e4])
    for kind in ("log", "saturating"):
        assert losses.discriminator_loss(logits, logits, kind).isfinite()
        assert losses.generator_loss(logits, kind).isfinite()


def test_gradient_penalty_of_a_linear_critic():
    """The gradient of <w, x> is w wherever it is taken, so the penalty is known."""
    w = images(1, 3, 6, 6, dtype=torch.float64)[0].requires_grad_()
    real, fake = images(4, 3, 6, 6, seed=1, dtype=torch.float64)
    hole = torch.zeros(4, 1, 6, 6)
    hole[..., 2:4, 1:5] = 1

    def critic(x):
        return (x * w).sum((1, 2, 3))

    check_close(losses.gradient_penalty(critic, real, fake).detach(), (w.norm() - 1).square())
    result = losses.gradient_penalty(critic, real, fake, hole)
    check_close(result.detach(), ((w * hole[:1]).norm() - 1).square())
    (grad,) = torch.autograd.grad(result, w)
    assert grad.abs().sum() > 0
    assert not grad[:, :, hole[0, 0] == 0].any()


def test_gradient_penalty_of_a_network():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(64, 1))
    real, fake = images(3, 3, 6, 6)
    results = [
        losses.gradient_penalty(net, real, fake, generator=torch.Generator().manual_seed(seed))
        for seed in (0, 0, 1)
    ]
    assert results[0] == results[1] != results[2]
    results[0].backward()
    assert all(
        p.grad is not None and p.grad.isfinite().all() for p in net[3:].parameters() if p.dim() > 1
    )
    with torch.no_grad():
        assert losses.gradient_penalty(net, real, fake) > 0


def test_gradient_penalty_without_slope_is_finite():
    net = nn.Conv2d(3, 1, 3)
    nn.init.zeros_(net.weight)
    value = losses.gradient_penalty(net, *images(2, 3, 6, 6))
    value.backward()
    assert value == 1
    assert net.weight.grad.isfinite().all()


A, B = torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8)
ERRORS = {
    "type": (TypeError, lambda: losses.l1_loss([1], A)),
    "dtype": (TypeError, lambda: losses.l1_loss(A.long(), A.long())),
    "shape": (ValueError, lambda: losses.l2_loss(A, A[:, :2])),
    "weight": (ValueError, lambda: losses.l1_loss(A, B, torch.ones(1, 1, 7, 8))),
    "weight dtype": (TypeError, lambda: losses.l1_loss(A, B, torch.ones(1, 1, 8, 8).long())),
    "frame": (ValueError, lambda: losses.frame_weight(0, 4)),
    "gamma": (ValueError, lambda: losses.discount_mask(4, 4, gamma=1.5)),
    "box": (ValueError, lambda: losses.discounted_l1(A, B, (4, 0, 5, 8))),
    "confidence size": (ValueError, lambda: losses.confidence_mask(A[:, :1])),
    "confidence shape": (ValueError, lambda: losses.confidence_mask(A)),
    "confidence sigma": (
        ValueError,
        lambda: losses.confidence_mask(torch.ones(1, 1, 64, 64), sigma=0.0),
    ),
    "tv rule": (ValueError, lambda: losses.total_variation(A, rule="near")),
    "tv power": (ValueError, lambda: losses.total_variation(A, power=3)),
    "tv hole": (ValueError, lambda: losses.total_variation(A, torch.ones(1, 3, 8, 8))),
    "layers": (ValueError, lambda: losses.perceptual_loss([A], [A, B])),
    "no layers": (ValueError, lambda: losses.style_loss([], [])),
    "mixed": (TypeError, lambda: losses.style_loss({"a": A}, [A])),
    "missing layer": (KeyError, lambda: losses.style_loss({"a": A}, {"a": A}, weights={"b": 1.0})),
    "distance": (ValueError, lambda: losses.perceptual_loss([A], [A], distance="l3")),
    "kind": (ValueError, lambda: losses.adversarial_term(A, True, "relativistic")),
    "no real": (ValueError, lambda: losses.generator_loss(A, "relativistic")),
    "penalty": (ValueError, lambda: losses.gradient_penalty(nn.Identity(), A, A[:, :1])),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors(case):
    kind, call = ERRORS[case]
    with pytest.raises(kind):
        call()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_dtypes(dtype):
    a, b = (x.to(dtype) for x in images(1, 3, 8, 8))
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    hole = box_hole(1, 8, 8)
    results = [
        losses.l1_loss(a, b, hole, per=hole),
        losses.l2_loss(a, b),
        losses.total_variation(a, hole),
        losses.perceptual_loss([a], [b]),
        losses.style_loss([a], [b]),
        losses.discriminator_loss(a, b),
        losses.generator_loss(a, "hinge"),
    ]
    assert all(x.dtype == wide and x.isfinite() for x in results)
