"""partial_conv2d over several tensors, each with an upsampling of its own."""

import math

import pytest
import torch
import torch.nn.functional as F
from conv_cases import BACKENDS, hole_mask, tensors, upstream
from support import check_close

import inpaint_ops
from inpaint_ops import partial_conv2d, reference
from inpaint_ops.ops.convolution.packed_weights import packed_weights

# name: (channels of each tensor, their factors, size after them, filters, kernel, options)
CASES = {
    "decoder": ((21, 10), (2, 1), (18, 22), 20, 3, {"padding": 1}),
    "odd": ((5, 3), (1, 1), (17, 13), 7, 3, {"padding": 1}),
    "three": ((9, 4, 17), (2, 1, 2), (20, 14), 24, 3, {"padding": 1}),
    "all-doubled": ((6, 5), (2, 2), (18, 20), 9, 3, {"padding": 1}),
    "one-doubled": ((18,), (2,), (18, 22), 20, 3, {"padding": 1}),
    "to-an-image": ((16, 3), (2, 1), (24, 26), 3, 3, {"padding": 1}),
    "5x5-stride-2": ((6, 12), (1, 2), (24, 26), 20, 5, {"padding": 2, "stride": 2}),
    "7x7": ((3, 2), (1, 2), (16, 18), 4, 7, {"padding": "same"}),
    "dilated": ((8, 9), (2, 1), (22, 20), 12, 3, {"padding": 2, "dilation": 2}),
    "few-dilated-stride": ((4, 3), (2, 1), (16, 12), 3, 3, {"stride": 2, "dilation": 2}),
    "1x1": ((7, 4), (2, 1), (8, 6), 6, 1, {}),
    "whole-image": ((3, 5), (2, 1), (4, 4), 6, 4, {}),
    "groups": ((6, 2), (2, 1), (16, 14), 12, 3, {"padding": 1, "groups": 4}),
    "groups-doubled": ((8,), (2,), (16, 14), 12, 3, {"padding": 1, "groups": 4}),
}


def draw(name, *, batch=2, dtype=torch.float32, channels_last=True):
    """Tensors, masks, weight, bias and options of a case."""
    widths, factors, (h, w), filters, kernel, options = CASES[name]
    _, weight, bias = tensors(
        (batch, sum(widths), h, w), filters, (kernel, kernel), groups=options.get("groups", 1)
    )
    images, masks = [], []
    for i, (width, factor) in enumerate(zip(widths, factors)):
        size = (h // factor, w // factor)
        image = tensors((batch, width, *size), 1, (1, 1), seed=i + 1)[0].to(dtype)
        layout = torch.channels_last if channels_last else torch.contiguous_format
        images.append(image.contiguous(memory_format=layout))
        # Masks of one image for all next to masks of each.
        masks.append(hole_mask(1 if i == 1 else batch, 1, *size, seed=i))
    options = {**options, "upsample": factors}
    return images, masks, weight.to(dtype), bias.to(dtype), options


def differentiated(function, images, masks, weight, bias, **options):
    """Result, mask and the gradients of all tensors, weight and bias."""
    leaves = [t.detach().requires_grad_() for t in (*images, weight, bias)]
    y, out = function(tuple(leaves[:-2]), tuple(masks), *leaves[-2:], **options)
    return y.detach(), out, *torch.autograd.grad(y, leaves, upstream(y))


def check(images, masks, weight, bias, **options):
    y, out, *grads = differentiated(partial_conv2d, images, masks, weight, bias, **options)
    wide = [one.double() for one in images]
    soft = [m.double() if m.is_floating_point() else m for m in masks]
    expected, expected_out, *wanted = differentiated(
        reference.partial_conv2d, wide, soft, weight.double(), bias.double(), **options
    )
    assert out.dtype == masks[0].dtype
    assert out.shape == expected_out.shape
    torch.testing.assert_close(out.double(), expected_out.double(), rtol=1e-6, atol=1e-7)
    pixels = max(64, y[:, 0].numel())
    check_close(y, expected, terms=16 * max(64, weight[0].numel()))
    for got, want, image in zip(grads, wanted, images):
        assert got.is_contiguous(memory_format=torch.channels_last) or image.is_contiguous()
        check_close(got, want, terms=64 * max(64, weight[:, 0].numel()))
    for got, want in zip(grads[-2:], wanted[-2:]):
        check_close(got, want, terms=16 * pixels)
    return y, out, grads


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("kind", [torch.bool, torch.float32], ids=str)
def test_matches_the_concatenation(name, kind):
    images, masks, weight, bias, options = draw(name)
    masks = [mask.to(kind) for mask in masks]
    y, out, _ = check(images, masks, weight, bias, **options)
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert out.shape[0] == 2
    check(images, masks, weight, bias, **{**options, "normalise": "sum"})
    # One mask a tensor says the same as one a channel.
    many = [mask.expand(-1, one.shape[1], -1, -1) for mask, one in zip(masks, images)]
    same, same_out = partial_conv2d(tuple(images), tuple(many), weight, bias, **options)
    if len(images) > 1 or kind == torch.bool:
        torch.testing.assert_close(same, y, rtol=1e-6, atol=1e-6)
        assert torch.equal(same_out, out)
    copied = [mask.contiguous() for mask in many]
    again, again_out = partial_conv2d(tuple(images), tuple(copied), weight, bias, **options)
    torch.testing.assert_close(again, same, rtol=1e-6, atol=1e-6)
    assert torch.equal(again_out, same_out)


@pytest.mark.parametrize("backend", ["auto", "direct"])
@pytest.mark.parametrize("name", ["decoder", "three", "to-an-image", "5x5-stride-2", "one-doubled"])
def test_every_instruction_set_and_layout(name, backend, instruction_set):
    images, masks, weight, bias, options = draw(name, channels_last=False)
    with inpaint_ops.backend(backend):
        y, _, _ = check(images, masks, weight, bias, **options)
        assert y.is_contiguous()
        # One of several in channels_last is enough for the result.
        images[-1] = images[-1].contiguous(memory_format=torch.channels_last)
        y, _, _ = check(images, masks, weight, bias, **options)
    assert y.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("name", ["decoder", "three"])
@pytest.mark.parametrize("soft", [0, 1])
def test_soft_and_many_channel_masks_stay_with_their_tensor(name, soft):
    images, masks, weight, bias, options = draw(name)
    generator = torch.Generator().manual_seed(3)
    masks[soft] = masks[soft] * torch.rand(masks[soft].shape, generator=generator) * 0.2
    check(images, masks, weight, bias, **options)
    n, c, h, w = images[1 - soft].shape
    masks[1 - soft] = hole_mask(n, c, h, w)
    check(images, masks, weight, bias, **options)
    masks[soft] = (masks[soft] != 0).float()
    check(images, masks, weight, bias, **options)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("name", ["decoder", "three"])
def test_dtypes(name, dtype):
    images, masks, weight, bias, options = draw(name, dtype=dtype)
    y, out, grads = check(images, masks, weight, bias, **options)
    assert out.dtype == torch.float32
    assert all(t.dtype == dtype for t in (y, *grads))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["decoder", "three", "5x5-stride-2", "groups"])
