"""Each of the ten methods learns photographs by heart; a trained one is compared with others."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from training_runs import write_photos

from inpaint_ops.benchmarks.learning import compare, photos
from inpaint_ops.benchmarks.learning.overfit import LESSONS, learn
from inpaint_ops.images import load_photo
from inpaint_ops.models import create_model, list_models, save_weights


def test_there_is_a_lesson_for_each_method():
    assert sorted(lesson.method for lesson in LESSONS) == list_models()


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.method)
def test_a_method_learns_photographs_by_heart(lesson):
    learned = learn(lesson)
    assert learned.fall >= lesson.falls
    assert learned.after >= learned.before + 3
    # One colour for each hole, even the best one, is not enough.
    assert learned.after >= learned.constant + 2


def test_photographs_become_pieces(tmp_path, monkeypatch):
    packages, out = tmp_path / "packages", tmp_path / "photos"
    folder = packages / "usr/share/backgrounds"
    folder.mkdir(parents=True)
    for name in ("mine.png", "seen.png"):
        Image.fromarray(np.zeros((600, 800, 3), np.uint8)).save(folder / name)
    chosen = (
        photos.Photo("backgrounds/mine.png", "I", "CC0-1.0", held_out=True),
        photos.Photo("backgrounds/seen.png", "I", "CC0-1.0"),
    )
    monkeypatch.setattr(photos, "PHOTOS", chosen)
    monkeypatch.setattr(photos, "SCIKIT_IMAGE", ())
    assert photos.main([str(packages), "--out", str(out)]) == 0
    held_out, seen = (sorted((out / kind).iterdir()) for kind in ("held-out", "train"))
    sizes = [{load_photo(path).size for path in some} for some in (held_out, seen)]
    assert sizes == [{(photos.SIDE, photos.SIDE)}, {(photos.TILE, photos.TILE)}]
    # One of the small picture; two beside each other, twice, of the large one.
    assert [path.name for path in held_out] == [f"{i:03}-mine.png" for i in range(5)]
    assert all("seen" in path.name for path in seen)
    (folder / "seen.png").unlink()
    with pytest.raises(SystemExit, match=r"must hold one backgrounds/seen\.png, got 0"):
        photos.main([str(packages), "--out", str(out)])


def test_no_photograph_is_both_learned_and_held_out():
    names = [photo.path for photo in (*photos.PHOTOS, *photos.SCIKIT_IMAGE)]
    assert len(names) == len(set(names))
    assert all(photo.author and photo.licence for photo in photos.PHOTOS)
    assert all(photo.held_out for photo in photos.SCIKIT_IMAGE)


def test_a_network_is_compared_on_pictures(tmp_path, capsys, monkeypatch):
    folder = write_photos(tmp_path / "held-out", count=2, size=(48, 48))
    weights = tmp_path / "unet.safetensors"
    torch.manual_seed(0)
    save_weights(create_model("partial_conv_unet", levels=5, base_channels=4), weights)
    monkeypatch.setattr(compare, "KINDS", ("box",))
    steps = [json.dumps({"losses": {"hole": 1 / (i + 1)}}) for i in range(250)]
    (tmp_path / "losses.jsonl").write_text("\n".join(steps))
    out = tmp_path / "out"
    given = [str(folder), "--model", "partial_conv_unet", "--weights", str(weights)]
    given += ["--show", "1", "0", "--out", str(out)]
    assert compare.main([*given, "--run", str(tmp_path)]) == 0
    table = json.loads((out / "psnr.json").read_text())
    assert set(table["box"]) == {*compare.BASELINES, compare.LEARNED}
    assert table["better"]["learned"] == 0
    assert "box: telea" in capsys.readouterr().out
    assert compare.main([*given, "--blind"]) == 0
    key = json.loads((out / "key.json").read_text())
    assert [row["picture"] for row in key] == ["1.png", "0.png"]
    assert {path.name for path in out.iterdir()} == {
        *("beside.jpg", "blind.jpg", "curve.svg", "key.json", "psnr.json")
    }
