"""Gradients of the convolution operators: instruction sets, threads, errors, checkpoints."""

import pytest
import torch
from conv_cases import GEOMETRIES, tensors, with_gradients
from support import check_close
from torch.utils.checkpoint import checkpoint

import inpaint_ops
from inpaint_ops import (
    GatedConv2d,
    fused_conv2d,
    fused_conv_transpose2d,
    gated_conv2d,
    partial_conv2d,
    reference,
)
from inpaint_ops.ops.convolution import formulas

# name: (shape of x, filters, kernel, options); more than one task, block, panel and remainder each.
SHAPES = {
    "winograd": ((2, 53, 33, 42), 70, (3, 3), {"padding": 1}),
    "winograd-dilated": ((1, 20, 37, 45), 24, (3, 3), {"padding": 4, "dilation": 4}),
    "winograd-reflect": ((1, 17, 30, 31), 34, (3, 3), {"padding": 1, "padding_mode": "reflect"}),
    "doubled": ((1, 50, 17, 22), 36, (3, 3), {"padding": 1, "upsample": 2}),
    "few-filters": ((2, 19, 30, 33), 3, (7, 7), {"padding": 3}),
    "few-channels": ((1, 5, 60, 71), 24, (5, 5), {"padding": 2}),
    "few-channels-strided": ((1, 5, 60, 71), 24, (3, 3), {"padding": 1, "stride": 2}),
    "strided": ((2, 70, 31, 34), 66, (4, 4), {"padding": 1, "stride": 2}),
    "strided-few": ((2, 3, 31, 34), 2, (5, 5), {"padding": 2, "stride": 2}),
    "strided-dilated": ((1, 9, 40, 41), 20, (3, 3), {"padding": 2, "stride": 2, "dilation": 2}),
    "pairs": ((1, 35, 51, 62), 40, (4, 4), {"padding": 1, "stride": 2}),
    "threes-strided": ((1, 50, 47, 54), 36, (5, 5), {"padding": 2, "stride": 2}),
    "fours-cut": ((1, 21, 30, 41), 37, (5, 4), {"padding": 2, "padding_mode": "replicate"}),
    "fours": ((1, 18, 29, 40), 34, (7, 7), {"padding": 3, "padding_mode": "reflect"}),
    "doubled-reflect": (
        (1, 18, 17, 22),
        36,
        (3, 3),
        {"padding": 1, "upsample": 2, "padding_mode": "reflect"},
    ),
    "doubled-replicate": (
        (2, 9, 12, 15),
        20,
        (4, 4),
        {"padding": 3, "upsample": 2, "padding_mode": "replicate"},
    ),
    "doubled-dilated": (
        (1, 9, 12, 15),
        20,
        (3, 3),
        {"padding": 2, "dilation": 2, "upsample": 2, "padding_mode": "reflect"},
    ),
    "reflect-dilated": (
        (1, 9, 13, 14),
        20,
        (3, 3),
        {"padding": 4, "dilation": 4, "padding_mode": "reflect"},
    ),
    "reflect-strided": (
        (2, 9, 13, 14),
        20,
        (5, 5),
        {"padding": 2, "stride": 2, "padding_mode": "reflect"},
    ),
    "4x4-short": ((2, 70, 32, 32), 90, (4, 4), {"padding": 1, "stride": 2}),
    "wide-padding": ((1, 9, 5, 6), 7, (3, 3), {"padding": 4}),
    "dilated": ((1, 40, 33, 35), 20, (5, 5), {"padding": 8, "dilation": 4}),
}


def gradients(shape, filters, kernel, options):
    x, weight, bias = tensors(shape, filters, kernel)
    x = x.contiguous(memory_format=torch.channels_last)
    return (x, weight, bias), with_gradients(fused_conv2d, x, weight, bias, **options)


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.usefixtures("instruction_set")
def test_every_instruction_set(name):
    options = SHAPES[name][3]
    inputs, actual = gradients(*SHAPES[name])
    expected = with_gradients(reference.fused_conv2d, *(t.double() for t in inputs), **options)
    for got, want in zip(actual, expected):
        error = (got - want).abs().max() / want.abs().max()
        assert error < 2e-5, error.item()


