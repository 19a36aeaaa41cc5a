"""fused_conv2d and its layer: reference, gradients, contract."""

import copy
import math
import pickle

import pytest
import torch
from conv_cases import (
    FORMAT_IDS,
    FORMATS,
    GEOMETRIES,
    activations_and_geometries,
    check_against_reference,
    force_algorithm,
    may_be_tiled,
    tensors,
)
from support import check_close

import inpaint_ops
from inpaint_ops import FusedConv2d, fused_conv2d, reference


@pytest.mark.parametrize(("geometry", "activation"), activations_and_geometries())
@pytest.mark.parametrize("memory_format", FORMATS, ids=FORMAT_IDS)
def test_matches_reference(geometry, activation, memory_format):
    shape, filters, kernel, options = GEOMETRIES[geometry]
    x, weight, bias = tensors(shape, filters, kernel)
    x = x.contiguous(memory_format=memory_format)
    tiled = may_be_tiled(filters, kernel)
    check_against_reference(
        "fused_conv2d", x, weight, bias, winograd=tiled, activation=activation, **options
    )


@pytest.mark.parametrize("filters", [1, 3, 4, 15, 16, 17, 31, 33])
@pytest.mark.parametrize("kernel", [1, 3, 7])
@pytest.mark.usefixtures("instruction_set")
def test_few_filters_and_remainders(filters, kernel):
    x, weight, bias = tensors((1, 37, 11, 30), filters, (kernel, kernel))
    check_against_reference(
        "fused_conv2d",
        x,
        weight,
        bias,
        winograd=may_be_tiled(filters, (kernel, kernel)),
        padding=kernel // 2,
        activation="tanh",
    )


@pytest.mark.parametrize("groups", [2, 4, 8])
@pytest.mark.parametrize("options", [{"padding": 1}, {"padding": "same", "stride": 2}], ids=str)
def test_groups(groups, options):
    inputs = tensors((2, 8, 13, 12), 16, (3, 3), groups=groups)
    check_against_reference(
        "fused_conv2d", *inputs, groups=groups, activation="elu", winograd=True, **options
    )


@pytest.mark.usefixtures("instruction_set")
def test_every_instruction_set():
    for geometry, activation in activations_and_geometries()[-14:]:
        test_matches_reference(geometry, activation, torch.channels_last)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("activation", ["identity", "silu", "leaky_relu"])
def test_dtypes(dtype, activation):
    shape, filters, kernel, options = GEOMETRIES["3x3"]
    x, weight, bias = tensors(shape, filters, kernel, dtype=dtype)
    got = check_against_reference(
        "fused_conv2d", x, weight, bias, winograd=True, activation=activation, **options
    )
    assert all(t.dtype == dtype for t in got)


# Every algorithm, with strides and dilations, few channels and many.
TILED = {
    "3x3-stride-2": ("winograd_5x2", (1, 24, 40, 37), 48, 3, {"padding": 1, "stride": 2}),
    "4x4": ("winograd_3x4", (1, 40, 31, 33), 64, 4, {"padding": 1}),
    "4x4-stride-2": ("winograd_5x2", (1, 3, 64, 70), 64, 4, {"padding": 1, "stride": 2}),
    "4x4-stride-2-deep": ("winograd_5x2", (1, 160, 20, 18), 64, 4, {"padding": 1, "stride": 2}),
    "4x4-stride-2-short": ("winograd_4x2", (1, 96, 34, 31), 64, 4, {"padding": 1, "stride": 2}),
    "2x2-short": ("winograd_4x2", (2, 33, 16, 19), 50, 2, {"padding": 1}),
    "5x5": ("winograd_4x3", (2, 64, 26, 25), 64, 5, {"padding": 2, "padding_mode": "reflect"}),
    "5x5-dilated": ("winograd_4x3", (1, 64, 33, 30), 64, 5, {"padding": 4, "dilation": 2}),
    "5x5-stride-2": ("winograd_4x3", (1, 128, 32, 33), 96, 5, {"padding": "same", "stride": 2}),
    "5x5-stride-3": ("winograd_4x3", (1, 32, 50, 49), 48, 5, {"padding": 2, "stride": 3}),
    "5x5-upsampled": ("winograd_4x3", (1, 32, 13, 14), 48, 5, {"padding": 2, "upsample": 2}),
    "7x7": ("winograd_3x4", (1, 32, 30, 28), 40, 7, {"padding": 3, "padding_mode": "replicate"}),
    "7x7-stride-2": ("winograd_3x4", (1, 4, 41, 47), 64, 7, {"padding": 3, "stride": 2}),
    "5x5-large": (
        "winograd_4x5",
        (2, 64, 26, 25),
        64,
        5,
        {"padding": 2, "padding_mode": "reflect"},
    ),
    "7x7-large-dilated": ("winograd_5x4", (1, 63, 33, 30), 34, 7, {"padding": 6, "dilation": 2}),
    "7x7-large": ("winograd_5x4", (1, 32, 30, 28), 40, 7, {"padding": 3}),
    "7x7-large-deep": ("winograd_5x4", (1, 65, 27, 28), 64, 7, {"padding": 3}),
    "uneven": ("winograd_4x3", (1, 48, 40, 41), 48, (3, 5), {"padding": (1, 2), "stride": (2, 1)}),
    "few-filters": ("direct", (1, 20, 20, 290), 3, 3, {"padding": 1}),
    "few-filters-dilated": ("direct", (2, 5, 30, 50), 2, (3, 5), {"padding": 4, "dilation": 2}),
    "few-filters-upsampled": ("direct", (1, 12, 13, 17), 4, 3, {"padding": 1, "upsample": 2}),
    "thin": ("direct", (2, 3, 41, 130), 64, 7, {"padding": 3, "stride": 2}),
    "as-direct-sums": ("direct", (1, 24, 40, 37), 48, 3, {"padding": 1, "stride": 2}),
}


