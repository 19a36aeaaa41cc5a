"""Frames, holes and batches: the same for any number of workers and processes."""

import numpy as np
import pytest
import torch
from training_runs import write_photos

from inpaint_ops.data import (
    DrawnHoles,
    Framing,
    HoleFiles,
    Order,
    Rows,
    Samples,
    batches,
    find_pictures,
)
from inpaint_ops.images import Photo, save_hole
from inpaint_ops.masks import HOLE_KINDS


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return find_pictures(write_photos(tmp_path_factory.mktemp("photos") / "p", count=7))


def samples_of(pictures, size=(16, 24), holes=None, **options):
    holes = DrawnHoles("irregular") if holes is None else holes
    return Samples(pictures, Framing(size), holes, **options)


def rng():
    return np.random.default_rng(3)


def gradient(height, width):
    """Red grows by a level a column, green by two a row."""
    rows, columns = np.mgrid[:height, :width]
    return Photo(np.stack((columns, 2 * rows, 0 * rows), -1).astype(np.uint8))


def test_frames_have_the_size_asked_for():
    photo = gradient(60, 100)
    plain = Framing((60, 60), crop="center", flip=False)(photo, rng())
    assert torch.equal(plain, photo.image()[0][:, :, 20:80])
    half = Framing((30, 30), crop="center", flip=False)(photo, rng())
    assert half.shape == (3, 30, 30)
    middle = photo.image()[0][:, :, 20:80].reshape(3, 30, 2, 30, 2).mean((2, 4))
    torch.testing.assert_close(half[:, 1:-1, 1:-1], middle[:, 1:-1, 1:-1])
    kept = Framing((40, 40), resize="none", flip=False)(photo, rng())
    assert (kept[0, 0].diff() * 255).round().eq(1).all()
    grown = Framing((120, 120), resize="none", crop="center")(photo, rng())
    assert grown.shape == (3, 120, 120)
    zoomed = Framing((60, 60), scale=(1.5, 1.5), crop="center", flip=False)(photo, rng())
    assert zoomed[1].max() - zoomed[1].min() < plain[1].max() - plain[1].min()
    assert Framing((8, 8))(gradient(2, 300), rng()).isfinite().all()


def test_frames_are_flipped_and_cropped_at_random():
    photo, drawn = gradient(40, 80), np.random.default_rng(0)
    made = [Framing((40, 40))(photo, drawn) for _ in range(40)]
    rising = [bool(one[0, 0, 1] > one[0, 0, 0]) for one in made]
    assert 8 < sum(rising) < 32
    assert len({float(one[0].min()) for one in made}) > 20


def test_pictures_are_recoloured_at_random():
    photo = Photo(rng().integers(0, 256, (20, 30, 3), dtype=np.uint8))
    orders = set()
    for seed in range(30):
        plain, made = (
            Framing((20, 20), recolour=recolour)(photo, np.random.default_rng(seed)).flatten(1)
            for recolour in (False, True)
        )
        # Of the same frame, each channel is one of the picture's, squeezed.
        fits = np.corrcoef(np.concatenate([made.numpy(), plain.numpy()]))[:3, 3:] > 0.9999
        assert (fits.sum(0) == 1).all()
        assert (fits.sum(1) == 1).all()
        orders.add(fits.tobytes())
        assert made.min() >= 0
        assert made.max() <= 1
        assert (made.amax(1) - made.amin(1)).min() > 0.38
    assert len(orders) == 6


def test_grey_deep_and_transparent_pictures_are_framed():
    for shape, kind in (((9, 9, 1), np.uint8), ((9, 9, 4), np.uint8), ((9, 9, 1), np.uint16)):
        image = Framing((6, 6))(Photo(np.full(shape, np.iinfo(kind).max, kind)), rng())
        torch.testing.assert_close(image, torch.ones(3, 6, 6))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": (0, 4)}, "height of size must be"),
        ({"size": (4, 4), "resize": "fit"}, "resize must be one of"),
        ({"size": (4, 4), "crop": "left"}, "crop must be one of"),
        ({"size": (4, 4), "scale": (0.5, 1.0)}, "scale must satisfy"),
        ({"size": (4, 4), "scale": (1.0, 2.0), "resize": "none"}, r"scale must be \(1, 1\)"),
    ],
)
def test_frames_are_checked(arguments, message):
    with pytest.raises(ValueError, match=message):
        Framing(**arguments)


@pytest.mark.parametrize("kind", HOLE_KINDS)
def test_holes_are_drawn_by_kind(kind):
    hole = DrawnHoles(kind)((32, 48), rng())
    assert hole.shape == (1, 32, 48)
    assert hole.dtype == torch.bool
    assert 0 < hole.float().mean() < 1
    assert torch.equal(hole, DrawnHoles(kind)((32, 48), rng()))


