"""fused_conv_transpose2d: reference, gradients, contract."""

import copy
import pickle

import pytest
import torch
from conv_cases import FORMAT_IDS, FORMATS, check_against_reference, upstream
from support import check_close

from inpaint_ops import FusedConvTranspose2d, fused_conv_transpose2d

# name: (shape of x, filters, kernel, options)
GEOMETRIES = {
    "4x4": ((2, 21, 9, 11), 34, (4, 4), {}),
    "4x4-one-pixel": ((2, 40, 1, 1), 6, (4, 4), {"stride": 1, "padding": 0}),
    "4x4-few-filters": ((1, 33, 12, 10), 3, (4, 4), {"activation": "tanh"}),
    "3x3": ((1, 5, 9, 10), 7, (3, 3), {"activation": "elu"}),
    "5x5-stride-3": ((1, 6, 8, 9), 17, (5, 5), {"stride": 3, "padding": 0}),
    "2x5-wide-padding": ((1, 6, 8, 9), 4, (2, 5), {"padding": 3, "activation": "relu"}),
    "kernel-below-stride": ((1, 6, 8, 9), 4, (2, 2), {"stride": 3, "padding": 0}),
    "stride-1": ((1, 6, 8, 9), 4, (3, 3), {"stride": 1, "activation": "silu"}),
    "silu": ((1, 6, 8, 9), 4, (4, 4), {"activation": "silu"}),
}


def tensors(shape, filters, kernel, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)

    def draw(*size):
        return torch.randn(*size, generator=generator, dtype=torch.float64)

    weight = draw(shape[1], filters, *kernel) / (shape[1] * kernel[0] * kernel[1]) ** 0.5
    return tuple(t.to(dtype) for t in (draw(*shape), weight, draw(filters)))


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("memory_format", FORMATS, ids=FORMAT_IDS)
@pytest.mark.usefixtures("instruction_set")
def test_matches_reference(geometry, memory_format):
    shape, filters, kernel, options = GEOMETRIES[geometry]
    x, weight, bias = tensors(shape, filters, kernel)
    x = x.contiguous(memory_format=memory_format)
    # 16 times the terms: the gradient of a stride-1 layer takes a Winograd algorithm.
    y, *_ = check_against_reference(
        "fused_conv_transpose2d", x, weight, bias, winograd=True, **options
    )
    # One pixel has no layout to keep.
    assert shape[2] == 1 or y.is_contiguous(memory_format=memory_format)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16], ids=str)
def test_dtypes(dtype):
    inputs = tensors((1, 8, 9, 10), 6, (4, 4), dtype)
    for activation in ("identity", "elu", "silu"):
        got = check_against_reference(
            "fused_conv_transpose2d", *inputs, winograd=True, activation=activation
        )
        assert all(t.dtype == dtype for t in got)


def test_layer_is_conv_transpose2d_with_more():
    plain = torch.nn.ConvTranspose2d(8, 6, (4, 5), (2, 2), 1)
    layer = FusedConvTranspose2d(8, 6, (4, 5), (2, 2), 1, activation="leaky_relu")
    layer.load_state_dict(plain.state_dict())
    x = torch.randn(2, 8, 9, 7)
    expected = torch.nn.functional.leaky_relu(plain.double()(x.double()), 0.2).detach()
    check_close(layer(x).detach(), expected, terms=8 * 20)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(twin(x), layer(x))
    assert "kernel_size=(4, 5), stride=(2, 2)" in repr(layer)
    assert "activation='leaky_relu'" in repr(layer)
    torch.manual_seed(3)
    ours = FusedConvTranspose2d(4, 6, 3)
    torch.manual_seed(3)
    theirs = torch.nn.ConvTranspose2d(4, 6, 3)
    assert torch.equal(ours.weight, theirs.weight)
    assert torch.equal(ours.bias, theirs.bias)
    bare = FusedConvTranspose2d(4, 6, 4, 2, 1, bias=False)
    assert list(bare.state_dict()) == ["weight"]
    assert bare(torch.zeros(1, 4, 5, 5)).shape == (1, 6, 10, 10)


BAD_LAYERS = [
    ((0, 6, 4), {}, ValueError, "in_channels must be at least 1"),
    ((4, 6, (4,)), {}, ValueError, "kernel_size must be an int or a pair"),
    ((4, 6, 4, (2, 1)), {}, ValueError, "stride must be one number for both directions"),
    ((4, 6, 4, 2, (1, 0)), {}, ValueError, "padding must be one number for both directions"),
    ((4, 6, 4, 2, 1, 1), {}, ValueError, r"output_padding must be \(0, 0\), got \(1, 1\)"),
    ((4, 6, 4), {"groups": 2}, ValueError, "groups must be 1, got 2"),
    ((4, 6, 4), {"dilation": 2}, ValueError, r"dilation must be \(1, 1\)"),
    ((4, 6, 4), {"padding_mode": "reflect"}, ValueError, "padding_mode must be 'zeros'"),
    ((4, 6, 4), {"activation": "gelu"}, ValueError, "activation must be one of identity"),
]


@pytest.mark.parametrize(
    ("arguments", "options", "error", "text"), BAD_LAYERS, ids=[b[3][:30] for b in BAD_LAYERS]
)
def test_bad_layer(arguments, options, error, text):
    with pytest.raises(error, match=f"FusedConvTranspose2d: {text}"):
        FusedConvTranspose2d(*arguments, **options)


def test_compiles_and_exports():
    class Layer(torch.nn.Module):
        def __init__(self):
            super().__init__()
            _, weight, bias = tensors((1, 4, 8, 8), 6, (4, 4))
            self.weight, self.bias = torch.nn.Parameter(weight), torch.nn.Parameter(bias)

        def forward(self, x):
            return fused_conv_transpose2d(x, self.weight, self.bias, activation="leaky_relu")

    layer, x = Layer(), torch.randn(1, 4, 8, 8, requires_grad=True)
    expected = layer(x)
    (grad,) = torch.autograd.grad(expected, x, upstream(expected))
    y = torch.compile(layer, fullgraph=True, backend="aot_eager")(x)
    (compiled_grad,) = torch.autograd.grad(y, x, upstream(y))
    assert torch.equal(y, expected)
    torch.testing.assert_close(compiled_grad, grad)
    program = torch.export.export(layer, (x.detach(),))
    assert torch.equal(program.module()(x.detach()), expected)


X = torch.zeros(2, 4, 8, 8)
W = torch.zeros(4, 6, 4, 4)
BAD_INPUT = [
    ({"x": X[0]}, ValueError, "x must have shape"),
    ({"x": X[:, :, :0]}, ValueError, "padding must leave something of the result"),
    ({"weight": W[:3]}, ValueError, "weight must have 4 input channels"),
    ({"bias": torch.zeros(4)}, ValueError, r"bias must have shape \(6,\)"),
    ({"stride": (2, 2)}, TypeError, "stride must be an int, got tuple"),
    ({"stride": 0}, ValueError, "stride must be at least 1"),
    ({"padding": -1}, ValueError, "padding must be at least 0"),
    ({"padding": 9}, ValueError, "padding must leave something of the result, got 9"),
    ({"activation": "softmax"}, ValueError, "activation must be one of identity"),
]


@pytest.mark.parametrize(("change", "error", "text"), BAD_INPUT, ids=[b[2][:40] for b in BAD_INPUT])
def test_bad_input(change, error, text):
    arguments = {"x": X, "weight": W, **change}
    with pytest.raises(error, match=f"fused_conv_transpose2d: {text}"):
        fused_conv_transpose2d(**arguments)
