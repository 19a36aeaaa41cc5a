"""Both ways to a kernel: past torch's dispatcher, and through it where anything watches."""

import importlib

import pytest
import torch
from operators import CALLS
from torch.fx.experimental.proxy_tensor import make_fx
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import inpaint_ops
from inpaint_ops.ops import instance_norm, shortcut


class Dispatched(Exception):
    pass


class Subclass(torch.Tensor):
    pass


class _Functions(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


class _Operators(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


def under(context, call, x):
    with context:
        return call(x)


def dual(call, x):
    with torch.autograd.forward_ad.dual_level():
        return call(torch.autograd.forward_ad.make_dual(x, x))


PLAIN = {
    "tensor": lambda call, x: call(x),
    "view": lambda call, x: call(x[:, ::2]),
    "parameter": lambda call, x: call(torch.nn.Parameter(x)),
    "no_grad": lambda call, x: under(torch.no_grad(), call, x),
    "inference mode": lambda call, x: under(torch.inference_mode(), call, x),
    "inference tensor": lambda call, x: under(torch.inference_mode(), lambda y: call(y + 1), x),
    # It sees the public function, not what that calls: see test_tracing.py.
    "function mode": lambda call, x: under(_Functions(), call, x),
}
WATCHED = {
    "subclass": lambda call, x: call(x.as_subclass(Subclass)),
    "meta": lambda call, x: call(x.to("meta")),
    "negative view": lambda call, x: call(torch._neg_view(x)),
    "autocast": lambda call, x: under(torch.autocast("cpu", torch.bfloat16), call, x),
    "dispatch mode": lambda call, x: under(_Operators(), call, x),
    "vmap": lambda call, x: torch.vmap(call)(x[None]),
    "grad transform": lambda call, x: torch.func.grad(lambda y: call(y).sum())(x),
    "forward derivative": dual,
    "jit trace": lambda call, x: torch.jit.trace(call, x),
    "fx trace": lambda call, x: make_fx(lambda y: call(y))(x),
    "profile": lambda call, x: under(torch.autograd.profiler.profile(), call, x),
}


def convolved(name):
    """A convolution of an image by a part of itself."""
    function = getattr(inpaint_ops, name)

    def call(x):
        weight = x[:, :, :3, :3]
        return function(x, weight.transpose(0, 1) if name == "fused_conv_transpose2d" else weight)

    return call


FUNCTIONS = {
    "instance_norm": instance_norm,
    "fused_conv2d": convolved("fused_conv2d"),
    "gated_conv2d": convolved("gated_conv2d"),
    "fused_conv_transpose2d": convolved("fused_conv_transpose2d"),
}


@pytest.fixture(params=FUNCTIONS)
def function(request):
    return request.param


@pytest.fixture
def dispatched(monkeypatch, function):
    calls = []

    def overload(*args):
        calls.append(args)
        raise Dispatched

    module = importlib.import_module(f"inpaint_ops.ops.{function}")
    operator = module.OPERATOR if function == "fused_conv2d" else module._operator
    monkeypatch.setattr(operator, "_overload", overload)
    return calls


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.usefixtures("dispatched")
def test_ordinary_tensors_go_past_the_dispatcher(name, function):
    y = PLAIN[name](FUNCTIONS[function], torch.randn(4, 4, 6, 5))
    assert y.isfinite().all()


@pytest.mark.parametrize("name", WATCHED)
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_whatever_is_watched_goes_through_it(name, function, dispatched):
    with pytest.raises(Dispatched):
        WATCHED[name](FUNCTIONS[function], torch.randn(4, 4, 6, 5))
    assert len(dispatched) == 1


def results(name, needed, autocast=False):
    call, tensors = CALLS[name]
    leaves = [t.clone().requires_grad_(i in needed) for i, t in enumerate(tensors)]
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        y = call(*leaves)
    y.backward(torch.arange(y.numel()).view(y.shape) / y.numel())
    return y.detach(), [leaf.grad for leaf in leaves]


@pytest.mark.parametrize("autocast", [False, True], ids=["plain", "autocast"])
@pytest.mark.parametrize("name", CALLS)
def test_both_ways_give_the_same_gradients(name, autocast, monkeypatch):
    count = len(CALLS[name][1])
    for needed in ({*range(count)}, {0}, {count - 1}):
        if name == "shift_connection" and needed == {0}:
            continue  # the decoder only decides
        short_y, short = results(name, needed, autocast)
        with monkeypatch.context() as patch:
            patch.setattr(shortcut, "AVAILABLE", False)
            long_y, long = results(name, needed, autocast)
        assert torch.equal(short_y, long_y)
        for i, (a, b) in enumerate(zip(short, long)):
            assert (a is None) == (b is None)
            assert a is None or torch.equal(a, b)
            assert i in needed or a is None


class _Drop(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return None


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("plain", [True, False])
def test_no_gradient_arrives(name, plain, monkeypatch):
    if not plain:
        monkeypatch.setattr(shortcut, "AVAILABLE", False)
    call, tensors = CALLS[name]
    leaves = [t.clone().requires_grad_() for t in tensors]
    _Drop.apply(call(*leaves)).sum().backward()
    assert all(leaf.grad is None for leaf in leaves)