@pytest.mark.parametrize("name", SHAPES)
def test_threads_change_no_bit(name):
    results = []
    for threads in (1, 1, 2, 5):
        torch.set_num_threads(threads)
        results.append(gradients(*SHAPES[name])[1])
    for other in results[1:]:
        for first, later in zip(results[0], other):
            assert torch.equal(first, later)


@pytest.mark.parametrize("threads", [2, 3])
def test_threads_change_no_bit_of_transposed_and_partial_layers(threads):
    x, weight, bias = tensors((1, 24, 20, 22), 40, (4, 4))
    valid = (torch.arange(22) > 6).float().expand(1, 1, 20, 22)
    runs = []
    for count in (1, threads):
        torch.set_num_threads(count)
        transposed = with_gradients(fused_conv_transpose2d, x, weight.transpose(0, 1), bias)
        partial = with_gradients(
            lambda x, w, b: partial_conv2d(x, valid, w, b, padding=1)[0],
            x,
            weight[..., :3, :3],
            bias,
        )
        runs.append((*transposed, *partial))
    for one, more in zip(*runs):
        assert torch.equal(one, more)


LAYERS = {
    "96-192": ((1, 96, 48, 48), 192, (3, 3), {"padding": 1}),
    "96-192-dilated": ((1, 96, 48, 48), 192, (3, 3), {"padding": 8, "dilation": 8}),
    "96-96-doubled": ((1, 96, 24, 24), 96, (3, 3), {"padding": 1, "upsample": 2}),
    "24-24": ((1, 24, 128, 128), 24, (3, 3), {"padding": 1}),
    "5-48": ((1, 5, 96, 96), 48, (5, 5), {"padding": 2}),
    "48-96-strided": ((1, 48, 64, 64), 96, (3, 3), {"padding": 1, "stride": 2}),
    "64-64-pairs": ((1, 64, 64, 64), 64, (4, 4), {"padding": 1, "stride": 2}),
    "64-64-short": ((1, 64, 32, 32), 64, (4, 4), {"padding": 1, "stride": 2}),
    "64-32-threes": ((1, 64, 48, 48), 32, (5, 5), {"padding": 2}),
    "64-32-fours": ((1, 64, 48, 48), 32, (7, 7), {"padding": 3}),
}


def root_mean_square(t):
    return t.double().square().mean().sqrt().item()


@pytest.mark.parametrize("name", LAYERS)
def test_errors_of_gradients_against_those_of_eager(name):
    shape, filters, kernel, options = LAYERS[name]
    inputs = tensors(shape, filters, kernel)
    exact = with_gradients(reference.gated_conv2d, *(t.double() for t in inputs), **options)
    eager = with_gradients(reference.gated_conv2d, *inputs, **options)
    ours = with_gradients(gated_conv2d, *inputs, **options)
    for mine, theirs, true in zip(ours, eager, exact):
        assert root_mean_square(mine - true) <= 8 * root_mean_square(theirs - true)
    # Short chains make up for Winograd's rounding.
    weight_error = root_mean_square(ours[2] - exact[2]) / root_mean_square(exact[2])
    assert weight_error < 2e-6


