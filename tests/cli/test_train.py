"""The commands train and check-data."""

import io
import json
import signal
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from training_runs import SETTINGS, write_photos

from inpaint_ops import training
from inpaint_ops.cli.training_display import display
from inpaint_ops.images import save_hole

OPTIONS = [part for setting in (*SETTINGS, "iterations=4") for part in ("--set", setting)]


def test_a_run_from_photos_to_a_filled_picture(run, tmp_path):
    write_photos(tmp_path / "photos")
    arguments = ("train", "deepfill_v2", "--data", "photos", "--out", "run")
    done = run(*arguments, *OPTIONS)
    assert done.exit_code == 0, done.output
    assert "run/deepfill_v2.safetensors: weights of deepfill_v2, for inpaint-ops" in done.stdout
    lines = done.stderr.splitlines()
    assert lines[0] == "photos: 5 pictures, 4 of 4 steps to do"
    assert [line.partition(":")[0] for line in lines[1:]] == [
        *("step 2 of 4, joint", "step 4 of 4, joint"),
    ]
    assert "l1 " in lines[1]
    assert "pictures/s" in lines[1]

    again = run(*arguments, *OPTIONS)
    assert again.exit_code == 1
    assert "run: holds a run; --resume goes on with it" in again.stderr
    # With the options of before, or without any.
    for options in (OPTIONS, ()):
        resumed = run(*arguments, *options, "--resume")
        assert resumed.exit_code == 0, resumed.output
        assert "0 of 4 steps to do" in resumed.stderr
    for options in (OPTIONS, ()):
        other = run(*arguments, *options, "--set", "batch=3", "--resume")
        assert other.exit_code == 1
        assert "holds another run: batch was 2, is 3" in other.stderr

    Image.fromarray(np.uint8(np.arange(32 * 32 * 3) % 251).reshape(32, 32, 3)).save("photo.png")
    hole = torch.zeros(1, 1, 32, 32, dtype=torch.bool)
    hole[..., 8:20, 8:20] = True
    save_hole(hole, "hole.png")
    filled = run(
        *("fill", "photo.png", "hole.png", "-o", "filled.png", "--model", "deepfill_v2"),
        *("--weights", "run/deepfill_v2.safetensors"),
    )
    assert filled.exit_code == 0, filled.output


def test_wrong_usage_is_one_line(run, tmp_path):
    write_photos(tmp_path / "photos", count=1)
    arguments = ("--out", "run", "--data", "photos")
    assert "name must be one of" in run("train", "deepfil", *arguments).stderr
    wrong = run("train", "deepfill_v2", *arguments, "--set", "bach=3")
    assert wrong.exit_code == 1
    assert "Error: configuration: key 'bach' does not exist; did you mean batch?" in wrong.stderr
    assert "--data is missing" in run("train", "deepfill_v2", "--out", "run").stderr
    assert (
        "nowhere: does not exist"
        in run(*("train", "deepfill_v2", "--out", "run", "--data", "nowhere", *OPTIONS)).stderr
    )


def test_a_run_that_was_told_to_stop_has_a_code_of_its_own(run, tmp_path, monkeypatch):
    step = training.trainer.TrainingRecipe.step

    def terminated(*arguments, **options):
        signal.raise_signal(signal.SIGTERM)
        return step(*arguments, **options)

    monkeypatch.setattr(training.trainer.TrainingRecipe, "step", terminated)
    write_photos(tmp_path / "photos")
    done = run("train", "deepfill_v2", "--out", "run", "--data", "photos", *OPTIONS)
    assert done.exit_code == 143
    assert done.stderr.splitlines()[-1] == (
        "stopped by SIGTERM after step 1 of 4; its checkpoint is written, --resume goes on from"
        " there"
    )
    assert (tmp_path / "run/checkpoints/step_000000001").is_dir()


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("columns", [140, 70])
def test_a_terminal_gets_a_bar_with_every_loss(columns, monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm")
    losses = {"reconstruction": 0.5, "adversarial": 0.25, "critic": 1.25}
    with display(50) as (on_step, say):
        say("photos: 5 [pictures]")
        for step in range(1, 4):
            on_step(training.Progress("joint", step, 9, losses, 12.5, 2))
    shown = sys.stderr.getvalue()
    assert "photos: 5 [pictures]" in shown
    assert "3/9" in shown
    for text in (*losses, "0.25", "1.25", "12.5", "pictures/s", "skipped"):
        assert text in shown


def test_check_data_names_every_bad_file(run, tmp_path):
    write_photos(tmp_path / "photos", count=3)
    assert run("check-data", "photos").stdout == "photos: 3 files, 0 bad\n"
    (tmp_path / "photos/1.png").write_bytes(b"x")
    done = run("check-data", "photos")
    assert done.exit_code == 1
    assert done.stdout.splitlines() == [
        "photos/1.png: not a readable picture (unknown format)",
        "photos: 3 files, 1 bad",
    ]
    (tmp_path / "list.txt").write_text("0.png\n7.png\n")
    done = run("check-data", "list.txt", "--root", "photos")
    assert done.stdout.splitlines() == [
        "photos/7.png: does not exist",
        "list.txt: 2 files, 1 bad",
    ]
    assert "nowhere: does not exist" in run("check-data", "nowhere").stderr


def test_check_data_reads_masks(run, tmp_path):
    (tmp_path / "masks").mkdir()
    save_hole(torch.ones(1, 1, 4, 4), tmp_path / "masks/all.png")
    save_hole(torch.zeros(1, 1, 4, 4), tmp_path / "masks/none.png")
    done = run("check-data", "masks", "--hole", "white")
    assert done.exit_code == 1
    assert done.stdout.splitlines()[0].startswith("masks/none.png: nothing is missing where white")


def test_the_run_describes_itself(run, tmp_path):
    write_photos(tmp_path / "photos")
    run("train", "deepfill_v2", "--data", "photos", "--out", "run", *OPTIONS)
    facts = json.loads((tmp_path / "run/run.json").read_text())
    assert set(facts["versions"]) >= {"inpaint-ops", "torch", "numpy", "accelerate", "python"}
    assert facts["data"]["origin"] == "photos"