@pytest.mark.parametrize("case", TILED)
@pytest.mark.parametrize("memory_format", FORMATS, ids=FORMAT_IDS)
@pytest.mark.usefixtures("instruction_set")
def test_error_of_each_algorithm_is_at_most_eight_times_that_of_eager(
    case, memory_format, monkeypatch
):
    algorithm, shape, filters, kernel, options = TILED[case]
    kernel = kernel if isinstance(kernel, tuple) else (kernel, kernel)
    x, weight, bias = tensors(shape, filters, kernel)
    x = x.contiguous(memory_format=memory_format)
    exact = reference.fused_conv2d(x.double(), weight.double(), bias.double(), **options)
    eager = reference.fused_conv2d(x, weight, bias, **options)
    force_algorithm(monkeypatch, algorithm)
    ours = fused_conv2d(x, weight, bias, **options)
    assert ours.is_contiguous(memory_format=memory_format)
    assert (ours - exact).square().mean() <= 8**2 * (eager - exact).square().mean()
    assert (ours - exact).abs().max() <= 8 * (eager - exact).abs().max()


@pytest.mark.parametrize("channels", [3, 20])
@pytest.mark.parametrize("kernel", [1, 3, 4, 7])
def test_layouts_give_equal_bits(channels, kernel):
    x, weight, bias = tensors((2, channels, 21, 30), 24, (kernel, kernel))
    options = {"padding": kernel // 2, "activation": "elu"}
    planes = fused_conv2d(x, weight, bias, **options)
    last = fused_conv2d(x.contiguous(memory_format=torch.channels_last), weight, bias, **options)
    assert planes.is_contiguous()
    assert last.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(planes, last)


def test_weight_in_channels_last_makes_the_result_so():
    x, weight, bias = tensors((1, 4, 9, 9), 6, (3, 3))
    y = fused_conv2d(x, weight, bias, padding=1)
    last = fused_conv2d(x, weight.contiguous(memory_format=torch.channels_last), bias, padding=1)
    assert y.is_contiguous()
    assert last.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(last, y)


def test_odd_layouts():
    _, weight, bias = tensors((2, 6, 9, 9), 6, (3, 3))
    wide = torch.randn(4, 12, 20, 18)
    last = wide.contiguous(memory_format=torch.channels_last)
    for x in (
        wide[1:3, 2:8, :9, ::2],
        last[::2, :6, 1:10, 3:12],
        wide[:1, :6].expand(2, -1, -1, -1),
    ):
        check_against_reference("fused_conv2d", x, weight, bias, winograd=True, padding=1)


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "elu", "silu", "tanh", "sigmoid"])
def test_extreme_arguments_of_activations(activation):
    x = torch.tensor([-math.inf, -200, -88, -1e-3, 0, 1e-8, 1e-3, 20, 100, math.inf, math.nan])
    x = x.view(1, 1, 1, -1)
    weight = torch.ones(1, 1, 1, 1)
    y = fused_conv2d(x, weight, activation=activation)
    expected = reference.fused_conv2d(x, weight, activation=activation)
    finite = torch.isfinite(expected)
    torch.testing.assert_close(y[finite], expected[finite], rtol=4e-7, atol=1e-35)
    assert y[..., -1].isnan()


def test_activations_are_accurate():
    x = torch.linspace(-20, 20, 20001).view(1, 1, 1, -1)
    weight = torch.ones(1, 1, 1, 1)
    for activation in ("elu", "silu", "tanh", "sigmoid"):
        y = fused_conv2d(x, weight, activation=activation)
        exact = reference.fused_conv2d(x.double(), weight.double(), activation=activation)
        torch.testing.assert_close(y.double(), exact, rtol=6e-7, atol=1e-30)


