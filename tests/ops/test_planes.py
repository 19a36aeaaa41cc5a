"""Contiguous images: copied step by step to pixels and back, to the bits of channels_last."""

import pytest
import torch

import inpaint_ops
from inpaint_ops.ops import native, tensors
from inpaint_ops.ops.convolution import cpu
from inpaint_ops.ops.convolution.plan import Convolution
from inpaint_ops.ops.convolution.spec import Geometry
from inpaint_ops.ops.partly import PARTLY, Wanted

pytestmark = pytest.mark.skipif(not native.status().available, reason="copies of the CPU's kernels")

# name: (operator, shape of x, filters, kernel, options); by one thread steps are of 2 MB: most of
# these take several steps, of rows or of images.
LAYERS = {
    "3x3": ("fused", (1, 20, 151, 170), 38, 3, {"padding": 1, "activation": "silu"}),
    "3x3-reflect": (
        "fused",
        (2, 33, 90, 171),
        33,
        3,
        {"padding": 2, "padding_mode": "reflect", "activation": "elu"},
    ),
    "3x3-dilated": (
        "fused",
        (1, 24, 140, 150),
        40,
        3,
        {"padding": 5, "dilation": 5, "padding_mode": "replicate"},
    ),
    "3x3-stride": ("fused", (1, 18, 201, 180), 64, 3, {"padding": "same", "stride": 2}),
    "3x3-upsampled": ("fused", (1, 19, 91, 90), 24, 3, {"padding": 1, "upsample": 2}),
    "5x5-large-tiles": ("fused", (1, 61, 120, 111), 24, 5, {"padding": 2}),
    "7x7": ("fused", (1, 31, 130, 120), 20, 7, {"padding": (3, 4), "padding_mode": "reflect"}),
    "7x7-stem": ("fused", (1, 3, 300, 310), 64, 7, {"padding": 3, "stride": 2}),
    "4x4-stride": ("fused", (1, 17, 160, 162), 70, 4, {"padding": 1, "stride": 2}),
    "1x1": ("fused", (1, 37, 150, 101), 48, 1, {"activation": "tanh"}),
    "3-filters": ("fused", (1, 60, 120, 140), 3, 3, {"padding": 1}),
    "3-filters-thin": ("fused", (1, 12, 220, 240), 3, 3, {"padding": 1, "activation": "tanh"}),
    "1-filter-stride": ("fused", (1, 50, 130, 140), 1, 4, {"stride": 2}),
    "many-small": ("fused", (40, 30, 21, 20), 34, 3, {"padding": 1}),
    "one-pixel": ("fused", (3, 40, 1, 1), 5, 3, {"padding": 1}),
    "gated": ("gated", (1, 24, 150, 140), 50, 3, {"padding": 1, "activation": "elu"}),
    "partial": ("partial", (2, 20, 130, 140), 30, 3, {"padding": 1}),
    "transposed": ("transposed", (1, 40, 70, 80), 36, 4, {"stride": 2, "padding": 1}),
}
NAMES = {
    "fused": "fused_conv2d",
    "gated": "gated_conv2d",
    "partial": "partial_conv2d",
    "transposed": "fused_conv_transpose2d",
}


def draw(name):
    op, shape, filters, kernel, options = LAYERS[name]
    generator = torch.Generator().manual_seed(8)
    sizes = (shape[1], filters) if op == "transposed" else (filters, shape[1])
    terms = shape[1] * kernel * kernel
    x = torch.randn(shape, generator=generator)
    weight = torch.randn(*sizes, kernel, kernel, generator=generator) / terms**0.5
    return op, x, weight, torch.randn(filters, generator=generator), options


def run(op, x, weight, bias, options, algorithm="auto"):
    """Result and gradients."""
    leaves = [t.detach().requires_grad_() for t in (x, weight, bias)]
    function = getattr(inpaint_ops, NAMES[op])
    options = {**options, "algorithm": algorithm}
    if op == "partial":
        valid = torch.ones(1, 1, *x.shape[2:])
        valid[..., 30:90, 20:70] = 0
        y = function(leaves[0], valid, *leaves[1:], **options)[0]
    else:
        y = function(*leaves, **options)
    upstream = torch.linspace(-1, 1, y.numel()).view(y.shape)
    with torch.no_grad():
        again = function(*leaves, **options) if op != "partial" else y
    return y.detach(), again, *torch.autograd.grad(y, leaves, upstream)


