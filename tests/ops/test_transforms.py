"""torch.func and the other transforms of functions: each is right or says that it is not there."""

import pytest
import torch
import torch.nn.functional as F
from operator_calls import ARGUMENTS, CALLS, EVERY_TENSOR, draw, run
from torch.autograd import forward_ad

import inpaint_ops
from inpaint_ops import layers
from inpaint_ops.ops import shortcut

NO_FORWARD_MODE = "{}: forward-mode derivatives are not implemented"
pytestmark = [
    # The batched fallback of vmap says so.
    pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning"),
    # torch loads its own rules of forward mode that way.
    pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning"),
]


def make_dual(call, x):
    with forward_ad.dual_level():
        call(forward_ad.make_dual(x, torch.ones_like(x)))


FORWARD = {
    "jvp": lambda call, x: torch.func.jvp(call, (x,), (torch.ones_like(x),)),
    "jacfwd": lambda call, x: torch.func.jacfwd(call)(x),
    "linearize": lambda call, x: torch.func.linearize(call, x),
    "make_dual": make_dual,
    "autograd.functional": lambda call, x: torch.autograd.functional.jacobian(
        call, x, strategy="forward-mode", vectorize=True
    ),
    "jvp of vmap": lambda call, x: torch.func.jvp(
        torch.vmap(call), (x[None],), (torch.ones_like(x)[None],)
    ),
    "vmap of jvp": lambda call, x: torch.vmap(
        lambda v: torch.func.jvp(call, (v,), (torch.ones_like(v),))
    )(x[None]),
    "without gradients": lambda call, x: torch.no_grad()(make_dual)(call, x),
}


def first_result(op, name, tensors):
    def call(value):
        results = run(op, {**tensors, name: value})
        return next(r for r in results if r.is_floating_point())

    return call


def floating(op, name):
    return op != "channelwise_linear" and ARGUMENTS[op][1]()[name].is_floating_point()


@pytest.mark.parametrize(("op", "name"), [case for case in EVERY_TENSOR if floating(*case)])
@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("plain", [True, False], ids=["short way", "dispatcher"])
def test_forward_mode_raises(op, name, backend, plain, monkeypatch):
    if not plain:
        monkeypatch.setattr(shortcut, "is_open", lambda tensors: False)
    tensors = ARGUMENTS[op][1]()
    call = first_result(op, name, tensors)
    # Masks have no batch that vmap could take away from their shape's check.
    for transform in ("jvp", "jacfwd", "linearize", "make_dual", "without gradients"):
        with inpaint_ops.backend(backend), pytest.raises(NotImplementedError) as caught:
            FORWARD[transform](call, tensors[name])
        assert str(caught.value) == NO_FORWARD_MODE.format(op)


@pytest.mark.parametrize("transform", FORWARD)
def test_every_form_of_forward_mode_raises(transform):
    weight = draw(8, 4, 3, 3)
    call = CALLS["gated_conv2d"][0]
    with pytest.raises(NotImplementedError, match=NO_FORWARD_MODE.format("gated_conv2d")):
        FORWARD[transform](lambda x: call(x, weight), draw(1, 4, 6, 6))


LAYERS = {
    "fused_conv2d": lambda: layers.FusedConv2d(4, 4, 3),
    "gated_conv2d": lambda: layers.GatedConv2d(4, 4, 3),
    "fused_conv_transpose2d": lambda: layers.FusedConvTranspose2d(4, 4, 4),
    "instance_norm": lambda: layers.InstanceNorm2d(4),
    "partial_conv2d": lambda: layers.PartialConv2d(4, 4, 3),
    "contextual_attention": lambda: layers.ContextualAttention(),
}


@pytest.mark.parametrize("op", LAYERS)
def test_forward_mode_raises_in_layers(op):
    layer = LAYERS[op]()

    def call(x):
        result = layer(x, x) if op == "contextual_attention" else layer(x)
        return result[0] if isinstance(result, tuple) else result

    for transform in ("jvp", "make_dual"):
        with pytest.raises(NotImplementedError, match=NO_FORWARD_MODE.format(op)):
            FORWARD[transform](call, draw(1, 4, 8, 8))


def test_the_plain_layers_have_forward_mode():
    x, t = draw(2, 4, 3, 3), draw(2, 4, 3, 3) + 1
    weight = draw(4, 9, 9)
    _, tangent = torch.func.jvp(lambda v: inpaint_ops.channelwise_linear(v, weight), (x,), (t,))
    torch.testing.assert_close(tangent, inpaint_ops.channelwise_linear(t, weight))


