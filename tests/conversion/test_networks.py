"""Networks as public ports build them: equal before and after, in all that training needs."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn

import inpaint_ops
from inpaint_ops.benchmarks.cases.port_networks import NAMES, EdgeConnect, build
from inpaint_ops.conversion.sample import model_difference
from inpaint_ops.losses import gradient_penalty

_SIZES = {"gmcnn": 200, "shift_net": 64}
# Layers that our operators run, of those that are recognised.
_COUNTS = {
    "deepfill_v2": 43,
    "partial_conv_unet": 8,
    "glcic": 17,
    "edge_connect": 43,
    "gmcnn": 44,
    "shift_net": 22,
}

# Of whole networks: one ReLU whose sum rounds to the other side of zero is one pixel of a gradient
# of a few hundred. Layers are held to 2e-4 by `convert` itself.
_CLOSE = 3e-2


def _built(name):
    large = name == "gmcnn"  # its reflection padding asks for 193 pixels
    return build(name, width=4 if large else 8, size=_SIZES.get(name, 48), n=1 if large else 2)


def _tensors(result):
    return list(result) if isinstance(result, tuple) else [result]


def _step(net, args, optimiser=None):
    """Results and gradients of one step."""
    parameters = [p for p in net.parameters() if p.requires_grad]
    for p in parameters:
        p.grad = None
    results = _tensors(net(*args))
    sum(t.square().mean() for t in results if t.requires_grad).backward()
    if optimiser is not None:
        optimiser.step()
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    return [t.detach() for t in results], grads


@pytest.mark.parametrize("name", NAMES)
def test_results_gradients_and_steps(name):
    net, args = _built(name)
    net.train()
    plain = copy.deepcopy(net)
    keys, parameters = list(net.state_dict()), [id(p) for p in net.parameters()]
    report = inpaint_ops.convert(net)
    assert len(report.converted) == _COUNTS[name], str(report)
    assert list(net.state_dict()) == keys
    assert [id(p) for p in net.parameters()] == parameters
    optimisers = [torch.optim.SGD(n.parameters(), lr=1e-3) for n in (net, plain)]
    for _ in range(2):
        ours, theirs = (_step(n, args, o) for n, o in zip((net, plain), optimisers, strict=True))
        assert [t.shape for t in ours[0]] == [t.shape for t in theirs[0]]
        assert [t.stride() for t in ours[0]] == [t.stride() for t in theirs[0]]
        assert model_difference(ours, theirs) < _CLOSE
    for a, b in zip(net.state_dict().values(), plain.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_evaluation_copies_and_reversion(name):
    net, args = _built(name)
    net.eval()
    with torch.no_grad():
        before = _tensors(net(*args))
        types = [type(m) for m in net.modules()]
        states = [set(m.__dict__) for m in net.modules()]
        inpaint_ops.convert(net)
        ours = _tensors(net(*args))
        copied = _tensors(copy.deepcopy(net)(*args))
        stored = io.BytesIO()
        torch.save(net, stored)
        stored.seek(0)
        loaded = torch.load(stored, weights_only=False)
        again = _tensors(loaded(*args))
        inpaint_ops.revert(net)
        after = _tensors(net(*args))
    for a, b, c, d, e in zip(before, ours, copied, again, after, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-3, atol=1e-4)
        assert torch.equal(c, b)
        assert torch.equal(d, b)
        assert torch.equal(e, a)
    assert [type(m) for m in net.modules()] == types
    assert [set(m.__dict__) for m in net.modules()] == states
    inpaint_ops.revert(loaded)
    with torch.no_grad():
        assert all(map(torch.equal, _tensors(loaded(*args)), before))
    pickle.loads(pickle.dumps(loaded))


@pytest.mark.parametrize("name", ["deepfill_v2", "partial_conv_unet", "edge_connect"])
@pytest.mark.parametrize("train", [True, False])
def test_sample(name, train):
    net, args = _built(name)
    net.train(train)
    state = {k: v.clone() for k, v in net.state_dict().items()}
    random = torch.get_rng_state()
    report = inpaint_ops.convert(net, args, keep="equal")
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(v, state[k]) for k, v in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters())
    assert len(report.converted) == _COUNTS[name], str(report)
    assert report.difference < _CLOSE
    assert report.speed_up > 0
    assert all(row.difference < 2e-4 for row in report.rows)
    text = str(report)
    assert text.splitlines()[0].split()[:3] == ["layer", "became", "difference"]
    assert f"{_COUNTS[name]} of {_COUNTS[name]} converted" in text


def test_a_chain_that_is_not_faster_is_left_alone(monkeypatch):
    net, args = _built("glcic")
    net.eval()
    from inpaint_ops.conversion import sample

    monkeypatch.setattr(sample, "speed_up", lambda *a, **k: 0.5)
    report = inpaint_ops.convert(net, args)
    assert not report.converted
    assert {row.reason.split(": ")[-1] for row in report.rows} == {"not faster"}
    with torch.no_grad():
        plain, _ = _built("glcic")
        assert torch.equal(net(*args), plain.eval()(*args))


def test_a_model_that_differs_is_left_alone(monkeypatch):
    from inpaint_ops.conversion import converter

    monkeypatch.setattr(converter, "model_difference", lambda *a: 1.0)
    monkeypatch.setattr(converter, "_within_rounding", lambda *a: False)
    net, args = _built("glcic")
    types = [type(m) for m in net.modules()]
    report = inpaint_ops.convert(net, args, keep="equal")
    assert not report.converted
    assert "whole model" in report.reason
    assert [type(m) for m in net.modules()] == types


def test_spectral_norm_in_hooks():
    torch.manual_seed(0)
    net = EdgeConnect(8, spectral=True, blocks=1)
    plain = copy.deepcopy(net)
    inpaint_ops.convert(net)
    x = torch.randn(1, 4, 32, 32)
    for train in (True, True, False):
        net.train(train)
        plain.train(train)
        assert model_difference(_step(net, (x,)), _step(plain, (x,))) < _CLOSE
    for (key, a), b in zip(net.state_dict().items(), plain.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, msg=key)


def test_a_state_dict_goes_both_ways():
    net, args = _built("glcic")
    other, _ = build("glcic", width=8, size=48)
    with torch.no_grad():
        for p in other.parameters():
            p.mul_(1.1)
    inpaint_ops.convert(net)
    net.eval()
    other.eval()
    net.load_state_dict(other.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(net(*args), other(*args), rtol=1e-4, atol=1e-5)
        nn.Module.load_state_dict(other, net.state_dict())


def test_a_start_that_does_not_pay_is_left_out(monkeypatch):
    from inpaint_ops.conversion import verification

    measure = verification.Verifier.measure

    def slow(self, module, record, key, seen):
        found = measure(self, module, record, key, seen)
        return found._replace(speed_up=0.5 if key.padding_mode else 2.0)

    monkeypatch.setattr(verification.Verifier, "measure", slow)
    layers = nn.ReflectionPad2d(1), nn.Conv2d(4, 6, 3), nn.ReLU(), nn.ReflectionPad2d(1)
    net = nn.Sequential(*layers, nn.Conv2d(6, 4, 3)).eval()
    plain, x = copy.deepcopy(net), torch.randn(1, 4, 9, 9)
    monkeypatch.setattr("inpaint_ops.conversion.converter.speed_up", lambda *a, **k: 2.0)
    report = inpaint_ops.convert(net, x)
    assert [row.became for row in report.rows] == ["conv2d + relu", "conv2d"]
    assert all("reflect pad" in row.reason for row in report.rows)
    with torch.no_grad():
        torch.testing.assert_close(net(x), plain(x), rtol=1e-4, atol=1e-5)


def test_a_critic_with_a_gradient_penalty():
    torch.manual_seed(0)
    critic = nn.Sequential(
        nn.Conv2d(3, 8, 5, 2, 2),
        nn.LeakyReLU(0.2),
        nn.Conv2d(8, 16, 5, 2, 2),
        nn.ELU(),
        nn.Flatten(),
        nn.Linear(16 * 16, 1),
    )
    converted = copy.deepcopy(critic)
    assert len(inpaint_ops.convert(converted).converted) == 2
    real, fake = torch.rand(2, 3, 16, 16), torch.rand(2, 3, 16, 16)
    penalties = []
    for net in (critic, converted):
        generator = torch.Generator().manual_seed(1)
        penalty = gradient_penalty(net, real, fake, generator=generator)
        penalty.backward()
        penalties.append(penalty.detach())
    torch.testing.assert_close(*penalties)
    for a, b in zip(critic.parameters(), converted.parameters(), strict=True):
        if a.grad is not None and a.grad.any():
            torch.testing.assert_close(b.grad, a.grad, rtol=1e-4, atol=1e-6)