@pytest.mark.parametrize("activation", ["identity", "elu", "silu", "tanh", "sigmoid"])
def test_gradcheck(activation):
    x, weight, bias = tensors((1, 2, 4, 5), 3, (3, 3), dtype=torch.float64)
    leaves = [t.requires_grad_() for t in (x, weight, bias)]
    assert torch.autograd.gradcheck(
        lambda *t: fused_conv2d(*t, padding=1, activation=activation), leaves, fast_mode=True
    )


def test_compiles_and_exports():
    layer = FusedConv2d(4, 6, 5, padding="same", stride=2, activation="leaky_relu")
    x = torch.randn(1, 4, 9, 8, requires_grad=True)
    expected = layer(x)
    (grad,) = torch.autograd.grad(expected.square().sum(), x)
    y = torch.compile(layer, fullgraph=True, backend="aot_eager")(x)
    (compiled_grad,) = torch.autograd.grad(y.square().sum(), x)
    assert torch.equal(y, expected)
    torch.testing.assert_close(compiled_grad, grad)
    program = torch.export.export(layer, (x.detach(),))
    assert torch.equal(program.module()(x.detach()), expected)


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("filters", [64, 80, 60])
def test_large_results(filters, kernel):
    # Beyond 4 MB they are written past the caches, where pixels begin at cache lines.
    x, weight, bias = tensors((1, 16, 130, 139), filters, (kernel, kernel))
    x = x.contiguous(memory_format=torch.channels_last)
    results = []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        results.append(fused_conv2d(x, weight, bias, padding=kernel // 2, activation="relu"))
    assert torch.equal(*results)
    wide = (t.double() for t in (x, weight, bias))
    exact = reference.fused_conv2d(*wide, padding=kernel // 2, activation="relu")
    check_close(results[0], exact, terms=16 * 16 * kernel**2)


def test_layer_is_conv2d_with_more():
    plain = torch.nn.Conv2d(4, 6, (3, 5), stride=(2, 1), padding=(1, 2), groups=2, bias=False)
    layer = FusedConv2d(4, 6, (3, 5), (2, 1), (1, 2), groups=2, bias=False, activation="relu")
    layer.load_state_dict(plain.state_dict())
    x = torch.randn(2, 4, 9, 8)
    check_close(layer(x).detach(), plain.double()(x.double()).relu().detach(), terms=64)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(twin(x), layer(x))
    assert "groups=2, bias=False, activation='relu'" in repr(layer)
    torch.manual_seed(3)
    ours = FusedConv2d(4, 6, 3)
    torch.manual_seed(3)
    theirs = torch.nn.Conv2d(4, 6, 3)
    assert torch.equal(ours.weight, theirs.weight)
    assert torch.equal(ours.bias, theirs.bias)


X = torch.zeros(2, 4, 8, 8)
W = torch.zeros(6, 4, 3, 3)
BAD_INPUT = [
    ({"x": X.tolist()}, TypeError, "x must be a Tensor, got list"),
    ({"x": X[:, :0]}, ValueError, "x must have at least one channel"),
    ({"weight": W[:, :2]}, ValueError, "weight must have 4 input channels"),
    ({"weight": W[:0]}, ValueError, "weight must have four dimensions, none empty"),
    ({"bias": torch.zeros(6, 1)}, ValueError, r"bias must have shape \(6,\)"),
    ({"stride": True}, TypeError, "stride must be an int, got bool"),
    ({"padding": None}, TypeError, "padding must be an int, got NoneType"),
    ({"dilation": (1, 0)}, ValueError, "dilation must be at least 1"),
    ({"groups": 3}, ValueError, "groups must divide 4 channels and 6 filters, got 3"),
    ({"groups": 0}, ValueError, "groups must be at least 1"),
    ({"padding_mode": "symmetric"}, ValueError, "padding_mode must be one of zeros"),
    ({"activation": None}, ValueError, "activation must be one of identity"),
    ({"upsample": 0}, ValueError, "upsample must be at least 1"),
]


@pytest.mark.parametrize(("change", "error", "text"), BAD_INPUT, ids=[b[2][:40] for b in BAD_INPUT])
def test_bad_input(change, error, text):
    arguments = {"x": X, "weight": W, **change}
    with pytest.raises(error, match=f"fused_conv2d: {text}"):
        fused_conv2d(**arguments)


def test_backend_names():
    with pytest.raises(
        ValueError, match="name must be one of auto, precise, direct, triton, reference"
    ):
        inpaint_ops.backend("winograd_4x3").__enter__()


@pytest.mark.parametrize("layer", ["FusedConv2d", "GatedConv2d", "PartialConv2d"])
@pytest.mark.parametrize("bias", ["reflect", 2, None, torch.ones(4)])
def test_a_bias_that_is_no_bool_is_refused(layer, bias):
    """A public layer of the same name takes the padding mode in this place."""
    with pytest.raises(TypeError, match=f"{layer}: bias must be a bool"):
        getattr(inpaint_ops, layer)(4, 4, 3, padding=1, bias=bias)
