"""Networks that predict one hole: each hole of a picture has its own square."""

import warnings

import numpy as np
import pytest
import torch
from model_cases import box, picture, small

from inpaint_ops.features import FeatureNetwork
from inpaint_ops.models import HoleNote
from inpaint_ops.models.blocks import centre
from inpaint_ops.models.holes import _numbered
from inpaint_ops.models.msnps.texture_energies import PAPER_LAYERS
from inpaint_ops.models.squares import hole_by_hole

FORMS = [("context_encoder", {}), ("context_encoder", {"variant": "convolutional"}), ("msnps", {})]
forms = pytest.mark.parametrize(("name", "options"), FORMS, ids=str)


def mask(h, w, *boxes):
    hole = torch.zeros(1, 1, h, w)
    for top, left, bottom, right in boxes:
        hole[..., top:bottom, left:right] = 1
    return hole


def distance(first, second, hole):
    return float((first - second).abs()[hole.bool().expand_as(first)].mean())


@forms
def test_specks_in_opposite_corners_are_filled_by_what_is_around_them(name, options):
    """Two specks are filled as each of them alone is; both at once dropped the whole picture."""
    model = small(name, **options)
    image = picture(1, 3, 200, 180)
    specks = [mask(200, 180, (5, 6, 15, 14)), mask(200, 180, (180, 160, 192, 171))]
    both = sum(specks)
    result = model.complete(image, both)
    for one in specks:
        alone = model.complete(image, one)
        inside = one.bool().expand_as(image)
        torch.testing.assert_close(result[inside], alone[inside], rtol=0, atol=1e-5)
    # The other speck is missing where it lies in the square, and the rest of the picture is seen.
    other = model.complete(picture(1, 3, 200, 180, seed=5), both)
    near = model.complete(picture(1, 3, 200, 180, seed=5), specks[0])
    single = distance(model.complete(image, specks[0]), near, specks[0])
    assert distance(result, other, specks[0]) == pytest.approx(single, rel=1e-3)


@forms
@pytest.mark.parametrize("hole", ["frame", "scratch", "wide"])
def test_a_thin_hole_is_filled_in_parts_that_see_the_picture(name, options, hole):
    size = (150, 170)
    thin = torch.zeros(1, 1, *size)
    if hole == "frame":
        thin += 1
        thin[..., 6:-6, 6:-6] = 0
    elif hole == "scratch":
        at = torch.arange(140)
        thin[0, 0, at, at + 10] = thin[0, 0, at, at + 11] = 1
    else:
        thin[..., 70:76, 5:160] = 1
    model = small(name, **options)
    seen = []
    network = model.get_submodule(model.completion_networks[0])
    network.register_forward_pre_hook(lambda _, x: seen.append(x[0].detach().clone()))
    image = picture(1, 3, *size)
    result = model.complete(image.masked_fill(thin.bool(), float("nan")), thin)
    known = (thin == 0).expand_as(image)
    assert torch.equal(result[known], image[known])
    assert bool(((result >= 0) & (result <= 1)).all())
    assert len(seen) > 2
    # What the network saw is mostly picture, not the colour of what is missing.
    colour = model.colour(image)
    assert all(float((x == colour).all(1).double().mean()) < 0.75 for x in seen)
    assert torch.equal(result, model.complete(image, thin, compute="all"))
    assert distance(result, model.complete(picture(1, 3, *size, seed=4), thin), thin) > 0


@forms
def test_a_hole_as_the_method_was_trained_for_has_one_square(name, options):
    model = small(name, **options)
    image = picture(2, 3, 128, 128)
    seen = []
    network = model.get_submodule(model.completion_networks[0])
    network.register_forward_pre_hook(lambda _, x: seen.append(x[0].detach().clone()))
    least, most = (64 - 28) + 0, (64 + 28) - 0
    model.complete(image, mask(128, 128, (least, least, most, most)))
    # Both pictures at once; as they are but for the middle.
    (x,) = seen
    shown = (x != model.colour(image)).any(1)
    torch.testing.assert_close(
        (x + 1)[shown[:, None].expand_as(x)],
        (2 * image)[shown[:, None].expand_as(x)],
        rtol=0,
        atol=1e-5,
    )


@forms
def test_each_sample_has_its_own_holes(name, options):
    model = small(name, **options)
    image = picture(3, 3, 100, 120)
    scratch = torch.zeros(1, 1, 100, 120)
    scratch[..., 50:52, :] = 1
    hole = torch.cat(
        [mask(100, 120, (3, 3, 9, 9), (80, 90, 95, 99)), torch.zeros(1, 1, 100, 120), scratch]
    )
    together = model.complete(image, hole)
    assert torch.equal(together[1], image[1])
    for i in range(3):
        alone = model.complete(image[i : i + 1], hole[i : i + 1])
        torch.testing.assert_close(together[i : i + 1], alone, rtol=0, atol=1e-5)
    shared = model.complete(image, hole[:1])
    torch.testing.assert_close(shared[:1], together[:1], rtol=0, atol=1e-5)


@forms
def test_other_holes_in_a_window_do_not_widen_the_square(name, options):
    model = small(name, **options)
    size = 400 if name == "context_encoder" else 1100
    image = picture(1, 3, size, size)
    near = [(200, 200, 210, 210), (200, 262, 208, 270)]
    result = model.complete(image, mask(size, size, *near), window="auto")
    expected = model.complete(image, mask(size, size, *near))
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-4)