def test_hole_contents_never_leak(name, backend):
    images, masks, weight, bias, options = draw(name)
    results = []
    for poison in (0.0, math.nan, math.inf):
        poisoned = [torch.where(m != 0, one, poison) for one, m in zip(images, masks)]
        leaves = [t.requires_grad_() for t in (*poisoned, weight.clone(), bias.clone())]
        with inpaint_ops.backend(backend):
            y, out = partial_conv2d(tuple(leaves[:-2]), tuple(masks), *leaves[-2:], **options)
            grad = torch.where(out != 0, upstream(y), poison)
            grads = torch.autograd.grad(y, leaves, grad)
        for got, mask in zip(grads, masks):
            assert not got[(mask == 0).expand_as(got)].any()
        results.append((y.detach(), *grads))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other))


@pytest.mark.parametrize("name", ["decoder", "three", "5x5-stride-2"])
def test_threads_give_equal_bits(name):
    images, masks, weight, bias, options = draw(name)
    results = []
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        results.append(differentiated(partial_conv2d, images, masks, weight, bias, **options)[:-1])
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other))


def test_only_wanted_gradients_are_formed():
    images, masks, weight, bias, options = draw("decoder")
    expected = differentiated(partial_conv2d, images, masks, weight, bias, **options)[2:]
    for wanted in range(4):
        leaves = [t.clone() for t in (*images, weight, bias)]
        leaves[wanted].requires_grad_()
        y, _ = partial_conv2d(tuple(leaves[:2]), tuple(masks), *leaves[2:], **options)
        (grad,) = torch.autograd.grad(y, leaves[wanted], upstream(y))
        assert torch.equal(grad, expected[wanted])


def test_slices_of_a_weight_follow_it():
    """Their packed forms are kept, seen to change with the weight, and dropped with it."""
    images, masks, weight, bias, options = draw("decoder")
    weight = weight.clone()
    begin = len(packed_weights)
    for bypass in (False, True):
        differentiated(partial_conv2d, images, masks, weight, bias, **options)
        (weight.data if bypass else weight).mul_(2)
        check(images, masks, weight, bias, **options)
    kept = len(packed_weights)
    assert kept > begin + 1
    differentiated(partial_conv2d, images, masks, weight, bias, **options)
    assert len(packed_weights) == kept
    weight.data = torch.zeros_like(weight)
    assert not any(
        g.any() for g in differentiated(partial_conv2d, images, masks, weight, bias, **options)[2:4]
    )
    del weight
    assert len(packed_weights) == begin


