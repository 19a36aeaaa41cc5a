"""`complete` in windows: holes of all kinds in pictures that no window holds whole."""

import pytest
import torch
import torch.nn.functional as F
from model_cases import picture, small
from torch import nn

from inpaint_ops.blending import poisson_blend
from inpaint_ops.models import InpaintingModel, list_models
from inpaint_ops.models.holes import Holes, Rect
from inpaint_ops.models.windows import Windows

SIDE = 64
SIZE = (200, 150)


class StandIn(InpaintingModel):
    """Fills each missing pixel with the mean of the known ones; notes what it is given."""

    name = "stand_in"
    multiple = 4
    minimum = 8
    trained_size = SIDE
    completion_networks = ("generator",)

    def __init__(self):
        super().__init__()
        self.generator = nn.Conv2d(1, 1, 1)
        self.seen = []

    def _fill(self, image, hole, *, seed):
        self.seen.append((image, hole))
        known = (hole == 0).to(image.dtype)
        # Where all is missing, what 0 / 0 is not.
        mean = (image * known).sum((2, 3), keepdim=True) / known.sum((2, 3), keepdim=True).clamp(1)
        return mean.expand_as(image)


class Smooth(StandIn):
    """Fills holes so that each missing pixel is the mean of its neighbours: gradients go on."""

    def _fill(self, image, hole, *, seed):
        return poisson_blend(torch.zeros_like(image), image, hole)


def holes(h, w):
    """Masks by name."""

    def mask(*boxes):
        zero = torch.zeros(1, 1, h, w)
        for top, left, bottom, right in boxes:
            zero[..., top:bottom, left:right] = 1
        return zero

    points = torch.zeros(h, w)
    points[5::37, 3::29] = 1
    line = torch.eye(h, w) + torch.eye(h, w).roll(1, 1)
    line[0, -1] = 0
    return {
        "points": points[None, None],
        "a corner": mask((h - 9, w - 20, h, w)),
        "two sides": mask((40, 0, 60, 7), (0, 80, 4, 110)),
        "a scratch": line[None, None],
        "a square": mask((50, 30, 130, 120)),
        "a square at the edge": mask((100, 60, h, w)),
        "everything": mask((0, 0, h, w)),
        "all but one": 1 - mask((70, 70, 71, 71)),
        "much and little": mask((0, 0, 100, 100), (150, 20, 160, 30), (190, 140, 200, 150)),
    }


NAMES = list(holes(8, 8))


@pytest.mark.parametrize("name", NAMES)
def test_holes_are_filled_and_known_pixels_kept(name):
    model = StandIn()
    image, hole = picture(1, 3, *SIZE), holes(*SIZE)[name]
    missing = (hole > 0).expand_as(image)
    damaged = image.masked_fill(missing, float("nan"))
    result = model.complete(damaged, hole, window="auto")
    assert torch.equal(result[~missing], image[~missing])
    assert bool(((result >= 0) & (result <= 1)).all())
    assert torch.equal(result, model.complete(damaged, hole, window=SIDE))
    if name != "everything":
        assert bool((result[missing] > 0).all())


def test_networks_see_no_more_than_some_windows():
    model = StandIn()
    for hole in holes(*SIZE).values():
        model.complete(picture(1, 3, *SIZE), hole, window="auto")
    assert max(max(image.shape[2:]) for image, _ in model.seen) == SIDE
    assert max(image.numel() for image, _ in model.seen) == 4 * 3 * SIDE * SIDE


def test_equal_windows_are_filled_together_and_neighbours_share_one():
    model = StandIn()
    hole = torch.zeros(1, 1, 300, 300)
    for top, left in ((0, 0), (0, 150), (150, 0), (280, 280)):
        hole[..., top : top + 8, left : left + 8] = 1
        hole[..., top + 12 : top + 20, left : left + 8] = 1
    model.complete(picture(1, 3, 300, 300), hole, window=SIDE)
    assert [image.shape for image, _ in model.seen] == [(4, 3, SIDE, SIDE)]
    assert model.seen[0][1].sum() == 8 * 64


def test_a_windows_other_missing_pixels_are_missing_in_it():
    model = StandIn()
    hole = torch.zeros(1, 1, 200, 200)
    hole[..., 100:110, 40:60] = 1
    hole[..., 100:110, 76:100] = 1
    image = picture(1, 3, 200, 200)
    result = model.complete(image, hole, window=SIDE)
    ((images, masks),) = model.seen
    assert len(images) == 2
    assert all(int(one.sum()) > 240 for one in masks)
    means = [image[0, :, 73:137, 18:82], image[0, :, 73:137, 56:120]]
    for left, right, window, at in ((40, 60, means[0], 18), (76, 100, means[1], 56)):
        known = hole[0, 0, 73:137, at : at + 64] == 0
        wanted = window[:, known].mean(1)
        filled = result[0, :, 100:110, left:right]
        torch.testing.assert_close(filled, wanted[:, None, None].expand_as(filled))


