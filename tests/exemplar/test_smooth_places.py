"""Smooth holes, and small holes in large pictures."""

import pytest
import skimage.data
import torch
import torch.nn.functional as F

import inpaint_ops
from inpaint_ops.exemplar import search
from inpaint_ops.exemplar.fill import fill_exemplar
from inpaint_ops.exemplar.surface import bent_surface, surface


def blurred(name, height, width, sigma=6.0):
    pixels = torch.from_numpy(getattr(skimage.data, name)().copy()).double() / 255
    pixels = pixels[None, None] if pixels.ndim == 2 else pixels.permute(2, 0, 1)[None]
    pixels = F.interpolate(pixels, (height, width), mode="area")
    steps = torch.arange(-18, 19).double()
    kernel = torch.exp(-steps.square() / (2 * sigma**2))
    kernel /= kernel.sum()
    channels = pixels.shape[1]
    down, across = kernel.view(1, 1, -1, 1), kernel.view(1, 1, 1, -1)
    for one, pad in ((down, (0, 0, 18, 18)), (across, (18, 18, 0, 0))):
        weight = one.expand(channels, 1, *one.shape[2:])
        pixels = F.conv2d(F.pad(pixels, pad, mode="reflect"), weight, groups=channels)
    return pixels.float()


def box(height, width, y, x, rows, columns):
    hole = torch.zeros(1, 1, height, width, dtype=torch.bool)
    hole[..., y : y + rows, x : x + columns] = True
    return hole


def psnr(a, b, hole):
    return -10 * float((a - b)[hole.expand_as(a)].double().square().mean().log10())


# Decibels of OpenCV 4.13, INPAINT_TELEA with radius 3, of the same pictures rounded to 8 bits.
@pytest.mark.parametrize(
    ("name", "hole", "telea"),
    [
        ("astronaut", box(128, 128, 40, 36, 40, 40), 13.4),
        ("chelsea", box(128, 160, 50, 60, 36, 44), 28.4),
        ("coffee", box(120, 160, 20, 30, 30, 50), 24.1),
    ],
)
def test_smooth_holes_are_no_worse_than_telea(name, hole, telea):
    image = blurred(name, *hole.shape[2:])
    filled = fill_exemplar(torch.where(hole, 0.0, image), hole)
    assert psnr(filled, image, hole) > telea + 1
    known = ~hole.expand_as(image)
    assert torch.equal(filled[known], image[known])


@pytest.mark.parametrize("channels", [1, 3])
def test_wide_surface_is_the_same_for_every_number_of_threads(channels):
    # So wide that it starts from the surfaces at a half and a quarter of the size.
    image = blurred("astronaut", 80, 97)[:, :channels]
    hole = box(80, 97, 8, 8, 64, 79)
    bent = []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        bent.append(surface(torch.where(hole, 0.0, image), hole))
    assert torch.equal(bent[0], bent[1])
    assert torch.equal(bent[0], bent[2])


@pytest.mark.usefixtures("instruction_set")
def test_bent_surface_against_plain_pytorch():
    generator = torch.Generator().manual_seed(0)
    start = torch.rand(1, 3, 23, 19, generator=generator)
    free = torch.rand(1, 1, 23, 19, generator=generator) < 0.4
    inside = free | (torch.rand(1, 1, 23, 19, generator=generator) < 0.7)
    native = bent_surface(start, free, inside)
    with inpaint_ops.backend("reference"):
        plain = bent_surface(start, free, inside)
    torch.testing.assert_close(native, plain, rtol=1e-4, atol=1e-5)
    assert not torch.equal(native, start)
    known = ~free.expand_as(start)
    assert torch.equal(native[known], start[known])


def test_surface_of_a_wide_hole_is_a_plane_where_the_picture_is():
    y, x = torch.meshgrid(torch.linspace(0, 1, 90), torch.linspace(0, 1, 110), indexing="ij")
    image = (0.2 + 0.3 * y + 0.4 * x)[None, None]
    hole = box(90, 110, 10, 12, 70, 80)
    found = surface(torch.where(hole, 0.0, image), hole)
    assert float((found - image).abs().max()) < 0.02


def test_a_small_hole_makes_small_steps_in_a_large_picture(monkeypatch):
    image = torch.rand(1, 3, 600, 500, generator=torch.Generator().manual_seed(2))
    hole = box(600, 500, 300, 100, 20, 30)
    sizes = []
    for name in ("nearest_patch", "refine_patch"):
        plain = getattr(search, name)

        def seen(query, *args, plain=plain, **kwargs):
            sizes.append(query.shape[2] * query.shape[3])
            return plain(query, *args, **kwargs)

        monkeypatch.setattr(search, name, seen)
    fill_exemplar(image, hole, iterations=4)
    assert sizes
    assert max(sizes) <= (20 + 12) * (30 + 12)