@forms
def test_a_hole_that_leaves_too_little_is_told(name, options):
    model = small(name, **options)
    image = picture(1, 3, 60, 60)
    for hole, missing in (
        (torch.ones(1, 1, 60, 60), 3600),
        (mask(60, 60, (3, 3, 57, 57)), 54 * 54),
        (1 - mask(60, 60, (30, 30, 33, 33)), 3600 - 9),
    ):
        with pytest.warns(HoleNote, match=rf"{name}.complete: hole should .* for {missing} at"):
            model.complete(image, hole)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.complete(image, mask(60, 60, (20, 20, 42, 42)))
        model.complete(image, box(1, 60, 60))


def test_pixels_that_are_seen():
    """Counted by the picture that the network gets."""
    generator = torch.Generator().manual_seed(2)
    for top, left, bottom, right in ((10, 20, 40, 60), (0, 0, 9, 9), (100, 150, 140, 200)):
        hole = mask(140, 200, (top, left, bottom, right)).bool()
        missing = hole | (torch.rand(1, 1, 140, 200, generator=generator) > 0.9)
        where = centre.window(centre.hole_boxes(hole), 140, 200, 4)
        seen = (~missing).float()
        rows, columns = (torch.arange(n) for n in (140, 200))
        side = int(where.side)
        for axis, at, first in ((2, rows, where.top), (3, columns, where.left)):
            inside = (at >= first) & (at < first + side)
            seen = seen * (inside[:, None] if axis == 2 else inside)
        middle = seen.clone()
        start, end = side * 36 // 128, side * 92 // 128
        for axis, at, first in ((2, rows, where.top), (3, columns, where.left)):
            inside = (at >= first + start) & (at < first + end)
            middle = middle * (inside[:, None] if axis == 2 else inside)
        square = centre.Square(int(where.top), int(where.left), side)
        counted = centre.seen_pixels(missing[0, 0], square, 4)
        assert counted == int(seen.sum() - middle.sum())


@pytest.mark.parametrize(
    "boxes",
    [
        [(2, 3, 9, 12)],
        [(150, 230, 159, 240), (60, 60, 130, 120)],
        [(70, 10, 159, 99)],
        [(0, 0, 160, 240)],
        [(5, 5, 8, 8), (80, 200, 150, 230), (100, 5, 110, 30)],
    ],
    ids=str,
)
@pytest.mark.parametrize("size", [(160, 240), (100, 300), (300, 90)], ids=str)
def test_a_cut_around_the_square_gives_what_the_picture_gives(boxes, size):
    model = small("context_encoder").eval()
    hole = sum(mask(*size, one) for one in boxes).clamp(max=1)
    if not hole.any() or hole.all():
        hole = mask(*size, (20, 20, 40, 50))
    batch = torch.cat([hole, hole.flip(3), mask(*size, (40, 40, 60, 55))])
    image = picture(3, 3, *size)
    clean = torch.where(batch > 0, 0.0, image)
    shapes = []

    def fill(image, missing, wanted=None, given=None):
        shapes.append(tuple(image.shape[2:]))
        return model.completed(image, missing, wanted=wanted)

    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", HoleNote)
        cut = hole_by_hole(fill, "fill", 4)(clean, batch > 0)
        assert any(shape != size for shape in shapes)
        whole = hole_by_hole(fill, "fill", 4, looks_beyond=True)(clean, batch > 0)
    torch.testing.assert_close(cut, whole, rtol=0, atol=1e-5)


@pytest.mark.parametrize("share", [0.02, 0.2, 0.4, 0.6, 0.9])
def test_cells_of_eight_neighbours_are_one_group(share):
    """Against groups that grow from cell to cell."""
    generator = torch.Generator().manual_seed(int(100 * share))
    for shape in ((1, 1), (1, 17), (17, 1), (13, 19), (40, 40)):
        cells = (torch.rand(shape, generator=generator) < share).numpy()
        expected = np.zeros(shape, np.int64)
        for start in zip(*np.nonzero(cells)):
            if expected[start]:
                continue
            number, waiting = expected.max() + 1, [start]
            while waiting:
                y, x = waiting.pop()
                if 0 <= y < shape[0] and 0 <= x < shape[1] and cells[y, x] and not expected[y, x]:
                    expected[y, x] = number
                    waiting += [(y + i, x + j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
        np.testing.assert_array_equal(_numbered(cells), expected)


def test_texture_of_other_holes_is_not_taken():
    """A hole near another is synthesised in its own region, without patches of the other."""
    model = small(
        "msnps", energy="paper", size=64, levels=1, iterations=2, base_channels=4, bottleneck=8
    )
    model.load_features(FeatureNetwork.untrained("vgg19", layers=PAPER_LAYERS))
    image = picture(1, 3, 96, 180)
    hole = mask(96, 180, (40, 40, 56, 56), (40, 110, 50, 124))
    damaged = image.masked_fill(hole.bool(), float("nan"))
    result = model.complete(damaged, hole)
    known = (hole == 0).expand_as(image)
    assert torch.equal(result[known], image[known])
    assert bool(torch.isfinite(result).all())
    assert torch.equal(result, model.complete(image, hole))
