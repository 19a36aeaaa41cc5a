"""Gradients of weights over kernels, channels and filters at the edges of the kernels' ranges."""

import itertools

import pytest
import torch
from conv_cases import tensors
from support import check_close

from inpaint_ops import fused_conv2d, fused_conv_transpose2d, reference

CHANNELS = (1, 31, 33, 64, 65, 96, 100, 128, 129, 256)
FILTERS = (1, 2, 3, 4, 5, 15, 16, 17, 64, 128)
STEPS = ({}, {"stride": 2}, {"dilation": 2}, {"stride": 2, "dilation": 2}, {"stride": (2, 1)})


def weight_gradient(function, x, weight, **options):
    weight = weight.detach().requires_grad_()
    y = function(x, weight, **options)
    generator = torch.Generator().manual_seed(1)
    grad = torch.randn(y.shape, generator=generator, dtype=torch.float64).to(y.dtype)
    return torch.autograd.grad(y, weight, grad)[0]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("kernel", [(1, 1), (3, 1), (1, 3), (5, 1), (1, 2), (2, 3)], ids=str)
@pytest.mark.usefixtures("instruction_set")
def test_narrow_kernels(kernel, threads):
    torch.set_num_threads(threads)
    steps = itertools.cycle(STEPS)
    for channels, filters in itertools.product(CHANNELS, FILTERS):
        x, weight, _ = tensors((1, channels, 11, 10), filters, kernel)
        options = next(steps)
        actual = weight_gradient(fused_conv2d, x, weight, **options)
        expected = weight_gradient(reference.fused_conv2d, x.double(), weight.double(), **options)
        check_close(actual, expected, terms=128)


@pytest.mark.parametrize("channels", [65, 96, 128])
@pytest.mark.parametrize("size", [(1, 1), (8, 8), (33, 40)], ids=str)
@pytest.mark.usefixtures("instruction_set")
def test_one_pixel_kernels_of_many_channels(channels, size):
    """Sums of several ranges of channels, groups of filters and segments of the pixels."""
    x, weight, _ = tensors((2, channels, *size), 70, (1, 1))
    actual = weight_gradient(fused_conv2d, x, weight)
    expected = weight_gradient(reference.fused_conv2d, x.double(), weight.double())
    check_close(actual, expected, terms=2 * size[0] * size[1])
    # Both operands change places.
    weight = weight.transpose(0, 1).contiguous()
    options = {"stride": 1, "padding": 0}
    actual = weight_gradient(fused_conv_transpose2d, x, weight, **options)
    expected = weight_gradient(
        reference.fused_conv_transpose2d, x.double(), weight.double(), **options
    )
    check_close(actual, expected, terms=2 * size[0] * size[1])
