"""Pixels that a change reaches: no fewer than it does reach, and what `reads` says."""

import pytest
import torch
from conv_cases import GEOMETRIES, options_of, tensors

from inpaint_ops.ops.partly import PARTLY, Wanted

OPS = torch.ops.inpaint_ops
NAN = float("nan")


def maps_of(images, place):
    """Maps of changes: one pixel of one image."""
    which, n, y, x = place
    maps = [torch.zeros(one.shape[0], *one.shape[2:], dtype=torch.uint8) for one in images]
    maps[which][n, y, x] = 1
    return maps


def places(images):
    """Some pixels: a corner, the middle, the last of the last image."""
    last = len(images) - 1
    n, _, h, w = images[0].shape
    end = images[last].shape
    return [(0, 0, 0, 0), (0, n - 1, h // 2, w // 3), (last, 0, end[2] - 1, end[3] - 1)]


def check(operator, images, args, *, others):
    """Against what NaN in a pixel changes, and against what pixels read.

    `args`: makes the arguments from the images. `others`: tensors among them besides the images.
    """
    partly = PARTLY[operator]
    for anchor in ((0, 0), (3, 2)):
        before = partly.compute(Wanted(None, anchor), *args(images))[0]
        for place in places(images):
            which, n, y, x = place
            maps = maps_of(images, place)
            touched = partly.touched([*maps, *[None] * others], anchor, *args(images))
            if touched is None:
                pytest.skip("everything reads everything")
            poisoned = [one.clone() for one in images]
            poisoned[which][n, :, y, x] = NAN
            after = partly.compute(Wanted(None, anchor), *args(poisoned))[0]
            assert ((after != before).any(1) <= (touched != 0)).all(), (anchor, place)
            for wanted in some_of(touched):
                reads = partly.reads(wanted, *args(images), anchor=anchor).maps[which]
                assert (reads[n, y, x] != 0) == bool((touched * wanted).any()), (anchor, place)


def some_of(touched):
    """Single outputs, of which some are touched and some lie beside those."""
    torch.manual_seed(1)
    near = torch.nn.functional.max_pool2d(touched[:, None].float(), 9, 1, 4)[:, 0]
    for area in (touched, near, torch.ones_like(touched)):
        found = area.nonzero()
        for place in found[torch.randperm(len(found))[:4]]:
            wanted = torch.zeros_like(touched)
            wanted[tuple(place)] = 1
            yield wanted


@pytest.mark.parametrize("gated", [False, True], ids=["plain", "gated"])
@pytest.mark.parametrize("geometry", list(GEOMETRIES))
def test_convolutions(geometry, gated, instruction_set):
    shape, filters, kernel, options = GEOMETRIES[geometry]
    shape = (2, shape[1], shape[2] + 13, shape[3] + 20)
    x, weight, bias = tensors(shape, filters, kernel)
    fields = options_of(x, weight, options)[1]
    operator = OPS.gated_conv2d.default if gated else OPS.fused_conv2d.default
    for algorithm in ("auto", "direct"):

        def args(images, algorithm=algorithm):
            return (images[0], weight, bias, *fields, "identity", False, algorithm)

        check(operator, [x], args, others=2)


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
        return (images[0], weight, bias, stride, padding, "identity", False, "auto")

    check(operator, [x], args, others=2)


@pytest.mark.parametrize("upsample", [(1, 1), (2, 1), (2, 2)], ids=str)
@pytest.mark.parametrize("kernel", [1, 3, 7])
def test_partial_convolutions(kernel, upsample, instruction_set):
    torch.manual_seed(2)
    sides = [
        (14, 18) if factor == max(upsample) and factor > 1 else (28, 36) for factor in upsample
    ]
    images = [torch.randn(2, c, *side) for c, side in zip((6, 5), sides)]
    masks = [torch.ones(2, 1, *side) for side in sides]
    weight, bias = torch.randn(9, 11, kernel, kernel) / kernel, torch.randn(9)
    operator = OPS.partial_conv2d.default

    def args(images, masks=masks):
        where = ((1, 1), (kernel // 2,) * 4, (1, 1), 1)
        return (images, masks, weight, bias, *where, "window", list(upsample), "auto")

    check(operator, images, args, others=4)
    # Pixels that become unknown reach what changed pixels reach.
    partly = PARTLY[operator]
    for place in places(images):
        maps, none = maps_of(images, place), [None, None]
        by_value = partly.touched([*maps, *none, *none], (3, 2), *args(images))
        assert torch.equal(by_value, partly.touched([*none, *maps, *none], (3, 2), *args(images)))
        holes = [1 - one[:, None].float() for one in maps]
        before, after = (
            partly.compute(Wanted(None, (3, 2)), *args(images, these)) for these in (masks, holes)
        )
        for one, other in zip(before, after):
            assert ((one != other).any(1) <= (by_value != 0)).all()


def test_a_changed_weight_reaches_everything():
    x, weight, bias = tensors((1, 4, 9, 9), 6, (3, 3))
    fields = options_of(x, weight, {"padding": 1})[1]
    args = (x, weight, bias, *fields, "elu", False, "auto")
    changed = torch.ones(6, 3, 3, dtype=torch.uint8)
    assert PARTLY[OPS.fused_conv2d.default].touched([None, changed, None], (0, 0), *args) is None
