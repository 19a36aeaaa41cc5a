"""Calls of convolutions that the extension takes as a whole: the same bits as by Python."""

import pytest
import torch

import inpaint_ops
from inpaint_ops.ops import native, shortcut

pytestmark = pytest.mark.skipif(not shortcut.AVAILABLE, reason="needs the extension")

# Operator, channels, shape of the weight, options.
LAYERS = {
    "plain": ("fused_conv2d", 5, (6, 5, 3, 3), {"padding": 1}),
    "relu": ("fused_conv2d", 5, (6, 5, 3, 3), {"padding": 1, "activation": "relu"}),
    "silu": ("fused_conv2d", 5, (6, 5, 3, 3), {"padding": 1, "activation": "silu"}),
    "stride": ("fused_conv2d", 5, (6, 5, 4, 4), {"stride": 2, "padding": 1}),
    "stride, padding cut": ("fused_conv2d", 5, (6, 5, 3, 3), {"stride": 2, "padding": 4}),
    "same": ("fused_conv2d", 5, (6, 5, 3, 3), {"stride": 2, "padding": "same"}),
    "dilated": ("fused_conv2d", 5, (6, 5, 3, 3), {"padding": 2, "dilation": 2}),
    "reflect": ("fused_conv2d", 5, (6, 5, 3, 3), {"padding": 2, "padding_mode": "reflect"}),
    "replicate": (
        "fused_conv2d",
        5,
        (6, 5, 4, 4),
        {"stride": 2, "padding": (1, 2), "padding_mode": "replicate"},
    ),
    "reflect doubled": (
        "fused_conv2d",
        5,
        (6, 5, 3, 3),
        {"padding": 1, "padding_mode": "reflect", "upsample": 2},
    ),
    "doubled": ("fused_conv2d", 5, (6, 5, 3, 3), {"padding": 1, "upsample": 2}),
    "doubled, dilated": (
        "fused_conv2d",
        5,
        (6, 5, 3, 3),
        {"padding": 2, "dilation": 2, "upsample": 2},
    ),
    "whole": ("fused_conv2d", 5, (6, 5, 8, 9), {}),
    "groups": ("fused_conv2d", 6, (6, 3, 3, 3), {"padding": 1, "groups": 2}),
    "one channel": ("fused_conv2d", 1, (1, 1, 3, 3), {"padding": 1}),
    "winograd": ("fused_conv2d", 32, (32, 32, 3, 3), {"padding": 1}),
    "gated": ("gated_conv2d", 5, (6, 5, 3, 3), {"padding": 1}),
    "gated doubled": ("gated_conv2d", 5, (6, 5, 3, 3), {"padding": 1, "upsample": 2}),
    "transposed": ("fused_conv_transpose2d", 5, (5, 6, 4, 4), {"activation": "elu"}),
    "transposed silu": ("fused_conv_transpose2d", 5, (5, 6, 4, 4), {"activation": "silu"}),
    "transposed 3x3": ("fused_conv_transpose2d", 5, (5, 6, 3, 3), {"stride": 1, "padding": 0}),
}
LAYOUTS = {
    "contiguous": torch.contiguous_format,
    "channels_last": torch.channels_last,
}


def drawn(name, layout="contiguous", bias=True):
    op, channels, shape, options = LAYERS[name]
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(2, channels, 8, 9, generator=generator)
    weight = torch.randn(shape, generator=generator) / 5
    filters = shape[1] if op == "fused_conv_transpose2d" else shape[0]
    leaves = [x.contiguous(memory_format=LAYOUTS[layout]), weight]
    leaves.append(torch.randn(filters, generator=generator) if bias else None)
    return getattr(inpaint_ops, op), leaves, options


def results(function, leaves, options, needed):
    leaves = [
        x if x is None else x.clone().requires_grad_(i in needed) for i, x in enumerate(leaves)
    ]
    y = function(*leaves, **options)
    if needed:
        y.backward(torch.sin(torch.arange(y.numel(), dtype=y.dtype)).view(y.shape))
    return [y.detach(), *(x.grad for x in leaves if x is not None)]


def same(a, b):
    if a is None or b is None:
        return a is b
    # Steps along axes of one element mean nothing.
    steps = zip(a.shape, a.stride(), b.stride())
    return torch.equal(a, b) and all(size == 1 or one == other for size, one, other in steps)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", LAYERS)
def test_the_same_bits_as_by_python(name, layout, monkeypatch, instruction_set):
    function, leaves, options = drawn(name, layout)
    for needed in ((), (0, 1, 2), (0,), (1,), (2,)):
        short = results(function, leaves, options, needed)
        with monkeypatch.context() as patch:
            patch.setattr(shortcut, "AVAILABLE", False)
            long = results(function, leaves, options, needed)
        assert len(short) == len(long)
        for got, want in zip(short, long):
            assert same(got, want)


