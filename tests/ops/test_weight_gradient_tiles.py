"""Gradients of weights in Winograd's domain: every way to share the work gives the exact sums."""

import pytest
import torch

from inpaint_ops.ops import native

pytestmark = pytest.mark.skipif(not native.status().available, reason="needs the extension")

# (images, channels, filters, height, width of the result), by how the tiles are shared; of 3 x 3
# taps with stride 1, and of 2 x 2 with stride 2, whose kernels fall into four parts.
SIZES = {
    "blocks": (1, 260, 250, 9, 10),
    "blocks of one tile": (1, 260, 250, 3, 2),
    "sections": (2, 70, 90, 50, 45),
    "sections of one block": (1, 40, 24, 30, 41),
    "segments": (2, 20, 34, 90, 83),
    "segments of three blocks": (1, 190, 60, 150, 90),
}
WINDOWS = (1, 72, 330, 84, 82)


def gradient(algorithm, sizes, kernel, stride, threads=1, parts=1):
    """Return image, gradient of the result and gradient of the weight."""
    images, channels, filters, height, width = sizes
    torch.manual_seed(0)
    size = ((height - 1) * stride + kernel - 2, (width - 1) * stride + kernel - 2)
    x = torch.randn(images, channels, *size)
    grad = torch.randn(images, filters, height, width)
    image = x.contiguous(memory_format=torch.channels_last)
    cuts = [channels // parts] * (parts - 1)
    cuts.append(channels - sum(cuts))
    tensors = [t.contiguous(memory_format=torch.channels_last) for t in image.split(cuts, 1)]
    result = torch.full((filters, channels, kernel, kernel), torch.nan)
    native.extension().conv_weight_gradient(
        tensors,
        [None] * parts,
        tuple((1, (count,)) for count in cuts),
        grad.contiguous(memory_format=torch.channels_last),
        result,
        algorithm,
        (stride, stride),
        (1, 1),
        (1, 1),
        "zeros",
        threads,
    )
    return x, grad, result


def check(x, grad, result, stride):
    exact = torch.nn.grad.conv2d_weight(
        x.double(), result.shape, grad.double(), stride=stride, padding=1
    )
    error = (result - exact).abs().max() / exact.abs().max()
    assert error < 1e-5, error.item()


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize(
    ("algorithm", "kernel", "stride"),
    [("winograd_4x3", 3, 1), ("winograd_4x2", 3, 2), ("winograd_4x2", 4, 2)],
)
@pytest.mark.usefixtures("instruction_set")
def test_sums_are_exact(name, algorithm, kernel, stride):
    check(*gradient(algorithm, SIZES[name], kernel, stride), stride)


@pytest.mark.usefixtures("instruction_set")
def test_windows_of_blocks():
    """More transformed tiles than are kept at a time, for more sums than wait at a time."""
    check(*gradient("winograd_4x2", WINDOWS, 3, 2), 2)


@pytest.mark.parametrize("name", ["winograd_4x3", "winograd_5x2", "winograd_4x2", "winograd_3x4"])
@pytest.mark.parametrize("kernel", [2, 3, 4, 5, 7])
@pytest.mark.usefixtures("instruction_set")
def test_kernels_in_parts(name, kernel):
    """The last tap of a part that lies beyond the kernel has no product."""
    for stride in (1, 2):
        check(*gradient(name, (1, 19, 35, 11, 13), kernel, stride), stride)


@pytest.mark.parametrize("name", SIZES)
def test_threads_change_no_bit(name):
    runs = [gradient("winograd_4x3", SIZES[name], 3, 1, threads)[2] for threads in (1, 2, 5)]
    for other in runs[1:]:
        assert torch.equal(runs[0], other)


@pytest.mark.parametrize("name", ["blocks", "sections", "segments"])
@pytest.mark.usefixtures("instruction_set")
def test_several_tensors_give_the_bits_of_one(name):
    one = gradient("winograd_4x2", SIZES[name], 3, 2)[2]
    three = gradient("winograd_4x2", SIZES[name], 3, 2, parts=3)[2]
    assert torch.equal(one, three)
