"""Layers of few pixels and many weights, which are read where they lie."""

import pytest
import torch
from support import check_close

import inpaint_ops
from inpaint_ops import reference
from inpaint_ops.ops import native, shortcut
from inpaint_ops.ops.convolution import cpu, plan
from inpaint_ops.ops.convolution.spec import Geometry

pytestmark = pytest.mark.skipif(not native.status().available, reason="an algorithm of the CPU")

# name: (operator, shape of x, shape of weight, options); pixels, filters and channels around the
# sizes of tiles and vectors, kernels whose rows are no whole vectors.
LAYERS = {
    "deep": ("fused", (1, 512, 4, 4), (256, 512, 4, 4), {"stride": 2, "padding": 1}),
    "whole": ("fused", (3, 130, 3, 5), (67, 130, 3, 5), {"activation": "relu"}),
    "batch": ("fused", (2, 97, 2, 2), (129, 97, 3, 3), {"padding": 1, "activation": "tanh"}),
    "1x1": ("fused", (1, 257, 2, 4), (261, 257, 1, 1), {}),
    "reflect": (
        "fused",
        (1, 70, 5, 7),
        (106, 70, 3, 4),
        {"padding": (1, 2), "stride": 3, "padding_mode": "reflect", "activation": "silu"},
    ),
    "dilated": (
        "fused",
        (1, 66, 7, 6),
        (112, 66, 3, 3),
        {"padding": 1, "dilation": 2, "stride": 2},
    ),
    "upsampled": ("fused", (1, 125, 1, 2), (63, 125, 3, 3), {"padding": 1, "upsample": 2}),
    "gated": ("gated", (1, 90, 3, 2), (130, 90, 3, 3), {"padding": 1, "activation": "elu"}),
    "partial": ("partial", (2, 120, 4, 4), (70, 120, 3, 3), {"padding": 1, "stride": 2}),
    "transposed": ("transposed", (1, 130, 2, 4), (130, 67, 4, 4), {"stride": 2, "padding": 1}),
    "transposed-1": ("transposed", (3, 131, 1, 1), (131, 65, 4, 3), {"stride": 1, "padding": 0}),
    "transposed-apart": (
        "transposed",
        (1, 140, 2, 3),
        (140, 130, 2, 2),
        {"stride": 3, "padding": 1, "activation": "leaky_relu"},
    ),
}
NAMES = {
    "fused": "fused_conv2d",
    "gated": "gated_conv2d",
    "partial": "partial_conv2d",
    "transposed": "fused_conv_transpose2d",
}


def draw(name):
    """Operator, options, its leaves, the mask of a partial convolution and terms of a sum."""
    op, shape, weight_shape, options = LAYERS[name]
    generator = torch.Generator().manual_seed(5)
    filters = weight_shape[1 if op == "transposed" else 0]
    terms = weight_shape[0 if op == "transposed" else 1] * weight_shape[2] * weight_shape[3]
    x, weight = (torch.randn(s, generator=generator) for s in (shape, weight_shape))
    bias = torch.randn(filters, generator=generator)
    valid = torch.ones(1, 1, *shape[2:])
    valid[..., :2, 1:] = 0
    return op, options, (x, weight / terms**0.5, bias), valid, terms


def run(module, op, options, leaves, valid):
    leaves = [leaf.clone().requires_grad_() for leaf in leaves]
    function = getattr(module, NAMES[op])
    if op == "partial":
        x, weight, bias = leaves
        y = function(x, valid.to(x.dtype), weight, bias, **options)[0]
    else:
        y = function(*leaves, **options)
    upstream = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape)
    return y.detach(), *torch.autograd.grad(y, leaves, upstream)


@pytest.mark.parametrize("name", LAYERS)
def test_against_the_reference(instruction_set, name, monkeypatch):
    op, options, leaves, valid, terms = draw(name)
    taken = []
    run_ours = cpu.run

    def recorded(chosen, *args, **options):
        taken.append(chosen.algorithm)
        run_ours(chosen, *args, **options)

    monkeypatch.setattr(cpu, "run", recorded)
    monkeypatch.setattr(shortcut, "AVAILABLE", False)
    results = []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        results.append(run(inpaint_ops, op, options, leaves, valid))
    last = leaves[0].contiguous(memory_format=torch.channels_last)
    results.append(run(inpaint_ops, op, options, (last, *leaves[1:]), valid))
    assert "unpacked" in taken
    expected = run(reference, op, options, [leaf.double() for leaf in leaves], valid)
    for got, again, layout, want in zip(*results, expected):
        check_close(got, want, terms=4 * terms)
        assert torch.equal(got, again)
        assert torch.equal(got, layout)


def test_chains_of_rows_give_the_bits_of_blocks_of_filters(instruction_set):
    """Transposed: eight pixels by so many weights are summed by filters, fewer by chains."""
    generator = torch.Generator().manual_seed(6)
    weight = torch.randn(513, 820, 4, 4, generator=generator) / 513**0.5
    x = torch.randn(8, 513, 1, 1, generator=generator)
    torch.set_num_threads(2)
    together = inpaint_ops.fused_conv_transpose2d(x, weight, stride=2, padding=1)
    for first, last in ((0, 7), (7, 8)):
        alone = inpaint_ops.fused_conv_transpose2d(x[first:last], weight, stride=2, padding=1)
        assert torch.equal(alone, together[first:last])
    expected = torch.einsum(
        "nc,cfyx->nfyx", x[:, :, 0, 0].double(), weight[:, :, 1:3, 1:3].double()
    )
    check_close(together, expected, terms=513)


def test_results_of_any_layout(instruction_set):
    _, options, leaves, _, _ = draw("gated")
    x, weight, bias = leaves
    plain = inpaint_ops.gated_conv2d(x.contiguous(), weight, bias, **options)
    last = inpaint_ops.gated_conv2d(
        x.contiguous(memory_format=torch.channels_last), weight, bias, **options
    )
    assert plain.is_contiguous()
    assert last.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(plain, last)


def test_holes_do_not_reach_the_sums(instruction_set):
    op, options, leaves, valid, _ = draw("partial")
    wild = leaves[0].where(valid != 0, torch.nan)
    clean = run(inpaint_ops, op, options, leaves, valid)
    for got, expected in zip(run(inpaint_ops, op, options, (wild, *leaves[1:]), valid), clean):
        assert torch.equal(got, expected)


def algorithm_of(x, weight):
    g = Geometry((1, 1), (1, 1, 1, 1), (1, 1))
    shapes = cpu.shapes_of(cpu.parts_of(x, g), weight, (2, 2), in_place=plan.in_place(weight))
    return plan.choose(plan.Convolution(g), shapes)


def test_weights_of_another_layout_are_packed():
    weight = torch.randn(128, 128, 3, 3)
    x = torch.randn(1, 128, 2, 2)
    assert algorithm_of(x, weight) == "unpacked"
    for other in (
        weight.contiguous(memory_format=torch.channels_last),
        weight.half(),
        weight[:, :100],
    ):
        assert algorithm_of(x[:, : other.shape[1]], other) != "unpacked"
    y = inpaint_ops.fused_conv2d(x, weight, padding=1)
    other = weight.contiguous(memory_format=torch.channels_last)
    check_close(inpaint_ops.fused_conv2d(x, other, padding=1), y, terms=128 * 9)
