"""id_mrf_loss and its layer: goldens, reference, gradients, contract."""

import json
import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from support import check_close, golden
from torch import nn

import inpaint_ops
from inpaint_ops import IDMRFLoss, id_mrf_loss, reference
from inpaint_ops.ops import native

BACKENDS = ["auto", "reference"]
CASES = ["c00", "c01", "c02", "c03", "c04"]


def inputs(n=2, c=9, size=(6, 5), dtype=torch.float32, seed=0, mix=0.3):
    generator = torch.Generator().manual_seed(seed)
    target = torch.randn(n, c, *size, generator=generator, dtype=torch.float64)
    noise = torch.randn(n, c, *size, generator=generator, dtype=torch.float64)
    return (mix * target + (1 - mix) * noise).to(dtype), target.to(dtype)


def with_gradients(function, generated, target):
    generated, target = generated.detach().requires_grad_(), target.detach().requires_grad_()
    loss = function(generated, target)
    return loss.detach(), *torch.autograd.grad(loss, (generated, target))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["fp32", "fp64"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_golden(case, dtype, backend):
    data = golden("id_mrf_shepnerd")
    generated, target = (data[f"{case}.{name}"].to(dtype) for name in ("gen", "tar"))
    with inpaint_ops.backend(backend):
        loss, *grads = with_gradients(id_mrf_loss, generated, target)
        each = id_mrf_loss(generated, target, reduction="none")
    # Where both maps are nearly equal (c03, c04) the loss is the logarithm of nearly one, so its
    # rounding error is that of one.
    absolute = 1e-6 if dtype == torch.float32 else 1e-9
    assert loss.item() == pytest.approx(data[f"{case}.loss"], rel=1e-5, abs=absolute)
    torch.testing.assert_close(
        each.double(), data[f"{case}.loss_per_image"].double(), rtol=1e-5, atol=absolute
    )
    for grad, name in zip(grads, ("ggen", "gtar")):
        expected = data[f"{case}.{name}"].double()
        if case == "c04" and dtype == torch.float32:
            # Equal maps: cosines one rounding from 1 against an eps of 1e-5.
            assert grad.abs().max() < 1e-3
        else:
            tolerance = 1e-4 if case == "c03" else 1e-5
            scale = max(expected.abs().max().item(), 1e-12)
            assert (grad.double() - expected).abs().max() <= tolerance * max(scale, 1e-7)


@pytest.mark.parametrize("case", CASES)
def test_golden_in_every_instruction_set(case, instruction_set):
    assert native.status().instruction_set == instruction_set
    for dtype in (torch.float32, torch.float64):
        test_golden(case, dtype, "auto")


def test_golden_file_describes_its_cases():
    assert len(json.loads(golden("id_mrf_shepnerd")["cases"])) == len(CASES)


OPTIONS = [{}, {"center": "spatial"}, {"exclude_self": True}]
SHAPES = [(1, 2, (1, 1)), (2, 9, (6, 5)), (1, 33, (7, 19)), (1, 20, (40, 13)), (0, 4, (3, 3))]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("n", "c", "size"), SHAPES, ids=str)
def test_matches_reference(options, backend, n, c, size):
    generated, target = inputs(n, c, size, torch.float64)
    expected = with_gradients(
        lambda g, t: reference.id_mrf_loss(g, t, **options), generated, target
    )
    with inpaint_ops.backend(backend):
        actual = with_gradients(lambda g, t: id_mrf_loss(g, t, **options), generated, target)
        single = with_gradients(
            lambda g, t: id_mrf_loss(g, t, **options), generated.float(), target.float()
        )
    for a, s, e in zip(actual, single, expected):
        check_close(a, e)
        check_close(s, e, terms=64 * 1024)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_every_instruction_set(options, instruction_set):
    assert native.status().instruction_set == instruction_set
    for n, c, size in SHAPES:
        test_matches_reference(options, "auto", n, c, size)


def test_exclude_self_measures_the_nearest_target_by_the_next():
    """Three targets, one generated position: the formula by hand."""
    target = torch.tensor([[1.0, 0.0], [0.8, 0.6], [-1.0, 0.0]], dtype=torch.float64)
    generated = torch.tensor([0.96, 0.28], dtype=torch.float64)
    distance = (1 - target @ generated) / 2
    least = torch.tensor([distance[1], distance[0], distance[0]])  # the first is the nearest
    assert distance.argmin() == 0
    weights = ((1 - distance / (least + 1e-5)) / 0.5).softmax(0)
    # A channel of the opposite sign leaves the mean over channels zero, and cosines as they are.
    t = torch.cat((target, -target), 1).T.reshape(1, 4, 3, 1)
    g = torch.cat((generated, -generated)).reshape(1, 4, 1, 1).expand(1, 4, 3, 1)
    loss = id_mrf_loss(g, t, exclude_self=True)
    torch.testing.assert_close(loss, -weights.mean().log())
    # The nearest one is the winner by more than without.
    assert weights[0] > ((1 - distance / (distance[0] + 1e-5)) / 0.5).softmax(0)[0]


