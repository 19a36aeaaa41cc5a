"""channelwise_linear and its layer."""

import copy
import pickle

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from support import check_close

from inpaint_ops import ChannelwiseLinear, channelwise_linear, reference

FORMATS = [torch.contiguous_format, torch.channels_last]


def inputs(n=3, c=4, size=(5, 3), outputs=15, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def made(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    return made(n, c, *size), made(c, outputs, size[0] * size[1]), made(c, outputs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("memory_format", FORMATS, ids=["contiguous", "channels_last"])
@pytest.mark.parametrize(
    ("n", "c", "size", "outputs"),
    [(1, 1, (1, 1), 1), (3, 4, (5, 3), 15), (2, 7, (6, 6), 10), (0, 4, (2, 2), 4)],
    ids=str,
)
@pytest.mark.parametrize("with_bias", [True, False])
def test_matches_reference_with_gradients(dtype, memory_format, n, c, size, outputs, with_bias):
    x, weight, bias = inputs(n, c, size, outputs, dtype)
    x = x.contiguous(memory_format=memory_format)
    leaves = (x, weight, bias) if with_bias else (x, weight)
    ours = [t.detach().requires_grad_() for t in leaves]
    wide = [t.detach().double().requires_grad_() for t in leaves]
    y, expected = channelwise_linear(*ours), reference.channelwise_linear(*wide)
    check_close(y.detach(), expected.detach())
    grad = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    grads = torch.autograd.grad(y, ours, grad)
    for a, e in zip(grads, torch.autograd.grad(expected, wide, grad.double())):
        check_close(a, e)


def test_gradcheck():
    leaves = [t.requires_grad_() for t in inputs(2, 3, (2, 2), 4, torch.float64)]
    assert torch.autograd.gradcheck(channelwise_linear, leaves)
    assert torch.autograd.gradgradcheck(channelwise_linear, leaves)


@given(seed=st.integers(0, 1000))
def test_channels_do_not_mix(seed):
    x, weight, bias = inputs(seed=seed)
    y = channelwise_linear(x, weight, bias)
    order = torch.randperm(4, generator=torch.Generator().manual_seed(seed))
    permuted = channelwise_linear(x[:, order], weight[order], bias[order])
    torch.testing.assert_close(permuted, y[:, order])
    x[:, 1:] = 7
    torch.testing.assert_close(channelwise_linear(x, weight, bias)[:, 0], y[:, 0])


def test_identity():
    x, _, _ = inputs()
    assert torch.equal(channelwise_linear(x, torch.eye(15).expand(4, 15, 15)), x)


def test_layer():
    layer = ChannelwiseLinear(4, (5, 3), (2, 7))
    x = torch.randn(2, 4, 5, 3)
    y = layer(x)
    assert y.shape == (2, 4, 2, 7)
    assert repr(layer) == "ChannelwiseLinear(4, size=(5, 3), out_size=(2, 7), bias=True)"
    assert not layer.bias.any()
    assert 0.01 < layer.weight.std() < 0.03
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(twin(x), y)
    assert ChannelwiseLinear(4, (5, 3), bias=False)(x).shape == x.shape
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), y)
    program = torch.export.export(layer, (x,))
    torch.testing.assert_close(program.module()(x), y)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
    for wrong in ((5,), (0, 3)):
        with pytest.raises(ValueError, match="size must"):
            ChannelwiseLinear(4, wrong)
    with pytest.raises(ValueError, match=r"x must be maps of \(5, 3\)"):
        layer(x[..., :2])


X, WEIGHT, BIAS = torch.zeros(2, 4, 5, 3), torch.zeros(4, 6, 15), torch.zeros(4, 6)
BAD_INPUT = [
    ({"x": X[0]}, ValueError, r"x must have shape \(N, C, H, W\)"),
    ({"weight": None}, TypeError, "weight must be a Tensor, got NoneType"),
    ({"weight": WEIGHT[0]}, ValueError, r"weight must have shape \(C, Ho \* Wo, H \* W\)"),
    ({"weight": WEIGHT[..., :9]}, ValueError, r"weight must have shape \(4, Ho \* Wo, 15\)"),
    ({"bias": BIAS[0]}, ValueError, r"bias must have shape \(C, Ho \* Wo\)"),
    ({"bias": BIAS[:, :3]}, ValueError, r"bias must have shape \(4, 6\), got \(4, 3\)"),
]


@pytest.mark.parametrize(("change", "error", "text"), BAD_INPUT, ids=[b[2][:40] for b in BAD_INPUT])
def test_bad_input(change, error, text):
    with pytest.raises(error, match=f"channelwise_linear: {text}"):
        channelwise_linear(**{"x": X, "weight": WEIGHT, "bias": BIAS, **change})
