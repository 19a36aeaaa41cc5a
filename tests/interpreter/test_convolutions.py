"""The GPU convolutions in Triton's interpreter, by the public functions, against the reference.

Both ways of `choose` are taken: "fused", the implicit product, and "library", aten's product with
the elementwise passes before and after it.
"""

import math

import pytest
import torch
from conv_cases import tensors, upstream
from support import check_close

import inpaint_ops
from inpaint_ops import partial_conv2d, reference
from inpaint_ops.kernels.convolution.fused_kernel import CONV
from inpaint_ops.kernels.convolution.load import TAPS_OF_ONE, TAPS_OF_TWO
from inpaint_ops.ops.convolution import spec

PATHS = ["fused", "library"]
DTYPES = [torch.float32, torch.float16, torch.bfloat16]
HALF = DTYPES[1:]

# name: (shape of x, filters, kernel, options); filters are twice as many for gated layers.
CASES = {
    "one-pixel": ((1, 1, 1, 1), 1, (3, 3), {"padding": 1}),
    "3x3": ((2, 4, 7, 9), 6, (3, 3), {"padding": 1}),
    "prime": ((1, 5, 11, 13), 7, (3, 3), {"padding": 1}),
    "no-padding": ((1, 3, 5, 6), 40, (3, 3), {}),
    "no-images": ((0, 3, 5, 6), 4, (3, 3), {"padding": 1}),
    "wide-padding": ((1, 3, 3, 4), 4, (3, 3), {"padding": 5}),
    "stride-2": ((1, 6, 8, 9), 5, (3, 3), {"padding": 1, "stride": 2}),
    "same-even": ((1, 3, 8, 6), 4, (3, 3), {"padding": "same", "stride": 2}),
    "dilated": ((1, 4, 6, 7), 4, (3, 3), {"padding": 8, "dilation": 8}),
    "5x5": ((1, 5, 9, 6), 4, (5, 5), {"padding": 2}),
    "uneven": (
        (1, 4, 7, 9),
        6,
        (3, 5),
        {"padding": (1, 2), "stride": (2, 1), "dilation": (1, 2)},
    ),
    "1x1": ((2, 17, 3, 5), 2, (1, 1), {}),
}
PADDED = {
    "reflect": ((1, 4, 7, 5), 4, (7, 7), {"padding": 3, "padding_mode": "reflect"}),
    "replicate": (
        (1, 3, 6, 7),
        4,
        (3, 3),
        {"padding": (2, 3), "dilation": (2, 3), "padding_mode": "replicate"},
    ),
    "doubled": ((2, 5, 4, 5), 6, (3, 3), {"padding": 1, "upsample": 2}),
    "doubled-reflect": (
        (1, 3, 3, 4),
        4,
        (3, 3),
        {"padding": 1, "upsample": 2, "padding_mode": "reflect"},
    ),
    "doubled-replicate": (
        (1, 3, 1, 2),
        4,
        (3, 3),
        {"padding": 1, "upsample": 2, "padding_mode": "replicate"},
    ),
    "doubled-5x5": (
        (1, 3, 4, 3),
        4,
        (5, 5),
        {"padding": 2, "upsample": 2, "padding_mode": "reflect", "stride": 2},
    ),
}


@pytest.fixture(params=PATHS)
def path(request, monkeypatch):
    monkeypatch.setenv("INPAINT_OPS_CONV", request.param)
    return request.param


def run(function, *inputs, **options):
    """The result, and the gradients of all inputs that are not None."""
    leaves = [None if t is None else t.detach().requires_grad_() for t in inputs]
    y = function(*leaves, **options)
    wanted = [t for t in leaves if t is not None]
    return (y.detach(), *torch.autograd.grad(y, wanted, upstream(y)))