@pytest.mark.parametrize("backend", BACKENDS)
def test_exclude_self_is_finite_where_vectors_meet(backend):
    generated, target = inputs()
    generated[:, :, :3] = target[:, :, :3]
    # Two targets alike: the first is measured by the second, which it equals.
    target[:, :, 0, 1] = target[:, :, 0, 0]
    with inpaint_ops.backend(backend):
        loss, *grads = with_gradients(
            lambda g, t: id_mrf_loss(g, t, exclude_self=True), generated, target
        )
        same = id_mrf_loss(target, target, exclude_self=True)
    assert loss > 0
    assert same >= 0
    assert all(g.isfinite().all() for g in grads)


def test_max_patches_draws_the_same_positions_in_both_maps():
    generated, target = inputs(2, 9, (8, 7), torch.float64)
    value, *grads = with_gradients(
        lambda g, t: id_mrf_loss(g, t, max_patches=20, generator=torch.Generator().manual_seed(3)),
        generated,
        target,
    )
    order = torch.randperm(56, generator=torch.Generator().manual_seed(3))[:20]
    g, t = (x.flatten(2)[:, :, order, None] for x in (generated, target))
    torch.testing.assert_close(value, id_mrf_loss(g, t))
    for grad in grads:
        touched = grad.flatten(2).abs().sum((0, 1)) > 0
        assert not touched[[i for i in range(56) if i not in order.tolist()]].any()
        assert touched[order].any()
    plain = reference.id_mrf_loss(
        generated, target, max_patches=20, generator=torch.Generator().manual_seed(3)
    )
    torch.testing.assert_close(value, plain)
    assert torch.equal(
        id_mrf_loss(generated, target, max_patches=56), id_mrf_loss(generated, target)
    )


def test_options():
    generated, target = inputs(dtype=torch.float64)
    each = id_mrf_loss(generated, target, reduction="none")
    assert each.shape == (2,)
    torch.testing.assert_close(id_mrf_loss(generated, target), each.sum())
    torch.testing.assert_close(id_mrf_loss(generated, target, reduction="mean"), each.mean())
    for options in ({"bandwidth": 0.1}, {"eps": 1e-2}):
        torch.testing.assert_close(
            id_mrf_loss(generated, target, **options),
            reference.id_mrf_loss(generated, target, **options),
        )


@pytest.mark.parametrize("backend", BACKENDS)
def test_degenerate_vectors_are_finite(backend):
    generated, target = inputs()
    generated[:, :, 1] = 0
    target[:, :, 2] = 3
    target[1] = 1
    with inpaint_ops.backend(backend):
        loss, *grads = with_gradients(id_mrf_loss, generated, target)
        same = with_gradients(id_mrf_loss, target, target)
    assert loss.isfinite()
    assert all(g.isfinite().all() for g in grads)
    assert all(x.isfinite().all() for x in same)


def test_not_a_number_shows():
    generated, target = inputs()
    generated[0, 0, 0, 0] = math.nan
    assert id_mrf_loss(generated, target, reduction="none").isnan().tolist() == [True, False]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["fp16", "bf16"])
def test_half_is_formed_in_float32(dtype):
    generated, target = inputs(dtype=dtype)
    loss, *grads = with_gradients(id_mrf_loss, generated, target)
    exact, *expected = with_gradients(reference.id_mrf_loss, generated.double(), target.double())
    assert loss.dtype == torch.float32
    check_close(loss, exact, terms=1024)
    for a, e in zip(grads, expected):
        assert a.dtype == dtype
        check_close(a, e)


@pytest.mark.parametrize("exclude_self", [False, True])
def test_gradcheck(exclude_self):
    generated, target = inputs(2, 3, (3, 2), torch.float64)
    assert torch.autograd.gradcheck(
        lambda g, t: id_mrf_loss(g, t, reduction="none", exclude_self=exclude_self),
        (generated.requires_grad_(), target.requires_grad_()),
    )


