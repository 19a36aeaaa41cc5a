"""partial_conv2d and its layer: goldens, reference, gradients, contract."""

import copy
import json
import math
import pickle

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from conv_cases import BACKENDS, FORMAT_IDS, FORMATS, hole_mask, tensors, upstream
from hypothesis import given
from recording import Recorder, check_operators
from support import check_close, golden

import inpaint_ops
from inpaint_ops import PartialConv2d, fused_conv2d, partial_conv2d, reference


def golden_cases(name, count):
    return [(name, i) for i in range(count)]


def load_case(name, number):
    data = golden(name)
    case = json.loads(str(np.asarray(data["cases"])))[number]
    prefix = f"c{number:02d}."
    return case, {k.removeprefix(prefix): v for k, v in data.items() if k.startswith(prefix)}


def options_of(case):
    def pair(value):
        return tuple(value) if isinstance(value, list) else value

    return {
        "stride": pair(case["stride"]),
        "padding": pair(case["pad"]),
        "dilation": pair(case["dil"]),
        "groups": case["groups"],
    }


def check_golden(data, x, y, valid_out, weight, bias):
    leaves = [x, weight] + ([bias] if bias is not None else [])
    grads = torch.autograd.grad(y, leaves, data["gout"])
    terms = 16 * max(64, weight[0].numel())
    pixels = 16 * max(64, y[:, 0].numel())
    check_close(y.detach(), data["out"], terms=terms)
    check_close(grads[0], data["gx"], terms=16 * max(64, weight[:, 0].numel()))
    check_close(grads[1], data["gweight"], terms=pixels)
    if bias is not None:
        check_close(grads[2], data["gbias"], terms=pixels)
    if "mask_out" in data:
        expected = data["mask_out"]
        torch.testing.assert_close(valid_out.expand_as(expected), expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(("name", "number"), golden_cases("partialconv2d_nvidia", 20))
@pytest.mark.parametrize("memory_format", FORMATS, ids=FORMAT_IDS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_golden_nvidia(name, number, memory_format, backend):
    case, data = load_case(name, number)
    _, cin, cout, _, _ = case["shape"]
    options = options_of(case)
    layer = PartialConv2d(
        cin,
        cout,
        tuple(data["weight"].shape[2:]),
        bias=case["bias"],
        multi_channel=case["multi_channel"],
        return_mask=True,
        **options,
    )
    layer.load_state_dict({k: data[k] for k in ("weight", "bias") if k in data})
    x = data["x"].contiguous(memory_format=memory_format).requires_grad_()
    with inpaint_ops.backend(backend):
        y, mask = layer(x, data.get("mask"))
    assert y.is_contiguous(memory_format=memory_format)
    assert list(mask.shape) == case["mask_out_shape"]
    check_golden(data, x, y, mask, layer.weight, layer.bias)


@pytest.mark.parametrize(("name", "number"), golden_cases("partialconv2d_mmagic_layer", 3))
def test_golden_mmagic(name, number):
    case, data = load_case(name, number)
    x, weight = data["x"].requires_grad_(), data["weight"].requires_grad_()
    bias = data["bias"].requires_grad_() if "bias" in data else None
    if "mask" in data:
        y, valid_out = partial_conv2d(x, data["mask"], weight, bias, **options_of(case))
    else:
        y, valid_out = fused_conv2d(x, weight, bias, **options_of(case)), None
    check_golden(data, x, y, valid_out, weight, bias)


@pytest.mark.parametrize(("name", "number"), golden_cases("partialconv_naoto0804_layer", 5))
@pytest.mark.parametrize("backend", BACKENDS)
def test_golden_naoto0804(name, number, backend):
    """Groups have mask sums of their own there, so each group is a layer of its own here."""
    case, data = load_case(name, number)
    options = options_of(case)
    groups = options.pop("groups")
    x, weight = data["x"].requires_grad_(), data["weight"].requires_grad_()
    bias = data["bias"].requires_grad_() if "bias" in data else None
    biases = [None] * groups if bias is None else bias.chunk(groups)
    results = []
    with inpaint_ops.backend(backend):
        for group in zip(
            x.chunk(groups, 1), data["mask"].chunk(groups, 1), weight.chunk(groups), biases
        ):
            results.append(partial_conv2d(*group, normalise="sum", **options))
    y = torch.cat([result[0] for result in results], 1)
    masks = [r[1].expand(-1, y.shape[1] // groups, -1, -1) for r in results]
    check_golden(data, x, y, torch.cat(masks, 1), weight, bias)


SHAPES = {
    "3x3": ((2, 21, 30, 27), 20, (3, 3), {"padding": 1}),
    "3x3-dilated": ((1, 9, 30, 27), 20, (3, 3), {"padding": 2, "dilation": 2}),
    "7x7-stride-2": ((2, 3, 41, 38), 20, (7, 7), {"padding": 3, "stride": 2}),
    "5x5-stride-2": ((1, 18, 24, 26), 20, (5, 5), {"padding": 2, "stride": 2}),
    "1x1": ((2, 8, 9, 11), 5, (1, 1), {}),
    "even-same": ((1, 8, 9, 11), 5, (2, 4), {"padding": "same"}),
    "groups": ((2, 8, 16, 15), 12, (3, 3), {"padding": 1, "groups": 4}),
}


def check_case(x, valid, weight, bias, **options):
    leaves = [t.detach().requires_grad_() for t in (x, weight, *([] if bias is None else [bias]))]
    y, valid_out = partial_conv2d(leaves[0], valid, *leaves[1:], **options)
    grads = torch.autograd.grad(y, leaves, upstream(y))
    wide = [t.detach().double().requires_grad_() for t in leaves]
    mask = valid if valid.dtype in (torch.bool, torch.uint8) else valid.double()
    expected, expected_out = reference.partial_conv2d(wide[0], mask, *wide[1:], **options)
    expected_grads = torch.autograd.grad(expected, wide, upstream(y).double())
    depth, pixels = weight[0].numel(), max(1, y[:, 0].numel())
    terms = (depth, weight[:, 0].numel(), pixels, pixels)
    for got, want, count in zip((y.detach(), *grads), (expected.detach(), *expected_grads), terms):
        check_close(got, want, terms=16 * max(64, count))
    assert valid_out.dtype == valid.dtype
    torch.testing.assert_close(valid_out.double(), expected_out.double(), rtol=1e-6, atol=1e-7)
    return y.detach(), valid_out, grads


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("biased", [True, False], ids=["bias", "no_bias"])
@pytest.mark.parametrize("kind", [torch.uint8, torch.float32], ids=str)
@pytest.mark.usefixtures("instruction_set")
def test_matches_reference(shape, biased, kind):
    size, filters, kernel, options = SHAPES[shape]
    x, weight, bias = tensors(size, filters, kernel, groups=options.get("groups", 1))
    n, c, h, w = size
    for batch in {n, 1}:
        for channels in (1, c):
            valid = hole_mask(batch, channels, h, w, kind)
            last = x.contiguous(memory_format=torch.channels_last)
            check_case(last, valid, weight, bias if biased else None, **options)
    check_case(x, hole_mask(n, c, h, w, kind), weight, bias, normalise="sum", **options)
    check_case(x, hole_mask(1, 1, h, w, kind), weight, None, normalise="sum", **options)


@pytest.mark.parametrize("biased", [True, False], ids=["bias", "no_bias"])
@pytest.mark.usefixtures("instruction_set")
def test_soft_masks(biased):
    x, weight, bias = tensors((2, 5, 14, 13), 6, (3, 3))
    valid = torch.rand(2, 1, 14, 13) * 0.4
    valid[..., :6, :6] = 0
    valid[..., 9:, 9:] = 1e-3
    check_case(x, valid, weight, bias if biased else None, padding=1)
    check_case(x, valid.expand(2, 5, 14, 13), weight, bias if biased else None, padding=1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_dtypes(dtype):
    x, weight, bias = tensors((1, 8, 14, 13), 6, (3, 3), dtype=dtype)
    y, valid_out, grads = check_case(x, hole_mask(1, 1, 14, 13, dtype), weight, bias, padding=1)
    assert y.dtype == valid_out.dtype == dtype
    assert y.isfinite().all()
    assert all(grad.dtype == dtype for grad in grads)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", ["3x3", "7x7-stride-2", "groups"])
@pytest.mark.parametrize("channels", ["one", "all"])
def test_hole_contents_never_leak(backend, shape, channels):
    (n, c, h, w), filters, kernel, options = SHAPES[shape]
    x, weight, bias = tensors((n, c, h, w), filters, kernel, groups=options.get("groups", 1))
    valid = hole_mask(n, 1 if channels == "one" else c, h, w)
    results = []
    for poison in (0.0, math.nan, math.inf):
        image = torch.where(valid != 0, x, poison).requires_grad_()
        leaves = [image, weight.clone().requires_grad_(), bias.clone().requires_grad_()]
        with inpaint_ops.backend(backend):
            y, valid_out = partial_conv2d(leaves[0], valid, *leaves[1:], **options)
            # Nor does what flows back from where nothing was seen.
            grad = torch.where(valid_out != 0, upstream(y), poison)
            grads = torch.autograd.grad(y, leaves, grad)
        results.append((y.detach(), *grads))
        assert not grads[0][(valid == 0).expand_as(image)].any()
        assert not y[(valid_out == 0).expand_as(y)].any()
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other))


def test_degenerate_masks():
    x, weight, bias = tensors((1, 3, 9, 9), 4, (3, 3))
    y, valid_out = partial_conv2d(x, torch.zeros(1, 1, 9, 9), weight, bias, padding=1)
    assert not y.any()
    assert not valid_out.any()
    y, valid_out = partial_conv2d(x, torch.ones(1, 1, 9, 9), weight, bias)
    torch.testing.assert_close(y, fused_conv2d(x, weight, bias))
    assert valid_out.all()
    y, valid_out = partial_conv2d(x[:0], torch.ones(1, 1, 9, 9), weight, bias, padding=1)
    assert y.shape == (0, 4, 9, 9)


@given(seed=st.integers(0, 1000), k=st.sampled_from([1, 3, 5]), s=st.integers(1, 2))
def test_the_updated_mask_never_loses_a_valid_pixel(seed, k, s):
    x, weight, _ = tensors((1, 2, 13, 12), 3, (k, k), seed=seed)
    valid = hole_mask(1, 1, 13, 12, torch.bool, seed)
    y, valid_out = partial_conv2d(x, valid, weight, stride=s, padding=k // 2)
    assert (valid_out | ~valid[..., ::s, ::s]).all()
    dilated = torch.nn.functional.max_pool2d(valid.float(), k, s, k // 2).bool()
    assert torch.equal(valid_out, dilated)
    assert not y[~valid_out.expand_as(y)].any()


@given(seed=st.integers(0, 1000), n=st.integers(1, 3))
def test_samples_are_independent(seed, n):
    x, weight, bias = tensors((n, 4, 12, 11), 6, (3, 3), seed=seed)
    valid = hole_mask(n, 1, 12, 11, seed=seed)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    y, out = partial_conv2d(x, valid, weight, bias, padding=1)
    shuffled, shuffled_out = partial_conv2d(x[order], valid[order], weight, bias, padding=1)
    assert torch.equal(shuffled, y[order])
    assert torch.equal(shuffled_out, out[order])


def test_gradcheck():
    x, weight, bias = tensors((1, 2, 4, 5), 3, (3, 3), dtype=torch.float64)
    leaves = [t.requires_grad_() for t in (x, weight, bias)]
    for valid in (hole_mask(1, 1, 4, 5), torch.rand(1, 2, 4, 5) * 0.3):
        assert torch.autograd.gradcheck(
            lambda x, *rest, valid=valid: partial_conv2d(x, valid, *rest, padding=1)[0],
            leaves,
            fast_mode=True,
        )


def test_a_mask_of_many_channels_passes_opcheck():
    leaves = [t.requires_grad_() for t in tensors((2, 6, 9, 14), 4, (3, 3))]
    with Recorder() as recorder:
        y, _ = partial_conv2d(leaves[0], hole_mask(1, 6, 9, 14), *leaves[1:], padding=1)
        torch.autograd.grad(y, leaves, upstream(y))
    assert len(recorder.calls) == 2
    check_operators(recorder.calls)


def test_compiles_and_exports():
    layer = PartialConv2d(4, 6, 3, padding=1, return_mask=True)
    x, valid = torch.randn(1, 4, 8, 8, requires_grad=True), hole_mask(1, 1, 8, 8)
    expected, expected_out = layer(x, valid)
    (grad,) = torch.autograd.grad(expected.square().sum(), x)
    y, valid_out = torch.compile(layer, fullgraph=True, backend="aot_eager")(x, valid)
    (compiled_grad,) = torch.autograd.grad(y.square().sum(), x)
    assert torch.equal(y, expected)
    assert torch.equal(valid_out, expected_out)
    torch.testing.assert_close(compiled_grad, grad)
    program = torch.export.export(layer, (x.detach(), valid))
    assert torch.equal(program.module()(x.detach(), valid)[0], expected)


def test_layer_contract():
    layer = PartialConv2d(4, 6, 3, padding="same", bias=False, multi_channel=True)
    assert list(layer.state_dict()) == ["weight"]
    assert repr(layer).endswith("padding=same, bias=False, multi_channel=True, return_mask=False)")
    x, mask = torch.randn(2, 4, 9, 8), hole_mask(2, 4, 9, 8)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(twin(x, mask), layer(x, mask))
    # An earlier mask is not remembered.
    again = layer(x)
    assert torch.equal(again, PartialConv2d.forward(copy.deepcopy(layer), x))
    ones = layer(x, torch.ones_like(mask))
    torch.testing.assert_close(again, ones)
    wrapped = torch.nn.utils.parametrizations.spectral_norm(PartialConv2d(4, 6, 3))
    wrapped(x, mask[:, :1]).sum().backward()
    assert all(p.grad is not None for p in wrapped.parameters())
    with pytest.raises(ValueError, match="padding_mode must be zeros, got 'reflect'"):
        PartialConv2d(4, 6, 3, padding_mode="reflect")
    with pytest.raises(ValueError, match="mask_in must have shape"):
        layer(x, mask[:, :1])
    with pytest.raises(ValueError, match="input must be a Tensor of shape"):
        layer(x[0], mask)


X = torch.zeros(2, 4, 8, 8)
V = torch.ones(2, 1, 8, 8)
W = torch.zeros(6, 4, 3, 3)
BAD_INPUT = [
    ({"x": X[0]}, ValueError, "x must have shape"),
    ({"x": None}, TypeError, "x must be a Tensor, got NoneType"),
    ({"valid": V[:, :, :4]}, ValueError, r"valid must have shape \(2, 4, 8, 8\) or \(2, 1, 8, 8\)"),
    ({"valid": V.byte() * 2}, ValueError, "valid must hold only 0 and 1, got 2"),
    ({"weight": W[:, :3]}, ValueError, "weight must have 4 input channels"),
    ({"bias": torch.zeros(5)}, ValueError, r"bias must have shape \(6,\)"),
    ({"stride": 0}, ValueError, "stride must be at least 1"),
    ({"padding": -1}, ValueError, "padding must be at least 0"),
    ({"dilation": 4}, ValueError, "weight must not reach beyond the padded image"),
    ({"groups": 5}, ValueError, "groups must divide"),
    ({"normalise": "mean"}, ValueError, "normalise must be one of window, sum, got 'mean'"),
    ({"upsample": 3}, ValueError, "upsample must be 1 or 2, got 3"),
    ({"upsample": 1.0}, TypeError, "upsample must be an int, got float"),
    ({"upsample": (1, 2)}, ValueError, "upsample must be an int or a factor for each of 1 tensors"),
    ({"x": ()}, ValueError, "x must have at least one tensor"),
    ({"x": (X, X)}, TypeError, "valid must be a tuple like x, got Tensor"),
    ({"x": (X, X), "valid": (V,)}, ValueError, "valid must have a mask for each of 2 tensors"),
    ({"x": (X, X), "valid": (V, V)}, ValueError, "weight must have 8 input channels"),
    ({"x": (X, X[:1]), "valid": (V, V)}, ValueError, "x must have one batch and, upsampled, one"),
    ({"x": (X, X.double()), "valid": (V, V)}, TypeError, "x and weight must have one dtype"),
    ({"x": (X[:, :2],) * 2, "valid": (V, V.bool())}, TypeError, "valid must have one dtype"),
    (
        {"x": (X[:, :2],) * 2, "valid": (V, V), "upsample": (2, 1)},
        ValueError,
        r"x must have one batch and, upsampled, one size \(2, 16, 16\), got \(2, 8, 8\)",
    ),
    (
        {"x": (X[:, :2],) * 2, "valid": (V, V.expand(-1, 3, -1, -1))},
        ValueError,
        r"valid must have shape \(2, 2, 8, 8\)",
    ),
]


@pytest.mark.parametrize(("change", "error", "text"), BAD_INPUT, ids=[b[2][:40] for b in BAD_INPUT])
def test_bad_input(change, error, text):
    arguments = {"x": X, "valid": V, "weight": W, **change}
    with pytest.raises(error, match=f"partial_conv2d: {text}"):
        partial_conv2d(**arguments)
