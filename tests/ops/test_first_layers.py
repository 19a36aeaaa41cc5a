"""Layers of few channels in tiles: the parts of a kernel, and several images, share vectors."""

import ctypes
import mmap
import sys

import pytest
import torch
from conv_cases import force_algorithm, hole_mask, tensors
from support import check_close

import inpaint_ops
from inpaint_ops import reference
from inpaint_ops.ops import native

pytestmark = pytest.mark.skipif(not native.status().available, reason="needs the extension")

TILES = ["winograd_4x3", "winograd_5x2", "winograd_4x2", "winograd_3x4", "winograd_5x4"]


def check(actual, expected, channels, kernel):
    # The large tiles err most.
    assert not actual.isnan().any()
    check_close(actual, expected, terms=64 * max(64, channels * kernel**2))


def framed(image):
    """The image in memory that holds NaN before it and after it."""
    wide = image.permute(0, 2, 3, 1)
    memory = torch.full((wide.numel() + 128,), torch.nan)
    inner = memory[64 : 64 + wide.numel()].view(wide.shape)
    inner.copy_(wide)
    return inner.permute(0, 3, 1, 2)


@pytest.mark.parametrize("algorithm", TILES)
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 7, 8, 9, 13, 15])
@pytest.mark.usefixtures("instruction_set")
def test_channels_in_their_lanes(algorithm, channels, monkeypatch):
    force_algorithm(monkeypatch, algorithm)
    for kernel, stride, mode in [
        (7, 1, "reflect"),
        (7, 2, "zeros"),
        (5, 1, "zeros"),
        (4, 2, "zeros"),
    ]:
        x, weight, bias = tensors((2, channels, 21, 26), 21, (kernel, kernel))
        options = {"padding": (kernel - 1) // 2, "stride": stride, "padding_mode": mode}
        y = inpaint_ops.fused_conv2d(framed(x), weight, bias, **options)
        wide = (t.double() for t in (x, weight, bias))
        check(y, reference.fused_conv2d(*wide, **options), channels, kernel)


@pytest.mark.parametrize("algorithm", TILES)
@pytest.mark.parametrize("cuts", [(3, 1), (1, 1, 1), (2, 9), (3, 2, 4, 1)], ids=str)
@pytest.mark.usefixtures("instruction_set")
def test_several_images_in_a_vector(algorithm, cuts, monkeypatch):
    """The first one is doubled, of the last one some pixels count as zero: those may hold NaN.

    Images between them have a mask of halves: they are read without one, as whole windows.
    """
    force_algorithm(monkeypatch, algorithm)
    size = (1, sum(cuts), 20, 28)
    for kernel, stride in [(5, 1), (5, 2), (7, 1)]:
        _, weight, bias = tensors(size, 34, (kernel, kernel))
        xs = list(torch.randn(size, generator=torch.Generator().manual_seed(2)).split(cuts, 1))
        xs[0] = xs[0][:, :, ::2, ::2]
        upsample = (2, *[1] * (len(cuts) - 1))
        valid = [torch.full(x.shape, 0.5) for x in xs]
        valid[0] = torch.ones(xs[0].shape)
        valid[-1] = hole_mask(*xs[-1].shape[:1], 1, *xs[-1].shape[2:]).expand(xs[-1].shape)
        options = {"padding": kernel // 2, "stride": stride, "upsample": upsample}
        expected = reference.partial_conv2d(
            tuple(x.double() for x in xs),
            tuple(v.double() for v in valid),
            weight.double(),
            bias.double(),
            **options,
        )
        xs[-1] = xs[-1].where(valid[-1] > 0, torch.nan)
        xs = [framed(x) for x in xs]
        actual = inpaint_ops.partial_conv2d(tuple(xs), tuple(valid), weight, bias, **options)
        check(actual[0], expected[0], size[1], kernel)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs mprotect")
@pytest.mark.parametrize("algorithm", ["winograd_3x4", "winograd_4x2"])
@pytest.mark.usefixtures("instruction_set")
def test_nothing_is_read_outside_of_the_image(algorithm, monkeypatch):
    """The image ends, then begins, where memory ends that may be read."""
    force_algorithm(monkeypatch, algorithm)
    page = mmap.PAGESIZE
    x, weight, _ = tensors((1, 3, 16, 22), 32, (7, 7))
    pages = -(-x.numel() * 4 // page)
    memory = mmap.mmap(-1, (pages + 2) * page)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    protect = ctypes.CDLL(None, use_errno=True).mprotect
    for first in (0, pages + 1):
        assert protect(ctypes.c_void_p(start + first * page), ctypes.c_size_t(page), 0) == 0
    options = {"padding": 3, "stride": 1 if algorithm == "winograd_3x4" else 2}
    expected = reference.fused_conv2d(x.double(), weight.double(), None, **options)
    for offset in (page, (pages + 1) * page - x.numel() * 4):
        flat = torch.frombuffer(memory, dtype=torch.float32, count=x.numel(), offset=offset)
        inner = flat.view(1, 16, 22, 3)
        inner.copy_(x.permute(0, 2, 3, 1))
        y = inpaint_ops.fused_conv2d(inner.permute(0, 3, 1, 2), weight, None, **options)
        check(y, expected, 3, 7)
    for first in (0, pages + 1):
        assert protect(ctypes.c_void_p(start + first * page), ctypes.c_size_t(page), 3) == 0
