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
C, SIZE, AT = 48, 48, 24  # channels, pixels a side, place of the large value


def partial(x, weight, bias, **options):
    return partial_conv2d(x, torch.ones(1, 1, *x.shape[2:]), weight, bias, **options)[0]


def partial_reference(x, weight, bias, **options):
    return reference.partial_conv2d(x, torch.ones(1, 1, *x.shape[2:]), weight, bias, **options)[0]


TRANSPOSED = reference.fused_conv_transpose2d
# name: (ours, plain PyTorch, shape of the weight, options)
OPERATORS = {
    "fused": (fused_conv2d, reference.fused_conv2d, (64, C, 3, 3), {"padding": 1}),
    "fused-5x5": (fused_conv2d, reference.fused_conv2d, (64, C, 5, 5), {"padding": 2}),
    "fused-7x7": (fused_conv2d, reference.fused_conv2d, (64, C, 7, 7), {"padding": 3}),
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
        TRANSPOSED,
        (C, 64, 4, 4),
        {"stride": 2, "padding": 1},
    ),
}


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def parameters(shape, name):
    weight = draw(*shape, seed=1) / (C * shape[2] * shape[3]) ** 0.5
    return weight, draw(shape[1] if name == "transposed" else shape[0], seed=2)


def unseen(plain, shape, options, at):
    """Pixels of the result and of x's gradient that no window carries a large value to.

    Large are x at its one place and the gradient of the result at one place; the gradient may also
    be large wherever the result is.
    """
    x = torch.zeros(1, C, SIZE, SIZE)
    x[..., AT, AT] = 1
    ones, zeros = torch.ones(shape), torch.zeros(shape[1] if plain is TRANSPOSED else shape[0])
    seen = plain(x, ones, zeros, **options) != 0
    grad = seen.float()
    grad[..., at, at] = 1
    empty = torch.zeros_like(x).requires_grad_()
    (back,) = torch.autograd.grad(plain(empty, ones, zeros, **options), empty, grad)
    return ~seen.any(1)[0], ~(back != 0).any(1)[0]


def errors(name, large, **keywords):
    """Of the result and of x's gradient where nothing large is seen, and of the weight's gradient.

    Ours, then eager's.
    """
    ours, plain, shape, options = OPERATORS[name]
    x, weight, bias = draw(1, C, SIZE, SIZE), *parameters(shape, name)
    x[..., AT, AT] = large

    def run(dtype, call, **more):
        tensors = [t.to(dtype).requires_grad_() for t in (x, weight, bias)]
        y = call(*tensors, **options, **more)
        grad = draw(*y.shape, seed=3).to(dtype)
        grad[..., at, at] = large
        return y.detach(), *torch.autograd.grad(y, tensors, grad)

    at = plain(x, weight, bias, **options).shape[2] // 2
    exact = run(torch.float64, plain)
    far = (*unseen(plain, shape, options, at), slice(None))

    def error(got):
        return torch.stack([(g - w)[..., f].abs().max() for g, w, f in zip(got, exact, far)])

    return error(run(torch.float32, ours, **keywords)), error(run(torch.float32, plain))


@pytest.mark.parametrize("large", OUTLIERS)
@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.usefixtures("instruction_set")
def test_direct_sums_keep_a_large_value_where_it_is_seen(name, large):
    mine, eager = errors(name, large, algorithm="direct")
    assert (mine <= 4 * eager).all(), (mine / eager).tolist()


@pytest.mark.parametrize("name", OPERATORS)
def test_winograd_spreads_it(name):
    """The shapes above are summed in tiles unless the algorithm is chosen."""
    mine, eager = errors(name, 1e6)
    assert (mine[:2] > 100 * eager[:2]).any(), (mine / eager).tolist()


@pytest.mark.parametrize("name", ["fused", "fused-5x5", "fused-7x7", "fused-strided"])
@pytest.mark.usefixtures("instruction_set")
def test_winograd_errs_within_its_bound(name):
    """Twice what docs/reference/numerics.md says, and nothing outside the large value's tiles."""
    _, plain, shape, options = OPERATORS[name]
    x, (weight, _) = draw(1, C, SIZE, SIZE), parameters(shape, name)
    for large in OUTLIERS:
        x[..., AT, AT] = large
        exact = plain(x.double(), weight.double(), **options)
        error = (fused_conv2d(x, weight, **options) - exact).abs()
        sums = weight.double().abs().sum((1, 2, 3)).view(1, -1, 1, 1)
        assert (error <= 10 * 2**-24 * abs(large) * sums).all()
        # A tile has at most 5 outputs a side; parts of a kernel read from another place.
        at, beyond = error.shape[2] // 2, 5 + shape[2] // options.get("stride", 1)
        near = slice(max(at - beyond, 0), at + beyond + 1)
        far = torch.ones(error.shape[2:], dtype=torch.bool)
        far[near, near] = False
        # What any input of one size costs; 7x7 takes the large tiles.
        assert error[..., far].max() < (3e-5 if name == "fused-7x7" else 1e-5)


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


@pytest.mark.parametrize("kernel", [5, 7])
def test_precise_sums_forbid_the_large_tiles(kernel):
    # So many outputs that the weights of large tiles, 5.2 times as many for 7x7, are worth it.
    x, (weight, bias) = draw(1, 64, 40, 40), parameters((64, 64, kernel, kernel), "fused")
    exact = reference.fused_conv2d(x.double(), weight.double(), bias.double(), padding="same")

    def error(**keywords):
        y = fused_conv2d(x, weight, bias, padding="same", **keywords)
        return (y - exact).square().mean().sqrt()

    assert error() > 1.5 * error(algorithm="precise") > 2 * error(algorithm="direct")
    with inpaint_ops.backend("precise"):
        assert error() == error(algorithm="precise")
        assert error(algorithm="direct") < error()


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
    with pytest.raises(
        ValueError, match=f"{operator}: algorithm must be one of auto, precise, direct"
    ):
        function(draw(1, C, 8, 8), weight, bias, algorithm="winograd")


@pytest.mark.parametrize("name", LAYERS)
def test_bad_layer_input(name):
    with pytest.raises(
        ValueError, match="algorithm must be one of auto, precise, direct, got 'fast'"
    ):
        LAYERS[name](algorithm="fast")