def check(name, x, weight, bias, **options):
    """Result and gradients of the GPU kernels against the reference in float64."""
    with inpaint_ops.backend("triton"):
        actual = run(getattr(inpaint_ops, name), x, weight, bias, **options)
    exact_inputs = (None if t is None else t.double() for t in (x, weight, bias))
    expected = run(getattr(reference, name), *exact_inputs, **options)
    pixels = max(1, actual[0].numel() // max(1, actual[0].shape[1]))
    depth = weight.numel() // min(weight.shape[:2])
    for got, want, terms in zip(actual, expected, (depth, depth, pixels, pixels)):
        assert got.dtype == x.dtype
        check_close(got, want, terms=terms)
    return actual


def draw(case, *, gated=False, dtype=torch.float32):
    shape, filters, kernel, options = case
    return tensors(shape, filters * (2 if gated else 1), kernel, dtype=dtype), options


@pytest.mark.parametrize("name", [*CASES, *PADDED])
@pytest.mark.parametrize("gated", [True, False], ids=["gated", "fused"])
def test_geometries(path, gated, name):
    inputs, options = draw({**CASES, **PADDED}[name], gated=gated)
    check("gated_conv2d" if gated else "fused_conv2d", *inputs, **options)


@pytest.mark.parametrize("activation", spec.ACTIVATIONS)
@pytest.mark.parametrize("gated", [True, False], ids=["gated", "fused"])
def test_activations(path, gated, activation):
    (x, weight, bias), options = draw(CASES["3x3"], gated=gated)
    check(
        "gated_conv2d" if gated else "fused_conv2d",
        *(x * 3, weight, bias),
        activation=activation,
        **options,
    )


@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("name", ["3x3", "5x5", "doubled", "no-padding"])
@pytest.mark.parametrize("gated", [True, False], ids=["gated", "fused"])
def test_half_precision(path, gated, name, dtype):
    inputs, options = draw({**CASES, **PADDED}[name], gated=gated, dtype=dtype)
    check("gated_conv2d" if gated else "fused_conv2d", *inputs, activation="silu", **options)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("filters", [8, 32, 72])
def test_whole_units_of_filters(path, filters, dtype):
    inputs = tensors((1, 16, 5, 6), 2 * filters, (3, 3), dtype=dtype)
    check("gated_conv2d", *inputs, padding=1)
    check("fused_conv2d", inputs[0], inputs[1], None, padding=1, activation="relu")


@pytest.mark.parametrize("layout", ["channels_last", "sliced", "unaligned", "expanded"])
def test_layouts(path, layout):
    x, weight, bias = tensors((2, 8, 6, 7), 8, (3, 3))
    if layout == "channels_last":
        x, weight = (t.contiguous(memory_format=torch.channels_last) for t in (x, weight))
    elif layout == "sliced":
        x = tensors((2, 9, 6, 14), 8, (3, 3))[0][:, 1:, :, ::2]
    elif layout == "unaligned":
        memory = torch.empty(x.numel() + 1)[1:].view(2, 6, 7, 8).permute(0, 3, 1, 2)
        x = memory.copy_(x)
        bias = torch.cat([bias, bias])[1:9]
    else:
        x, bias = x[:1].expand(2, -1, -1, -1), bias[:1].expand(8)
    y = check("fused_conv2d", x, weight, bias, padding=1)[0]
    wanted = spec.memory_format(x, weight)
    assert y.is_contiguous(memory_format=wanted)


@pytest.mark.parametrize("groups", [2, 4])
def test_groups(groups):
    x, weight, bias = tensors((2, 8, 5, 6), 12, (3, 3), groups=groups)
    check("fused_conv2d", x, weight, bias, padding=1, groups=groups, activation="elu")


@pytest.mark.parametrize("precision", ["tf32", "ieee"])
def test_rows_of_float32(monkeypatch, precision):
    """The interpreter rounds nothing: that the rows read and write the right places is tested."""
    monkeypatch.setenv("INPAINT_OPS_CONV", "fused")
    before = torch.backends.cudnn.conv.fp32_precision
    torch.backends.cudnn.conv.fp32_precision = precision
    try:
        for name in ("gated_conv2d", "fused_conv2d"):
            inputs, options = draw(CASES["prime"], gated=True)
            check(name, *inputs, **options)
        x, weight, bias = tensors((1, 5, 6, 7), 9, (3, 3))
        check_partial(x, holes((1, 1, 6, 7)), weight, bias, padding=1)
    finally:
        torch.backends.cudnn.conv.fp32_precision = before


def test_large_rows(monkeypatch):
    """Blocks of 128 pixels, taken where there are enough of them, and of many outputs."""
    from inpaint_ops.kernels.convolution import fused

    monkeypatch.setenv("INPAINT_OPS_CONV", "fused")
    monkeypatch.setattr(fused, "_MANY_PROGRAMS", 1)
    for filters in (48, 96):
        inputs = tensors((1, 9, 11, 13), filters, (3, 3), dtype=torch.bfloat16)
        for name in ("gated_conv2d", "fused_conv2d"):
            check(name, *inputs, padding=1)
        check_partial(inputs[0], holes((1, 1, 11, 13)), *inputs[1:], padding=1)


@pytest.mark.parametrize("kind", ["gated", "plain", "partial"])
def test_rows_whose_pixels_come_in_two_pieces(monkeypatch, kind):
    from inpaint_ops.kernels.convolution import fused

    monkeypatch.setenv("INPAINT_OPS_CONV", "fused")
    monkeypatch.setattr(fused, "_half_row", lambda kind, *rest: f"{kind}-near")
    assert CONV.row(f"{kind}-near", "sm_80").constexprs["PIECE"] == 8
    inputs = tensors((1, 9, 6, 13), 24, (3, 3), dtype=torch.bfloat16)
    if kind == "partial":
        check_partial(inputs[0], holes((1, 1, 6, 13)), *inputs[1:], padding=1)
    else:
        check("gated_conv2d" if kind == "gated" else "fused_conv2d", *inputs, padding=1)


def test_samples_are_independent_and_results_repeat(path):
    x, weight, bias = tensors((3, 5, 6, 5), 6, (3, 3))
    one = check("gated_conv2d", x, weight, bias, padding=1)
    again = check("gated_conv2d", x, weight, bias, padding=1)
    assert all(torch.equal(a, b) for a, b in zip(one, again))
    with inpaint_ops.backend("triton"):
        alone = inpaint_ops.gated_conv2d(x[1:2], weight, bias, padding=1)
    if path == "fused":  # oneDNN, the library here, sums in an order that depends on the batch
        assert torch.equal(alone, one[0][1:2])


def test_nan_reaches_only_its_windows(monkeypatch):
    monkeypatch.setenv("INPAINT_OPS_CONV", "fused")
    x, weight, bias = tensors((1, 3, 9, 9), 4, (3, 3))
    x[0, 1, 4, 5] = math.nan
    with inpaint_ops.backend("triton"):
        seen = inpaint_ops.fused_conv2d(x, weight, bias, padding=1, activation="relu")
    seen = seen.isnan().any(1)[0]
    assert seen[3:6, 4:7].all()
    assert seen.sum() == 9


TRANSPOSED = {
    "4x4": ((2, 5, 3, 4), 6, (4, 4), {}),
    "3x3": ((1, 4, 5, 3), 3, (3, 3), {}),
    "stride-1": ((1, 3, 4, 4), 4, (3, 3), {"stride": 1}),
    "stride-3": ((1, 3, 2, 3), 4, (5, 5), {"stride": 3, "padding": 2}),
    "gaps": ((1, 3, 3, 2), 4, (2, 2), {"stride": 3, "padding": 0}),
    "one-pixel": ((2, 9, 1, 1), 5, (4, 4), {"padding": 0}),
    "no-images": ((0, 3, 2, 2), 4, (4, 4), {}),
}


@pytest.mark.parametrize("name", TRANSPOSED)
def test_transposed(path, name):
    shape, filters, kernel, options = TRANSPOSED[name]
    x, weight, bias = tensors(shape, filters, kernel)
    weight = weight.transpose(0, 1).contiguous()
    check("fused_conv_transpose2d", x, weight, bias, activation="elu", **options)


@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("activation", ["identity", "silu", "tanh"])
def test_transposed_half_precision(path, dtype, activation):
    x, weight, bias = tensors((1, 5, 3, 4), 16, (4, 4), dtype=dtype)
    weight = weight.transpose(0, 1).contiguous()
    check("fused_conv_transpose2d", x, weight, bias, activation=activation)


def test_only_wanted_gradients():
    x, weight, bias = tensors((1, 4, 5, 5), 6, (3, 3))
    for name in ("gated_conv2d", "fused_conv2d"):
        with inpaint_ops.backend("triton"):
            y = getattr(inpaint_ops, name)(x, weight.requires_grad_(), bias, padding=1)
            (grad,) = torch.autograd.grad(y.sum(), weight)
        assert grad.shape == weight.shape
        with torch.no_grad(), inpaint_ops.backend("triton"):
            assert not getattr(inpaint_ops, name)(x, weight, padding=1).requires_grad


def test_operators_pass_opcheck(path):
    """Shapes, dtypes and strides of the results are those the fake implementation promises."""
    x, weight, bias = tensors((2, 8, 5, 6), 8, (3, 3), dtype=torch.bfloat16)
    x = x.contiguous(memory_format=torch.channels_last)
    where = ([1, 1], [1, 1, 1, 1], [1, 1], 1, "zeros", 1)
    tests = ("test_schema", "test_faketensor")
    ops = torch.ops.inpaint_ops
    with inpaint_ops.backend("triton"):
        for op in (ops.gated_conv2d.default, ops.fused_conv2d.default):
            for keep in (True, False):
                args = (x, weight, bias, *where, "silu", keep, "auto")
                torch.library.opcheck(op, args, test_utils=tests)
        z = torch.randn(2, 8, 5, 6).bfloat16().contiguous(memory_format=torch.channels_last)
        for wanted in ([True] * 3, [False, True, False]):
            args = (z[:, :4].contiguous(), x, weight, z, *where, "elu", wanted, "auto")
            torch.library.opcheck(ops.gated_conv2d_backward.default, args, test_utils=tests)
        valid = torch.ones(2, 1, 5, 6, dtype=torch.bool)
        args = ([x], [valid], weight, bias, *where[:4], "window", [1], "auto")
        torch.library.opcheck(ops.partial_conv2d.default, args, test_utils=tests)


def holes(shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=generator) > 0.6


def check_partial(x, valid, weight, bias, *, parts=None, **options):
    """Result, mask and gradients against the reference in float64; NaN in holes.

    `parts`: channels of the tensors that x is given as, each with its plane of `valid`.
    """
    leaves = [t.detach().requires_grad_() for t in (x, weight, bias) if t is not None]

    def given(image):
        return image if parts is None else image.split(parts, 1)

    poisoned = leaves[0]
    if not valid.is_floating_point() and valid.shape[1] == 1:
        poisoned = torch.where(valid != 0, leaves[0], math.nan)
    valid = valid if parts is None else valid.split(1, 1)
    kind = (valid if parts is None else valid[0]).dtype
    rest = leaves[1:] if bias is not None else [leaves[1], None]
    with inpaint_ops.backend("triton"):
        y, seen = partial_conv2d(given(poisoned), valid, *rest, **options)
    actual = (y.detach(), *torch.autograd.grad(y, leaves, upstream(y)))
    exact_inputs = [t.detach().double().requires_grad_() for t in leaves]
    rest = exact_inputs[1:] if bias is not None else [exact_inputs[1], None]
    expected_y, expected_seen = reference.partial_conv2d(
        given(exact_inputs[0]), valid, *rest, **options
    )
    expected = (
        expected_y.detach(),
        *torch.autograd.grad(expected_y, exact_inputs, upstream(y).double()),
    )
    assert seen.dtype == kind
    torch.testing.assert_close(seen.double(), expected_seen.double(), rtol=1e-6, atol=1e-6)
    pixels = max(1, y[:, :1].numel())
    depth = weight[0].numel() * 2
    for got, want, terms in zip(actual, expected, (depth, depth, pixels, pixels)):
        check_close(got, want, terms=terms)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("rule", ["window", "sum"])
def test_partial_geometries(path, name, rule):
    (x, weight, bias), options = draw(CASES[name])
    valid = holes((x.shape[0], 1, *x.shape[2:]))
    check_partial(x, valid, weight, bias, normalise=rule, **options)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.float32], ids=str)