@pytest.mark.parametrize("op", ["fused_conv2d", "instance_norm", "nearest_patch"])
def test_constants_do_not_stop_forward_mode(op):
    tensors = ARGUMENTS[op][1]()
    x = draw(3)
    with forward_ad.dual_level():
        constant = run(op, tensors)[0].sum()
        dual = forward_ad.make_dual(x, torch.ones_like(x)) * constant
        assert torch.equal(forward_ad.unpack_dual(dual).tangent, constant.expand(3).to(x.dtype))
    _, tangent = torch.func.jvp(lambda v: v * run(op, tensors)[0].sum(), (x,), (torch.ones(3),))
    assert torch.equal(tangent, constant.expand(3).to(x.dtype))


def weighted(call):
    """A number that depends on all values of the result."""

    def total(*tensors):
        y = call(*tensors)
        return (y * torch.arange(1.0, y.numel() + 1).view(y.shape) / y.numel()).sum()

    return total


def by_autograd(call, tensors):
    leaves = [t.clone().requires_grad_() for t in tensors]
    return torch.autograd.grad(
        weighted(call)(*leaves), leaves, allow_unused=True, materialize_grads=True
    )


@pytest.mark.parametrize("op", CALLS)
def test_grad_and_vjp(op):
    call, tensors = CALLS[op]
    everything = tuple(range(len(tensors)))
    expected = by_autograd(call, tensors)
    got = torch.func.grad(weighted(call), argnums=everything)(*tensors)
    y, pull = torch.func.vjp(call, *tensors)
    assert torch.equal(y, call(*tensors))
    pulled = pull(torch.arange(1.0, y.numel() + 1).view(y.shape) / y.numel())
    for a, b, c in zip(got, pulled, expected):
        torch.testing.assert_close(a, c)
        torch.testing.assert_close(b, c)


@pytest.mark.parametrize("op", CALLS)
def test_torch_func_sees_outer_gradients(op):
    # The tensors of an ordinary graph inside a transform over another argument.
    call, tensors = CALLS[op]
    leaves = [t.clone().requires_grad_() for t in tensors]
    y, _ = torch.func.vjp(lambda scale: scale * weighted(call)(*leaves), torch.tensor(2.0))
    got = torch.autograd.grad(y, leaves, allow_unused=True, materialize_grads=True)
    for a, b in zip(got, by_autograd(call, tensors)):
        torch.testing.assert_close(a, 2 * b)


@pytest.mark.parametrize("op", CALLS)
def test_vmap_over_each_argument(op):
    call, tensors = CALLS[op]
    for i, tensor in enumerate(tensors):
        stack = torch.stack([tensor, tensor.flip(-1) + 0.5, -tensor], tensor.dim())
        dims = tuple(tensor.dim() if j == i else None for j in range(len(tensors)))
        several = [*tensors[:i], stack, *tensors[i + 1 :]]
        alone = [
            [*tensors[:i], stack.select(-1, k).contiguous(), *tensors[i + 1 :]] for k in range(3)
        ]
        for grad in (True, False):
            with torch.set_grad_enabled(grad):
                got = torch.vmap(call, dims)(*several)
            torch.testing.assert_close(got, torch.stack([call(*one) for one in alone]))
        gradients = torch.vmap(torch.func.grad(weighted(call), argnums=i), dims)(*several)
        expected = torch.stack([by_autograd(call, one)[i] for one in alone])
        torch.testing.assert_close(gradients, expected)
        # The other way round: one gradient of all.
        every = torch.vmap(weighted(call), dims)
        through = torch.func.grad(weighted(every), argnums=i)(*several)
        scales = torch.tensor([1.0, 2.0, 3.0]).view(3, *(1 for _ in tensor.shape)) / 3
        torch.testing.assert_close(through.movedim(-1, 0), expected * scales)


@pytest.mark.parametrize("op", CALLS)
def test_vmap_of_trained_tensors(op):
    call, tensors = CALLS[op]
    stacks = [torch.stack([t, -t]).requires_grad_() for t in tensors]
    total = torch.vmap(weighted(call))(*stacks).sum()
    got = torch.autograd.grad(total, stacks, allow_unused=True, materialize_grads=True)
    pairs = [by_autograd(call, [stack[k].detach() for stack in stacks]) for k in range(2)]
    for gradient, *both in zip(got, *pairs):
        torch.testing.assert_close(gradient, torch.stack(both))


def test_an_empty_vmap_raises():
    call, tensors = CALLS["gated_conv2d"]
    with pytest.raises(ValueError, match="gated_conv2d: vmap must have a batch"):
        torch.vmap(call, (0, None))(tensors[0][None][:0], tensors[1])


