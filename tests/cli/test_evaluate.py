"""The command evaluate."""

import json
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import write
from training_runs import write_photos

from inpaint_ops.cli.evaluating import ModelChoice, parse_models
from inpaint_ops.models import create_model

DATA = ("evaluate", "--data", "photos", "--size", "32x40", "--out", "out")
BOXES = ("--kind", "box", "--ratio", "0.1-0.3")


@pytest.fixture
def photos(tmp_path):
    return write_photos(tmp_path / "photos", count=3)


def test_models_side_by_side_from_photos_to_a_page(run, filler, photos, tmp_path):
    pytest.importorskip("cv2")
    model = create_model("deepfill_v2", base_channels=8)
    torch.save(model.generator.state_dict(), tmp_path / "a,b.pth")
    done = run(
        *(*DATA, *BOXES, "--model", "exemplar", "--model", "telea"),
        *("--model", "small:deepfill_v2=a,b.pth", "--option", "small.base_channels=8"),
        *("--count", "2", "--seed", "7", "--shown", "1"),
    )
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert [line.partition(",")[0].partition(": l1")[0] for line in lines[:3]] == [
        *("exemplar: 2 pictures", "telea: 2 pictures", "small: 2 pictures"),
    ]
    assert lines[3] == "out/index.html: tables and pictures"
    assert filler.seeds == [7, 7]
    files = {file.name for file in Path("out").iterdir()}
    assert files == {"pictures.csv", "summary.csv", "summary.json", "index.html"}
    report = json.loads(Path("out/summary.json").read_text())
    assert report["models"]["small"]["name"] == "deepfill_v2"
    assert report["models"]["small"]["options"] == ["base_channels=8"]
    assert len(report["models"]["small"]["weights"][0]["sha256"]) == 64
    assert report["seed"] == 7
    assert report["window"] == "auto"
    assert "ratio=(0.1, 0.3)" in report["drawn_holes"]
    again = run(*DATA, "--model", "exemplar")
    assert again.exit_code == 1
    assert "out/pictures.csv: exists already; use --overwrite" in again.stderr
    assert run(*DATA, "--model", "exemplar", "--overwrite", "--shown", "0").exit_code == 0


def test_masks_and_networks_come_from_files(run, filler, photos, tmp_path):
    class Means(torch.nn.Module):
        def forward(self, x):
            return x.float().mean((2, 3))

    class Difference(torch.nn.Module):
        def forward(self, a, b):
            return (a - b).abs().mean()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(Means()), tmp_path / "fid.pt")
        torch.jit.save(torch.jit.script(Difference()), tmp_path / "lpips.pt")
    for number in range(3):
        mask = np.full((32, 40), 255, np.uint8)
        mask[4:12, 4 : 8 + 4 * number] = 0
        write(tmp_path / f"masks/{number}.png", mask)
    done = run(
        *(*DATA, "--holes", "masks", "--hole", "black", "--pair", "--model", "exemplar"),
        *("--fid-features", "fid.pt", "--lpips", "lpips.pt"),
    )
    assert done.exit_code == 0, done.output
    assert ", lpips " in done.stdout
    assert ", fid " in done.stdout
    report = json.loads(Path("out/summary.json").read_text())
    assert set(report["networks"]) == {"fid", "lpips"}
    assert report["holes"]["count"] == 3


def test_failures_end_the_run_or_are_counted(run, filler, photos):
    filler.fail_at = 2
    stopped = run(*DATA, *BOXES, "--model", "exemplar")
    assert stopped.exit_code == 1
    assert stopped.stderr == "Error: exemplar fails at 1.png: boom\n"
    assert list(Path("out").iterdir()) == []
    filler.seeds.clear()
    (photos / "2.png").write_bytes(b"no picture")
    skipped = run(*DATA, *BOXES, "--model", "exemplar", "--on-error", "skip")
    assert skipped.exit_code == 0, skipped.output
    assert "exemplar fails at 1.png: boom" in skipped.stderr
    assert "left out: photos/2.png: " in skipped.stderr
    assert skipped.stdout.startswith("exemplar: 1 picture, 1 failed: l1 ")


@pytest.mark.parametrize(
    ("module", "extra", "model"),
    [
        ("torchmetrics.functional.image", "evaluate", "exemplar"),
        ("cv2", "fillers", "telea"),
        ("skimage.restoration", "fillers", "biharmonic"),
    ],
)
def test_what_is_not_installed_is_one_line(module, extra, model, run, filler, photos, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    done = run(*DATA, *BOXES, "--model", model)
    assert done.exit_code == 1
    assert f"is not installed: pip install 'inpaint-ops[{extra}]'" in done.stderr


def test_texts_of_models():
    assert parse_models(
        ["exemplar", "x:glcic=a.pth,b.pth", "y:z:glcic=c=d.pth"], ["y:z.a=1=2"]
    ) == [
        ModelChoice("exemplar", "exemplar"),
        ModelChoice("x", "glcic", (Path("a.pth"), Path("b.pth"))),
        ModelChoice("y:z", "glcic", (Path("c=d.pth"),), ("a=1=2",)),
    ]


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--model", "exemplar="), 2, "--model must be [LABEL:]NAME[=FILE], got 'exemplar='"),
        (("--model", "glcic=a", "--model", "glcic=b"), 2, "--model: two are named 'glcic'"),
        (("--model", "glcic=a", "--option", "glc.x=1"), 2, "LABEL of glcic, got 'glc.x=1'"),
        (("--model", "glic=a"), 1, "unknown model 'glic', known: exemplar, telea,"),
        (("--model", "glcic"), 1, "glcic needs weights: --model glcic=FILE"),
        (("--model", "telea=a"), 1, "telea takes no weights"),
        (("--model", "glcic=none.pth"), 1, "none.pth"),
        (("--model", "exemplar", "--size", "0"), 2, "must be PIXELS, HxW or none, got '0'"),
        (("--model", "exemplar", "--holes", "photos"), 2, "--hole is missing"),
        (("--model", "exemplar", "--pair"), 2, "--hole and --pair go with --holes"),
        (
            ("--model", "exemplar", "--holes", "photos", "--hole", "white", "--kind", "box"),
            *(2, "--kind is for drawn holes"),
        ),
        (("--model", "exemplar", "--kind", "center", "--border", "3"), 2, "takes neither --ratio"),
        (("--model", "exemplar", "--device", "none"), 2, "--device: 'none' is not there"),
        (("--model", "exemplar", "--fid-features", "none.pt"), 1, "none.pt: no such file"),
    ],
)
def test_wrong_usage_is_one_line(options, code, message, run, photos):
    done = run(*DATA, *options)
    assert done.exit_code == code, done.output
    assert message in done.stderr
    assert "Traceback" not in done.output
