"""Cases that the fuzzer found, as plain tests; and the fuzzer's own machinery."""

import pytest
import torch
from fuzz import Failure, replay
from fuzz.case import draw, entries, instruction_sets
from fuzz.shrink import shrink
from fuzz.tensors import laid_out, same_bits

import inpaint_ops
from inpaint_ops import FusedConv2d, ops, reference


@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_refine_patch_without_queries_returns_nothing(backend):
    query, key = torch.randn(1, 2, 1, 5), torch.randn(1, 2, 6, 6)
    guess = torch.zeros(1, 0, 0, dtype=torch.int64)
    where = torch.ones(1, 1, 0, 0, dtype=torch.bool)
    with inpaint_ops.backend(backend):
        index, distance = ops.refine_patch(query, key, guess, where=where, patch_size=2)
    assert index.shape == distance.shape == (1, 0, 0)


@pytest.mark.parametrize(("radius", "reach"), [(3, 2), (4, 3), (9, 1), (2**31 - 1, 2), (5, 2**30)])
def test_windows_of_refine_patch_larger_than_the_image(radius, reach):
    """Its windows lie `reach` beside a neighbour's guess, so an image's size is not enough."""
    generator = torch.Generator().manual_seed(1)
    query, key = (torch.randn(1, 2, 3, size, generator=generator) for size in (6, 2))
    guess = torch.randint(-2, 9, (1, 3, 6), generator=generator)
    index, distance = ops.refine_patch(query, key, guess, patch_size=1, radius=radius, reach=reach)
    want, far = reference.refine_patch(
        query.double(), key.double(), guess, patch_size=1, radius=min(radius, 20), reach=reach
    )
    assert torch.equal(index, want)
    torch.testing.assert_close(distance.double(), far)


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("size", [(0, 4), (4, 0)])
def test_shift_connection_of_no_pixel_returns_nothing(size, backend):
    x = torch.randn(2, 3, *size)
    with inpaint_ops.backend(backend):
        shifted, index = ops.shift_connection(x, x, torch.ones(2, 1, *size, dtype=torch.bool))
    assert shifted.shape == x.shape
    assert index.shape == (2, *size)
    assert index.dtype == torch.int64


@pytest.mark.parametrize("name", ["stride", "padding", "dilation"])
@pytest.mark.parametrize("value", [2**31, 2**40, 2**63, 10**30])
@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_geometry_beyond_reason_is_refused(name, value, backend):
    x, weight = torch.randn(1, 2, 3, 3), torch.randn(2, 2, 1, 1)
    valid = torch.ones(1, 1, 3, 3)
    with inpaint_ops.backend(backend), pytest.raises(ValueError, match=f": {name} must be at most"):
        ops.fused_conv2d(x, weight, **{name: value})
    with inpaint_ops.backend(backend), pytest.raises(ValueError, match=f": {name} must be at most"):
        ops.gated_conv2d(x, weight, **{name: (1, value)})
    with inpaint_ops.backend(backend), pytest.raises(ValueError, match=f": {name} must be at most"):
        ops.partial_conv2d(x, valid, weight, **{name: value})
    if name != "dilation":
        with inpaint_ops.backend(backend), pytest.raises(ValueError, match=f": {name} must be at"):
            ops.fused_conv_transpose2d(x, weight, **{name: value})


def test_results_beyond_64_bits_are_refused():
    x, weight = torch.randn(1, 2, 3, 3), torch.randn(2, 2, 1, 1)
    with pytest.raises(ValueError, match="padding must leave fewer than"):
        ops.fused_conv2d(x, weight, padding=2**31 - 1)
    with pytest.raises(ValueError, match="stride must leave fewer than"):
        ops.fused_conv_transpose2d(x, weight, stride=2**30, padding=0)


def test_wide_search_windows_are_those_of_the_image():
    g = torch.Generator().manual_seed(0)
    query, key = (torch.randn(1, 3, 7, 8, generator=g) for _ in range(2))
    guess = torch.randint(0, 20, (1, 5, 6), generator=g)
    found = ops.refine_patch(query, key, guess, patch_size=3, radius=2**31 - 1)
    expected = ops.nearest_patch(query, key, metric="l2")[0]
    assert torch.equal(found[0], expected)


