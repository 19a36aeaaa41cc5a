"""The demo, on a small picture of its own instead of the photos."""

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("matplotlib")
pytest.importorskip("rich")

from inpaint_ops.benchmarks import demo, demo_speed
from inpaint_ops.benchmarks.cases import bench_models, bench_nearest_patch
from inpaint_ops.benchmarks.harness.case import Case
from inpaint_ops.models.blocks import pictures


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
    assert demo.main(["--out", str(out), "--no-benchmark"]) == 0
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
    with pytest.raises(SystemExit, match="inpaint-ops\\[demo\\]"):
        demo.photo_folder()


TINY = demo_speed.Row("tiny patches", "nearest_patch", "tiny")


@pytest.fixture
def tiny(monkeypatch):
    sizes = {"map": 12, "channels": 3, "patch": 3, "stride": 1, "metric": "cosine"}
    case = Case("nearest_patch", "tiny", sizes)
    monkeypatch.setattr(bench_nearest_patch, "CASES", (case,))
    monkeypatch.setattr(demo_speed, "_SECONDS", 0.0)


def test_demo_tells_speed_as_one_table_and_one_picture(tiny, tmp_path, capsys):
    assert demo_speed.run(tmp_path, [TINY, TINY]) == 0
    printed = capsys.readouterr().out
    assert printed.count("tiny patches") == 2
    assert "times as fast" in printed
    assert printed.rstrip().endswith("speed.png")
    assert [file.name for file in tmp_path.iterdir()] == ["speed.png"]
    assert np.asarray(Image.open(tmp_path / "speed.png")).std() > 10


def test_demo_names_what_it_had_no_time_for(tiny, tmp_path, capsys):
    assert demo_speed.run(tmp_path, [TINY], budget=-1) == 0
    assert "not measured, the time is up: tiny patches" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_demo_fails_where_a_result_is_wrong(tiny, tmp_path, capsys, monkeypatch):
    setup = bench_nearest_patch.setup

    def broken(case):
        problem = setup(case)
        problem.implementations["ours"] = lambda *_: None
        problem.check = lambda outcome: "nothing" if outcome is None else None
        return problem

    monkeypatch.setattr(bench_nearest_patch, "setup", broken)
    assert demo_speed.run(tmp_path, [TINY]) == 1
    assert "nothing" in capsys.readouterr().out


@pytest.mark.parametrize("row", demo_speed.ROWS, ids=lambda row: row.text)
def test_demo_rows_are_cases(row):
    assert row.find().id == row.case


def test_public_formulas_replace_operators_and_layout():
    x = torch.ones(1, 8, 4, 4).contiguous(memory_format=torch.channels_last)
    with bench_models.public_formulas():
        assert pictures.arranged(x).is_contiguous()
    assert not pictures.arranged(x).is_contiguous()