@given(seed=st.integers(0, 1000), scale=st.floats(0.1, 10))
def test_properties(seed, scale):
    generated, target = inputs(seed=seed, dtype=torch.float64)
    loss = id_mrf_loss(generated, target, reduction="none")
    assert (loss >= 0).all()
    assert (loss <= math.log(30) + 1e-9).all()
    assert id_mrf_loss(target, target) < 1e-6
    torch.testing.assert_close(id_mrf_loss(generated * scale, target * scale), loss.sum())
    # Where a generated vector lies does not count.
    order = torch.randperm(30, generator=torch.Generator().manual_seed(seed))
    centred = generated - target.mean(1, keepdim=True)
    moved = centred.flatten(2)[:, :, order].view_as(centred) + target.mean(1, keepdim=True)
    torch.testing.assert_close(id_mrf_loss(moved, target), loss.sum())


class Network(nn.Module):
    """Two maps of different size."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 6, 3, stride=2, padding=1)

    def forward(self, x):
        first = self.first(x).relu()
        return {"relu3_2": first, "relu4_2": self.second(first).relu()}


def test_layer():
    torch.manual_seed(0)
    network = Network().requires_grad_(False)
    loss = IDMRFLoss(network)
    x, y = torch.rand(2, 3, 8, 8, requires_grad=True), torch.rand(2, 3, 8, 8)
    made, wanted = network(x), network(y)
    expected = id_mrf_loss(made["relu3_2"], wanted["relu3_2"]) + 2 * id_mrf_loss(
        made["relu4_2"], wanted["relu4_2"]
    )
    value = loss(x, y)
    torch.testing.assert_close(value, expected)
    (grad,) = torch.autograd.grad(value, x)
    assert grad.abs().sum() > 0
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, y), value)
    program = torch.export.export(loss, (x.detach(), y))
    torch.testing.assert_close(program.module()(x.detach(), y), value.detach())
    assert set(loss.state_dict()) == {f"features.{key}" for key in network.state_dict()}

    sampled = IDMRFLoss(network, {"relu3_2": 1.0}, max_patches=20)
    draws = [sampled(x, y, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]
    assert "max_patches=20" in repr(sampled)
    excluding = IDMRFLoss(network, {"relu3_2": 1.0}, exclude_self=True)
    torch.testing.assert_close(
        excluding(x, y), id_mrf_loss(made["relu3_2"], wanted["relu3_2"], exclude_self=True)
    )


def test_golden_of_two_layers():
    data = golden("id_mrf_shepnerd")
    maps = {
        "gen": {"relu3_2": data["c00.gen"], "relu4_2": data["c01.gen"]},
        "tar": {"relu3_2": data["c00.tar"], "relu4_2": data["c01.tar"]},
    }
    loss = IDMRFLoss(lambda x: maps["gen" if x.sum() > 0 else "tar"])
    value = loss(torch.ones(1), torch.zeros(1))
    assert value.item() == pytest.approx(data["full_loss_c00_as_layer3_c01_as_layer4"], rel=1e-5)


def test_autocast_runs_in_float32():
    generated, target = inputs()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = id_mrf_loss(generated.bfloat16(), target)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, id_mrf_loss(generated.bfloat16().float(), target))


X = torch.zeros(2, 4, 5, 3)
BAD_INPUT = [
    ({"target": X[0]}, ValueError, r"target must have shape \(N, C, H, W\)"),
    ({"target": X[..., :2]}, ValueError, "generated and target must have one shape"),
    ({"generated": X[..., :0], "target": X[..., :0]}, ValueError, "generated must have at least"),
    ({"bandwidth": 0}, ValueError, "bandwidth must be more than 0, got 0"),
    ({"eps": 0.0}, ValueError, "eps must be more than 0"),
    ({"center": "batch"}, ValueError, "center must be one of channel, spatial"),
    ({"max_patches": 0}, ValueError, "max_patches must be at least 1, got 0"),
    ({"reduction": "max"}, ValueError, "reduction must be one of sum, mean, none"),
]


@pytest.mark.parametrize(("change", "error", "text"), BAD_INPUT, ids=[b[2][:40] for b in BAD_INPUT])
def test_bad_input(change, error, text):
    with pytest.raises(error, match=f"id_mrf_loss: {text}"):
        id_mrf_loss(**{"generated": X, "target": X, **change})


def test_bad_layer_input():
    with pytest.raises(ValueError, match="max_patches must be at least 1"):
        IDMRFLoss(Network(), max_patches=0)
    with pytest.raises(ValueError, match="reduction must be one of sum, mean"):
        IDMRFLoss(Network(), reduction="none")
    with pytest.raises(KeyError, match="relu9"):
        IDMRFLoss(Network(), {"relu9": 1.0})(torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 8))