@pytest.mark.parametrize("name", LAYERS)
def test_planes_give_the_bits_of_pixels(instruction_set, name):
    op, x, weight, bias, options = draw(name)
    for algorithm in ("auto", "direct"):
        torch.set_num_threads(1)
        pixels = run(
            op, x.contiguous(memory_format=torch.channels_last), weight, bias, options, algorithm
        )
        for threads in (1, 3):
            torch.set_num_threads(threads)
            planes = run(op, x, weight, bias, options, algorithm)
            assert planes[0].is_contiguous()
            assert planes[2].is_contiguous()
            for got, expected in zip(planes, pixels):
                assert torch.equal(got, expected), algorithm


def test_wanted_pixels_of_each_image(instruction_set):
    """A step has an image, whose wanted pixels are its own."""
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(3, 20, 121, 170, generator=generator)
    weight = torch.randn(38, 20, 3, 3, generator=generator) / 14
    wanted = torch.zeros(3, 121, 170, dtype=torch.bool)
    wanted[0, 3:9, 5:20] = wanted[1, 90:110, 100:150] = wanted[2, 50, 60] = True
    g = Geometry((1, 1), (1, 1, 1, 1), (1, 1))
    y = torch.full((3, 38, 121, 170), 7.0)
    cpu.convolve(
        cpu.parts_of(x, g),
        weight,
        None,
        Convolution(g),
        y,
        wanted=cpu.Wanted(wanted.byte()),
        algorithm="auto",
    )
    chosen = wanted[:, None].expand_as(y)
    assert torch.equal(y[chosen], inpaint_ops.fused_conv2d(x, weight, padding=1)[chosen])
    assert bool((y[~chosen] == 7).all())


@pytest.mark.parametrize("part", ["rows", "columns", "channels", "samples", "turned"])
def test_planes_of_a_larger_image(instruction_set, part):
    """Rows with gaps, channels apart, and pixels of a row that are not neighbours."""
    whole = torch.randn(4, 41, 120, 150, generator=torch.Generator().manual_seed(3))
    x = {
        "rows": whole[:, :, 5:-3],
        "columns": whole[..., 7:-4],
        "channels": whole[:, ::2],
        "samples": whole[::2],
        "turned": whole.mT,
    }[part]
    weight = torch.randn(24, x.shape[1], 3, 3) / 20
    y = inpaint_ops.fused_conv2d(x, weight, padding=1)
    assert torch.equal(y, inpaint_ops.fused_conv2d(x.clone(), weight, padding=1))


@pytest.mark.parametrize("kernel", [3, 5, 7])
def test_tiles_that_begin_before_the_first_output(instruction_set, kernel):
    """They read rows that a transposed convolution with so much padding leaves out."""
    torch.set_num_threads(1)
    operator = torch.ops.inpaint_ops.fused_conv_transpose2d.default
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(1, 64, 40, 40, generator=generator)
    weight = torch.randn(64, 64, kernel, kernel, generator=generator) / 8 / kernel
    options = (weight, None, 1, kernel + 1, "identity", False, "auto")
    for row in (0, 1, 2, 3):
        results = []
        for layout in (torch.contiguous_format, torch.channels_last):
            operator(torch.full_like(x, torch.nan), *options)  # what scratch memory holds
            image = x.contiguous(memory_format=layout)
            results.append(PARTLY[operator].compute(Wanted(None, (row, 0)), image, *options)[0])
        assert torch.equal(*results), row


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 3, 5, 7), (1, 16, 16, 16), (3, 33, 1, 50)])
def test_copies_of_layouts(instruction_set, shape):
    for threads in (1, 3):
        torch.set_num_threads(threads)
        x = torch.randn(shape)
        last = tensors.in_layout(x, torch.channels_last)
        assert last.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(last, x)
        assert tensors.in_layout(last, torch.contiguous_format).is_contiguous()
        assert torch.equal(tensors.in_layout(last, torch.contiguous_format), x)
        wide = torch.randn(*shape[:3], shape[3] + 3)[..., :-3]
        assert torch.equal(tensors.in_layout(wide, torch.channels_last), wide)
        # Others are PyTorch's.
        for other in (x.double(), x.half(), x.mT.contiguous().mT, x[:0]):
            copy = tensors.in_layout(other, torch.channels_last)
            assert torch.equal(copy, other)
            assert copy.dtype == other.dtype


def test_what_guards_memory():
    module = tensors.native()
    x = torch.randn(1, 3, 4, 5)
    last = torch.empty_like(x, memory_format=torch.channels_last)
    for source, to in (
        (x, last[:, :2]),
        (x, torch.empty(1, 3, 4, 6)[..., :5]),
        (x.mT.contiguous().mT, last),
        (last, torch.empty(1, 3, 5, 4).mT),
    ):
        with pytest.raises(ValueError, match=r"size|channels_last|adjacent"):
            module.relayout(source, to, 1)
