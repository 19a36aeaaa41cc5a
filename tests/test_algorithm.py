"""The argument `algorithm` of the convolutions: what one large value does to its neighbours."""

import copy
import pickle

import pytest
import torch
from conv_cases import upstream
from torch import Tensor

import inpaint_ops
from inpaint_ops import (
    FusedConv2d,
    FusedConvTranspose2d,
    GatedConv2d,
    PartialConv2d,
    fused_conv2d,
    fused_conv_transpose2d,
    gated_conv2d,
    partial_conv2d,
    reference,
)

OUTLIERS = (-9999.0, 1e6)
C, SIZE, AT = 48, 32, 16  # channels, pixels a side, place of the large value


def partial(x, weight, bias, **options):
    return partial_conv2d(x, torch.ones(1, 1, *x.shape[2:]), weight, bias, **options)[0]


def partial_reference(x, weight, bias, **options):
    return reference.partial_conv2d(x, torch.ones(1, 1, *x.shape[2:]), weight, bias, **options)[0]


# name: (ours, plain PyTorch, shape of the weight, options)
OPERATORS = {
    "fused": (fused_conv2d, reference.fused_conv2d, (64, C, 3, 3), {"padding": 1}),
    "fused-5x5": (fused_conv2d, reference.fused_conv2d, (64, C, 5, 5), {"padding": 2}),
    "fused-strided": (
        fused_conv2d,
        reference.fused_conv2d,
        (64, C, 4, 4),
        {"padding": 1, "stride": 2},
    ),
    "gated": (gated_conv2d, reference.gated_conv2d, (64, C, 3, 3), {"padding": 1}),
    "partial": (partial, partial_reference, (64, C, 3, 3), {"padding": 1}),
    "transposed": (
        fused_conv_transpose2d,
        reference.fused_conv_transpose2d,
        (C, 64, 4, 4),
        {"stride": 2, "padding": 1},
    ),
}


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def parameters(shape, name):
    weight = draw(*shape, seed=1) / (C * shape[2] * shape[3]) ** 0.5
    return weight, draw(shape[1] if name == "transposed" else shape[0], seed=2)


def unseen(y: Tensor, reach: int) -> Tensor:
    """The places of an image whose windows do not hold the large value."""
    keep = torch.ones(y.shape[2:], dtype=torch.bool)
    scale = y.shape[2] / SIZE
    low, high = int((AT - reach) * scale), int((AT + reach + 1) * scale) + 1
    keep[low:high, low:high] = False
    return keep


def errors(function, name, image, shape, options, *, wide):
    """Errors of the result where the large value of x is not seen, and of x's gradient likewise."""
    x, weight, bias = image, *parameters(shape, name)
    large = x.clone()
    large[..., AT, AT] = wide

    def run(dtype, call, **more):
        tensors = [t.to(dtype).requires_grad_() for t in (large, weight, bias)]
        y = call(*tensors, **options, **more)
        grad = draw(*y.shape, seed=3).to(dtype)
        at = int(AT * y.shape[2] / SIZE)
        grad[..., at, at] = wide
        return y.detach(), *torch.autograd.grad(y, tensors, grad)

    ours, plain, keywords = function
    exact = run(torch.float64, plain)
    reach = max(shape[2:])
    far = [unseen(t, reach) for t in exact[:2]]

    def error(got, want):
        made = [(g - w)[..., f].abs().max() for g, w, f in zip(got, want, far)]
        return torch.stack([*made, (got[2] - want[2]).abs().max()])

    return (
        error(run(torch.float32, ours, **keywords), exact),
        error(run(torch.float32, plain), exact),
    )


@pytest.mark.parametrize("wide", OUTLIERS)
@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.usefixtures("instruction_set")
def test_direct_sums_keep_a_large_value_where_it_is_seen(name, wide):
    ours, plain, shape, options = OPERATORS[name]
    image = draw(1, C, SIZE, SIZE)
    function = (ours, plain, {"algorithm": "direct"})
    mine, eager = errors(function, name, image, shape, options, wide=wide)
    # Result and gradient of x where nothing large is seen, gradient of the weight as a whole.
    assert (mine <= 4 * eager).all(), (mine / eager).tolist()