@pytest.mark.parametrize(
    "mask", ["all-hole", "no-hole", "shared", "channels", "parts", "odd-parts"]
)
def test_partial_masks(path, mask, dtype):
    x, weight, bias = tensors((2, 12, 6, 7), 9, (3, 3))
    options = {"padding": 1}
    valid = holes((2, 1, 6, 7))
    if mask == "all-hole":
        valid[:] = False
    elif mask == "no-hole":
        valid[:] = True
    elif mask == "shared":
        valid = valid[:1]
    elif mask == "channels":
        valid = holes((2, 12, 6, 7))
    else:
        valid = holes((2, 2, 6, 7))
        options["parts"] = (8, 4) if mask == "parts" else (7, 5)
    check_partial(x, valid.to(dtype), weight, bias, **options)
    check_partial(x, valid.to(dtype), weight, None, normalise="sum", **options)


@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("filters", [3, 16])
def test_partial_half_precision(path, filters, dtype):
    x, weight, bias = tensors((1, 16, 6, 7), filters, (3, 3), dtype=dtype)
    check_partial(x, holes((1, 1, 6, 7)), weight, bias, padding=1, stride=2)
    check_partial(x, holes((1, 2, 6, 7)), weight, None, padding=1, parts=(8, 8))


@pytest.mark.parametrize("kind", [torch.bool, torch.float32], ids=str)
def test_partial_upsampled_tensors(kind):
    x, weight, bias = tensors((2, 8, 6, 8), 5, (3, 3))
    small = x[:, :3, ::2, ::2].contiguous()
    masks = (holes((1, 1, 3, 4)).to(kind), holes((2, 1, 6, 8)).to(kind))
    leaves = [t.detach().requires_grad_() for t in (small, x[:, 3:], weight, bias)]
    exact_inputs = [t.detach().double().requires_grad_() for t in leaves]
    options = {"padding": 1, "upsample": (2, 1)}
    with inpaint_ops.backend("triton"):
        y, seen = partial_conv2d(tuple(leaves[:2]), masks, *leaves[2:], **options)
    expected, expected_seen = reference.partial_conv2d(
        tuple(exact_inputs[:2]), masks, *exact_inputs[2:], **options
    )
    assert torch.equal(seen, expected_seen)
    actual = torch.autograd.grad(y, leaves, upstream(y))
    grads = torch.autograd.grad(expected, exact_inputs, upstream(y).double())
    for got, want in zip((y.detach(), *actual), (expected.detach(), *grads)):
        check_close(got, want, terms=96)