def test_holes_of_several_kinds():
    mixed = DrawnHoles(("center", "box"))
    made = [mixed((32, 48), np.random.default_rng(seed)) for seed in range(12)]
    centre = DrawnHoles("center")((32, 48), rng())
    assert 0 < sum(torch.equal(hole, centre) for hole in made) < len(made)
    assert torch.equal(made[3], mixed((32, 48), np.random.default_rng(3)))
    with pytest.raises(ValueError, match=r"kind must be one of .*'round'"):
        DrawnHoles(("box", "round"))
    with pytest.raises(ValueError, match="kind must not be empty"):
        DrawnHoles(())


def test_holes_of_files_need_a_polarity(tmp_path):
    hole = torch.zeros(1, 1, 20, 20, dtype=torch.bool)
    hole[..., :5, :] = True
    (tmp_path / "m").mkdir()
    save_hole(hole, tmp_path / "m/a.png")
    white = HoleFiles(tmp_path / "m", "white")((40, 40), rng())
    black = HoleFiles(tmp_path / "m", "black")((40, 40), rng())
    assert white[0, :10].all()
    assert not white[0, 10:].any()
    assert torch.equal(black, ~white)
    with pytest.raises(ValueError, match="polarity must be one of"):
        HoleFiles(tmp_path / "m", "")
    save_hole(torch.zeros_like(hole), tmp_path / "m/a.png")
    with pytest.raises(ValueError, match=r"a\.png: nothing is missing where white marks"):
        HoleFiles(tmp_path / "m", "white")((40, 40), rng())


def test_samples_depend_on_seed_epoch_and_number_alone(pictures):
    first, again = samples_of(pictures), samples_of(pictures)
    one = first[1, 3]
    assert again[0, 2].name == "2.png"
    other = again[1, 3]
    assert one.name == other.name == "3.png"
    assert torch.equal(one.image, other.image)
    assert torch.equal(one.hole, other.hole)
    assert not torch.equal(one.hole, first[2, 3].hole)
    assert not torch.equal(one.hole, first[1, 4].hole)
    assert not torch.equal(one.hole, samples_of(pictures, seed=1)[1, 3].hole)


def test_every_epoch_has_every_picture_once():
    order = Order(5, 7)
    epochs = [[order[5 * epoch + place] for place in range(5)] for epoch in range(4)]
    for number, epoch in enumerate(epochs):
        assert sorted(epoch) == [(number, index) for index in range(5)]
    assert len({tuple(index for _, index in epoch) for epoch in epochs}) > 1
    assert [Order(5, None)[place] for place in (0, 4, 5)] == [(0, 0), (0, 4), (1, 0)]


def read(pictures, rows, **options):
    return list(batches(samples_of(pictures, **options.pop("of", {})), rows, **options))


def test_batches_are_the_same_for_any_number_of_workers(pictures):
    alone = read(pictures, Rows(4), steps=5, workers=0)
    for workers in (1, 2):
        for one, other in zip(alone, read(pictures, Rows(4), steps=5, workers=workers)):
            assert torch.equal(one.image, other.image)
            assert torch.equal(one.hole, other.hole)
            assert one.names == other.names


def test_batches_are_shared_between_processes_and_parts(pictures):
    whole = read(pictures, Rows(4), steps=2, workers=0)
    shares = [read(pictures, Rows(4, process, 2, 2), steps=2, workers=0) for process in range(2)]
    for step, one in enumerate(whole):
        parts = [part for share in shares for part in share[2 * step : 2 * step + 2]]
        assert torch.equal(torch.cat([part.image for part in parts]), one.image)
        assert torch.equal(torch.cat([part.hole for part in parts]), one.hole)
    with pytest.raises(ValueError, match=r"batch must be a multiple of .* = 2 x 2, got 6"):
        Rows(6, 0, 2, 2)


def test_batches_go_on_from_any_position(pictures):
    whole = read(pictures, Rows(3), steps=6, workers=0)
    rest = read(pictures, Rows(3), start=12, steps=2, workers=0)
    assert [one.names for one in rest] == [one.names for one in whole[4:]]
    assert torch.equal(rest[0].image, whole[4].image)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_picture_that_cannot_be_read_stops_or_is_skipped(workers, tmp_path):
    folder = write_photos(tmp_path / "p", count=4)
    (folder / "2.png").write_bytes((folder / "2.png").read_bytes()[:200])
    pictures = find_pictures(folder)
    options = {"steps": 2, "workers": workers, "shuffle": False}
    with pytest.raises(ValueError, match=r"p/2\.png: not a readable picture \(") as caught:
        read(pictures, Rows(2), **options)
    assert "Traceback" not in str(caught.value)
    _, second = read(pictures, Rows(2), of={"on_error": "skip"}, **options)
    assert second.names == ("3.png", "3.png")
    assert len(second.faults) == 1
    assert second.faults[0].startswith(f"{folder / '2.png'}: not a readable picture")


def test_a_data_set_without_a_single_good_picture_is_an_error(tmp_path):
    folder = write_photos(tmp_path / "p", count=2)
    for file in folder.iterdir():
        file.write_bytes(b"x")
    with pytest.raises(ValueError, match=r"none of 2 pictures can be read: .*[01]\.png"):
        read(find_pictures(folder), Rows(1), steps=1, workers=0, of={"on_error": "skip"})
