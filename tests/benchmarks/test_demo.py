"""The demo, on a small picture of its own instead of the photos."""

import numpy as np
import pytest
from PIL import Image

from inpaint_ops.benchmarks import demo


def test_demo_writes_pictures(tmp_path, monkeypatch, capsys):
    photos = tmp_path / "photos of somebody"
    photos.mkdir()
    stripes = np.zeros((40, 48, 3), np.uint8)
    stripes[:, ::4] = (200, 100, 50)
    Image.fromarray(stripes).save(photos / "stripes.png")
    shapes = [("box", (10, 10, 18, 20), 0), ("line", (30, 5, 30, 15), 3)]
    monkeypatch.setattr(demo, "HOLES", {"stripes.png": shapes})
    monkeypatch.setattr(demo, "photo_folder", lambda: photos)
    out = tmp_path / "out"
    assert demo.main(["--out", str(out), "--no-report"]) == 0
    assert str(out / "stripes.png") in capsys.readouterr().out
    picture = np.asarray(Image.open(out / "stripes.png"))
    assert picture.shape == (40, 3 * 48 + 2 * 8, 3)
    assert np.array_equal(picture[:, :48], stripes)
    hole = np.asarray(Image.open(out / "holes" / "stripes.png")) > 127
    assert hole[10:21, 10:19].all()
    assert (picture[:, 56:104][hole] == (255, 0, 255)).all()
    after = picture[:, 112:]
    assert np.array_equal(after[~hole], stripes[~hole])
    assert np.abs(after[hole].astype(int) - stripes[hole]).mean() < 10


def test_demo_photos_ship_with_scikit_image():
    for name in demo.HOLES:
        assert (demo.photo_folder() / name).is_file()


def test_demo_without_scikit_image(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "skimage", None)
    with pytest.raises(SystemExit, match="inpaint-ops\\[peers\\]"):
        demo.photo_folder()
