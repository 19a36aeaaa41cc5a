"""instance_norm and its layer: reference, gradients, contract."""

import copy
import math
import pickle

import hypothesis.strategies as st
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from support import check_close

import inpaint_ops
from inpaint_ops import reference
from inpaint_ops.layers import InstanceNorm2d
from inpaint_ops.ops import instance_norm
from inpaint_ops.ops.convolution.spec import ACTIVATIONS

FORMATS = [torch.contiguous_format, torch.channels_last]
FORMAT_IDS = ["contiguous", "channels_last"]
# Blocks of up to 512 pixels; vectors of 4, 8 and 16 channels.
SHAPES = [
    (1, 1, 2, 3),
    (2, 16, 9, 7),
    (1, 17, 40, 61),
    (2, 35, 23, 1),
    (3, 130, 5, 4),
    (0, 4, 5, 5),
]


def inputs(shape, dtype=torch.float32, memory_format=torch.channels_last, seed=0):
    """x, weight, bias, residual with gradients, and a gradient of the result."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*size):
        return torch.randn(*size, generator=generator, dtype=torch.float64).to(dtype)

    x = (draw(*shape) * 2 + 3).contiguous(memory_format=memory_format)
    tensors = (x, draw(shape[1]), draw(shape[1]), draw(*shape))
    return [t.requires_grad_() for t in tensors], draw(*shape)


def with_gradients(norm, tensors, grad, **options):
    x, weight, bias, residual = tensors
    y = norm(x, weight, bias, residual=residual, **options)
    return (y.detach(), *torch.autograd.grad(y, tensors, grad))


CASES = [(shape, a) for shape in SHAPES for a in ("identity", "relu", "leaky_relu")]
CASES += [((2, 35, 9, 7), a) for a in ACTIVATIONS]


@pytest.mark.parametrize("memory_format", FORMATS, ids=FORMAT_IDS)
@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize(("shape", "activation"), CASES, ids=str)
def test_matches_reference(shape, backend, memory_format, activation):
    tensors, grad = inputs(shape, memory_format=memory_format)
    with inpaint_ops.backend(backend):
        actual = with_gradients(instance_norm, tensors, grad, activation=activation)
    assert actual[0].stride() == tensors[0].stride()
    if not shape[0]:
        assert all(not t.any() for t in actual)
        return
    wide = [t.detach().double().requires_grad_() for t in tensors]
    expected = with_gradients(reference.instance_norm, wide, grad.double(), activation=activation)
    terms = shape[0] * shape[2] * shape[3]
    for a, e in zip(actual, expected):
        check_close(a, e, terms=terms)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["fp16", "bf16"])
@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_half_sums_in_float32(dtype, backend):
    tensors, grad = inputs((2, 16, 9, 7), dtype)
    with inpaint_ops.backend(backend):
        actual = with_gradients(instance_norm, tensors, grad, activation="relu")
    wide = [t.detach().double().requires_grad_() for t in tensors]
    expected = with_gradients(reference.instance_norm, wide, grad.double(), activation="relu")
    assert all(t.dtype == dtype for t in actual)
    # A value within a rounding of zero may fall on the other side of ReLU's kink.
    near = reference.instance_norm(*wide[:3]).detach().abs() < 1e-3
    assert near.float().mean() < 0.01
    check_close(actual[0], expected[0])
    check_close(actual[1].masked_fill(near, 0), expected[1].masked_fill(near, 0), terms=126)
    for a, e in zip(actual[2:], expected[2:]):
        check_close(a, e, terms=126)


def test_optional_arguments_and_strided_input():
    (x, weight, bias, _), _ = inputs((2, 12, 9, 8))
    for part in (x, x[:, 2:9, ::2, 1:6], x[:, :, 1:]):
        for w, b in ((None, None), (weight, None), (None, bias)):
            w, b = (None if v is None else v[: part.shape[1]] for v in (w, b))
            y = instance_norm(part, w, b, eps=0.1, activation="leaky_relu")
            wide = [None if v is None else v.detach().double() for v in (part, w, b)]
            expected = reference.instance_norm(*wide, eps=0.1, activation="leaky_relu")
            check_close(y.detach(), expected, terms=72)
    assert torch.autograd.grad(instance_norm(x).sum(), x)[0].abs().max() < 1e-5


def test_large_offset_keeps_its_digits():
    x = torch.randn(1, 16, 64, 64, generator=torch.Generator().manual_seed(0))
    x = (x + 1000).contiguous(memory_format=torch.channels_last)
    check_close(instance_norm(x), reference.instance_norm(x.double()), terms=4096)


def test_constant_channel_and_single_pixel_give_the_bias():
    bias = torch.tensor([0.5, -1.0, 2.0])
    for size in ((4, 6), (1, 1)):
        x = torch.full((2, 3, *size), 7.0).contiguous(memory_format=torch.channels_last)
        x.requires_grad_()
        for name in ("auto", "reference"):
            with inpaint_ops.backend(name):
                y = instance_norm(x, torch.ones(3), bias)
                (grad,) = torch.autograd.grad(y.sum(), x)
            error = (y - bias.view(1, 3, 1, 1)).abs().max()
            # torch's norm forms x / sd - mean / sd, which loses digits where sd is sqrt(eps).
            assert error == 0 if name == "auto" else error < 1e-3
            assert grad.abs().max() < 1e-3


@pytest.mark.parametrize("memory_format", FORMATS, ids=FORMAT_IDS)
@pytest.mark.usefixtures("instruction_set")
def test_every_instruction_set(memory_format):
    for shape, activation in [*CASES, ((2, 21, 19, 23), "silu")]:
        test_matches_reference(shape, "auto", memory_format, activation)


@pytest.mark.parametrize("memory_format", FORMATS, ids=FORMAT_IDS)
@pytest.mark.parametrize("activation", ["identity", "elu", "silu"])
def test_gradcheck(memory_format, activation):
    tensors, _ = inputs((2, 2, 2, 3), torch.float64, memory_format)

    def norm(x, weight, bias, residual):
        return instance_norm(x, weight, bias, activation=activation, residual=residual)

    assert torch.autograd.gradcheck(norm, tensors)


@given(seed=st.integers(0, 1000), n=st.integers(1, 3))
def test_samples_are_independent_and_normal(seed, n):
    (x, *_), _ = inputs((n, 5, 11, 13), seed=seed)
    y = instance_norm(x).detach()
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(instance_norm(x[order]).detach(), y[order])
    assert y.mean((2, 3)).abs().max() < 1e-5
    assert (y.var((2, 3), correction=0) - 1).abs().max() < 1e-4


def test_nan_stays_in_its_channel():
    (x, *_), _ = inputs((1, 4, 6, 6))
    dirty = x.detach().clone()
    dirty[0, 1, 2, 3] = math.nan
    y = instance_norm(dirty)
    assert y[:, 1].isnan().all()
    assert torch.equal(y[:, [0, 2, 3]], instance_norm(x)[:, [0, 2, 3]])


def test_compiles_and_exports():
    layer = InstanceNorm2d(6, affine=True, activation="relu")
    (x, _, _, residual), _ = inputs((1, 6, 8, 9))
    expected = layer(x, residual)
    (grad,) = torch.autograd.grad(expected.square().sum(), x)
    y = torch.compile(layer, fullgraph=True, backend="aot_eager")(x, residual)
    (compiled_grad,) = torch.autograd.grad(y.square().sum(), x)
    assert torch.equal(y, expected)
    torch.testing.assert_close(compiled_grad, grad)
    program = torch.export.export(layer, (x.detach(), residual.detach()))
    assert torch.equal(program.module()(x.detach(), residual.detach()), expected)


def test_autocast_runs_in_float32():
    (x, weight, bias, residual), _ = inputs((1, 6, 8, 9))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = instance_norm(x.bfloat16(), weight, bias, residual=residual)
    assert y.dtype == torch.bfloat16
    expected = instance_norm(x.bfloat16().float(), weight, bias, residual=residual)
    assert torch.equal(y, expected.bfloat16())


def test_layer_is_torchs():
    ours = InstanceNorm2d(5, affine=True, activation="relu")
    theirs = torch.nn.InstanceNorm2d(5, affine=True)
    with torch.no_grad():
        theirs.weight.normal_()
        theirs.bias.normal_()
    ours.load_state_dict(theirs.state_dict())
    (x, *_), _ = inputs((2, 5, 6, 7))
    check_close(ours(x).detach(), F.relu(theirs.double()(x.double())).detach(), terms=64)
    for twin in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        assert torch.equal(twin(x), ours(x))
    assert repr(ours) == "InstanceNorm2d(5, eps=1e-05, affine=True, activation='relu')"
    assert not InstanceNorm2d(5).state_dict()


X = torch.zeros(2, 4, 8, 8)
BAD_INPUT = [
    ({"x": X[0]}, ValueError, "x must have shape"),
    ({"x": X[:, :, :0]}, ValueError, "x must hold a pixel"),
    ({"weight": torch.ones(3)}, ValueError, r"weight must have shape \(4,\), got \(3,\)"),
    ({"residual": X[:1]}, ValueError, "residual must have shape"),
    ({"eps": 0.0}, ValueError, "eps must be positive, got 0"),
    ({"activation": "gelu"}, ValueError, "activation must be one of"),
]


@pytest.mark.parametrize(("change", "error", "text"), BAD_INPUT, ids=[b[2][:40] for b in BAD_INPUT])
def test_bad_input(change, error, text):
    arguments = {"x": X, **change}
    with pytest.raises(error, match=f"instance_norm: {text}"):
        instance_norm(**arguments)


def test_bad_layer_input():
    with pytest.raises(ValueError, match="num_features must be at least 1"):
        InstanceNorm2d(0)
    with pytest.raises(ValueError, match="x must have 5 channels, got 4"):
        InstanceNorm2d(5)(X)