@pytest.mark.parametrize("name", ["plain", "gated", "transposed"])
def test_without_bias_and_with_one_that_has_gaps(name):
    function, leaves, options = drawn(name)
    apart = torch.stack([leaves[2]] * 2, 1)[:, 0]
    assert not apart.is_contiguous()
    for needed in ((), (0, 1, 2)):
        want = results(function, leaves, options, needed)
        y = function(*leaves[:2], apart, **options)
        assert torch.equal(y, want[0])
    function, leaves, options = drawn(name, bias=False)
    zero = torch.zeros_like(drawn(name)[1][2])
    got = results(function, leaves, options, (0, 1))
    want = results(function, [*leaves[:2], zero], options, (0, 1))
    for a, b in zip(got, want):
        assert same(a, b)


def test_every_change_of_a_weight_is_seen():
    layer = inpaint_ops.FusedConv2d(5, 6, 3, padding=1)
    x = torch.randn(1, 5, 8, 8)
    for change in (
        lambda w: w.data.mul_(2),
        lambda w: w.detach().numpy().__setitem__((0, 0, 0, 0), 7.0),
        lambda w: setattr(w, "data", torch.ones_like(w)),
    ):
        layer(x)
        change(layer.weight)
        y = layer(x)
        weight, bias = layer.weight.detach(), layer.bias.detach()
        expected = torch.nn.functional.conv2d(x, weight, bias, padding=1)
        assert torch.allclose(y.detach(), expected, atol=1e-5)


def test_options_of_a_layer_may_change():
    layer = inpaint_ops.FusedConv2d(5, 6, 3, padding=1)
    x = torch.randn(1, 5, 8, 8)
    assert layer(x).shape == (1, 6, 8, 8)
    layer.stride = (2, 2)
    assert layer(x).shape == (1, 6, 4, 4)
    layer.stride = [1, 1]
    assert layer(x).shape == (1, 6, 8, 8)
    layer.stride = (1, True)
    with pytest.raises(TypeError, match="stride"):
        layer(x)
    layer.stride = (1, 1)
    layer.activation = "none"
    for _ in range(2):
        with pytest.raises(ValueError, match="activation"):
            layer(x)


def test_a_call_that_is_gone_leaves_no_weight_behind():
    import weakref

    layer = inpaint_ops.FusedConv2d(5, 6, 3, padding=1)
    layer(torch.randn(1, 5, 8, 8)).sum().backward()
    storage = weakref.ref(layer.weight.untyped_storage())
    weight = weakref.ref(layer.weight)
    del layer
    assert weight() is None
    assert storage() is None


@pytest.mark.parametrize("name", ["plain", "relu", "gated", "transposed"])
def test_backward_on_another_backend_and_twice(name):
    function, leaves, options = drawn(name)
    leaves = [x.requires_grad_() for x in leaves]
    with inpaint_ops.backend("direct"):
        direct = function(*leaves, **options)
        want = torch.autograd.grad(direct.sum(), leaves, retain_graph=True)
    got = torch.autograd.grad(direct.sum(), leaves, retain_graph=True)
    first = torch.autograd.grad(direct.sum(), leaves, create_graph=True)
    for a, b, c in zip(want, got, first):
        assert torch.equal(a, b)
        assert torch.equal(a, c)
    sum(one.square().sum() for one in first).backward()
    assert all(leaf.grad is not None for leaf in leaves[:2])


def test_changes_of_what_is_saved_are_errors():
    function, (x, weight, bias), options = drawn("plain")
    weight.requires_grad_()
    y = function(x, weight, bias, **options)
    x.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_saved_tensors_may_be_packed():
    function, leaves, options = drawn("gated")
    leaves = [x.requires_grad_() for x in leaves]
    want = torch.autograd.grad(function(*leaves, **options).sum(), leaves)
    with torch.autograd.graph.saved_tensors_hooks(
        lambda x: x.numpy(force=True).copy(), torch.from_numpy
    ):
        got = torch.autograd.grad(function(*leaves, **options).sum(), leaves)
    for a, b in zip(want, got):
        assert torch.equal(a, b)


def test_errors_are_those_of_the_kernels():
    module = native.extension()
    with pytest.raises(ValueError, match="arguments"):
        module.ConvCalls(lambda *_: None).function()()
    with pytest.raises(ValueError, match="alone"):
        module.ConvCalls.forward()(None, None, None, None, None)
