"""Hole makers: shapes, seeds, guaranteed shares, borders, refusals."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from inpaint_ops.masks import (
    HOLE_RATIO_BINS,
    center_hole,
    free_form_hole,
    irregular_hole,
    random_box_hole,
)

RANDOM = (random_box_hole, free_form_hole, irregular_hole)
STROKES = (free_form_hole, irregular_hole)
by_maker = pytest.mark.parametrize("make", RANDOM, ids=lambda make: make.__name__)
by_strokes = pytest.mark.parametrize("make", STROKES, ids=lambda make: make.__name__)
quick = settings(deadline=None, derandomize=True, max_examples=15)


def share(hole):
    return int(hole.sum()) / hole.numel()


def bounding_box(hole):
    rows, columns = hole[0, 0].nonzero(as_tuple=True)
    return int(rows.min()), int(rows.max()) + 1, int(columns.min()), int(columns.max()) + 1


@by_maker
@pytest.mark.parametrize("size", [(64, 64), (37, 91), (1, 1), (1, 40), (5, 3)])
def test_shape_and_dtype(make, size):
    hole = make(*size, seed=3, **({"ratio": (0.0, 1.0)} if make is irregular_hole else {}))
    assert (hole.shape, hole.dtype) == ((1, 1, *size), torch.bool)
    assert hole.any()


def test_center_hole():
    hole = center_hole(9, 6, (3, 4))
    assert bounding_box(hole) == (3, 6, 1, 5)
    assert int(hole.sum()) == 12
    assert bounding_box(center_hole(64, 32)) == (16, 48, 8, 24)
    assert bounding_box(center_hole(5, 5, 5)) == (0, 5, 0, 5)
    assert int(center_hole(1, 1).sum()) == 1


@by_maker
def test_same_seed_same_hole(make):
    assert torch.equal(make(64, 48, seed=5), make(64, 48, seed=5))
    assert torch.equal(make(64, 48, seed=5), make(64, 48, seed=np.random.default_rng(5)))
    assert len({make(64, 48, seed=seed).numpy().tobytes() for seed in range(8)}) == 8


@by_maker
def test_generator_is_advanced(make):
    rng = np.random.default_rng(0)
    assert not torch.equal(make(64, 64, seed=rng), make(64, 64, seed=rng))


@by_maker
@pytest.mark.parametrize("ratio", HOLE_RATIO_BINS)
@given(
    seed=st.integers(0, 2**31),
    height=st.integers(24, 90),
    width=st.integers(24, 90),
    border=st.integers(0, 2),
)
@quick
def test_share_is_guaranteed(make, ratio, seed, height, width, border):
    hole = make(height, width, seed=seed, ratio=ratio, border=border)
    assert ratio[0] < share(hole) <= ratio[1]
    inner = hole[..., border : height - border, border : width - border]
    assert int(inner.sum()) == int(hole.sum())


@by_strokes
@given(
    seed=st.integers(0, 1000),
    height=st.integers(1, 30),
    width=st.integers(1, 30),
    counts=st.tuples(st.integers(1, 900), st.integers(1, 900)),
)
@quick
def test_any_possible_share_of_tiny_pictures(make, seed, height, width, counts):
    # Ratios that name the counts themselves: the bounds are met to the pixel.
    total = height * width
    least, most = sorted(min(count, total) for count in counts)
    hole = make(height, width, seed=seed, ratio=((least - 1) / total, most / total))
    assert least <= int(hole.sum()) <= most


@by_strokes
def test_exact_shares_near_one(make):
    assert share(make(40, 40, seed=0, ratio=(0.999, 1.0))) > 0.999
    assert int(make(40, 40, seed=0, ratio=(0.0, 1 / 1600)).sum()) == 1


def test_shares_spread_over_the_bin():
    shares = [share(free_form_hole(64, 64, seed=seed, ratio=(0.2, 0.3))) for seed in range(60)]
    assert min(shares) < 0.22
    assert max(shares) > 0.28


def test_irregular_default_covers_all_bins():
    shares = [share(irregular_hole(64, 64, seed=seed)) for seed in range(60)]
    counts = [sum(low < value <= high for value in shares) for low, high in HOLE_RATIO_BINS]
    assert sum(counts) == 60
    assert min(counts) > 0


@by_maker
@pytest.mark.parametrize("border", [1, 10, 31])
def test_border_stays_known(make, border):
    options = {"ratio": (0.0, 0.1)} if border < 31 or make is irregular_hole else {}
    for seed in range(10):
        top, bottom, left, right = bounding_box(make(64, 64, seed=seed, border=border, **options))
        assert top >= border
        assert left >= border
        assert bottom <= 64 - border
        assert right <= 64 - border


def test_random_box_is_a_box_of_the_documented_size():
    sides = set()
    for seed in range(30):
        hole = random_box_hole(256, 256, seed=seed)
        top, bottom, left, right = bounding_box(hole)
        assert int(hole.sum()) == (bottom - top) * (right - left)
        sides |= {bottom - top, right - left}
    assert min(sides) >= 96
    assert max(sides) <= 128
    assert len(sides) > 8
    top, bottom, left, right = bounding_box(random_box_hole(64, 64, seed=0, size=(10, 7)))
    assert (bottom - top, right - left) == (10, 7)


def test_random_box_reaches_every_place():
    corners = {bounding_box(random_box_hole(4, 5, seed=seed, size=2))[::2] for seed in range(200)}
    assert corners == {(top, left) for top in range(3) for left in range(4)}


def test_random_box_with_ratio_is_shapely():
    for seed in range(30):
        top, bottom, left, right = bounding_box(
            random_box_hole(128, 128, seed=seed, ratio=(0.1, 0.2))
        )
        assert 0.5 <= (bottom - top) / (right - left) <= 2


def test_free_form_default_share():
    # From 4 segments to 3 strokes of 11, each 12 to 39 wide and about 45 long, with overlap.
    shares = [share(free_form_hole(256, 256, seed=seed)) for seed in range(40)]
    assert min(shares) > 0.005
    assert 0.08 < np.mean(shares) < 0.35


def test_scaled_brush_keeps_the_share():
    def mean(size, **options):
        return np.mean(
            [share(free_form_hole(size, size, seed=seed, **options)) for seed in range(30)]
        )

    small = mean(128, scale_brush=True)
    large = mean(512, scale_brush=True)
    assert large == pytest.approx(small, rel=0.15)
    assert mean(512) < 0.7 * large


def test_stroke_is_every_pixel_near_the_segment():
    from inpaint_ops.masks.canvas import Canvas

    canvas = Canvas(20, 30, 0)
    end = canvas.line((4, 5), 0.5, 18.0, 3.5, 600)
    points = np.stack(np.meshgrid(np.arange(20), np.arange(30), indexing="ij"), -1)
    steps = np.linspace(0, 1, 2001)[:, None]
    line = (1 - steps) * np.array((4, 5)) + steps * np.array(end)
    distance = np.sqrt(((points[:, :, None] - line) ** 2).sum(-1)).min(-1)
    # Pixels whose distance equals the radius may go either way in the sampled line.
    clear = np.abs(distance - 3.5) > 1e-3
    np.testing.assert_array_equal(canvas.hole[clear], (distance < 3.5)[clear])
    assert canvas.count == canvas.hole.sum()


@by_strokes
def test_cut_strokes_hang_together(make):
    # The last stroke is cut at its end, not thinned out: no pixel is alone.
    hole = make(96, 96, seed=1, ratio=(0.05, 0.06)).float()
    neighbours = torch.nn.functional.conv2d(hole, torch.ones(1, 1, 3, 3), padding=1)
    assert neighbours[hole > 0].min() > 2


@by_maker
@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"height": 0}, ValueError, "height must be >= 1, got 0"),
        ({"width": 8.0}, TypeError, "width must be an integer, got float"),
        ({"seed": -1}, ValueError, "seed must be >= 0, got -1"),
        ({"seed": "x"}, TypeError, "seed must be an integer or numpy.random.Generator, got str"),
        ({"ratio": (0.2, 0.1)}, ValueError, "ratio must satisfy 0 <= low < high <= 1"),
        ({"ratio": (0.5, 1.5)}, ValueError, "ratio must satisfy"),
        ({"ratio": 0.5}, TypeError, "ratio must be a pair"),
        ({"ratio": (0.0, 0.01)}, ValueError, "ratio .*cannot be met in 8 x 8 pixels"),
        ({"ratio": (0.5, 0.6), "border": 2}, ValueError, "with a border of 2"),
        ({"border": 4}, ValueError, "border must leave a pixel of the 8 x 8 picture, got 4"),
        ({"border": -1}, ValueError, "border must be >= 0"),
    ],
)
def test_refusals(make, options, error, text):
    arguments = {"height": 8, "width": 8, "seed": 0, **options}
    with pytest.raises(error, match=f"^{make.__name__}: .*{text}"):
        make(**arguments)


def test_box_refusals():
    with pytest.raises(ValueError, match="size must fit into 8 x 8 pixels, got 9"):
        center_hole(8, 8, 9)
    with pytest.raises(ValueError, match="size must be >= 1, got 0"):
        center_hole(8, 8, (0, 3))
    with pytest.raises(ValueError, match="size must be None when ratio is given"):
        random_box_hole(8, 8, seed=0, size=3, ratio=(0.1, 0.5))
    # 13 pixels exactly, a prime that fits on no side of 8.
    with pytest.raises(ValueError, match="no box within 8 x 8 pixels has 13 to 13 pixels"):
        random_box_hole(8, 8, seed=0, ratio=(12 / 64, 13 / 64))