def test_rates_whose_work_never_ends_are_refused():
    x = torch.randn(1, 2, 4, 4)
    with pytest.raises(ValueError, match="rate must be at most 1024, got 1025"):
        ops.contextual_attention(x, x, rate=1025)


def test_meta_tensors_are_refused_by_the_device_and_not_by_autocast():
    x, weight = torch.randn(1, 2, 3, 3), torch.randn(2, 2, 1, 1)
    with pytest.raises(ValueError, match="x and weight must be on one device"):
        ops.fused_conv2d(x.to("meta"), weight)
    with pytest.raises(ValueError, match="x and weight must be on one device"):
        ops.channelwise_linear(x.to("meta"), torch.randn(2, 9, 9))
    layer = FusedConv2d(2, 5, 3, padding=1, device="meta")
    assert layer(x.to("meta")).shape == (1, 5, 3, 3)


def test_layers_name_what_is_no_tensor():
    loss = inpaint_ops.IDMRFLoss(lambda x: {"a": x}, {"a": 1.0})
    with pytest.raises(TypeError, match="IDMRFLoss: generated must be a Tensor, got list"):
        loss([1.0], torch.randn(1, 3, 4, 4))
    with pytest.raises(ValueError, match="reduce_hole: hole must hold a pixel"):
        inpaint_ops.ShiftConnection()(torch.randn(1, 2, 3, 3), torch.ones(1, 1, 0, 3))


def _case(name="fused_conv2d", number=0):
    return draw(name, 5, number, instruction_sets()[0])


@pytest.mark.parametrize("name", entries())
def test_a_case_is_the_same_each_time(name):
    assert _case(name, 3) == _case(name, 3)


def test_wrong_results_are_failures_and_shrink(monkeypatch):
    entry = entries()["fused_conv2d"]
    right = entry.op

    def wrong(x, weight, bias=None, **options):
        y = right(x, weight, bias, **options)
        return y + 0.5 if y.numel() and weight.shape[0] > 2 else y

    monkeypatch.setattr(entry, "op", wrong)
    case = next(
        case
        for case in (_case(number=number) for number in range(99))
        if case["sizes"]["f"] > 8
        and case["x"]["values"] == case["weight"]["values"] == "normal"
        and case["dtype"] == "float32"
        and "spoil" not in case
    )
    with pytest.raises(Failure, match="y: "):
        replay(case)


def test_a_case_that_does_not_fail_is_left_as_it_is():
    case = _case(number=1)
    assert shrink(case, "Failure: y: all wrong")[0] == case


@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "sliced", "stepped", "offset"])
def test_writes_around_a_tensor_are_seen(layout):
    made = laid_out(torch.randn(2, 3, 4, 5), layout)
    assert not made.changed()
    made.memory.as_strided((1,), (1,), 0).add_(1.0).nan_to_num_(nan=3.0)
    assert made.changed()


def test_bits_tell_zeros_and_nans_apart():
    zero = torch.zeros(2)
    assert same_bits(zero, zero.clone())
    assert not same_bits(zero, -zero)
    assert same_bits(zero / 0, zero / 0)


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize(("channels", "filters"), [(3, 1), (8, 16)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_pixel_kernels_with_a_stride(channels, filters, backend, dtype):
    """oneDNN's own gradient of these writes beyond its buffer in channels_last."""
    x = torch.randn(1, channels, 150, 46, dtype=dtype).contiguous(memory_format=torch.channels_last)
    x.requires_grad_()
    weight = torch.randn(filters, channels, 1, 1, dtype=dtype, requires_grad=True)
    want = torch.einsum("nchw,fc->nfhw", x[:, :, ::2, ::3], weight[:, :, 0, 0])
    upstream = torch.randn_like(want)
    wanted = torch.autograd.grad(want, (x, weight), upstream)
    for _ in range(10):
        with inpaint_ops.backend(backend):
            y = ops.fused_conv2d(x, weight, stride=(2, 3))
        got = torch.autograd.grad(y, (x, weight), upstream)
        torch.testing.assert_close(y, want, atol=1e-4, rtol=1e-4)
        for one, other in zip(got, wanted, strict=True):
            torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-4)