@pytest.mark.parametrize("name", NAMES)
def test_each_picture_of_a_batch_has_its_own_holes(name):
    model = StandIn()
    image = picture(3, 3, *SIZE)
    hole = torch.cat([holes(*SIZE)[one] for one in (name, "points", "a square")])
    both = model.complete(image, hole, window="auto")
    for i in range(3):
        alone = model.complete(image[i : i + 1], hole[i : i + 1], window="auto")
        torch.testing.assert_close(both[i : i + 1], alone, rtol=0, atol=1e-6)
    shared = model.complete(image, hole[:1], window="auto")
    torch.testing.assert_close(shared[:1], both[:1], rtol=0, atol=1e-6)
    assert torch.equal(model.complete(image[:0], hole[:1], window="auto"), image[:0])


def test_a_hole_far_away_changes_nothing():
    model = StandIn()
    image, hole = picture(1, 3, *SIZE), torch.zeros(1, 1, *SIZE)
    hole[..., 20:30, 10:60] = 1
    alone = model.complete(image, hole, window=SIDE)
    hole[..., 100:, 100:] = 1
    both = model.complete(image, hole, window=SIDE)
    assert torch.equal(alone[..., :100, :], both[..., :100, :])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtypes_of_pictures(dtype):
    model = StandIn()
    image = picture(1, 3, *SIZE)
    for name in ("points", "a square", "a scratch"):
        hole = holes(*SIZE)[name]
        result = model.complete(image.to(dtype), hole > 0, window=SIDE)
        assert result.dtype == dtype
        missing = (hole > 0).expand_as(image)
        assert torch.equal(result[~missing], image.to(dtype)[~missing])
        wanted = model.complete(image, hole, window=SIDE)
        atol = {torch.bfloat16: 0.02, torch.float16: 0.003, torch.float64: 1e-5}[dtype]
        torch.testing.assert_close(result.float(), wanted, rtol=0, atol=atol)


def steepest(x, hole):
    """The largest difference of two neighbours in a hole."""
    found = 0.0
    for dim in (2, 3):
        both = hole.narrow(dim, 1, hole.shape[dim] - 1) * hole.narrow(dim, 0, hole.shape[dim] - 1)
        found = max(found, float((x.diff(dim=dim).abs() * both).max()))
    return found


def gradient():
    """A picture that grows brighter by equal steps, and the step."""
    step = 1 / sum(SIZE)
    ramp = (torch.arange(SIZE[0])[:, None] + torch.arange(SIZE[1])) * step
    return ramp.expand(1, 3, -1, -1), step


@pytest.mark.parametrize("name", ["a scratch", "a square", "a square at the edge"])
def test_no_seam_shows_between_parts_that_differ(name):
    image, step = gradient()
    hole = holes(*SIZE)[name]
    result = StandIn().complete(image, hole, window=SIDE)
    # Parts begin 24 pixels from each other at most, and so far apart are the means of their
    # windows; 8 pixels lie between one and the next.
    assert steepest(result, hole) < 4 * step


@pytest.mark.parametrize("name", ["a scratch", "a square"])
def test_gradients_go_on_through_all_parts(name):
    pytest.importorskip("scipy")
    image, step = gradient()
    hole = holes(*SIZE)[name]
    result = Smooth().complete(image, hole, window=SIDE)
    assert steepest(result, hole) < 1.1 * step
    assert float((result - image).abs().max()) < 2 * step


def test_what_a_method_sees_of_a_small_hole_decides_not_the_window():
    class Near(StandIn):
        def _fill(self, image, hole, *, seed):
            known = (hole == 0).to(image.dtype)
            sums = F.avg_pool2d(image * known, 9, 1, 4)
            return sums / F.avg_pool2d(known, 9, 1, 4)

    # Sides that need no padding, which the windows have not.
    image, hole = picture(1, 3, 200, 148), holes(200, 148)["points"]
    near = Near()
    some, whole = near.complete(image, hole, window=SIDE), near.complete(image, hole)
    torch.testing.assert_close(some, whole, rtol=0, atol=1e-6)


def sides(model):
    """The least window of a method, and its share of a part."""
    side = model.window_side(max(model.minimum, 32))
    return side, int(side * model.hole_share)


