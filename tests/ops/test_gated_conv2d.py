"""gated_conv2d and its layer: goldens, reference, gradients, contract."""

import copy
import math
import pickle

import hypothesis.strategies as st
import pytest
import torch
from conv_cases import (
    FORMAT_IDS,
    FORMATS,
    GEOMETRIES,
    activations_and_geometries,
    check_against_reference,
    tensors,
    with_gradients,
)
from hypothesis import given
from support import check_close, golden

import inpaint_ops
from inpaint_ops import GatedConv2d, gated_conv2d, reference

GOLDENS = {
    "gated_conv_s1": {"padding": 2},
    "gated_conv_s2": {"padding": 1, "stride": 2},
    "gated_conv_s3": {"padding": "same", "stride": 2},
}


@pytest.mark.parametrize("name", GOLDENS)
@pytest.mark.parametrize("memory_format", FORMATS, ids=FORMAT_IDS)
@pytest.mark.parametrize("backend", ["auto", "precise", "direct", "reference"])
def test_golden(name, memory_format, backend):
    data = golden(name)
    n, c = data["weight"].shape[0] // 2, data["weight"].shape[1]
    layer = GatedConv2d(c, n, data["weight"].shape[2], **GOLDENS[name])
    layer.load_state_dict({"weight": data["weight"], "bias": data["bias"]})
    x = data["x"].contiguous(memory_format=memory_format).requires_grad_()
    with inpaint_ops.backend(backend):
        y = layer(x)
    assert y.is_contiguous(memory_format=memory_format)
    y.backward(data["gy"])
    pixels = y[:, 0].numel()
    check_close(y.detach(), data["y"], terms=layer.weight[0].numel())
    check_close(x.grad, data["gx"], terms=layer.weight[:, 0].numel())
    check_close(layer.weight.grad, data["gweight"], terms=pixels)
    check_close(layer.bias.grad, data["gbias"], terms=pixels)


@pytest.mark.parametrize(("geometry", "activation"), activations_and_geometries())
@pytest.mark.parametrize("memory_format", FORMATS, ids=FORMAT_IDS)
def test_matches_reference(geometry, activation, memory_format):
    shape, filters, kernel, options = GEOMETRIES[geometry]
    x, weight, bias = tensors(shape, filters, kernel)
    x = x.contiguous(memory_format=memory_format)
    winograd = kernel == (3, 3)
    check_against_reference(
        "gated_conv2d", x, weight, bias, winograd=winograd, activation=activation, **options
    )


@pytest.mark.parametrize("geometry", ["3x3", "3x3-deep", "3x3-dilated", "5x5", "7x7-reflect"])
@pytest.mark.usefixtures("instruction_set")
def test_every_instruction_set(geometry):
    test_matches_reference(geometry, "elu", torch.channels_last)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("geometry", ["3x3", "7x7-stride-2"])
def test_dtypes(dtype, geometry):
    shape, filters, kernel, options = GEOMETRIES[geometry]
    inputs = tensors(shape, filters, kernel, dtype=dtype)
    got = check_against_reference("gated_conv2d", *inputs, winograd=True, **options)
    assert all(t.dtype == dtype for t in got)


@pytest.mark.parametrize("threads", [2, 5])
@pytest.mark.parametrize("geometry", ["3x3", "3x3-upsampled", "5x5", "4x4-stride-2"])
def test_threads_give_equal_bits(threads, geometry):
    shape, filters, kernel, options = GEOMETRIES[geometry]
    inputs = tensors((shape[0], shape[1], 40, 41), filters, kernel)
    torch.set_num_threads(1)
    one = with_gradients(gated_conv2d, *inputs, **options)
    again = with_gradients(gated_conv2d, *inputs, **options)
    torch.set_num_threads(threads)
    more = with_gradients(gated_conv2d, *inputs, **options)
    assert all(torch.equal(a, b) for a, b in zip(one, again))
    assert all(torch.equal(a, b) for a, b in zip(one, more))


