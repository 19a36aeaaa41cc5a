"""The training-free filler: what it may not touch, what it must restore, what it refuses."""

import itertools
import math

import pytest
import skimage.data
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import inpaint_ops
from inpaint_ops.exemplar import scatter
from inpaint_ops.exemplar.blend import blend
from inpaint_ops.exemplar.chebyshev import chebyshev
from inpaint_ops.exemplar.fill import fill_exemplar
from inpaint_ops.exemplar.scatter import interpolate, split
from inpaint_ops.exemplar.vote import vote
from inpaint_ops.masks import free_form_hole, irregular_hole


def noise(*size, seed=0):
    return torch.rand(*size, generator=torch.Generator().manual_seed(seed))


def box(height, width, y, x, side):
    hole = torch.zeros(1, 1, height, width, dtype=torch.bool)
    hole[..., y : y + side, x : x + side] = True
    return hole


def pattern(name, size=72):
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    level = {
        "stripes": (x // 4) % 2,
        "diagonal": ((x + y) // 5) % 2,
        "checker": (x // 6 + y // 6) % 2,
        "waves": 0.5 + 0.5 * torch.sin(x * 0.6) * torch.cos(y * 0.45),
    }[name].float()
    colour = torch.tensor([[0.9, 0.3, 0.2], [0.1, 0.5, 0.8]])
    return (colour[0, :, None, None] * level + colour[1, :, None, None] * (1 - level))[None]


def psnr(a, b, hole):
    error = (a - b)[hole.expand_as(a)].double().square().mean()
    return math.inf if error == 0 else -10 * math.log10(float(error))


@pytest.mark.parametrize("name", ["stripes", "diagonal", "checker", "waves"])
@pytest.mark.parametrize("side", [9, 24])
def test_periodic_textures_come_back(name, side):
    image, hole = pattern(name), box(72, 72, 21, 25, side)
    filled = fill_exemplar(image, hole)
    # Spreading the colours of the rim reaches 8 to 14 dB here.
    assert psnr(filled, image, hole) > (30 if name == "waves" else 45)


def test_texture_keeps_its_contrast():
    image = noise(1, 1, 48, 48).expand(1, 3, 48, 48)
    hole = box(48, 48, 16, 16, 16)
    filled = fill_exemplar(image, hole)[hole.expand(1, 3, 48, 48)]
    # An average of patches would be far smoother than the noise around it.
    assert float(filled.std()) > 0.8 * float(image.std())


def test_constant_and_gradient_pictures():
    hole = box(40, 50, 10, 12, 15)
    image = torch.full((1, 3, 40, 50), 0.3)
    torch.testing.assert_close(fill_exemplar(image, hole), image, rtol=0, atol=1e-6)
    ramp = torch.linspace(0.2, 0.7, 50).expand(1, 3, 40, 50)
    assert float((fill_exemplar(ramp, hole) - ramp).abs().max()) < 0.05


def test_known_pixels_stay_and_hole_content_is_ignored():
    image = noise(2, 3, 40, 44)
    hole = noise(2, 1, 40, 44, seed=1) < 0.1
    hole[1, :, 8:20, 8:20] = True
    filled = fill_exemplar(image, hole)
    known = ~hole.expand_as(image)
    assert torch.equal(filled[known], image[known])
    assert float(filled.min()) >= 0
    assert float(filled.max()) <= 1
    for rubbish in (float("nan"), float("inf"), -3.0):
        dirty = torch.where(hole, torch.tensor(rubbish), image)
        assert torch.equal(fill_exemplar(dirty, hole), filled)


def test_pictures_of_a_batch_do_not_meet():
    image, hole = noise(2, 3, 30, 30), box(30, 30, 10, 10, 8)
    both = fill_exemplar(image, hole)
    assert torch.equal(both[1:], fill_exemplar(image[1:], hole))
    assert fill_exemplar(image[:0], hole).shape == (0, 3, 30, 30)


def test_repeatable_for_a_seed_and_any_number_of_threads():
    image, hole = noise(1, 3, 70, 75), box(70, 75, 25, 30, 18)
    five, six = (fill_exemplar(image, hole, seed=seed, iterations=4) for seed in (5, 6))
    assert not torch.equal(five, six)
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            assert torch.equal(fill_exemplar(image, hole, seed=5, iterations=4), five)
    finally:
        torch.set_num_threads(threads)


def test_hole_at_the_border_and_scattered_pixels():
    image = pattern("checker")
    hole = box(72, 72, 0, 50, 22) | box(72, 72, 60, 0, 12)
    assert psnr(fill_exemplar(image, hole), image, hole) > 20
    specks = noise(1, 1, 72, 72) < 0.01
    assert psnr(fill_exemplar(image, specks), image, specks) > 35


def face():
    """A piece of a photo, (1, 3, 64, 64): skin, hair and sharp edges."""
    pixels = torch.from_numpy(skimage.data.astronaut()[20:84, 180:244].copy())
    return pixels.permute(2, 0, 1)[None].float() / 255


def dead_lines(distance):
    hole = torch.zeros(1, 1, 64, 64, dtype=torch.bool)
    hole[..., ::distance, :] = True
    hole[..., 10] = True
    hole[..., 40:42] = True
    return hole


# Decibels of OpenCV 4.13, INPAINT_TELEA with radius 3, on the same picture and hole.
@pytest.mark.parametrize(
    ("hole", "telea"),
    [
        pytest.param(noise(1, 1, 64, 64) < 0.1, 25.4, id="10%"),
        pytest.param(noise(1, 1, 64, 64) < 0.3, 24.5, id="30%"),
        pytest.param(noise(1, 1, 64, 64) < 0.5, 23.9, id="50%"),
        pytest.param(noise(1, 1, 64, 64) < 0.7, 23.2, id="70%"),
        pytest.param(dead_lines(6), 24.0, id="lines"),
        pytest.param(dead_lines(40), 24.2, id="few lines"),
        pytest.param(noise(1, 1, 64, 64) < 0.01, 27.3, id="1%"),
    ],
)
def test_scattered_pixels(hole, telea):
    image = face()
    filled = fill_exemplar(torch.where(hole, math.nan, image), hole)
    assert psnr(filled, image, hole) > telea + 1
    known = ~hole.expand_as(image)
    assert torch.equal(filled[known], image[known])


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_scattered_pixels_beside_a_box(share):
    image, side = pattern("checker", 48), box(48, 48, 16, 18, 12)
    specks = (noise(1, 1, 48, 48, seed=4) < share) & ~side
    hole = specks | side
    seen = []
    dirty = torch.where(hole, math.nan, image)
    filled = fill_exemplar(dirty, hole, iterations=4, progress=seen.append)
    # The box continues the pattern, whose estimated pixels count as known: 8 dB from its rim alone.
    assert psnr(filled, image, side) > 14
    assert psnr(filled, image, specks) > (18 if share == 0.1 else 15)
    known = ~hole.expand_as(image)
    assert torch.equal(filled[known], image[known])
    assert seen == sorted(set(seen))
    assert (seen[0], seen[-1]) == (0.0, 1.0)
    threads = torch.get_num_threads()
    torch.set_num_threads(3 - min(threads, 2))
    assert torch.equal(fill_exemplar(torch.where(hole, 0.7, image), hole, iterations=4), filled)


def test_what_counts_as_scattered():
    image, side = pattern("checker", 64), box(64, 64, 20, 24, 16)
    few, many = noise(1, 1, 64, 64, seed=2) < 0.005, noise(1, 1, 64, 64, seed=3) < 0.2
    # Solid holes stay with the copies, and so do single specks where copies are exact.
    irregular = irregular_hole(64, 64, seed=1, ratio=(0.2, 0.3))
    for hole in (side, side | few, irregular, free_form_hole(64, 64, seed=1)):
        scattered, solid = split(torch.where(hole, 0.0, image), hole, 7)
        assert not bool(scattered.any())
        assert torch.equal(solid, hole)
    # In a photo the surface is better; the box and what hangs on it still stay.
    line = torch.zeros_like(side)
    line[..., 30, 24:50] = True
    scattered, solid = split(torch.where(side | few | line, 0.0, face()), side | few | line, 7)
    assert torch.equal(scattered, few & ~(side | line | near(side | line)))
    assert torch.equal(scattered | solid, side | few | line)
    scattered, solid = split(torch.where(side | many, 0.0, image), side | many, 7)
    assert torch.equal(scattered | solid, side | many)
    assert not bool((scattered & solid).any())
    assert bool((solid & side == side).all())
    # Only specks that touch the box go with it.
    assert bool((near(side) | ~solid).all())
    # By chance nine pixels of ten leave full squares of five, too.
    dense = noise(1, 1, 64, 64, seed=5) < 0.9
    scattered, _ = split(torch.where(dense, 0.0, image), dense, 7)
    assert int(scattered.sum()) > 0.8 * int(dense.sum())


def near(hole):
    return torch.nn.functional.max_pool2d(hole.float(), 3, 1, 1) > 0


def test_a_handful_of_patches_is_not_the_only_source():
    # Cells of six pixels, and one of nine that holds the only whole patches of seven.
    hole = torch.ones(1, 1, 96, 96, dtype=torch.bool)
    for y, x in itertools.product(range(6, 85, 12), repeat=2):
        hole[..., y : y + 6, x : x + 6] = False
    hole[..., 42:51, 42:51] = False
    y, x = torch.meshgrid(torch.arange(96), torch.arange(96), indexing="ij")
    image = torch.stack([y / 96, x / 96, 0.5 + 0 * x])[None].float()
    filled = fill_exemplar(image, hole, iterations=3)
    # Copies of the large cell alone reach 13 dB.
    assert psnr(filled, image, hole) > 20


def test_surface_is_exact_on_planes_and_bounded():
    y, x = torch.meshgrid(torch.arange(40.0), torch.arange(50.0), indexing="ij")
    plane = (0.2 + 0.006 * x + 0.004 * y)[None, None]
    hole, solid = noise(1, 1, 40, 50) < 0.6, box(40, 50, 12, 14, 14)
    surface = interpolate(torch.where(hole | solid, 0.0, plane), hole & ~solid, solid)
    assert float((surface - plane)[~solid].abs().max()) < 0.004
    steps = (x > 25).float()[None, None]
    surface = interpolate(torch.where(hole, 0.0, steps), hole, hole & False)
    assert 0 <= float(surface.min()) <= float(surface.max()) <= 1
    assert torch.equal(surface[~hole], steps[~hole])


def test_chebyshev_against_a_direct_solution():
    matrix = torch.diag(torch.linspace(0.5, 4.0, 12)).double()
    rotation = torch.linalg.qr(noise(12, 12).double())[0]
    matrix = rotation @ matrix @ rotation.T
    right = noise(12, 2, seed=1).double()
    found = chebyshev(lambda x: right - matrix @ x, torch.zeros_like(right), (0.5, 4.0), 40)
    torch.testing.assert_close(found, torch.linalg.solve(matrix, right), rtol=1e-8, atol=1e-8)


def test_tiles_of_the_surface_meet(monkeypatch):
    image, hole = pattern("waves", 96), noise(1, 1, 96, 96, seed=7) < 0.6
    dirty = torch.where(hole, 0.0, image)
    whole = interpolate(dirty, hole, hole & False)
    monkeypatch.setattr(scatter, "_TILE", 40)
    seen = []
    tiled = interpolate(dirty, hole, hole & False, seen.append)
    torch.testing.assert_close(tiled, whole, rtol=0, atol=2e-3)
    assert torch.equal(tiled[~hole.expand_as(image)], image[~hole.expand_as(image)])
    assert seen == [count / 9 for count in range(1, 10)]


def test_no_hole_gives_the_input_and_full_hole_an_error():
    image = noise(1, 3, 20, 20)
    seen = []
    hole = torch.zeros(1, 1, 20, 20)
    assert torch.equal(fill_exemplar(image, hole, progress=seen.append), image)
    assert seen[-1] == 1.0
    with pytest.raises(ValueError, match="hole must leave a known pixel"):
        fill_exemplar(image, torch.ones(1, 1, 20, 20))


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    channels=st.sampled_from([1, 3]),
    height=st.integers(1, 24),
    width=st.integers(1, 24),
    share=st.sampled_from([0.02, 0.2, 0.9]),
    seed=st.integers(0, 20),
)
def test_any_size(channels, height, width, share, seed):
    image = noise(1, channels, height, width, seed=seed)
    hole = noise(1, 1, height, width, seed=seed + 100) < share
    hole.view(-1)[seed % hole.numel()] = False
    filled = fill_exemplar(torch.where(hole, math.nan, image), hole, seed=seed, iterations=3)
    known = ~hole.expand_as(image)
    assert torch.equal(filled[known], image[known])
    # NaN compares false.
    assert bool(((filled >= 0) & (filled <= 1)).all())


def test_without_a_whole_patch_the_patch_shrinks_then_colours_spread():
    image = torch.full((1, 3, 12, 12), 0.25)
    hole = torch.zeros(1, 1, 12, 12, dtype=torch.bool)
    hole[..., ::5, :] = True
    hole[..., ::5] = True  # 4 x 4 windows stay: patches of 3
    torch.testing.assert_close(fill_exemplar(image, hole), image, rtol=0, atol=1e-6)
    hole[..., ::2, :] = True  # single rows stay
    torch.testing.assert_close(fill_exemplar(image, hole), image, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes(dtype):
    image, hole = noise(1, 3, 20, 20).to(dtype), box(20, 20, 6, 6, 6)
    filled = fill_exemplar(image, hole.to(dtype))
    assert filled.dtype == dtype
    assert torch.equal(filled[~hole.expand_as(image)], image[~hole.expand_as(image)])


def test_progress_rises_to_one():
    seen = []
    image = noise(2, 3, 40, 40)
    fill_exemplar(image, box(40, 40, 14, 14, 10), progress=seen.append)
    assert seen[0] == 0.0
    assert seen[-1] == 1.0
    assert all(a < b for a, b in itertools.pairwise(seen))
    assert len(seen) > 6


def test_interrupt_passes_through():
    def stop(fraction):
        if fraction > 0.3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fill_exemplar(noise(1, 3, 40, 40), box(40, 40, 10, 10, 12), progress=stop)


def test_reference_backend_gives_the_same():
    image, hole = pattern("waves", 36), box(36, 36, 11, 12, 10)
    fused = fill_exemplar(image, hole, iterations=4)
    with inpaint_ops.backend("reference"):
        plain = fill_exemplar(image, hole, iterations=4)
    # Near-ties may fall the other way.
    assert float(((fused - plain).abs() > 1e-3).double().mean()) < 0.02


@pytest.mark.parametrize("best", [False, True])
@pytest.mark.parametrize("size", [(19, 23), (31, 17)])
@pytest.mark.usefixtures("instruction_set")
def test_vote_against_its_reference(best, size):
    features, window = noise(1, 5, *size), noise(1, 5, 19, 23, seed=4)
    hole = box(19, 23, 4, 6, 8) | box(19, 23, 0, 0, 4)
    g = torch.Generator().manual_seed(1)
    keys = (size[0] - 6) * (size[1] - 6)
    index = torch.randint(-20, keys, (1, 13, 17), generator=g)
    index[:, :5, :5] = -1  # leaves pixels without votes
    distance, penalty = noise(1, 13, 17, seed=2), 4 * noise(1, 1, 13, 17, seed=3)
    fused = vote(features, window, hole, index, distance, penalty, 7, best)
    with inpaint_ops.backend("reference"):
        plain = vote(features, window, hole, index, distance, penalty, 7, best)
    torch.testing.assert_close(fused, plain, rtol=1e-5, atol=1e-6)
    assert torch.equal(fused[..., 0, 0], window[..., 0, 0])
    assert not torch.equal(fused, window)


def test_blend_evens_out_a_faint_step_and_keeps_an_edge():
    y, x = torch.meshgrid(torch.arange(30), torch.arange(80), indexing="ij")
    hole = box(30, 80, 5, 10, 20)
    for step, kept in ((0.04, False), (0.5, True)):
        # The right part of the picture is brighter; half of the hole is copied from there.
        image = torch.where(x < 40, 0.3, 0.3 + step).float()[None, None]
        image = torch.where(hole, 0.0, image)
        copied = torch.where(hole[0, 0] & (x >= 20), x + 30, torch.where(hole[0, 0], x - 10, x))
        copied = copied.clamp(0, 79)
        copied = torch.where(hole[0, 0] & (x < 20), 2, copied)
        source = torch.stack([y, copied]).float()[None]
        row = blend(image, 0, 0, hole, source)[0, 0, 15]
        jump = float((row[20] - row[19]).abs())
        assert jump == pytest.approx(step, abs=1e-3) if kept else jump < step / 4
        assert torch.equal(row[:10], image[0, 0, 15, :10])


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"image": [1]}, TypeError, "image must be a Tensor"),
        ({"image": torch.zeros(1, 3, 9, 9, dtype=torch.uint8)}, TypeError, "image must have dtype"),
        ({"image": torch.zeros(3, 9, 9)}, ValueError, "image must have shape"),
        ({"image": torch.zeros(1, 2, 9, 9)}, ValueError, "image must have shape"),
        ({"image": torch.zeros(1, 3, 0, 9)}, ValueError, "image must have shape"),
        ({"image": torch.full((1, 3, 9, 9), 1.5)}, ValueError, "image must be in"),
        ({"image": torch.full((1, 3, 9, 9), math.nan)}, ValueError, "image must be in"),
        ({"hole": None}, TypeError, "hole must be a Tensor"),
        ({"hole": torch.zeros(1, 1, 9, 9, dtype=torch.int64)}, TypeError, "hole must be bool"),
        ({"hole": torch.zeros(1, 1, 9, 8)}, ValueError, "hole must have shape"),
        ({"hole": torch.full((1, 1, 9, 9), 0.5)}, ValueError, "hole must hold only 0 and 1"),
        ({"seed": -1}, ValueError, "seed must be at least 0"),
        ({"seed": 1.0}, TypeError, "seed must be an int"),
        ({"progress": 3}, TypeError, "progress must be callable"),
        ({"patch_size": 8}, ValueError, "patch_size must be odd"),
        ({"patch_size": 1}, ValueError, "patch_size must be at least 3"),
        ({"texture_weight": -1.0}, ValueError, "texture_weight must be at least 0"),
        ({"texture_weight": math.inf}, ValueError, "texture_weight must be finite"),
        ({"texture_weight": "a"}, TypeError, "texture_weight must be a number"),
        ({"iterations": 0}, ValueError, "iterations must be at least 1"),
    ],
)
def test_bad_input(change, error, text):
    arguments = {"image": torch.zeros(1, 3, 9, 9), "hole": box(9, 9, 3, 3, 2)} | change
    image, hole = arguments.pop("image"), arguments.pop("hole")
    with pytest.raises(error, match=text):
        fill_exemplar(image, hole, **arguments)