def test_winograd_spreads_it_within_its_bound():
    """Errors in proportion to the largest input of a tile, as docs/numerics.md says."""
    options = OPERATORS["fused"][3]
    x, (weight, bias) = draw(1, C, SIZE, SIZE), parameters(OPERATORS["fused"][2], "fused")
    for wide in OUTLIERS:
        x[..., AT, AT] = wide
        exact = reference.fused_conv2d(x.double(), weight.double(), bias.double(), **options)
        error = (fused_conv2d(x, weight, bias, **options) - exact).abs()
        # sum over taps and channels of |weight| bounds what a unit of input can do.
        gain = weight.abs().sum((1, 2, 3)).max()
        assert error.max() <= 8 * 2**-24 * abs(wide) * gain * 9
        # Tiles that the large value does not lie in do not feel it.
        far = torch.ones(SIZE, SIZE, dtype=torch.bool)
        far[AT - 6 : AT + 7, AT - 6 : AT + 7] = False
        assert error[..., far].max() < 1e-4


LAYERS = {
    "fused": lambda **more: FusedConv2d(C, 64, 3, padding=1, activation="elu", **more),
    "gated": lambda **more: GatedConv2d(C, 32, 3, padding=1, **more),
    "partial": lambda **more: PartialConv2d(C, 64, 3, padding=1, **more),
    "transposed": lambda **more: FusedConvTranspose2d(C, 64, 4, 2, 1, activation="elu", **more),
}


def results(layer, x):
    x = x.detach().requires_grad_()
    y = layer(x)
    return y.detach(), *torch.autograd.grad(y, (x, *layer.parameters()), upstream(y))


def equal(first, second):
    return [torch.equal(a, b) for a, b in zip(first, second)]


@pytest.mark.parametrize("name", LAYERS)
def test_layers_keep_their_algorithm(name):
    x = draw(1, C, SIZE, SIZE)
    torch.manual_seed(0)
    layer = LAYERS[name]()
    torch.manual_seed(0)
    direct = LAYERS[name](algorithm="direct")
    with inpaint_ops.backend("direct"):
        expected = results(layer, x)
    # Result and all gradients: the choice of the forward pass holds in the backward pass.
    assert all(equal(results(direct, x), expected))
    tiled = equal(results(layer, x), expected)
    assert not tiled[0]
    assert not tiled[1]
    assert not tiled[2]
    for twin in (copy.deepcopy(direct), pickle.loads(pickle.dumps(direct))):
        assert all(equal(results(twin, x), expected))
    assert repr(direct).endswith("algorithm='direct')")
    assert "algorithm" not in repr(layer)
    assert direct.state_dict().keys() == layer.state_dict().keys()


@pytest.mark.parametrize("name", LAYERS)
def test_compiled_and_exported_layers_keep_it(name):
    x = draw(1, C, SIZE, SIZE)
    layer = LAYERS[name](algorithm="direct")
    expected = results(layer, x)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    leaf = x.detach().requires_grad_()
    y = compiled(leaf)
    grads = torch.autograd.grad(y, (leaf, *layer.parameters()), upstream(y))
    assert all(equal((y.detach(), *grads), expected))
    program = torch.export.export(layer, (x,))
    assert torch.equal(program.module()(x), expected[0])


@pytest.mark.parametrize("name", OPERATORS)
def test_bad_input(name):
    function, _, shape, _ = OPERATORS[name]
    operator = {"partial": "partial_conv2d"}.get(name, function.__name__)
    weight, bias = parameters(shape, name)
    with pytest.raises(ValueError, match=f"{operator}: algorithm must be one of auto, direct"):
        function(draw(1, C, 8, 8), weight, bias, algorithm="winograd")


@pytest.mark.parametrize("name", LAYERS)
def test_bad_layer_input(name):
    with pytest.raises(ValueError, match="algorithm must be one of auto, direct, got 'fast'"):
        LAYERS[name](algorithm="fast")