@pytest.mark.parametrize("name", list_models())
def test_every_method_fills_in_windows(name):
    model = small(name)
    side, part = sides(model)
    height, width = side + part + 30, side + 10
    image, hole = picture(1, 3, height, width), torch.zeros(1, 1, height, width)
    hole[..., 2:9, 3:12] = 1
    hole[..., 20 : 26 + part, width - part // 2 :] = 1
    missing = (hole > 0).expand_as(image)
    damaged = image.masked_fill(missing, float("nan"))
    result = model.complete(damaged, hole, window=side)
    assert torch.equal(result[~missing], image[~missing])
    assert bool(((result >= 0) & (result <= 1)).all())
    assert torch.equal(result, model.complete(damaged, hole, window=side))


@pytest.mark.parametrize("name", list_models())
def test_a_window_that_covers_the_picture_is_the_picture(name):
    model = small(name)
    image, hole = picture(1, 3, 30, 32), torch.zeros(1, 1, 30, 32)
    hole[..., 5:20, 10:30] = 1
    whole = model.complete(image, hole)
    assert torch.equal(whole, model.complete(image, hole, window="auto"))
    assert torch.equal(whole, model.complete(image, hole, window=max(model.minimum, 32)))


def test_auto_leaves_pictures_of_twice_the_trained_size_whole():
    model = StandIn()
    hole = torch.zeros(1, 1, 2 * SIDE, 2 * SIDE)
    hole[..., 9, 9] = 1
    model.complete(picture(1, 3, 2 * SIDE, 2 * SIDE), hole, window="auto")
    model.complete(picture(1, 3, 2 * SIDE, 2 * SIDE + 1), F.pad(hole, (0, 1)), window="auto")
    model.complete(picture(1, 3, 2 * SIDE, 2 * SIDE), hole, window=SIDE + 1)
    sizes = [tuple(image.shape[2:]) for image, _ in model.seen]
    assert sizes == [(2 * SIDE, 2 * SIDE), (SIDE, SIDE), (SIDE + 4, SIDE + 4)]


def test_windows_compute_what_is_needed_to_the_same_bits():
    model = small("deepfill_v2")
    image, hole = picture(1, 3, 210, 400), torch.zeros(1, 1, 210, 400)
    hole[..., 20:30, 10:60] = 1
    hole[..., 150:152, 200:320] = 1
    some = model.complete(image, hole, window=208)
    assert torch.equal(some, model.complete(image, hole, window=208, compute="all"))


@pytest.mark.parametrize(
    ("window", "error", "text"),
    [
        ("big", ValueError, "window must be None, 'auto' or pixels, got 'big'"),
        (31, ValueError, "window must be at least 32, got 31"),
        (0, ValueError, "window must be at least 32, got 0"),
        (True, TypeError, "window must be an int, got bool"),
        (64.0, TypeError, "window must be an int, got float"),
    ],
)
def test_windows_that_are_refused(window, error, text):
    with pytest.raises(error, match=f"^stand_in.complete: {text}"):
        StandIn().complete(picture(1, 3, 8, 8), torch.ones(1, 1, 8, 8), window=window)


def test_windows_are_what_the_networks_take():
    assert small("gmcnn").window_side(196) == 196
    with pytest.raises(ValueError, match="window must be at least 196, got 195"):
        small("gmcnn").window_side(195)
    assert small("partial_conv_unet", levels=8).window_side("auto") == 512
    assert small("context_encoder").window_side("auto") == 128
    assert StandIn().window_side(None) is None


@pytest.mark.parametrize("cell", [8, 16])
def test_groups_have_the_boxes_of_their_pixels(cell):
    drawn = torch.rand(117, 93, generator=torch.Generator().manual_seed(2))
    missing = drawn > 0.9993
    missing[60:90, 3:5] = True
    holes = Holes(missing, cell)
    found = holes.shared(1)
    assert len(found) == holes.groups.max() > 2
    seen = torch.zeros_like(missing, dtype=torch.int64)
    for hole in found:
        own = holes.of(hole, Rect(0, 0, 117, 93), missing)
        rows, columns = own.any(1).nonzero(), own.any(0).nonzero()
        assert hole.box[:2] == (int(rows[0]), int(columns[0]))
        assert hole.box[2:] == (int(rows[-1]) + 1, int(columns[-1]) + 1)
        seen += own
    assert torch.equal(seen, missing.long())
    shared = holes.shared(60)
    assert len(shared) < len(found)
    assert sorted(n for hole in shared for n in hole.groups) == list(range(1, len(found) + 1))
    assert all(hole.box.longest <= 60 or len(hole.groups) == 1 for hole in shared)


def test_deep_holes_are_told_from_thin_ones():
    for shift in range(8):
        square, line = torch.zeros(2, 120, 120, dtype=torch.bool)
        square[30 + shift : 62 + shift, 40:72] = True
        line[:, 40 + shift : 48 + shift] = True
        for missing, deep in ((square, True), (line, False)):
            holes = Holes(missing, 8)
            (hole,) = holes.shared(1)
            assert holes.is_deep(hole, 32) == deep


@pytest.mark.parametrize("length", [1, 32, 33, 34, 56, 57, 100, 1001])
def test_parts_cover_a_box_with_weights_of_sum_1(length):
    like = torch.zeros(1, dtype=torch.float64)
    total = torch.zeros(length, 40, dtype=torch.float64)
    for part, weight in Windows(None, SIDE, 32).parts(Rect(7, 3, 7 + length, 43), like):
        assert part.longest <= 32
        assert float(weight.min()) > 0
        total[part.within(Rect(7, 3, 0, 0)).pixels] += weight
    torch.testing.assert_close(total, torch.ones_like(total))