def test_partial_soft_masks_and_groups():
    x, weight, bias = tensors((1, 6, 6, 7), 4, (3, 3))
    generator = torch.Generator().manual_seed(5)
    soft = torch.rand((1, 1, 6, 7), generator=generator) * (torch.arange(7) > 2)
    check_partial(x, soft, weight, bias, padding=1)
    x, weight, bias = tensors((1, 6, 6, 7), 4, (3, 3), groups=2)
    check_partial(x, holes((1, 1, 6, 7)), weight, bias, padding=1, groups=2)


def test_partial_counts_more_taps_than_bits(monkeypatch):
    """8 x 8 taps are more than an int64 holds beside the sign, 6 x 6 more than half of one."""
    monkeypatch.setenv("INPAINT_OPS_CONV", "fused")
    x, weight, bias = tensors((1, 8, 9, 9), 3, (8, 8))
    check_partial(x, holes((1, 1, 9, 9)), weight, bias, padding=4)
    x, weight, bias = tensors((1, 8, 9, 9), 3, (7, 7))
    check_partial(x, holes((1, 1, 9, 9)), weight, bias, padding=3)
    x, weight, bias = tensors((1, 8, 9, 9), 3, (6, 6))
    check_partial(x, holes((1, 2, 9, 9)), weight, bias, padding=3, parts=(4, 4))


