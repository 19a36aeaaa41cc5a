"""Whole evaluations of stub models over tiny pictures, and the files that they leave."""

import base64
import csv
import errno
import io
import json
import re

import numpy as np
import pytest
import torch
from PIL import Image
from training_runs import write_photos

from inpaint_ops import atomic
from inpaint_ops.data import DrawnHoles, Framing, HoleFiles, Samples, Whole, find_pictures
from inpaint_ops.evaluation import (
    FrechetFeatures,
    ModelFailedError,
    PerceptualDistance,
    evaluate,
    write_results,
)

SIZE = (24, 32)


def black(image, hole, *, seed=0):
    """Nonsense in known pixels, which must not count."""
    return torch.where(hole, 0.0, torch.rand_like(image))


def grey(image, hole, *, seed=0):
    assert not image.masked_select(hole).any()
    return torch.where(hole, 0.5, image)


MODELS = {"black": black, "grey": grey}


@pytest.fixture
def photos(tmp_path):
    return write_photos(tmp_path / "photos", count=4)


def samples_of(photos, framing=None, holes=None, **options):
    framing = framing or Framing(SIZE, crop="center", flip=False)
    holes = holes or DrawnHoles("box", ratio=(0.1, 0.3))
    return Samples(find_pictures(photos), framing, holes, **options)


def table(file):
    with file.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_two_models_side_by_side(photos, tmp_path):
    done = []
    results = evaluate(
        *(samples_of(photos), MODELS),
        fid_features=FrechetFeatures(lambda x: x.float().mean((2, 3))),
        lpips=PerceptualDistance(lambda a, b: (a - b).abs().mean()),
        shown=2,
        facts={"device": "cpu"},
        progress=done.append,
    )
    write_results(results, tmp_path / "out")
    rows = table(tmp_path / "out/pictures.csv")
    assert [(row["index"], row["model"]) for row in rows] == [
        (str(index), model) for index in range(4) for model in MODELS
    ]
    assert list(rows[0]) == [
        *("index", "picture", "model", "height", "width", "ratio", "bin", "border", "l1"),
        *("l1_hole", "psnr", "psnr_hole", "ssim", "ssim_hole", "ms_ssim", "lpips", "seconds"),
        *("failed", "note"),
    ]
    assert (rows[0]["height"], rows[0]["width"]) == ("24", "32")
    assert rows[0]["ms_ssim"] == ""
    assert rows[0]["note"] == "MS-SSIM needs 176 pixels a side, here are 24"

    # The measures are those of pixels rounded to 8 bits.
    sample = samples_of(photos)[0, 0]
    truth = (sample.image * 255).round() / 255
    missing = truth.masked_select(sample.hole)
    assert float(rows[0]["l1_hole"]) == pytest.approx(float(missing.mean()), rel=1e-5)
    share = float(sample.hole.float().mean())
    assert float(rows[0]["ratio"]) == pytest.approx(share)
    assert float(rows[0]["l1"]) == pytest.approx(float(missing.mean()) * share, rel=1e-5)
    assert float(rows[0]["lpips"]) == pytest.approx(2 * float(rows[0]["l1"]), rel=1e-5)

    summary = table(tmp_path / "out/summary.csv")
    whole = {row["model"]: row for row in summary if row["bin"] == row["border"] == "all"}
    for model in MODELS:
        mean = np.mean([float(row["psnr_hole"]) for row in rows if row["model"] == model])
        assert float(whole[model]["psnr_hole"]) == pytest.approx(mean)
        assert whole[model]["pictures"] == "4"
        assert float(whole[model]["fid"]) > 0
    counts = [
        sum(int(row["pictures"]) for row in summary if select(row) and row["model"] == "grey")
        for select in (
            lambda row: row["bin"] != "all" and row["border"] == "all",
            lambda row: row["bin"] == "all" and row["border"] != "all",
        )
    ]
    assert counts == [4, 4]
    report = json.loads((tmp_path / "out/summary.json").read_text())
    assert report["data"]["count"] == 4
    assert report["data"]["digest"] == find_pictures(photos).digest
    assert report["device"] == "cpu"
    assert set(report["versions"]) == {"inpaint-ops", "torch", "torchmetrics", "python"}
    assert [one["model"] for one in report["summary"][:2]] == ["black", "grey"]
    assert done == sorted(done)
    assert (done[0], done[-1]) == (0, 1)
    assert {0.25, 0.5, 0.75} <= set(done)


def test_the_page_holds_the_pictures_and_loads_nothing(photos, tmp_path):
    results = evaluate(samples_of(photos), {"a<b": grey, "black": black}, shown=3)
    write_results(results, tmp_path)
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    found = re.findall(r'<img alt="([^"]*)" src="data:image/jpeg;base64,([^"]*)"', page)
    assert [text.partition(",")[0] for text, _ in found] == 3 * [
        *("input", "truth", "a&lt;b", "black")
    ]
    pictures = []
    for _, content in found:
        with Image.open(io.BytesIO(base64.b64decode(content))) as picture:
            pictures.append(np.asarray(picture).astype(float))
    sample = samples_of(photos)[0, 0]
    truth = sample.image.permute(1, 2, 0).numpy() * 255
    assert np.abs(pictures[1] - truth).mean() < 3
    hole = sample.hole[0].numpy()
    assert np.abs(pictures[3][hole]).mean() < 40
    assert set(re.findall(r'(?:src|href|action)="([a-z]+):', page)) == {"data"}
    assert "http" not in page.replace("http-equiv", "")
    assert "<script" not in page
    assert "a<b" not in page
    assert '<td class="best">' in page