@pytest.mark.parametrize("channels", [(96, 192), (24, 24), (192, 192), (512, 512)], ids=str)
def test_error_is_at_most_eight_times_that_of_eager(channels):
    cin, filters = channels
    x, weight, bias = tensors((1, cin, 20, 20), filters, (3, 3))
    exact = with_gradients(
        reference.gated_conv2d, x.double(), weight.double(), bias.double(), padding=1
    )
    ours = with_gradients(gated_conv2d, x, weight, bias, padding=1)
    eager = with_gradients(reference.gated_conv2d, x, weight, bias, padding=1)
    with inpaint_ops.backend("direct"):
        direct = with_gradients(gated_conv2d, x, weight, bias, padding=1)

    def error(results):
        return [(a - e).square().mean().sqrt().item() for a, e in zip(results, exact)]

    for mine, summed, theirs in zip(error(ours), error(direct), error(eager)):
        assert mine <= 8 * theirs
        assert summed <= 4 * theirs


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate"])
def test_gradcheck(mode):
    x, weight, bias = tensors((1, 2, 3, 4), 2, (3, 3), dtype=torch.float64)
    if mode == "reflect":
        x = x.contiguous(memory_format=torch.channels_last)
    leaves = [t.requires_grad_() for t in (x, weight, bias)]
    for options in ({"padding": 1, "upsample": 2}, {"padding": "same", "stride": 2}):
        assert torch.autograd.gradcheck(
            lambda *t, options=options: gated_conv2d(*t, padding_mode=mode, **options),
            leaves,
            fast_mode=True,
        )


def test_weight_updates_are_seen():
    x, weight, bias = tensors((1, 20, 12, 12), 24, (3, 3))
    weight = torch.nn.Parameter(weight)

    def check():
        got = gated_conv2d(x, weight, bias, padding=1).detach()
        check_close(
            got,
            reference.gated_conv2d(*(t.detach().double() for t in (x, weight, bias)), padding=1),
            terms=16 * 180,
        )

    check()
    with torch.no_grad():
        weight.mul_(-0.5)
    check()
    weight.data.mul_(2)  # unseen by the version counter
    check()
    weight.data = torch.randn_like(weight) / 14
    check()
    optimiser = torch.optim.SGD([weight], lr=0.1)
    gated_conv2d(x, weight, bias, padding=1).sum().backward()
    optimiser.step()
    check()


def test_packed_weights_go_with_their_weight():
    from inpaint_ops.ops.convolution.packed_weights import packed_weights

    x, weight, _ = tensors((1, 4, 12, 12), 6, (3, 3))
    before = len(packed_weights)
    for seed in range(5):
        gated_conv2d(x, weight * seed, padding=1)
    assert len(packed_weights) == before
    gated_conv2d(x, weight, padding=1)
    gated_conv2d(x, weight, padding=1)
    assert len(packed_weights) == before + 1
    del weight
    assert len(packed_weights) == before


def test_nan_reaches_only_its_windows_by_the_direct_core():
    x, weight, bias = tensors((1, 6, 16, 16), 8, (3, 3))
    x[0, 2, 5, 6] = math.nan
    with inpaint_ops.backend("direct"):
        seen = gated_conv2d(x, weight, bias, padding=1).isnan().any(1)[0]
    assert seen[4:7, 5:8].all()
    assert seen.sum() == 9
    assert gated_conv2d(x, weight, bias, padding=1).isnan().any(1)[0][4:7, 5:8].all()


@given(seed=st.integers(0, 1000), n=st.integers(0, 3))
def test_samples_are_independent(seed, n):
    x, weight, bias = tensors((n, 5, 14, 11), 6, (3, 3), seed=seed)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    y = gated_conv2d(x, weight, bias, padding=1)
    assert torch.equal(gated_conv2d(x[order], weight, bias, padding=1), y[order])