def test_direct_backend_sums_the_weight_gradient_directly():
    shape, filters, kernel, options = LAYERS["96-192"]
    inputs = tensors(shape, filters, kernel)
    exact = with_gradients(reference.fused_conv2d, *(t.double() for t in inputs), **options)[2]
    tiled = with_gradients(fused_conv2d, *inputs, **options)[2]
    with inpaint_ops.backend("direct"):
        direct = with_gradients(fused_conv2d, *inputs, **options)[2]
    assert root_mean_square(direct - exact) < 0.7 * root_mean_square(tiled - exact)


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("options", [{}, {"upsample": 2}, {"stride": 2}], ids=str)
def test_checkpointed_layers_have_the_same_gradients(reentrant, options):
    torch.manual_seed(0)
    layers = torch.nn.Sequential(
        GatedConv2d(6, 20, 3, padding=1, **options), GatedConv2d(20, 8, 3, padding=2, dilation=2)
    )
    x = torch.randn(2, 6, 18, 22, requires_grad=True)

    def run(function):
        y = function(x)
        return (y, *torch.autograd.grad(y.square().sum(), (x, *layers.parameters())))

    def kept(x):
        return checkpoint(layers, x, use_reentrant=False)

    plain = run(layers)
    if not reentrant:
        again = run(kept)
    else:
        # The reentrant kind fills .grad only.
        y = checkpoint(layers, x, use_reentrant=True)
        y.square().sum().backward()
        again = (y, x.grad, *(p.grad for p in layers.parameters()))
    for once, twice in zip(plain, again):
        assert torch.equal(once, twice)


def test_empty_batches_and_unwanted_gradients():
    x, weight, bias = tensors((0, 5, 12, 12), 6, (3, 3))
    _, grad_x, grad_weight, grad_bias = with_gradients(fused_conv2d, x, weight, bias, padding=1)
    assert grad_x.shape == x.shape
    assert torch.equal(grad_weight, torch.zeros_like(weight))
    assert torch.equal(grad_bias, torch.zeros_like(bias))
    x, weight, bias = tensors((1, 5, 12, 12), 6, (3, 3))
    weight.requires_grad_()
    y = fused_conv2d(x, weight, bias, padding=1)
    assert torch.autograd.grad(y.sum(), weight)[0].shape == weight.shape