def test_a_repetition_has_the_same_values(photos):
    first, second = (evaluate(samples_of(photos, seed=3), MODELS) for _ in range(2))
    other = evaluate(samples_of(photos, seed=4), MODELS)
    assert [row.values for row in first.rows] == [row.values for row in second.rows]
    assert first.facts == second.facts
    assert first.facts["content_digest"] != other.facts["content_digest"]


def test_pictures_keep_their_sizes_and_grey_is_a_colour(tmp_path):
    for number, pixels in enumerate((np.full((9, 30), 90), np.full((200, 180, 3), 90))):
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / f"{number}.png")
    results = evaluate(samples_of(tmp_path, Whole()), {"grey": grey})
    assert [row.size for row in results.rows] == [(9, 30), (200, 180)]
    assert [row.values["l1_hole"] for row in results.rows] == pytest.approx([38 / 255] * 2)
    assert [row.values["ms_ssim"] is None for row in results.rows] == [True, False]
    # Of one picture out of two.
    assert results.summary()[0]["ms_ssim"] == results.rows[1].values["ms_ssim"]


def test_mask_files_are_drawn_or_paired(photos, tmp_path):
    (tmp_path / "masks").mkdir()
    for number in range(4):
        mask = np.zeros(SIZE, np.uint8)
        mask[4 : 6 + 2 * number, 4:10] = 255
        Image.fromarray(mask).save(tmp_path / f"masks/{number}.png")
    holes = HoleFiles(tmp_path / "masks", "white")
    paired = evaluate(samples_of(photos, holes=holes, paired=True), {"grey": grey})
    assert [round(row.ratio * SIZE[0] * SIZE[1]) for row in paired.rows] == [12, 24, 36, 48]
    assert [row.border for row in paired.rows] == ["inside"] * 4
    assert paired.facts["holes"]["count"] == 4
    drawn = [evaluate(samples_of(photos, holes=holes), {"grey": grey}) for _ in range(2)]
    assert [row.ratio for row in drawn[0].rows] == [row.ratio for row in drawn[1].rows]
    (tmp_path / "masks/3.png").unlink()
    with pytest.raises(ValueError, match=r"as many as pictures, 4, got 3 files of .*masks"):
        samples_of(photos, holes=HoleFiles(tmp_path / "masks", "white"), paired=True)
    with pytest.raises(TypeError, match="must be HoleFiles where paired, got DrawnHoles"):
        samples_of(photos, paired=True)


def fails_at_second():
    calls = []

    def fill(image, hole, *, seed=0):
        calls.append(seed)
        if len(calls) == 2:
            raise RuntimeError("boom <here>")
        return image

    return fill


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        (fails_at_second(), "bad fails at 1.png: boom <here>"),
        (
            lambda image, hole, seed: image[..., 1:],
            r"bad fails at 0.png: returned \(1, 3, 24, 31",
        ),
        (lambda image, hole, seed: None, "bad fails at 0.png: returned NoneType"),
        (lambda image, hole, seed: image / 0, "bad fails at 0.png: returned values that are not"),
    ],
)
def test_a_model_that_fails_ends_the_run_and_is_named(broken, why, photos):
    with pytest.raises(ModelFailedError, match=why):
        evaluate(samples_of(photos), {"grey": grey, "bad": broken})


def test_failures_are_counted_where_that_is_asked_for(photos, tmp_path):
    (photos / "2.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"2\.png"):
        evaluate(samples_of(photos), {"grey": grey})
    results = evaluate(
        samples_of(photos), {"grey": grey, "bad": fails_at_second()}, on_error="skip"
    )
    write_results(results, tmp_path / "out")
    assert [(row.index, row.model) for row in results.rows if row.failed] == [(1, "bad")]
    summary = results.summary()
    assert [(one["pictures"], one["failed"]) for one in summary[:2]] == [(3, 0), (2, 1)]
    assert len(results.faults) == 1
    rows = table(tmp_path / "out/pictures.csv")
    bad = next(row for row in rows if row["failed"] == "1")
    assert (bad["note"], bad["l1"], bad["seconds"]) == ("boom <here>", "", "")
    page = (tmp_path / "out/index.html").read_text(encoding="utf-8")
    assert "boom &lt;here&gt;" in page
    assert "Left out: cannot be read" in page


def test_a_run_without_a_picture_is_an_error(photos):
    for file in photos.iterdir():
        file.write_bytes(b"no picture")
    with pytest.raises(ValueError, match="no picture could be read: "):
        evaluate(samples_of(photos), MODELS, on_error="skip")


def test_results_are_not_replaced_and_appear_whole(photos, tmp_path, monkeypatch):
    results = evaluate(samples_of(photos), MODELS, count=2)
    assert results.facts["pictures"] == 2
    write_results(results, tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.glob("*.*")}
    assert set(before) == {"pictures.csv", "summary.csv", "summary.json", "index.html"}
    with pytest.raises(FileExistsError, match=r"pictures\.csv: exists already"):
        write_results(results, tmp_path)

    def full(_descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(atomic.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_results(results, tmp_path, overwrite=True)
    assert {file.name: file.read_bytes() for file in tmp_path.glob("*.*")} == before


def test_wrong_arguments_are_named(photos):
    with pytest.raises(ValueError, match="models must not be empty"):
        evaluate(samples_of(photos), {})
    with pytest.raises(ValueError, match="samples must have on_error='stop'"):
        evaluate(samples_of(photos, on_error="skip"), MODELS)
    with pytest.raises(ValueError, match="on_error must be"):
        evaluate(samples_of(photos), MODELS, on_error="hide")
    with pytest.raises(ValueError, match="count must be"):
        evaluate(samples_of(photos), MODELS, count=0)
