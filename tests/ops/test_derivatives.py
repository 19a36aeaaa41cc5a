"""Derivatives beyond one pass backward: every order, in both modes, of every operator."""

import pytest
import torch
from operators import CALLS, EVERY_TENSOR, OPERATORS, draw, options_of, run, run_reference
from support import check_close
from torch.autograd import forward_ad

import inpaint_ops
from inpaint_ops import layers
from inpaint_ops.losses import gradient_penalty
from inpaint_ops.ops import shortcut

pytestmark = [
    # The batched fallback of vmap says so.
    pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning"),
    # torch loads its own rules of forward mode that way, and linearises so.
    pytest.mark.filterwarnings("ignore:Attempted to insert a get_attr Node:UserWarning"),
    pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning"),
]
DIFFERENTIABLE = [op for op, entry in OPERATORS.items() if entry.leaves]
WITH_OPTIONS = [
    pytest.param(op, options, id=f"{op}-{i}")
    for op in DIFFERENTIABLE
    for i, options in enumerate(options_of(op))
]


@pytest.fixture(params=["short way", "dispatcher"])
def way(request, monkeypatch):
    if request.param == "dispatcher":
        monkeypatch.setattr(shortcut, "AVAILABLE", False)


def like(tensor, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(tensor.shape, generator=generator, dtype=torch.float64).to(tensor.dtype)


def to_dtype(tensors, dtype):
    return {name: t.to(dtype) if t.is_floating_point() else t for name, t in tensors.items()}


def products(gradients, seed):
    return sum((g * like(g, seed + i)).sum() for i, g in enumerate(gradients))


def derivatives(op, tensors, options, orders, call=run):
    """Gradients of each order, in the leaves and in the gradient of the result."""
    leaves = {name: tensors[name].clone().requires_grad_() for name in OPERATORS[op].leaves}
    first = call(op, {**tensors, **leaves}, options)[0]
    upstream = like(first, 1).requires_grad_()
    inputs = [*leaves.values(), upstream]
    found = torch.autograd.grad(first, list(leaves.values()), upstream, create_graph=True)
    results = list(found)
    for order in range(2, orders + 1):
        found = torch.autograd.grad(
            products(found, 10 * order),
            inputs,
            create_graph=True,
            allow_unused=True,
            materialize_grads=True,
        )
        results += found
    return [result.detach() for result in results]


@pytest.mark.parametrize(("op", "options"), WITH_OPTIONS)
def test_gradgradcheck(op, options):
    tensors = to_dtype(OPERATORS[op].tensors(), torch.float64)
    names = OPERATORS[op].leaves

    def call(*leaves):
        return run(op, {**tensors, **dict(zip(names, leaves, strict=True))}, options)[0]

    for layout in (torch.contiguous_format, torch.channels_last):
        leaves = [
            t.contiguous(memory_format=layout) if t.dim() == 4 else t.clone()
            for t in (tensors[name] for name in names)
        ]
        leaves = [t.detach().requires_grad_() for t in leaves]
        assert torch.autograd.gradgradcheck(call, leaves, fast_mode=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("op", "options"), WITH_OPTIONS)
def test_orders_against_the_reference(op, options, dtype, way):
    tensors = to_dtype(OPERATORS[op].tensors(), dtype)
    wide = to_dtype(tensors, torch.float64)
    # The third derivatives of torch's batch norm, the reference's, are wrong;
    # `test_the_third_derivative_forward` has them.
    orders = 3 if dtype == torch.float32 and op != "instance_norm" else 2
    expected = derivatives(op, wide, options, orders, run_reference)
    # Sums of sums of the operator's own.
    terms = OPERATORS[op].terms * 64
    for got, want in zip(derivatives(op, tensors, options, orders), expected, strict=True):
        check_close(got, want, terms=terms, dtype=dtype)


@pytest.mark.parametrize(("op", "options"), WITH_OPTIONS)
def test_recorded_gradients_are_those_of_the_kernels(op, options):
    tensors = OPERATORS[op].tensors()
    results = []
    for recorded in (False, True):
        leaves = {name: tensors[name].clone().requires_grad_() for name in OPERATORS[op].leaves}
        first = run(op, {**tensors, **leaves}, options)[0]
        results.append(
            torch.autograd.grad(first, list(leaves.values()), like(first, 1), create_graph=recorded)
        )
    assert all(map(torch.equal, *results))


def in_reference(op, tensors, options):
    with inpaint_ops.backend("reference"):
        return run(op, tensors, options)


@pytest.mark.parametrize("op", CALLS)
def test_second_derivatives_keep_the_backend_of_the_forward_pass(op):
    tensors, options = OPERATORS[op].tensors(), OPERATORS[op].options
    with inpaint_ops.backend("reference"):
        inside = derivatives(op, tensors, options, 2)
    outside = derivatives(op, tensors, options, 2, in_reference)
    assert all(map(torch.equal, outside, inside))


def with_a_square(op):
    """A function of one tensor whose second derivative is not zero, a tensor and a direction."""
    call, tensors = CALLS[op]
    which = 1 if op == "shift_connection" else 0

    def total(x):
        y = call(*tensors[:which], x, *tensors[which + 1 :])
        return (y.square() * torch.arange(1.0, y.numel() + 1).view(y.shape) / y.numel()).sum()

    return total, tensors[which], like(tensors[which], 5)


def by_two_passes(total, x, v):
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(total(leaf), leaf, create_graph=True)
    return torch.autograd.grad(gradient, leaf, v)[0]


def as_product(matrix, v):
    return (matrix.reshape(v.numel(), v.numel()) @ v.flatten()).view(v.shape)


def dual_then_backward(total, x, v):
    leaf = x.clone().requires_grad_()
    with forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(total(forward_ad.make_dual(leaf, v))).tangent
        return torch.autograd.grad(tangent, leaf)[0]


func = torch.func
TWICE = {
    "grad of grad": lambda f, x, v: func.grad(lambda z: (func.grad(f)(z) * v).sum())(x),
    "vjp of grad": lambda f, x, v: func.vjp(func.grad(f), x)[1](v)[0],
    "jvp of grad": lambda f, x, v: func.jvp(func.grad(f), (x,), (v,))[1],
    "grad of jvp": lambda f, x, v: func.grad(lambda z: func.jvp(f, (z,), (v,))[1])(x),
    "hvp": lambda f, x, v: torch.autograd.functional.hvp(f, x, v)[1],
    "hessian": lambda f, x, v: as_product(func.hessian(f)(x), v),
    "jacrev of jacrev": lambda f, x, v: as_product(func.jacrev(func.jacrev(f))(x), v),
    "dual, then backward": dual_then_backward,
    "of each sample": lambda f, x, v: torch.vmap(lambda z: func.vjp(func.grad(f), z)[1](v)[0])(
        torch.stack([-x, x])
    )[1],
    "forward, of each sample": lambda f, x, v: torch.vmap(
        lambda z: func.jvp(func.grad(f), (z,), (v,))[1]
    )(torch.stack([-x, x]))[1],
}
# torch's own softmax fails here.
SOFTMAX = ("contextual_attention", "id_mrf_loss")


@pytest.mark.parametrize("transform", TWICE)
@pytest.mark.parametrize("op", CALLS)
def test_second_derivatives_by_transforms(op, transform):
    total, x, v = with_a_square(op)
    if transform == "dual, then backward" and op in SOFTMAX:
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            TWICE[transform](total, x, v)
        return
    expected = by_two_passes(total, x, v)
    got = TWICE[transform](total, x, v)
    check_close(got, expected.double(), terms=64 * 64)


@pytest.mark.parametrize("op", CALLS)
def test_the_third_derivative_forward(op):
    total, x, v = with_a_square(op)
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(total(leaf), leaf, create_graph=True)
    (again,) = torch.autograd.grad(gradient, leaf, v, create_graph=True)
    third = torch.zeros_like(x)
    if again.requires_grad:
        (third,) = torch.autograd.grad(again, leaf, v, allow_unused=True, materialize_grads=True)

    def product(z):
        return func.jvp(func.grad(total), (z,), (v,))[1]

    check_close(func.jvp(product, (x,), (v,))[1], third.double(), terms=64 * 64)


def make_dual(call, x, v):
    with forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(call(forward_ad.make_dual(x, v))).tangent
    return torch.zeros_like(call(x)) if tangent is None else tangent


def jacobian(call, x, v):
    matrix = torch.autograd.functional.jacobian(call, x, strategy="forward-mode", vectorize=True)
    return matrix.flatten(-x.dim()) @ v.flatten()


FORWARD = {
    "jvp": lambda call, x, v: func.jvp(call, (x,), (v,))[1],
    "make_dual": make_dual,
    "without gradients": lambda call, x, v: torch.no_grad()(make_dual)(call, x, v),
    "jacfwd": lambda call, x, v: func.jacfwd(call)(x).flatten(-x.dim()) @ v.flatten(),
    "linearize": lambda call, x, v: func.linearize(call, x)[1](v),
    "autograd.functional": jacobian,
    "jvp of vmap": lambda call, x, v: func.jvp(torch.vmap(call), (x[None],), (v[None],))[1][0],
    "vmap of jvp": lambda call, x, v: torch.vmap(lambda z: func.jvp(call, (z,), (v,))[1])(x[None])[
        0
    ],
}


def first_result(op, name, tensors, options):
    def call(value):
        results = run(op, {**tensors, name: value}, options)
        return next(r for r in results if r.is_floating_point())

    return call


def differentiable_or_mask(op, name):
    return op in DIFFERENTIABLE and OPERATORS[op].tensors()[name].is_floating_point()


@pytest.mark.parametrize(
    ("op", "name"), [case for case in EVERY_TENSOR if differentiable_or_mask(*case)]
)
def test_forward_mode_of_each_argument(op, name, way):
    tensors = to_dtype(OPERATORS[op].tensors(), torch.float64)
    options = OPERATORS[op].options
    call, x = first_result(op, name, tensors, options), tensors[name]
    v = like(x, 3)
    expected = torch.zeros_like(call(x))
    if name in OPERATORS[op].leaves:
        leaf = x.clone().requires_grad_()
        y = call(leaf)
        upstream = torch.zeros_like(y, requires_grad=True)
        (gradient,) = torch.autograd.grad(y, leaf, upstream, create_graph=True)
        # The product J v as the gradient of J' u, linear in u.
        (expected,) = torch.autograd.grad(gradient, upstream, v)
    transforms = ("jvp", "make_dual", "without gradients", "linearize")
    for transform in transforms if name not in OPERATORS[op].masks else transforms[:3]:
        torch.testing.assert_close(FORWARD[transform](call, x, v), expected, msg=transform)
    with inpaint_ops.backend("reference"):
        torch.testing.assert_close(FORWARD["jvp"](call, x, v), expected)


@pytest.mark.parametrize("transform", FORWARD)
@pytest.mark.parametrize("op", CALLS)
def test_forms_of_forward_mode(op, transform):
    call, tensors = CALLS[op]
    which = 1 if op == "shift_connection" else 0
    x = tensors[which].double()
    others = [t.double() for t in tensors]

    def of_one(z):
        return call(*others[:which], z, *others[which + 1 :])

    v = like(x, 3)
    expected = func.jvp(of_one, (x,), (v,))[1]
    leaf = x.clone().requires_grad_()
    u = like(expected, 7)
    (gradient,) = torch.autograd.grad(of_one(leaf), leaf, u)
    torch.testing.assert_close((expected * u).sum(), (gradient * v).sum())
    torch.testing.assert_close(FORWARD[transform](of_one, x, v), expected)


@pytest.mark.parametrize("op", [op for op in OPERATORS if op not in DIFFERENTIABLE])
@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_forward_mode_raises_where_there_is_no_derivative(op, backend, way):
    tensors = OPERATORS[op].tensors()
    for name in ("query", "key"):
        call = first_result(op, name, tensors, OPERATORS[op].options)
        for transform in ("jvp", "make_dual", "without gradients", "jacfwd"):
            message = f"{op}: there is no derivative in forward mode"
            with inpaint_ops.backend(backend), pytest.raises(NotImplementedError, match=message):
                FORWARD[transform](call, tensors[name], torch.ones_like(tensors[name]))


@pytest.mark.parametrize("op", ["fused_conv2d", "instance_norm", "nearest_patch"])
def test_constants_do_not_stop_forward_mode(op):
    tensors = OPERATORS[op].tensors()
    x = draw(3)
    with forward_ad.dual_level():
        constant = run(op, tensors)[0].sum()
        dual = forward_ad.make_dual(x, torch.ones_like(x)) * constant
        assert torch.equal(forward_ad.unpack_dual(dual).tangent, constant.expand(3).to(x.dtype))
    _, tangent = func.jvp(lambda v: v * run(op, tensors)[0].sum(), (x,), (torch.ones(3),))
    assert torch.equal(tangent, constant.expand(3).to(x.dtype))


def test_a_scaled_gather_is_scaled_in_both_modes():
    tensors = OPERATORS["shift_connection"].tensors()
    call = first_result("shift_connection", "encoder", tensors, {"gradient_scale": 0.25})
    plain = first_result("shift_connection", "encoder", tensors, {})
    x = tensors["encoder"]
    v = like(x, 3)
    y, tangent = func.jvp(call, (x,), (v,))
    assert torch.equal(y, plain(x))
    torch.testing.assert_close(tangent, func.jvp(plain, (x,), (v,))[1] / 4)
    leaf = x.clone().requires_grad_()
    upstream = torch.zeros_like(y, requires_grad=True)
    (gradient,) = torch.autograd.grad(call(leaf), leaf, upstream, create_graph=True)
    torch.testing.assert_close(torch.autograd.grad(gradient, upstream, v)[0], tangent)


LAYERS = {
    "FusedConv2d": lambda: layers.FusedConv2d(4, 4, 3, activation="elu"),
    "GatedConv2d": lambda: layers.GatedConv2d(4, 4, 3),
    "FusedConvTranspose2d": lambda: layers.FusedConvTranspose2d(4, 4, 4, activation="tanh"),
    "InstanceNorm2d": lambda: layers.InstanceNorm2d(4, affine=True),
    "PartialConv2d": lambda: layers.PartialConv2d(4, 4, 3),
    "ContextualAttention": lambda: layers.ContextualAttention(),
    "ChannelwiseLinear": lambda: layers.ChannelwiseLinear(4, (8, 8)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_both_modes_in_layers(name):
    torch.manual_seed(0)
    layer = LAYERS[name]().double()
    x = draw(1, 4, 8, 8).double()

    def call(x):
        result = layer(x, x) if name == "ContextualAttention" else layer(x)
        return result[0] if isinstance(result, tuple) else result

    v, leaf = like(x, 3), x.clone().requires_grad_()
    y = call(leaf)
    upstream = torch.zeros_like(y, requires_grad=True)
    (gradient,) = torch.autograd.grad(y, leaf, upstream, create_graph=True)
    (expected,) = torch.autograd.grad(gradient, upstream, v)
    for transform in ("jvp", "make_dual"):
        torch.testing.assert_close(FORWARD[transform](call, x, v), expected)


@pytest.mark.parametrize("activation", ["leaky_relu", "elu", "identity"])
def test_a_gradient_penalty_is_that_of_plain_convolutions(activation):
    torch.manual_seed(0)
    after = {"leaky_relu": torch.nn.LeakyReLU(0.2), "elu": torch.nn.ELU()}
    plain, ours = torch.nn.Sequential(), torch.nn.Sequential()
    for i, (inputs, outputs) in enumerate(((3, 8), (8, 12), (12, 16))):
        plain.append(torch.nn.Conv2d(inputs, outputs, 5, 2, 2))
        plain.append(after.get(activation, torch.nn.Identity()))
        ours.append(layers.FusedConv2d(inputs, outputs, 5, 2, 2, activation=activation))
        ours[i].load_state_dict(plain[2 * i].state_dict())
    for net in (plain, ours):
        net.append(torch.nn.Flatten())
        net.append(torch.nn.Linear(16 * 16, 1, bias=False))
        torch.nn.init.constant_(net[-1].weight, 0.1)
    real, fake = draw(2, 3, 32, 32), draw(3, 3, 32, 32)[1:]
    penalties = []
    for net in (plain, ours):
        penalty = gradient_penalty(net, real, fake, generator=torch.Generator().manual_seed(1))
        penalty.backward()
        penalties.append(penalty.detach())
    torch.testing.assert_close(*penalties, rtol=1e-4, atol=1e-5)
    for a, b in zip(plain.parameters(), ours.parameters(), strict=True):
        # Of a bias that has no part in it torch makes zeros, and we nothing.
        got, want = (torch.zeros_like(p) if p.grad is None else p.grad for p in (b, a))
        check_close(got, want.double(), terms=64 * 64)


def test_the_registered_operators_of_backward_passes_refuse():
    x, weight = draw(1, 4, 6, 6), draw(4, 4, 3, 3).requires_grad_()
    backward = torch.ops.inpaint_ops.fused_conv2d_backward
    geometry = ([1, 1], [1, 1, 1, 1], [1, 1], 1, "zeros", 1)
    gradient = backward(
        draw(1, 4, 6, 6), x, weight, x[:0], *geometry, "identity", [True, False, False], "auto"
    )[0]
    with pytest.raises(RuntimeError, match="derivatives of gradients are those of the public"):
        gradient.sum().backward()


@pytest.mark.parametrize("op", CALLS)
def test_batched_gradients_keep_their_graph(op):
    _, x, _ = with_a_square(op)
    call, tensors = CALLS[op]
    which = 1 if op == "shift_connection" else 0

    def some(z):
        y = call(*tensors[:which], z, *tensors[which + 1 :]).square().flatten()
        return y[torch.arange(3) % y.numel()]

    results = []
    for batched in (False, True):
        leaf = x.clone().requires_grad_()
        y, eye = some(leaf), torch.eye(3)
        if batched:
            (rows,) = torch.autograd.grad(y, leaf, eye, is_grads_batched=True, create_graph=True)
        else:
            each = [torch.autograd.grad(y, leaf, row, create_graph=True)[0] for row in eye]
            rows = torch.stack(each)
        (product,) = torch.autograd.grad(products([rows], 3), leaf, create_graph=True)
        twice = torch.autograd.grad(
            product, leaf, torch.stack([product.detach(), -product.detach()]), is_grads_batched=True
        )[0]
        results.append((rows, product, twice))
    for a, b in zip(*results, strict=True):
        check_close(b.detach(), a.detach().double(), terms=64 * 64)
        assert a.requires_grad == b.requires_grad