def test_an_empty_batch_and_all_holes():
    images, masks, weight, bias, options = draw("decoder")
    empty = [one[:0] for one in images]
    y, out, *grads = differentiated(
        partial_conv2d, empty, [m[:1] for m in masks], weight, bias, **options
    )
    assert y.shape == (0, 20, 18, 22)
    assert out.shape[0] == 1
    assert not grads[2].any()
    y, out = partial_conv2d(
        tuple(images), tuple(torch.zeros_like(m) for m in masks), weight, bias, **options
    )
    assert not y.any()
    assert not out.any()


def test_gradcheck():
    images, masks, weight, bias, options = draw("odd", batch=1, dtype=torch.float64)
    images = [images[0][:, :2, :4, :4], images[1][:, :1, :2, :2]]
    masks = [masks[0][..., 8:12, 8:12], masks[1][..., 8:10, 8:10]]
    leaves = [t.clone().requires_grad_() for t in (*images, weight[:2, :3], bias[:2])]
    options["upsample"] = (1, 2)
    assert torch.autograd.gradcheck(
        lambda a, b, *rest: partial_conv2d((a, b), tuple(masks), *rest, **options)[0],
        leaves,
        fast_mode=True,
    )


@pytest.mark.parametrize("name", ["decoder", "three", "groups"])
def test_operator_passes_opcheck(name):
    images, masks, weight, bias, options = draw(name)
    where = ([1, 1], [1, 1, 1, 1], [1, 1], options.get("groups", 1))
    factors = list(options["upsample"])
    op = torch.ops.inpaint_ops.partial_conv2d.default
    leaves = [t.detach().clone().requires_grad_() for t in (*images, weight, bias)]
    count = len(images)
    args = (leaves[:count], masks, *leaves[count:], *where, "window", factors, "direct")
    torch.library.opcheck(op, args)
    y, share, scale = op(images, masks, weight, bias, *where, "window", factors, "direct")
    for needs in ([True] * (count + 2), [False, *[True] * (count - 1), False, False]):
        args = (torch.randn_like(y), images, masks, weight, share, scale, *where, factors, needs)
        args = (*args, "direct")
        torch.library.opcheck(torch.ops.inpaint_ops.partial_conv2d_backward.default, args)


class Decoder(torch.nn.Module):
    def __init__(self, weight, bias):
        super().__init__()
        self.weight, self.bias = torch.nn.Parameter(weight), torch.nn.Parameter(bias)

    def forward(self, small, large, known, seen):
        return partial_conv2d(
            (small, large), (known, seen), self.weight, self.bias, padding=1, upsample=(2, 1)
        )


def test_compiles_and_exports():
    images, masks, weight, bias, _ = draw("decoder")
    layer = Decoder(weight, bias)
    leaves = [t.clone().requires_grad_() for t in images]
    y, out = layer(*leaves, *masks)
    expected = torch.autograd.grad(y.square().sum(), leaves)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    same, same_out = compiled(*leaves, *masks)
    grads = torch.autograd.grad(same.square().sum(), leaves)
    assert torch.equal(same, y)
    assert torch.equal(same_out, out)
    for got, want in zip(grads, expected):
        torch.testing.assert_close(got, want)
    program = torch.export.export(layer, (*images, *masks))
    assert torch.equal(program.module()(*images, *masks)[0], y)


def most_allocated(run):
    """Bytes of the largest tensor that a run after a first makes."""
    run()
    with torch.profiler.profile(profile_memory=True) as profile:
        run()
    sizes = [e.cpu_memory_usage for e in profile.events() if e.name.startswith("[memory]")]
    sizes += [e.self_cpu_memory_usage for e in profile.events()]
    return max(sizes)


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
def test_nothing_of_the_concatenation_is_made(backward):
    """The largest tensor made is a result: the concatenation, 12 times as large as y, never is."""
    h = 48
    small, large = torch.randn(1, 64, h // 2, h // 2), torch.randn(1, 32, h, h)
    images = [t.contiguous(memory_format=torch.channels_last) for t in (small, large)]
    masks = (hole_mask(1, 1, h // 2, h // 2, torch.bool), hole_mask(1, 1, h, h, torch.bool))
    weight = torch.randn(8, 96, 3, 3)
    leaves = [t.requires_grad_(backward) for t in images]
    grad = torch.randn(1, 8, h, h).contiguous(memory_format=torch.channels_last)

    def run():
        y, _ = partial_conv2d(tuple(leaves), masks, weight, padding=1, upsample=(2, 1))
        if backward:
            torch.autograd.grad(y, leaves, grad)

    # After it the gradients of the tensors are results too.
    results = [8 * h * h, *(t.numel() for t in images if backward)]
    assert 0 < most_allocated(run) <= 4 * max(results)
    whole = [F.interpolate(images[0].detach(), scale_factor=2.0), images[1].detach()]
    assert most_allocated(lambda: torch.cat(whole, 1)) == 4 * 96 * h * h