@pytest.mark.parametrize("name", ["3x3", "5x5", "4x4-stride-2", "whole-image"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_gradients_are_summed_in_float32(name, dtype):
    shape, filters, kernel, options = GEOMETRIES[name]
    inputs = tensors(shape, filters, kernel, dtype=dtype)
    narrow = with_gradients(fused_conv2d, *inputs, **options)
    wide = with_gradients(fused_conv2d, *(t.float() for t in inputs), **options)
    for got, want in zip(narrow, wide):
        assert got.dtype == dtype
        check_close(got, want)


def test_the_binding_guards_memory():
    from inpaint_ops import _C

    def image(*shape):
        return torch.zeros(shape).contiguous(memory_format=torch.channels_last)

    x, grad = image(1, 4, 8, 8), image(1, 6, 8, 8)
    good = {
        "x": [x],
        "valid": [None],
        "tensors": [(1, [4])],
        "grad": grad,
        "grad_weight": torch.zeros(6, 4, 3, 3),
        "algorithm": "winograd_4x3",
        "stride": (1, 1),
        "padding": (1, 1),
        "dilation": (1, 1),
        "padding_mode": "zeros",
        "threads": 1,
    }
    _C.conv_weight_gradient(**good)
    for change, rule in (
        ({"grad_weight": torch.zeros(6, 5, 3, 3)}, "weight size"),
        ({"grad": image(2, 6, 8, 8)}, "images are empty"),
        ({"stride": (2, 2), "dilation": (2, 2)}, "the algorithm does not take this"),
        ({"algorithm": "winograd_4x3_upsampled"}, "the algorithm does not take this"),
        ({"algorithm": "winograd_4x5"}, "the algorithm does not take this"),
        ({"algorithm": "winograd"}, "algorithm"),
        ({"padding_mode": "circular"}, "padding mode"),
        ({"tensors": [(3, [4])]}, "upsample"),
        ({"tensors": [(1, [4, 1])]}, "x size"),
        ({"tensors": [(1, [4, 0])]}, "widths"),
        ({"tensors": []}, "there must be a tensor"),
        ({"x": [x, x]}, "one mask a tensor"),
        ({"x": [x, x], "valid": [None] * 2, "tensors": [(1, [4]), (2, [4])]}, "one size"),
        ({"valid": [torch.zeros(1, 2, 8, 8, dtype=torch.uint8)]}, "valid planes"),
        ({"valid": [torch.zeros(1, 1, 8, 7, dtype=torch.uint8)]}, "valid size"),
        ({"threads": 0}, "four dimensions"),
        ({"x": [x[:, ::2]], "tensors": [(1, [2])]}, "channels must be adjacent"),
    ):
        with pytest.raises(ValueError, match=rule):
            _C.conv_weight_gradient(**{**good, **change})


@pytest.mark.parametrize(
    ("op", "filters", "groups"),
    [
        ("fused_conv2d", 1, 1),
        ("fused_conv2d", 8, 4),
        ("partial_conv2d", 1, 1),
        ("partial_conv2d", 8, 4),
        ("fused_conv_transpose2d", 1, 1),
        ("fused_conv_transpose2d", 8, 1),
    ],
)
def test_float64_with_weights_in_channels_last(op, filters, groups):
    # torch's own loops are wrong for this layout of one sample: its stride is 1.
    x = torch.randn(1, 5, 14, 8).double().permute(0, 3, 1, 2)
    x = x.as_strided(x.shape, (1, 1, 14 * 8, 8))
    shape = (8, filters, 4, 4) if op == "fused_conv_transpose2d" else (filters, 8 // groups, 3, 3)
    weight = torch.randn(shape).double()
    extra = () if op != "partial_conv2d" else (torch.ones(1, 1, 5, 14),)
    options = {} if op == "fused_conv_transpose2d" else {"padding": 1, "groups": groups}
    found = []
    for image, layout in (
        (x.contiguous().clone(memory_format=torch.contiguous_format), torch.contiguous_format),
        (x, torch.channels_last),
    ):
        leaves = [image, weight.contiguous(memory_format=layout)]
        leaves = [leaf.detach().requires_grad_() for leaf in leaves]
        y = getattr(inpaint_ops, op)(leaves[0], *extra, leaves[1], **options)
        y = y[0] if isinstance(y, tuple) else y
        upstream = torch.sin(torch.arange(y.numel()).double()).view(y.shape).requires_grad_()
        first = torch.autograd.grad(y, leaves, upstream, create_graph=True)
        product = sum((g * g.detach().cos()).sum() for g in first)
        found.append([y, *first, *torch.autograd.grad(product, [*leaves, upstream])])
    for plain, other in zip(*found, strict=True):
        torch.testing.assert_close(other, plain)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("pads", [(1, 1, 1, 1), (0, 3, 2, 0), (4, 4, 6, 6), (0, 0, 0, 5)], ids=str)
@pytest.mark.parametrize("mode", ["reflect", "replicate"])
def test_borders_fold_back_as_aten_does_it(mode, pads, layout):
    """On devices, where aten's own adds by atomics; by formulas that run anywhere."""
    top, bottom, left, right = pads
    x = torch.randn(2, 3, 5, 7, generator=torch.Generator().manual_seed(0)).double()
    x = x.contiguous(memory_format=layout).requires_grad_()
    padded = torch.nn.functional.pad(x, (left, right, top, bottom), mode=mode)
    grad = torch.randn(padded.shape, generator=torch.Generator().manual_seed(1)).double()
    (expected,) = torch.autograd.grad(padded, x, grad)
    rows = formulas.folded(grad, 2, top, 5, mode)
    torch.testing.assert_close(formulas.folded(rows, 3, left, 7, mode), expected)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("name", ["auto", "reference"])
@pytest.mark.parametrize(
    "op", ["fused_conv2d", "gated_conv2d", "fused_conv_transpose2d", "partial_conv2d"]
)
def test_gradients_of_weights_lie_as_the_weights_do(op, name, layout):
    """In training autograd would copy any other into the weight's layout, at every step."""
    x, weight, bias = tensors((1, 4, 6, 6), 4, (3, 3))
    weight = weight.contiguous(memory_format=layout).requires_grad_()
    args = (torch.ones(1, 1, 6, 6),) if op == "partial_conv2d" else ()
    with inpaint_ops.backend(name):
        y = getattr(inpaint_ops, op)(x, *args, weight, bias, padding=1)
    (grad,) = torch.autograd.grad((y if not args else y[0]).sum(), weight)
    assert grad.stride() == weight.stride()
