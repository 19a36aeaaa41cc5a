"""Operators that compute some pixels: right bits, from nothing but what they say they read."""

import itertools

import pytest
import torch
from conv_cases import GEOMETRIES, force_algorithm, options_of, tensors
from support import check_close

from inpaint_ops import reference
from inpaint_ops.ops.convolution import spec
from inpaint_ops.ops.partly import PARTLY, Wanted

OPS = torch.ops.inpaint_ops
NAN = float("nan")


def wanted_maps(n, height, width):
    """Wanted pixels by name, (N, H, W) bytes."""
    torch.manual_seed(5)
    none = torch.zeros(n, height, width, dtype=torch.uint8)
    one, box, last = none.clone(), none.clone(), none.clone()
    one[-1, height // 2, width // 3] = 1
    box[:, height // 3 : height // 3 + 6, width // 2 :] = 1
    last[0, -1, -1] = 1
    scattered = (torch.rand(none.shape) < 0.1).to(torch.uint8)
    return {
        "none": none,
        "one": one,
        "box": box,
        "last": last,
        "scattered": scattered,
        "all": none + 1,
    }


def poisoned(x, reads):
    """x with NaN wherever it is not read."""
    return x if reads is None else torch.where(reads[:, None] != 0, x, NAN)


def check(operator, images, args, *, size):
    """Wanted pixels are right, others and what is not read do not matter.

    `args`: makes the arguments from the images.
    """
    partly = PARTLY[operator]
    n = images[0].shape[0]
    for name, pixels in wanted_maps(n, *size).items():
        found = partly.reads(pixels, *args(images))
        if found is None:
            pytest.skip("everything is read")
        share, anchor = found.share, found.anchor
        assert 0 <= share <= 1
        if name in ("none", "all"):
            assert share == (name == "all")
        some = [poisoned(x, reads) for x, reads in zip(images, found.maps)]
        y = partly.compute(Wanted(pixels, anchor), *args(some))[0]
        whole = partly.compute(Wanted(None, anchor), *args(images))[0]
        if anchor == (0, 0):
            assert torch.equal(whole, operator(*args(images))[0]), name
        torch.testing.assert_close(whole, operator(*args(images))[0], atol=3e-5, rtol=1e-4)
        where = (pixels != 0)[:, None].expand_as(y)
        assert torch.equal(y[where], whole[where]), name


@pytest.mark.parametrize("algorithm", ["auto", "precise", "direct"])
@pytest.mark.parametrize("gated", [False, True], ids=["plain", "gated"])
@pytest.mark.parametrize("geometry", list(GEOMETRIES))
def test_convolutions(geometry, gated, algorithm, instruction_set):
    shape, filters, kernel, options = GEOMETRIES[geometry]
    # Enough pixels for several tiles, and for weights that are packed.
    shape = (2, shape[1], shape[2] + 13, shape[3] + 20)
    x, weight, bias = tensors(shape, filters, kernel)
    g, fields = options_of(x, weight, options)
    operator = OPS.gated_conv2d.default if gated else OPS.fused_conv2d.default
    for layout in (torch.contiguous_format, torch.channels_last):

        def args(images, layout=layout):
            image = images[0].contiguous(memory_format=layout)
            return (image, weight, bias, *fields, "elu", False, algorithm)

        check(operator, [x], args, size=g.out_size(x, weight))


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate"])
@pytest.mark.parametrize("upsample", [1, 2])
@pytest.mark.parametrize(
    "algorithm",
    ["winograd_4x3", "winograd_5x2", "winograd_4x2", "winograd_3x4", "winograd_5x4", "direct"],
)
def test_tiles_may_begin_anywhere(algorithm, upsample, mode, monkeypatch, instruction_set):
    """Every pixel is right wherever tiles lie: before the image they see its border twice."""
    if upsample == 2 and algorithm == "winograd_4x3":
        algorithm = "winograd_4x3_upsampled"
    force_algorithm(monkeypatch, algorithm)
    x, weight, bias = tensors((1, 18, 15, 14), 20, (3, 3))
    options = {"padding": 1, "padding_mode": mode, "upsample": upsample}
    _, fields = options_of(x, weight, options)
    args = (x, weight, bias, *fields, "identity", False, "auto")
    expected = reference.fused_conv2d(x.double(), weight.double(), bias.double(), **options)
    partly = PARTLY[OPS.fused_conv2d.default]
    for anchor in itertools.product(range(8), (0, 2, 3, 5)):
        y = partly.compute(Wanted(None, anchor), *args)[0]
        check_close(y, expected, terms=64 * 9 * 18)


@pytest.mark.parametrize(
    ("stride", "padding", "kernel"), [(2, 1, 4), (2, 0, 5), (3, 1, 4), (1, 1, 3)]
)
@pytest.mark.parametrize("filters", [3, 20])
def test_transposed_convolutions(stride, padding, kernel, filters, instruction_set):
    torch.manual_seed(4)
    x, bias = torch.randn(2, 11, 13, 17), torch.randn(filters)
    weight = torch.randn(11, filters, kernel, kernel) / kernel
    operator = OPS.fused_conv_transpose2d.default

    def args(images):
        return (
            images[0],
            weight,
            bias,
            stride,
            padding,
            "relu",
            False,
            "auto",
        )

    size = tuple((side - 1) * stride - 2 * padding + kernel for side in x.shape[2:])
    check(operator, [x], args, size=size)


@pytest.mark.parametrize("upsample", [(1, 1), (2, 1), (2, 2)], ids=str)
@pytest.mark.parametrize("kernel", [1, 3, 7])
def test_partial_convolutions(kernel, upsample, instruction_set):
    torch.manual_seed(2)
    sides = [(14, 18) if factor == 2 else (28, 36) for factor in upsample]
    if upsample == (2, 2):
        sides = [(14, 18), (14, 18)]
    images = [torch.randn(2, c, *side) for c, side in zip((6, 5), sides)]
    masks = [(torch.rand(2, 1, *side) < 0.7).float() for side in sides]
    weight, bias = torch.randn(9, 11, kernel, kernel) / kernel, torch.randn(9)
    pad = kernel // 2
    operator = OPS.partial_conv2d.default

    def args(images):
        where = ((1, 1), (pad,) * 4, (1, 1), 1)
        return (images, masks, weight, bias, *where, "window", list(upsample), "auto")

    check(operator, images, args, size=(28, 36))


@pytest.mark.parametrize("tiled", [False, True])
def test_other_pixels_are_left_alone(tiled):
    from inpaint_ops.ops.convolution import cpu
    from inpaint_ops.ops.convolution.plan import Convolution

    for (kernel, gated), shape in itertools.product(
        (((3, 3), True), ((5, 5), False)), ((2, 7, 22, 25), (1, 3, 40, 23))
    ):
        x, weight, bias = tensors(shape, 12, kernel)
        g = spec.check_geometry("test", x, weight, stride=1, padding=kernel[0] // 2, dilation=1)
        pixels = wanted_maps(shape[0], *shape[2:])["scattered"]
        y = torch.full((shape[0], 6 if gated else 12, *shape[2:]), 7.0)
        parts, what = cpu.parts_of(x, g), Convolution(g, gated=gated, activation="elu")
        cpu.convolve(
            parts,
            weight,
            bias,
            what,
            y,
            algorithm="auto" if tiled else "direct",
            wanted=Wanted(pixels, (3, 2)),
        )
        assert (y == 7).all(1).equal(pixels == 0)
