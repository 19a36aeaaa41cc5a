"""torch.func and the other transforms of functions: each is right or says that it is not there."""

import pytest
import torch
import torch.nn.functional as F
from operators import CALLS, OPERATORS, draw, run
from recording import Recorder, is_backward

import inpaint_ops
from inpaint_ops import layers

pytestmark = [
    # The batched fallback of vmap says so.
    pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning"),
    # torch loads its own rules of forward mode that way.
    pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning"),
]


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


# Three samples at one go may take another algorithm than each alone, with roundings of its own.
@pytest.mark.parametrize(("chosen", "rounding"), [("direct", 0), ("auto", 2e-6)])
@pytest.mark.parametrize("op", CALLS)
def test_vmap_over_each_argument(op, chosen, rounding):
    def check(actual, expected):
        atol = 1e-5 + rounding * expected.abs().max().item()
        torch.testing.assert_close(actual, expected, rtol=1.3e-6, atol=atol)

    call, tensors = CALLS[op]
    with inpaint_ops.backend(chosen):
        for i, tensor in enumerate(tensors):
            stack = torch.stack([tensor, tensor.flip(-1) + 0.5, -tensor], tensor.dim())
            dims = tuple(tensor.dim() if j == i else None for j in range(len(tensors)))
            several = [*tensors[:i], stack, *tensors[i + 1 :]]
            alone = [
                [*tensors[:i], stack.select(-1, k).contiguous(), *tensors[i + 1 :]]
                for k in range(3)
            ]
            for grad in (True, False):
                with torch.set_grad_enabled(grad):
                    got = torch.vmap(call, dims)(*several)
                check(got, torch.stack([call(*one) for one in alone]))
            gradients = torch.vmap(torch.func.grad(weighted(call), argnums=i), dims)(*several)
            expected = torch.stack([by_autograd(call, one)[i] for one in alone])
            check(gradients, expected)
            # The other way round: one gradient of all.
            every = torch.vmap(weighted(call), dims)
            through = torch.func.grad(weighted(every), argnums=i)(*several)
            scales = torch.tensor([1.0, 2.0, 3.0]).view(3, *(1 for _ in tensor.shape)) / 3
            check(through.movedim(-1, 0), expected * scales)


def stacked(op, names):
    """Three of each of these tensors, along another axis each; the other tensors; the axes."""
    tensors, axes = OPERATORS[op].tensors(), {}
    for i, name in enumerate(names):
        x = tensors[name]
        # Another order of samples and pixels: masks stay masks.
        axes[name] = (i * 2) % (x.dim() + 1)
        tensors[name] = torch.stack([x, x.flip(-1), x.flip(0, -2)], axes[name])
    return tensors, axes


def image_like(op):
    return [name for name in OPERATORS[op].tensors() if name not in OPERATORS[op].shared]


SUBSETS = [
    pytest.param(op, names, id=f"{op}-{'-'.join(names)}")
    for op in CALLS
    for names in (*([name] for name in image_like(op)), image_like(op))
]


@pytest.mark.parametrize(("op", "names"), SUBSETS)
def test_vmap_of_images_is_one_call(op, names):
    tensors, axes = stacked(op, names)
    leaves = [name for name in OPERATORS[op].leaves if name not in OPERATORS[op].shared]
    options = OPERATORS[op].options

    def call(*images):
        results = run(op, {**tensors, **dict(zip(names, images))}, options)
        return next(r for r in results if r.is_floating_point())

    images = [tensors[name] for name in names]
    held = [x.clone().requires_grad_(n in leaves) for n, x in zip(names, images)]
    dims = tuple(axes[name] for name in names)
    with Recorder() as recorder:
        got = torch.vmap(call, dims)(*held)
    # A hole of its own, but one for all images of a call, is not folded.
    calls = 3 if "hole" in names else 1
    assert [is_backward(c) for c in recorder.calls] == [False] * calls
    one = [[x.select(d, k) for x, d in zip(images, dims)] for k in range(3)]
    torch.testing.assert_close(got.detach(), torch.stack([call(*some) for some in one]))

    wanted = [i for i, name in enumerate(names) if name in leaves]
    if not wanted:
        return
    with Recorder() as recorder:
        gradients = torch.vmap(torch.func.grad(weighted(call), argnums=tuple(wanted)), dims)(
            *images
        )
    # What is only added has its gradient without one.
    backward = 0 if names == ["residual"] else 1
    assert sum(is_backward(c) for c in recorder.calls) in (backward, backward * calls)
    for k in range(3):
        expected = by_autograd(call, one[k])
        for place, i in enumerate(wanted):
            torch.testing.assert_close(gradients[place][k], expected[i], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("samples", [1, 2])
def test_vmap_of_masks_for_one_or_all_samples(samples):
    x, weight = draw(samples, 4, 6, 6), draw(4, 4, 3, 3)
    for batch in (1, samples):
        valid = (draw(3, batch, 1, 6, 6) > 0).float()

        def call(x, valid):
            y, update_mask = inpaint_ops.partial_conv2d(x, valid, weight, padding=1)
            return y, update_mask

        for dims, xs, masks in (
            ((None, 0), x, valid),
            ((0, 0), torch.stack([x, -x, 2 * x]), valid),
            ((0, None), torch.stack([x, -x, 2 * x]), valid[0]),
        ):
            got = torch.vmap(call, dims)(xs, masks)
            pairs = [
                call(xs if dims[0] is None else xs[k], masks if dims[1] is None else masks[k])
                for k in range(3)
            ]
            for k, want in enumerate(pairs):
                for a, b in zip(got, want):
                    torch.testing.assert_close(a[k], b)


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
        torch.testing.assert_close(transform(), torch.stack(rows), msg=name)


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