def test_partial_reads_as_many_taps_as_there_are_bits(monkeypatch):
    """What follows the last tap in a step counts as hidden, though all bits but one are taken."""
    monkeypatch.setenv("INPAINT_OPS_CONV", "fused")
    x, weight, bias = tensors((1, 4, 9, 9), 3, (7, 9))
    assert TAPS_OF_ONE == 7 * 9
    check_partial(x, holes((1, 1, 9, 9)), weight, bias, padding=(3, 4))
    x, weight, bias = tensors((1, 8, 2, 40), 3, (1, TAPS_OF_TWO))
    check_partial(x, holes((1, 2, 2, 40)), weight, bias, padding=(0, 15), parts=(4, 4))


def test_partial_takes_every_byte_but_0_for_1(path):
    """No value is looked at: the host would have to wait for the device."""
    x, weight, bias = tensors((1, 3, 4, 4), 2, (3, 3))
    valid = holes((1, 1, 4, 4))
    with inpaint_ops.backend("triton"):
        y, seen = partial_conv2d(x, valid.byte() * 7, weight, bias)
        expected, expected_seen = partial_conv2d(x, valid, weight, bias)
    assert torch.equal(y, expected)
    assert torch.equal(seen, expected_seen.byte())


@pytest.mark.parametrize("op", ["gated_conv2d", "fused_conv_transpose2d"])
def test_edited_weights_are_seen(path, op):
    """Packed weights are made at every call: these edits change no version and no address."""
    x, weight, _ = tensors((1, 4, 3, 4), 4, (3, 3))
    options = {"padding": 1, "upsample": 2} if op == "gated_conv2d" else {"stride": 2}
    function = getattr(inpaint_ops, op)
    with inpaint_ops.backend("triton"):
        before = function(x, weight, **options)
        version = weight._version
        weight.data.mul_(2)
        weight.numpy()[0] += 1
        assert weight._version == version
        got = function(x, weight, **options)
        expected = function(x, weight.clone(), **options)
    assert torch.equal(got, expected)
    assert not torch.equal(got, before)