@given(
    h=st.integers(1, 20),
    w=st.integers(1, 20),
    k=st.integers(1, 5),
    s=st.integers(1, 3),
    d=st.integers(1, 3),
    c=st.integers(1, 20),
)
def test_any_size(h, w, k, s, d, c):
    x, weight, bias = tensors((1, c, h, w), 2 * c, (k, k))
    options = {"padding": "same", "stride": s, "dilation": d}
    got = gated_conv2d(x, weight, bias, **options)
    assert got.shape == (1, c, -(-h // s), -(-w // s))
    wide = (t.double() for t in (x, weight, bias))
    check_close(got, reference.gated_conv2d(*wide, **options), terms=16 * max(64, c * k * k))


def test_compiles_and_exports():
    layer = GatedConv2d(4, 6, 3, padding=1, upsample=2)
    x = torch.randn(1, 4, 8, 8, requires_grad=True)
    expected = layer(x)
    (grad,) = torch.autograd.grad(expected.square().sum(), x)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    y = compiled(x)
    (compiled_grad,) = torch.autograd.grad(y.square().sum(), x)
    assert torch.equal(y, expected)
    torch.testing.assert_close(compiled_grad, grad)
    program = torch.export.export(layer, (x.detach(),))
    assert torch.equal(program.module()(x.detach()), expected)


def test_layer_copies_pickles_and_takes_parametrisations():
    layer = GatedConv2d(4, 6, 3, padding=1, dilation=1, padding_mode="reflect", upsample=2)
    assert list(layer.state_dict()) == ["weight", "bias"]
    assert repr(layer) == (
        "GatedConv2d(4, 6, kernel_size=(3, 3), stride=(1, 1), padding=1, dilation=(1, 1), "
        "padding_mode='reflect', activation='elu', upsample=2)"
    )
    x = torch.randn(1, 4, 8, 8)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(twin(x), layer(x))
    assert layer.double()(x.double()).dtype == torch.float64
    for wrap in (
        torch.nn.utils.parametrizations.spectral_norm,
        torch.nn.utils.parametrizations.weight_norm,
    ):
        wrapped = wrap(GatedConv2d(4, 6, 3, padding=1))
        wrapped(x).sum().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in wrapped.parameters())
    without = GatedConv2d(4, 6, 3, bias=False)
    assert list(without.state_dict()) == ["weight"]


X = torch.zeros(2, 4, 8, 8)
W = torch.zeros(6, 4, 3, 3)
BAD_INPUT = [
    ({"x": X[0]}, ValueError, "x must have shape"),
    ({"x": X[:, :3]}, ValueError, "weight must have 3 input channels"),
    ({"x": X[:, :, :0]}, ValueError, "weight must not reach beyond the padded image"),
    ({"weight": None}, TypeError, "weight must be a Tensor, got NoneType"),
    ({"weight": W.int()}, TypeError, "weight must be floating"),
    ({"weight": W[0]}, ValueError, "weight must have four dimensions"),
    ({"weight": W[:5]}, ValueError, "weight must have an even number of filters"),
    ({"weight": torch.zeros(6, 4, 9, 9)}, ValueError, "weight must not reach beyond"),
    ({"bias": torch.zeros(3)}, ValueError, r"bias must have shape \(6,\), got \(3,\)"),
    ({"stride": 0}, ValueError, "stride must be at least 1, got 0"),
    ({"stride": 1.5}, TypeError, "stride must be an int, got float"),
    ({"stride": (1, 2, 3)}, ValueError, "stride must be an int or a pair"),
    ({"padding": -1}, ValueError, "padding must be at least 0, got -1"),
    ({"padding": "valid"}, ValueError, "padding must be one of same, got 'valid'"),
    ({"padding": 8, "padding_mode": "reflect"}, ValueError, "padding must be smaller than the"),
    ({"dilation": 0}, ValueError, "dilation must be at least 1, got 0"),
    ({"padding_mode": "circular"}, ValueError, "padding_mode must be one of zeros, reflect"),
    ({"activation": "gelu"}, ValueError, "activation must be one of identity, relu"),
    ({"upsample": 3}, ValueError, "upsample must be 1 or 2, got 3"),
]


@pytest.mark.parametrize(("change", "error", "text"), BAD_INPUT, ids=[b[2][:40] for b in BAD_INPUT])
def test_bad_input(change, error, text):
    arguments = {"x": X, "weight": W, **change}
    with pytest.raises(error, match=f"gated_conv2d: {text}"):
        gated_conv2d(**arguments)


def test_bad_layer_input():
    with pytest.raises(ValueError, match="GatedConv2d: in_channels must be at least 1"):
        GatedConv2d(0, 4, 3)
    with pytest.raises(ValueError, match="GatedConv2d: activation must be one of"):
        GatedConv2d(4, 4, 3, activation="softmax")
    with pytest.raises(ValueError, match="GatedConv2d: padding_mode must be one of"):
        GatedConv2d(4, 4, 3, padding_mode="circular")
    with pytest.raises(TypeError, match="GatedConv2d: kernel_size must be an int"):
        GatedConv2d(4, 4, "3")
