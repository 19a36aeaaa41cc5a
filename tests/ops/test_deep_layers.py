"""Layers whose weights no cache holds: there Winograd's products are formed one after the other."""

import pytest
import torch
from conv_cases import check_against_reference, force_algorithm, tensors
from support import check_close

import inpaint_ops
from inpaint_ops import reference

# name: (shape of x, filters, kernel, options); more tiles than one block of scratch memory holds,
# or a last one that is not full.
LAYERS = {
    "3x3": ((1, 512, 37, 31), 512, (3, 3), {"padding": 1, "activation": "elu"}),
    "3x3-batch": ((3, 480, 9, 8), 270, (3, 3), {"padding": 1}),
    "3x3-upsampled": ((1, 400, 11, 10), 300, (3, 3), {"padding": 1, "upsample": 2}),
    "3x3-dilated": ((1, 350, 20, 21), 330, (3, 3), {"padding": 3, "dilation": 3}),
    "4x4-stride-2": ((1, 128, 34, 38), 256, (4, 4), {"padding": 1, "stride": 2}),
    "5x5-stride-2-reflect": (
        (1, 96, 34, 37),
        290,
        (5, 5),
        {"padding": 2, "stride": 2, "padding_mode": "reflect"},
    ),
}


def both_thread_counts(call):
    results = []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        results.append(call())
    return results


@pytest.mark.parametrize("name", LAYERS)
def test_fused_conv2d(name):
    shape, filters, kernel, options = LAYERS[name]
    x, weight, bias = tensors(shape, filters, kernel)
    one, three = both_thread_counts(
        lambda: check_against_reference("fused_conv2d", x, weight, bias, winograd=True, **options)
    )
    assert all(torch.equal(a, b) for a, b in zip(one, three))


@pytest.mark.parametrize("name", ["3x3-batch", "4x4-stride-2"])
@pytest.mark.usefixtures("instruction_set")
def test_every_instruction_set(name):
    shape, filters, kernel, options = LAYERS[name]
    inputs = tensors(shape, filters, kernel)
    check_against_reference("fused_conv2d", *inputs, winograd=True, **options)


@pytest.mark.usefixtures("instruction_set")
def test_few_channels_in_many_parts(monkeypatch):
    force_algorithm(monkeypatch, "winograd_5x2")
    x, weight, bias = tensors((1, 15, 52, 49), 512, (7, 7))
    options = {"padding": 3, "stride": 2}
    y = inpaint_ops.fused_conv2d(x, weight, bias, **options)
    wide = (t.double() for t in (x, weight, bias))
    check_close(y, reference.fused_conv2d(*wide, **options), terms=16 * 15 * 49)


def test_gated_conv2d():
    x, weight, bias = tensors((1, 300, 19, 22), 2 * 170, (3, 3))
    options = {"padding": 1, "activation": "elu"}
    one, three = both_thread_counts(
        lambda: check_against_reference("gated_conv2d", x, weight, bias, winograd=True, **options)
    )
    assert all(torch.equal(a, b) for a, b in zip(one, three))


def test_fused_conv_transpose2d():
    x, _, bias = tensors((1, 520, 18, 17), 240, (4, 4))
    weight = torch.randn(520, 240, 4, 4, generator=torch.Generator().manual_seed(1)) / 50
    one, three = both_thread_counts(
        lambda: inpaint_ops.fused_conv_transpose2d(x, weight, bias, activation="relu")
    )
    assert torch.equal(one, three)
    wide = (t.double() for t in (x, weight, bias))
    expected = reference.fused_conv_transpose2d(*wide, activation="relu")
    check_close(one, expected, terms=16 * 520 * 4)


def test_holes_of_partial_conv2d_stay_out():
    x, weight, bias = tensors((1, 400, 40, 33), 320, (3, 3))
    valid = torch.ones(1, 1, 40, 33)
    valid[..., 7:33, 3:21] = 0
    wild = x.where(valid != 0, torch.nan)
    one, three = both_thread_counts(
        lambda: inpaint_ops.partial_conv2d(wild, valid, weight, bias, padding=1)[0]
    )
    assert torch.equal(one, three)
    expected, updated = reference.partial_conv2d(
        x.double(), valid, weight.double(), bias.double(), padding=1
    )
    assert updated.min() == 0  # some tiles see nothing
    check_close(one, expected, terms=16 * 400 * 9)


@pytest.mark.usefixtures("instruction_set")
def test_both_orders_give_equal_bits(monkeypatch):
    force_algorithm(monkeypatch, "winograd_4x3")
    x, weight, bias = tensors((1, 512, 37, 31), 512, (3, 3))
    y = inpaint_ops.fused_conv2d(x, weight, bias, padding=1)
    # 6 tiles, few enough for the other order in every instruction set.
    corner = inpaint_ops.fused_conv2d(x[..., :12, :8], weight, bias, padding=1)
    assert torch.equal(corner[..., :8, :4], y[..., :8, :4])