@pytest.mark.parametrize("op", CALLS)
def test_jacobians(op):
    call, tensors = CALLS[op]
    which = 1 if op == "shift_connection" else 0
    some = torch.arange(4) % call(*tensors).numel()

    def few(x):
        return call(*tensors[:which], x, *tensors[which + 1 :]).flatten()[some]

    x = tensors[which]
    rows = []
    for i in range(4):
        leaf = x.clone().requires_grad_()
        rows += torch.autograd.grad(few(leaf)[i], leaf, allow_unused=True, materialize_grads=True)
    leaf = x.clone().requires_grad_()
    y = few(leaf)
    transforms = {
        "jacrev": lambda: torch.func.jacrev(few)(x),
        "jacrev, one by one": lambda: torch.func.jacrev(few, chunk_size=1)(x),
        "vectorised": lambda: torch.autograd.functional.jacobian(few, x, vectorize=True),
        "batched": lambda: torch.autograd.grad(
            y, leaf, torch.eye(4), is_grads_batched=True, allow_unused=True, materialize_grads=True
        )[0],
    }
    for name, transform in transforms.items():
        # torch's older vmap, which these use, has no rule for lists of tensors.
        if op == "partial_conv2d" and name in ("vectorised", "batched"):
            with pytest.raises(RuntimeError, match="partial_conv2d_backward"):
                transform()
        else:
            torch.testing.assert_close(transform(), torch.stack(rows))


@pytest.mark.parametrize("op", [op for op in CALLS if op != "shift_connection"])
def test_second_derivatives_raise(op):
    call, tensors = CALLS[op]

    def total(x):
        return weighted(call)(x * x, *tensors[1:])

    x = tensors[0]
    message = f"{op}: (second|forward-mode) derivatives are not implemented"
    # The products of torch's own x * x carry tangents and gradients of gradients.
    for transform in (
        lambda: torch.func.hessian(total)(x),
        lambda: torch.func.jvp(torch.func.grad(total), (x,), (x,)),
        lambda: torch.func.grad(lambda v: torch.func.grad(total)(v).square().sum())(x),
        lambda: torch.autograd.functional.hvp(total, x, x),
    ):
        with pytest.raises((RuntimeError, NotImplementedError), match=message):
            transform()


def test_mixed_second_derivatives_of_lists_raise():
    call, tensors = CALLS["partial_conv2d"]
    x, weight = (t.clone().requires_grad_() for t in (tensors[0], tensors[2]))
    y = call(x, tensors[1], weight, tensors[3])
    (gradient,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="partial_conv2d: second derivatives"):
        gradient.square().sum().backward()


def test_a_gather_has_second_derivatives():
    # Of a linear function of the encoder's features nothing is left out.
    call, (decoder, encoder) = CALLS["shift_connection"]

    def total(x):
        return weighted(call)(decoder, x * x)

    square = encoder.square().requires_grad_()
    (gradient,) = torch.autograd.grad(weighted(call)(decoder, square), square)
    _, product = torch.autograd.functional.hvp(total, encoder, encoder)
    torch.testing.assert_close(product, 2 * gradient * encoder)


def test_per_sample_gradients_of_layers():
    net = torch.nn.Sequential(
        layers.FusedConv2d(3, 4, 3, padding=1, activation="relu"),
        layers.InstanceNorm2d(4, affine=True),
        layers.GatedConv2d(4, 2, 3, padding=1),
    )
    parameters = {name: p.detach() for name, p in net.named_parameters()}
    pictures = draw(3, 1, 3, 8, 8)

    def loss(p, picture):
        return weighted(lambda x: torch.func.functional_call(net, p, (x,)))(picture)

    got = torch.vmap(torch.func.grad(loss), (None, 0))(parameters, pictures)
    for k, picture in enumerate(pictures):
        net.zero_grad()
        weighted(net)(picture).backward()
        for name, parameter in net.named_parameters():
            torch.testing.assert_close(got[name][k], parameter.grad, rtol=1e-4, atol=1e-5)


def test_gradients_by_torch_func_equal_those_of_torch():
    x, weight = draw(2, 4, 9, 9), draw(6, 4, 3, 3)
    ours = torch.func.grad(lambda w: weighted(lambda v: inpaint_ops.fused_conv2d(x, v, None))(w))(
        weight
    )
    theirs = torch.func.grad(lambda w: weighted(lambda v: F.conv2d(x, v))(w))(weight)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_the_registered_operator_itself_refuses_torch_func():
    op = torch.ops.inpaint_ops.id_mrf_loss
    x = draw(1, 4, 6, 6)
    with pytest.raises(NotImplementedError, match="of the public function"):
        torch.func.grad(lambda v: op(v, x, 0.5, 1e-5, False)[0].sum())(x)
