"""The command line: files in and out, exit codes, resuming, refusals."""

import contextlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
import types
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from safetensors.torch import load_file, save_file

from inpaint_ops import program
from inpaint_ops.cli import commands, doctor, fillers, filling, main, messages
from inpaint_ops.images import load_hole
from inpaint_ops.masks import HOLE_RATIO_BINS
from inpaint_ops.models import create_model, list_models, save_weights
from inpaint_ops.ops import native
from inpaint_ops.ops.dispatch import OPERATORS

SIZE = 12
RGB = np.random.default_rng(1).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
HOLE = np.zeros((SIZE, SIZE), np.uint8)
HOLE[4:8, 3:9] = 255
FILLED = RGB.copy()
FILLED[HOLE > 0] = (0, 128, 255)


class StubFiller:
    """Writes nonsense over known pixels too, which must not reach a file."""

    def __init__(self):
        self.seeds = []
        self.threads = []
        self.fail_at = None
        self.error = RuntimeError("boom")

    def __call__(self, image, hole, *, seed=0, progress=None):
        self.seeds.append(seed)
        self.threads.append(torch.get_num_threads())
        if self.fail_at == len(self.seeds):
            raise self.error
        if progress is not None:
            progress(0.5)
        assert image.dtype == torch.float32
        assert hole.dtype == torch.bool
        colour = torch.tensor([0.0, 128 / 255, 1.0]).reshape(1, 3, 1, 1)
        return torch.where(hole, colour, torch.rand_like(image))


@pytest.fixture
def filler(monkeypatch):
    stub = StubFiller()
    monkeypatch.setitem(fillers.FILLERS, "exemplar", lambda: stub)
    return stub


@pytest.fixture
def run(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        return CliRunner().invoke(commands.cli, [str(argument) for argument in arguments])

    return call


def write(path, pixels):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def read(path):
    with Image.open(path) as picture:
        return np.array(picture)


@pytest.fixture
def pair(tmp_path):
    return write(tmp_path / "photo.png", RGB), write(tmp_path / "hole.png", HOLE)


@pytest.fixture
def folders(tmp_path):
    for name in ("a", "b", "c"):
        write(tmp_path / "photos" / f"{name}.png", RGB)
        write(tmp_path / "holes" / f"{name}.png", HOLE)
    return tmp_path


FOLDER_ARGUMENTS = ("fill", "--images", "photos", "--holes", "holes", "--out", "out")


# -- fill, one picture


def test_fill_keeps_known_pixels(run, filler, pair, tmp_path):
    result = run("fill", *pair, "-o", "new/deep/out.png", "--seed", 7)
    assert result.exit_code == 0, result.output
    np.testing.assert_array_equal(read(tmp_path / "new/deep/out.png"), FILLED)
    assert filler.seeds == [7]
    assert re.fullmatch(r"new/deep/out\.png: 16\.7 % filled in \d+\.\d s\n", result.output)


def test_fill_black_polarity(run, filler, pair, tmp_path):
    write(tmp_path / "black.png", 255 - HOLE)
    assert run("fill", pair[0], "black.png", "-o", "out.png", "--hole", "black").exit_code == 0
    np.testing.assert_array_equal(read("out.png"), FILLED)


def test_fill_own_alpha_becomes_opaque(run, filler, tmp_path):
    alpha = 255 - HOLE
    alpha[0, 0] = 100
    write(tmp_path / "photo.png", np.dstack([RGB, alpha]))
    assert run("fill", "photo.png", "-o", "out.png", "--hole", "alpha").exit_code == 0
    expected_alpha = np.full_like(alpha, 255)
    expected_alpha[0, 0] = 100
    np.testing.assert_array_equal(read("out.png"), np.dstack([FILLED, expected_alpha]))


def test_fill_own_alpha_to_a_format_without_alpha(run, filler, tmp_path):
    write(tmp_path / "photo.png", np.dstack([RGB, 255 - HOLE]))
    result = run("fill", "photo.png", "-o", "out.bmp", "--hole", "alpha")
    assert result.exit_code == 0, result.output
    np.testing.assert_array_equal(read("out.bmp"), FILLED)


def test_fill_alpha_of_a_hole_file_leaves_the_pictures_alpha(run, filler, tmp_path):
    own = np.full((SIZE, SIZE), 90, np.uint8)
    write(tmp_path / "photo.png", np.dstack([RGB, own]))
    write(tmp_path / "hole.png", np.dstack([RGB, 255 - HOLE]))
    assert run("fill", "photo.png", "hole.png", "-o", "out.png", "--hole", "alpha").exit_code == 0
    np.testing.assert_array_equal(read("out.png"), np.dstack([FILLED, own]))


def test_fill_resizes_the_hole_only_on_request(run, filler, pair, tmp_path):
    small = write(tmp_path / "small.png", HOLE[::2, 1::2])
    refused = run("fill", pair[0], small, "-o", "out.png")
    assert refused.exit_code == 1
    assert "6x6 (width x height) pixels, but the picture has 12x12" in refused.output
    assert run("fill", pair[0], small, "-o", "out.png", "--resize-hole").exit_code == 0
    np.testing.assert_array_equal(read("out.png")[:4], RGB[:4])


def test_fill_without_missing_pixels_is_an_error_unless_allowed(run, filler, pair, tmp_path):
    write(tmp_path / "none.png", HOLE * 0)
    result = run("fill", pair[0], "none.png", "-o", "out.png")
    assert (result.exit_code, filler.seeds, Path("out.png").exists()) == (1, [], False)
    assert "none.png: nothing is missing where white marks the hole" in result.output
    result = run("fill", pair[0], "none.png", "-o", "out.png", "--allow-empty")
    assert result.exit_code == 0
    assert "0.0 % filled" in result.stdout
    assert "note: none.png: nothing is missing, the output is a copy" in result.stderr
    assert filler.seeds == []
    np.testing.assert_array_equal(read(tmp_path / "out.png"), RGB)


def test_fill_own_alpha_without_a_transparent_pixel(run, filler, tmp_path):
    write(tmp_path / "photo.png", np.dstack([RGB, HOLE * 0 + 1]))
    arguments = ("fill", "photo.png", "-o", "out.png", "--hole", "alpha")
    result = run(*arguments)
    assert (result.exit_code, filler.seeds) == (1, [])
    assert "photo.png: nothing is missing: no pixel is fully transparent" in result.output
    assert run(*arguments, "--allow-empty").exit_code == 0


def test_fill_says_how_it_read_a_mask_of_ones(run, filler, pair, tmp_path):
    write(tmp_path / "ones.png", HOLE // 255)
    result = run("fill", pair[0], "ones.png", "-o", "out.png")
    assert result.exit_code == 0
    assert "note: ones.png: its two colours are black and grey 1 of 255" in result.stderr
    np.testing.assert_array_equal(read(tmp_path / "out.png"), FILLED)


def test_fill_says_when_most_is_missing(run, filler, pair, tmp_path):
    write(tmp_path / "wrong.png", 255 - HOLE)
    result = run("fill", pair[0], "wrong.png", "-o", "out.png")
    assert result.exit_code == 0
    assert "wrong.png: 83.3 % of the picture is missing; is --hole white right?" in result.stderr
    assert "black would take 16.7 %" in result.stderr


def test_fill_asks_what_a_cut_out_photo_marks(run, filler, pair, tmp_path):
    write(tmp_path / "cut.png", np.dstack([RGB, 255 - HOLE]))
    result = run("fill", pair[0], "cut.png", "-o", "out.png")
    assert (result.exit_code, filler.seeds) == (1, [])
    assert "cut.png: it has many colours, as a photo has, and 16.7 % of it is" in result.output
    assert "--hole (polarity) must say what marks the hole: white would take" in result.output
    assert "alpha would take 16.7 %" in result.output
    result = run("fill", pair[0], "cut.png", "-o", "out.png", "--hole", "alpha")
    assert (result.exit_code, result.stderr) == (0, "")
    np.testing.assert_array_equal(read("out.png"), FILLED)
    result = run("fill", pair[0], "cut.png", "-o", "white.png", "--hole", "white")
    assert result.exit_code == 0
    assert "note: cut.png: " in result.stderr


def test_fill_sets_threads(run, filler, pair):
    before = torch.get_num_threads()
    try:
        assert run("fill", *pair, "-o", "out.png", "--threads", 1).exit_code == 0
        assert filler.threads == [1]
    finally:
        torch.set_num_threads(before)


def test_fill_refuses_a_hole_without_known_pixels(run, filler, pair, tmp_path):
    write(tmp_path / "all.png", HOLE * 0 + 255)
    result = run("fill", pair[0], "all.png", "-o", "out.png")
    assert (result.exit_code, filler.seeds) == (1, [])
    assert "all.png: the hole covers the whole picture where white marks it" in result.output
    assert "the file holds white on 100.0 %; --hole (polarity) black would take 0.0 %" in (
        result.output
    )
    write(tmp_path / "clear.png", np.dstack([RGB, HOLE * 0]))
    result = run("fill", "clear.png", "-o", "out.png", "--hole", "alpha")
    assert (result.exit_code, filler.seeds) == (1, [])
    assert "clear.png: the hole covers the whole picture, which is transparent" in result.output


@pytest.mark.parametrize(
    ("out", "text"),
    [
        ("out.xyz", "unknown file extension"),
        ("out.jpg", "JPEG cannot hold 16 bits"),
        ("there.png", "exists already; use --overwrite"),
        ("photo.png", "would replace the input; use --overwrite"),
        ("./hole.png", "would replace the hole file"),
        ("folder", "unknown file extension"),
        ("photo.png/out.png", "photo.png"),
    ],
)
def test_fill_refuses_the_target_before_the_work(run, filler, tmp_path, out, text):
    write(tmp_path / "photo.png", RGB[..., 0].astype(np.uint16) * 257)
    write(tmp_path / "hole.png", HOLE)
    write(tmp_path / "there.png", RGB)
    (tmp_path / "folder").mkdir()
    before = {path: path.read_bytes() for path in tmp_path.glob("*.png")}
    result = run("fill", "photo.png", "hole.png", "-o", out)
    assert (result.exit_code, filler.seeds) == (1, [])
    assert text in result.output
    assert {path: path.read_bytes() for path in tmp_path.glob("*.png")} == before


def test_fill_overwrite_may_replace_the_input_but_not_the_hole(run, filler, pair):
    assert run("fill", *pair, "-o", pair[0], "--overwrite").exit_code == 0
    np.testing.assert_array_equal(read(pair[0]), FILLED)
    assert run("fill", *pair, "-o", pair[1], "--overwrite").exit_code == 1
    np.testing.assert_array_equal(read(pair[1]), HOLE)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["-o", "o.png"], "give IMAGE and HOLE, or --images and --holes"),
        (["a.png", "-o", "o.png"], "HOLE is missing"),
        (["a.png", "h.png"], "Missing option '-o'"),
        (["a.png", "h.png", "-o", "o.png", "--hole", "red"], "'white', 'black', 'alpha'"),
        (["a.png", "h.png", "-o", "o.png", "--model", "magic"], "unknown model 'magic', known: "),
        (["a.png", "h.png", "-o", "o.png", "--weights", "w"], "exemplar takes no --weights"),
        (["a.png", "h.png", "-o", "o.png", "--option", "x=1"], "exemplar takes no --option"),
        (["a.png", "h.png", "-o", "o.png", "--model", "deepfill_v2"], "needs --weights FILE"),
        (
            ["a", "h", "-o", "o.png", "--model", "deepfill_v2", "--weights", "w", "--option", "x"],
            "--option must be NAME=VALUE, got 'x'",
        ),
        (
            [
                "a",
                "h",
                "-o",
                "o.png",
                "--model",
                "deepfill_v2",
                "--weights",
                "w",
                "--features",
                "v",
            ],
            "deepfill_v2 takes no --features",
        ),
        (["a.png", "--holes", "h", "-o", "o.png"], "--holes goes with --images"),
        (["a.png", "--images", ".", "--out", "o"], "not both"),
        (["--images", ".", "--out", "o"], "--holes is missing"),
        (["--images", "nowhere", "--holes", ".", "--out", "o"], "nowhere does not exist"),
        (["--images", ".", "--holes", ".", "--out", "o"], "another folder than --images"),
        (["--images", ".", "--holes", "h", "--out", "h"], "--out must be another folder than"),
        (["a.png", "h.png", "-o", "o.png", "--threads", "0"], "0 is not in the range"),
        (["a.png", "h.png", "-o", "o.png", "--seed", "-1"], "-1 is not in the range"),
    ],
)
def test_fill_usage_errors(run, filler, arguments, text):
    Path("h").mkdir()
    result = run("fill", *arguments)
    assert result.exit_code == 2
    assert text in " ".join(result.output.split())


VALID = ["photo.png", "hole.png", "-o", "out.png"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["nowhere.png", *VALID[1:]], "IMAGE: nowhere.png does not exist"),
        ([VALID[0], "nowhere.png", *VALID[2:]], "HOLE: nowhere.png does not exist"),
        ([".", *VALID[1:]], "IMAGE: . is a folder, expected a file"),
        ([*VALID, "--model", "msnps", "--weights", "w.pt"], "--weights: w.pt does not exist"),
        (
            [*VALID, "--model", "msnps", "--weights", "hole.png", "--features", "v.pt"],
            "--features: v.pt does not exist",
        ),
        (["--images", "photo.png", "--holes", "hole.png", "-o", "o"], "photo.png is not a folder"),
        (["--images", ".", "--holes", "nowhere", "-o", "o"], "--holes: nowhere does not exist"),
    ],
)
def test_missing_files_are_named_with_their_argument(run, filler, pair, arguments, text):
    result = run("fill", *arguments)
    assert (result.exit_code, filler.seeds) == (2, [])
    assert text in " ".join(result.output.split())
    assert "Errno" not in result.output


@pytest.mark.parametrize("place", ["image", "hole", "weights", "folder", "target", "disk"])
def test_errors_of_the_system_are_plain_sentences(run, filler, folders, pair, monkeypatch, place):
    """Files that may not be read, folders in whose place a file is, full disks."""
    arguments = ["fill", *pair, "-o", "out.png"]
    culprit = {"image": pair[0], "hole": pair[1], "weights": folders / "w.pt"}.get(place)
    real = Path.open

    def refusing(path, *rest, **options):
        if path == culprit:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *rest, **options)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    text = f"Error: {culprit}: permission denied\n"
    monkeypatch.setattr(Path, "open", refusing)
    if place == "weights":
        (folders / "w.pt").symlink_to(pair[0])
        arguments += ["--model", "gmcnn", "--weights", culprit]
    elif place == "folder":
        culprit, text = folders / "photos" / "b.png", "photos/b.png: permission denied\n"
        arguments = [*FOLDER_ARGUMENTS[:2], folders / "photos", *FOLDER_ARGUMENTS[3:]]
    elif place == "target":
        arguments[-1] = "photo.png/deep/out.png"
        text = "Error: photo.png/deep: is no folder, a file has its place\n"
    elif place == "disk":
        monkeypatch.setattr(Image.Image, "save", full)
        text = "Error: out.png: could not be written (no space left on device)\n"
    result = run(*arguments)
    assert result.exit_code == 1
    assert text in result.output
    assert "Errno" not in result.output


def test_masks_where_a_file_is(run, pair):
    result = run("masks", "--size", "9x9", "--out", "photo.png")
    assert result.output == "Error: photo.png: is no folder, a file has its place\n"
    assert result.exit_code == 1


def test_unknown_method_lists_the_known_ones(run):
    assert "known: exemplar" in run("fill", "a", "b", "-o", "c", "--model", "magic").output


def test_failing_filler_is_one_line(run, filler, pair):
    filler.fail_at = 1
    result = run("fill", *pair, "-o", "out.png")
    assert (result.exit_code, result.output) == (1, "Error: boom\n")
    assert not Path("out.png").exists()


# -- fill, a folder


def test_folder_is_filled_and_taken_up_again(run, filler, folders):
    first = run(*FOLDER_ARGUMENTS)
    assert first.exit_code == 0, first.output
    assert first.output.startswith("3 filled, 0 skipped, 0 failed in ")
    for name in "abc":
        np.testing.assert_array_equal(read(folders / "out" / f"{name}.png"), FILLED)
    (folders / "out" / "b.png").unlink()
    assert run(*FOLDER_ARGUMENTS).output.startswith("1 filled, 2 skipped, 0 failed")
    assert len(filler.seeds) == 4
    assert run(*FOLDER_ARGUMENTS, "--overwrite").output.startswith("3 filled, 0 skipped")


def test_one_bad_file_does_not_stop_the_rest(run, filler, folders):
    bad = folders / "photos" / "a.png"
    bad.write_bytes(bad.read_bytes()[:80])
    result = run(*FOLDER_ARGUMENTS)
    assert result.exit_code == 1
    assert "failed: a.png: " in result.output
    assert "not a readable picture" in result.output
    assert "2 filled, 0 skipped, 1 failed" in result.output
    assert sorted(os.listdir(folders / "out")) == ["b.png", "c.png"]


def test_unexpected_error_of_one_file_is_named_and_does_not_stop_the_rest(run, filler, folders):
    filler.fail_at, filler.error = 2, KeyError("x")
    result = run(*FOLDER_ARGUMENTS)
    assert result.exit_code == 1
    assert "failed: b.png: KeyError: 'x'" in result.output
    assert sorted(os.listdir(folders / "out")) == ["a.png", "c.png"]


def test_missing_and_ambiguous_holes_are_named(run, filler, folders):
    (folders / "holes" / "a.png").unlink()
    write(folders / "holes" / "b.bmp", HOLE)
    result = run(*FOLDER_ARGUMENTS)
    assert result.exit_code == 1
    assert "failed: a.png: no hole named a.* in holes" in result.output
    assert "failed: b.png: several holes named b.* in holes: b.bmp, b.png" in result.output
    assert "1 filled, 0 skipped, 2 failed" in result.output


def test_empty_holes_of_a_folder_are_failures(run, filler, folders):
    write(folders / "holes" / "b.png", HOLE * 0)
    result = run(*FOLDER_ARGUMENTS)
    assert result.exit_code == 1
    assert "failed: b.png: holes/b.png: nothing is missing" in result.output.replace("\\", "/")
    assert "2 filled, 0 skipped, 1 failed" in result.output
    assert sorted(os.listdir("out")) == ["a.png", "c.png"]
    result = run(*FOLDER_ARGUMENTS, "--allow-empty")
    assert (result.exit_code, result.stdout.startswith("1 filled, 2 skipped, 0 failed")) == (
        0,
        True,
    )


def test_notes_of_a_folder_are_counted(run, filler, folders):
    for name in "abc":
        write(folders / "holes" / f"{name}.png", HOLE // 255)
    result = run(*FOLDER_ARGUMENTS)
    assert result.exit_code == 0
    assert result.stderr.count("note: ") == 1
    assert "a.png and 2 more: its two colours are black and grey 1" in result.stderr


def test_a_converted_name_that_another_picture_has(run, filler, folders):
    Image.fromarray(255 - RGB).quantize(16).save(folders / "photos" / "a.png.gif")
    Image.fromarray(RGB).save(folders / "photos" / "a.png.gif.png")
    arguments = ("fill", "--images", "photos", "--holes", "holes/a.png", "--out", "out")
    for options in ((), ("--overwrite",)):
        result = run(*arguments, *options)
        assert result.exit_code == 1
        shared = Path("out", "a.png.gif.png")
        text = f"failed: a.png.gif: its output {shared} is that of {shared.name}, too"
        assert text in result.output
    np.testing.assert_array_equal(read("out/a.png.gif.png"), FILLED)


@pytest.mark.skipif(os.name != "posix", reason="symbolic links")
@pytest.mark.parametrize("options", [(), ("--overwrite",)])
def test_two_names_that_the_file_system_takes_for_one(run, filler, folders, options):
    # As a.png and A.png do where case does not count.
    (folders / "out").mkdir()
    (folders / "out" / "b.png").symlink_to("a.png")
    result = run(*FOLDER_ARGUMENTS, *options)
    assert result.exit_code == 1
    assert "failed: b.png: its output out/b.png is that of a.png, too" in result.output
    assert "2 filled, 0 skipped, 1 failed" in result.output
    # Taken up again: the same.
    result = run(*FOLDER_ARGUMENTS)
    assert "0 filled, 2 skipped, 1 failed" in result.output


def test_output_onto_an_input_is_a_failure_not_a_skip(run, filler, folders):
    arguments = ("fill", "--images", "photos", "--holes", "out/a.png", "--out", "out")
    write(folders / "out" / "a.png", HOLE)
    (folders / "out" / "b.png").mkdir()
    result = run(*arguments)
    assert result.exit_code == 1
    assert re.search(r"a\.png: its output out.a\.png would replace the input", result.output)
    assert re.search(r"failed: b\.png: .*is a directory", result.output)
    assert "1 filled, 0 skipped, 2 failed" in result.output
    np.testing.assert_array_equal(read("out/a.png"), HOLE)


def test_holes_are_found_in_either_spelling_of_an_accent(run, filler, folders):
    one, two = "caf\u00e9", "cafe\u0301"
    write(folders / "photos" / f"{one}.png", RGB)
    write(folders / "holes" / f"{two}.png", HOLE)
    assert run(*FOLDER_ARGUMENTS).output.startswith("4 filled, 0 skipped, 0 failed")


def test_folder_with_one_hole_for_all(run, filler, folders):
    arguments = ("fill", "--images", "photos", "--holes", "holes/a.png", "--out", "out")
    assert run(*arguments).output.startswith("3 filled")


def test_folder_with_own_alpha(run, filler, folders):
    for name in "abc":
        write(folders / "photos" / f"{name}.png", np.dstack([RGB, 255 - HOLE]))
    assert run("fill", "--images", "photos", "--hole", "alpha", "--out", "out").exit_code == 0
    np.testing.assert_array_equal(read(folders / "out" / "c.png")[..., :3], FILLED)


def test_folder_output_of_a_format_that_cannot_be_written(run, filler, folders):
    Image.fromarray(RGB).quantize(16).save(folders / "photos" / "d.gif")
    write(folders / "holes" / "d.png", HOLE)
    assert run(*FOLDER_ARGUMENTS).exit_code == 0
    assert (folders / "out" / "d.gif.png").exists()


def test_folder_onto_itself_needs_overwrite(run, filler, folders):
    arguments = ("fill", "--images", "photos", "--holes", "holes", "--out", "photos")
    refused = run(*arguments)
    assert refused.exit_code == 1
    assert refused.output.count("would replace the input") == 3
    assert run(*arguments, "--overwrite").exit_code == 0
    np.testing.assert_array_equal(read(folders / "photos" / "a.png"), FILLED)


def test_folder_ignores_other_files(run, filler, folders):
    (folders / "photos" / "notes.txt").write_text("x")
    (folders / "photos" / ".a.png.0123.part").write_bytes(b"x")
    (folders / "photos" / ".hidden.png").write_bytes(b"x")
    (folders / "photos" / "sub.png").mkdir()
    assert run(*FOLDER_ARGUMENTS).output.startswith("3 filled, 0 skipped, 0 failed")


def test_empty_folder_is_an_error(run, filler, tmp_path):
    (tmp_path / "photos").mkdir()
    write(tmp_path / "holes" / "a.png", HOLE)
    result = run(*FOLDER_ARGUMENTS)
    assert (result.exit_code, "no picture found" in result.output) == (1, True)


def test_folder_output_must_be_a_folder(run, filler, folders):
    (folders / "out").write_bytes(b"")
    result = run(*FOLDER_ARGUMENTS)
    assert (result.exit_code, "--out: out is not a folder" in result.output) == (2, True)


def test_progress_of_a_folder_rises_to_one(filler, folders):
    seen = []
    filling.fill_folder(
        folders / "photos",
        folders / "holes",
        folders / "out",
        filler,
        filling.FillSettings(),
        seen.append,
    )
    assert seen == sorted(seen)
    assert seen[0] == 0.0
    assert seen[-1] == 1.0
    assert any(0.4 < value < 0.6 for value in seen)


def test_progress_bar_on_a_terminal(filler, pair, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    # Unescaped, this name would be taken for markup and refused.
    with messages.progress_bar("[/odd] name") as progress:
        progress(0.5)
    assert "[/odd] name" in capsys.readouterr().err
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False, raising=False)
    with messages.progress_bar("name") as progress:
        assert progress is None


# -- interrupts and entry points


def test_interrupt_leaves_no_partial_file(filler, folders, monkeypatch, capsys):
    monkeypatch.chdir(folders)
    filler.fail_at, filler.error = 2, KeyboardInterrupt()
    assert main(FOLDER_ARGUMENTS) == 130
    assert os.listdir(folders / "out") == ["a.png"]
    assert "interrupted" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(["--version"], 0), (["--help"], 0), (["nonsense"], 2), (["fill", "x.png", "-o", "y"], 2)],
)
def test_main_returns_exit_codes(arguments, code, capsys):
    assert main(arguments) == code


def python(*arguments, **options):
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=60, **options
    )


def test_entry_point_is_declared():
    (script,) = metadata.entry_points(group="console_scripts", name="inpaint-ops")
    assert script.load() is main


def test_as_a_program(tmp_path):
    folder = tmp_path / "new"
    done = python("-m", "inpaint_ops.cli", "masks", "--size", "20x30", "--out", folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert load_hole(folder / "irregular_00000.png", (20, 30)).any()


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_ctrl_c_ends_the_program_with_130(pair, tmp_path):
    code = (
        "import signal, sys, time\n"
        "from inpaint_ops import cli\n"
        "from inpaint_ops.cli import fillers\n"
        # A shell's background jobs ignore the signal.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "def slow(image, hole, *, seed=0, progress=None):\n"
        "    print('started', flush=True)\n"
        "    time.sleep(60)\n"
        "fillers.FILLERS['exemplar'] = lambda: slow\n"
        "sys.exit(cli.main(sys.argv[1:]))\n"
    )
    arguments = ["fill", *map(str, pair), "-o", str(tmp_path / "out" / "o.png")]
    with subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "started\n"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert os.listdir(tmp_path / "out") == []


@pytest.fixture
def sigint():
    # A shell's background jobs ignore the signal.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("answer", ["swallowed", "turned into an error"])
def test_an_interrupt_that_does_not_arrive(sigint, filler, pair, monkeypatch, capsys, answer):
    monkeypatch.setattr(program, "_AGAIN", 0.05)

    def stubborn(image, hole, *, seed=0, progress=None):
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        if answer == "swallowed":
            for _ in range(3000):
                time.sleep(0.01)
        raise KeyError("initialisation failed")

    monkeypatch.setitem(fillers.FILLERS, "exemplar", lambda: stubborn)
    assert main(["fill", *map(str, pair), "-o", str(pair[0].parent / "o.png")]) == 130
    assert capsys.readouterr().err.endswith("inpaint-ops: interrupted\n")


# Sends itself SIGINT when a module is first asked for, as the program or with it.
INTERRUPTED_IMPORT = (
    "import atexit, importlib.abc, os, signal, sys\n"
    "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    "wanted, sys.argv = sys.argv[1], ['inpaint-ops', *sys.argv[2:]]\n"
    "class Finder(importlib.abc.MetaPathFinder):\n"
    "    def find_spec(self, name, path=None, target=None):\n"
    "        if name == wanted:\n"
    "            sys.meta_path.remove(self)\n"
    "            os.kill(os.getpid(), signal.SIGINT)\n"
    "sys.meta_path.insert(0, Finder())\n"
    "if wanted == 'exit':\n"
    "    atexit.register(os.kill, os.getpid(), signal.SIGINT)\n"
    "from inpaint_ops.cli import main\n"
    "sys.exit(main())\n"
)


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize(
    "module", ["torch", "torch.nn", "inpaint_ops.ops", "inpaint_ops.cli.commands", "PIL"]
)
def test_ctrl_c_during_an_import(pair, tmp_path, module):
    arguments = ["fill", *map(str, pair), "-o", str(tmp_path / "out.png")]
    done = python("-c", INTERRUPTED_IMPORT, module, *arguments)
    assert (done.returncode, done.stderr.strip()) == (130, "inpaint-ops: interrupted")
    assert not (tmp_path / "out.png").exists()


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_ctrl_c_after_the_work(tmp_path):
    done = python("-c", INTERRUPTED_IMPORT, "exit", "masks", "--size", "9x9", "--out", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("1 irregular hole written\n")


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_killed_run_leaves_nothing_after_the_next(run, filler, folders):
    code = (
        "import os, signal, sys\n"
        "from PIL import Image\n"
        "from inpaint_ops import cli\n"
        "from inpaint_ops.cli import fillers\n"
        "fillers.FILLERS['exemplar'] = lambda: lambda image, hole, **options: image\n"
        "save, count = Image.Image.save, []\n"
        "def killed(self, stream, **options):\n"
        "    count.append(1)\n"
        "    save(self, stream, **options)\n"
        "    if len(count) == 2:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "Image.Image.save = killed\n"
        "cli.main(sys.argv[1:])\n"
    )
    assert python("-c", code, *FOLDER_ARGUMENTS, cwd=folders).returncode == -signal.SIGKILL
    names = sorted(os.listdir(folders / "out"))
    assert len(names) == 2
    assert names[0].startswith(".b.png.")
    assert run(*FOLDER_ARGUMENTS).output.startswith("2 filled, 1 skipped, 0 failed")
    assert sorted(os.listdir(folders / "out")) == ["a.png", "b.png", "c.png"]


# -- standard output


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_names_that_the_output_cannot_print(filler, pair, monkeypatch, tmp_path, encoding):
    monkeypatch.chdir(tmp_path)
    out, err = io.BytesIO(), io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(out, encoding=encoding))
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(err, encoding=encoding, errors="strict"))
    names = (
        ["\u51fa\u529b.png", os.fsdecode(b"caf\xe9.png")] if os.name == "posix" else ["\u51fa.png"]
    )
    for name in names:
        assert main(["fill", *map(str, pair), "-o", name]) == 0
        assert main(["fill", *map(str, pair), "-o", name]) == 1
        assert name in os.listdir(tmp_path)
    sys.stderr.flush()
    assert out.getvalue().count(b".png: 16.7 % filled") == len(names)
    assert err.getvalue().count(b".png: exists already; use --overwrite") == len(names)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
@pytest.mark.parametrize(("target", "code"), [(">&-", 0), ("> /dev/full", 1)])
def test_standard_output_that_takes_nothing(tmp_path, target, code):
    command = f'"{sys.executable}" -m inpaint_ops.cli masks --size 9x9 --out "{tmp_path}" {target}'
    done = subprocess.run(["sh", "-c", command], stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    assert ("inpaint-ops: no space left on device" in done.stderr) == (code == 1)
    assert os.listdir(tmp_path) == ["irregular_00000.png"]


@pytest.mark.skipif(os.name != "posix", reason="pipes")
def test_standard_output_whose_reader_has_gone(pair, tmp_path):
    read_end, write_end = os.pipe()
    os.close(read_end)
    command = [sys.executable, "-m", "inpaint_ops.cli", "models"]
    done = subprocess.run(
        command, stdout=write_end, stderr=subprocess.PIPE, text=True, timeout=60, check=False
    )
    os.close(write_end)
    assert (done.returncode, done.stderr) == (1, "")


def test_no_progress_without_standard_error(filler, pair, monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    assert main(["fill", *map(str, pair), "-o", str(pair[0].parent / "o.png")]) == 0


@pytest.mark.parametrize("missing", ["click", "rich"])
def test_missing_extra_is_one_line(missing, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, missing, None)
    assert main(["doctor"]) == 1
    errors = capsys.readouterr().err
    assert errors == f"inpaint-ops: {missing} is not installed: pip install 'inpaint-ops[cli]'\n"


def test_modules_import_without_any_extra():
    code = (
        "import sys\n"
        "sys.modules.update(dict.fromkeys(['click', 'rich', 'PIL']))\n"
        "import inpaint_ops.images, inpaint_ops.masks\n"
        "from inpaint_ops.cli import main\n"
        "sys.exit(main([]))\n"
    )
    done = python("-c", code)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "pip install 'inpaint-ops[cli]'" in done.stderr


# -- masks


@pytest.mark.parametrize("kind", ["center", "box", "free-form", "irregular"])
def test_masks_writes_holes(run, kind, tmp_path):
    ratio = () if kind == "center" else ("--ratio", "0.1-0.2")
    result = run("masks", "--size", "40x30", "--kind", kind, *ratio, "--count", 3, "--out", "m")
    assert result.exit_code == 0, result.output
    assert sorted(os.listdir("m")) == [f"{kind}_{index:05d}.png" for index in range(3)]
    for path in Path("m").iterdir():
        share = load_hole(path, (40, 30)).double().mean().item()
        assert share == 0.25 if kind == "center" else 0.1 < share <= 0.2
        assert set(np.unique(read(path))) == {0, 255}


def test_masks_depend_on_seed_and_index_only(run):
    def written(folder, *options):
        assert run("masks", "--size", "32x32", "--out", folder, *options).exit_code == 0
        return [path.read_bytes() for path in sorted(Path(folder).iterdir())]

    three = written("a", "--count", 3, "--seed", 5)
    assert len(set(three)) == 3
    assert written("b", "--count", 2, "--seed", 5) == three[:2]
    assert written("c", "--count", 3, "--seed", 6) != three


def test_masks_keeps_existing_files(run, tmp_path):
    write(tmp_path / "m" / "box_00001.png", HOLE)
    arguments = ("masks", "--size", "32x32", "--kind", "box", "--count", 2, "--out", "m")
    result = run(*arguments)
    assert result.exit_code == 1
    assert "box_00001.png: exists already (1 of 2 files do)" in result.output
    assert os.listdir("m") == ["box_00001.png"]
    assert run(*arguments, "--overwrite").exit_code == 0
    assert read("m/box_00001.png").shape == (32, 32)


@pytest.mark.parametrize(
    ("options", "code", "text"),
    [
        (["--size", "32"], 2, "expected HxW"),
        (["--size", "axb"], 2, "expected HxW"),
        (["--size", "32x32", "--ratio", "0.1"], 2, "expected LOW-HIGH"),
        (["--size", "32x32", "--kind", "star"], 2, "'free-form'"),
        (["--size", "32x32", "--kind", "center", "--ratio", "0.1-0.2"], 2, "neither --ratio"),
        (["--size", "32x32", "--ratio", "0.3-0.2"], 1, "ratio must satisfy"),
        (["--size", "0x32"], 1, "height must be >= 1, got 0"),
        (["--size", "8x8", "--border", "4"], 1, "border must leave"),
    ],
)
def test_masks_refusals(run, options, code, text):
    result = run("masks", *options, "--out", "m")
    assert result.exit_code == code
    assert text in " ".join(result.output.split())


def test_masks_ratio_takes_the_bins(run):
    low, high = HOLE_RATIO_BINS[0]
    assert run("masks", "--size", "64x64", "--ratio", f"{low}-{high}", "--out", "m").exit_code == 0


# -- doctor and bench


def test_doctor_json(run):
    result = run("doctor", "--json")
    facts = json.loads(result.output)
    assert result.exit_code == (1 if facts["broken"] else 0)
    assert facts["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert facts["versions"]["torch"] == torch.__version__
    assert facts["machine"]["torch_threads"] == torch.get_num_threads()
    assert facts["extension"]["available"] == native.status().available
    isa = native.status().instruction_set
    assert set(facts["backends"]) == set(OPERATORS)
    served = "reference" if isa is None else f"csrc ({isa})"
    assert facts["backends"]["nearest_patch"]["cpu"] == served
    if facts["extension"]["available"]:
        assert facts["convolutions"]["3x3"].startswith("winograd")
        assert facts["convolutions"]["grouped"] == "aten"
    assert facts["extras"]["cli"]["missing"] == []


def test_doctor_text_names_what_is_missing_and_how_to_get_it(run, monkeypatch):
    monkeypatch.setitem(doctor.EXTRAS, "peers", ("surely-not-installed",))
    result = run("doctor")
    assert "missing surely-not-installed: pip install 'inpaint-ops[peers]'" in result.output
    assert re.search(r"^torch +2\.", result.output, re.MULTILINE)
    assert re.search(r"^  nearest_patch +cpu: ", result.output, re.MULTILINE)


def fake_status(**changes):
    fields = {
        "available": True,
        "error": None,
        "instruction_set": "avx2",
        "instruction_sets": ("baseline", "avx2"),
        "openmp": True,
    }
    return lambda: types.SimpleNamespace(**{**fields, **changes})


def test_doctor_with_the_extension(run, monkeypatch):
    monkeypatch.setattr(native, "status", fake_status())
    result = run("doctor")
    assert re.search(r"extension +avx2 \(of baseline, avx2\), with OpenMP", result.output)
    assert re.search(r"^  5x5 stride 2 +winograd_4x3$", result.output, re.MULTILINE)


@pytest.mark.parametrize("built", [True, False])
def test_doctor_without_the_extension(run, monkeypatch, built):
    monkeypatch.delenv("INPAINT_OPS_DISABLE_EXTENSION", raising=False)
    absent = fake_status(available=False, error="no libgomp", instruction_set=None)
    monkeypatch.setattr(native, "status", absent)
    monkeypatch.setattr(
        doctor.importlib.util, "find_spec", lambda name: object() if built else None
    )
    result = run("doctor")
    assert re.search(r"extension +not loaded: no libgomp", result.output)
    # The pure PyTorch installation is a working one; a library that does not load is not.
    assert result.exit_code == (1 if built else 0)
    assert ("built but not loaded: no libgomp" in result.output) == built


def test_doctor_survives_a_broken_section(run, monkeypatch):
    def fail():
        raise RuntimeError("driver mismatch")

    monkeypatch.setattr(torch.cuda, "is_available", fail)
    for arguments in (["doctor"], ["doctor", "--json"]):
        result = run(*arguments)
        assert result.exit_code == 1
        assert "cuda: RuntimeError: driver mismatch" in result.output


def test_doctor_extras_are_those_of_the_package():
    declared = {}
    for line in metadata.requires("inpaint-ops"):
        found = re.match(r"([\w.-]+)[^;]*;.*extra == ['\"](\w+)['\"]", line)
        if found:
            declared.setdefault(found[2], set()).add(found[1].lower())
    for extra, distributions in doctor.EXTRAS.items():
        assert declared[extra] == set(distributions), extra
    assert set(declared) - {"test", "dev", "all"} == set(doctor.EXTRAS)


def test_bench_forwards_everything(run, monkeypatch):
    seen = []
    module = types.ModuleType("inpaint_ops.benchmarks.main")
    module.run = lambda argv: seen.append(argv) or 3
    monkeypatch.setitem(sys.modules, "inpaint_ops.benchmarks.main", module)
    assert run("bench", "gated_conv2d", "--quick", "-h", "--threads=2").exit_code == 3
    assert seen == [["gated_conv2d", "--quick", "-h", "--threads=2"]]


@pytest.mark.parametrize(
    ("missing", "text"),
    [
        ("matplotlib", "matplotlib is not installed: pip install 'inpaint-ops[bench]'"),
        ("inpaint_ops.benchmarks.main", "the benchmarks are not installed"),
    ],
)
def test_bench_without_its_extra(run, monkeypatch, missing, text):
    class Finder:
        def find_spec(self, name, path=None, target=None):
            if name == "inpaint_ops.benchmarks.main":
                raise ModuleNotFoundError(f"No module named {missing!r}", name=missing)

    monkeypatch.delitem(sys.modules, "inpaint_ops.benchmarks.main", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    result = run("bench")
    assert result.exit_code == 1
    assert text in result.output


def test_fill_with_the_real_filler(run, tmp_path):
    rows, columns = np.mgrid[:48, :48]
    stripes = np.repeat(((rows // 4 + columns // 4) % 2 * 200 + 20)[..., None], 3, 2)
    photo = write(tmp_path / "photo.png", stripes.astype(np.uint8))
    hole = np.zeros((48, 48), np.uint8)
    hole[18:30, 16:32] = 255
    write(tmp_path / "hole.png", hole)
    for name in ("one.png", "two.png"):
        result = run("fill", photo, "hole.png", "-o", name, "--seed", 1)
        assert result.exit_code == 0, result.output
    filled = read("one.png")
    np.testing.assert_array_equal(filled[hole == 0], stripes[hole == 0])
    np.testing.assert_array_equal(filled, read("two.png"))
    # A checkerboard continues into the hole.
    error = np.abs(filled.astype(int) - stripes)[hole > 0].mean()
    assert error < 30


def test_fill_with_a_model(run, tmp_path):
    torch.manual_seed(0)
    model = create_model("deepfill_v2", base_channels=8, critic_channels=4)
    weights = tmp_path / "weights.safetensors"
    save_weights(model, weights)
    Image.fromarray(RGB).save(tmp_path / "a.png")
    Image.fromarray(HOLE).save(tmp_path / "h.png")
    arguments = [str(tmp_path / "a.png"), str(tmp_path / "h.png"), "--model", "deepfill_v2"]
    out = tmp_path / "o.png"
    result = run("fill", *arguments, "--weights", str(weights), "-o", str(out))
    assert result.exit_code == 0, result.output
    filled = np.asarray(Image.open(out))
    assert np.array_equal(filled[HOLE == 0], RGB[HOLE == 0])
    image = torch.from_numpy(RGB).permute(2, 0, 1)[None].float() / 255
    expected = model.complete(image, torch.from_numpy(HOLE)[None, None] > 0)
    expected = (expected[0].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
    assert np.array_equal(filled, expected)
    result = run(
        "fill", *arguments, "--weights", str(weights), "-o", str(out), "--overwrite",
        "--option", "base_channels=12",
    )  # fmt: skip
    assert result.exit_code == 1
    assert "weights.safetensors" in result.output


def test_fill_with_several_files_of_weights(run, tmp_path):
    torch.manual_seed(0)
    model = create_model("edge_connect", base_channels=8, critic_channels=4, residual_blocks=2)
    files = {}
    for network in model.networks:
        files[network] = tmp_path / f"{network}.safetensors"
        save_weights(model, files[network], layout=f"knazeri/{network}")
        # As the port's own files: without a record of options.
        save_file(load_file(files[network]), files[network])
    Image.fromarray(RGB).save(tmp_path / "a.png")
    Image.fromarray(HOLE).save(tmp_path / "h.png")
    out = tmp_path / "o.png"
    fill = ["fill", tmp_path / "a.png", tmp_path / "h.png", "-o", out, "--model", "edge_connect"]
    edges = ["--weights", files["edge_generator"]]
    colours = ["--weights", files["inpaint_generator"]]
    for given, text in (
        (edges, "needs inpaint_generator to complete pictures"),
        (["--weights", files["edge_discriminator"]], "needs edge_generator and inpaint_generator"),
        ([*edges, *colours, *edges], "both hold edge_generator"),
        ([*edges, *colours, "--layout", "magic"], "layout must be auto or of knazeri"),
    ):
        result = run(*fill, *given)
        assert result.exit_code == 1
        assert text in result.stderr
        assert "Traceback" not in result.output
        assert not out.exists()
    result = run(*fill, *edges, *colours)
    assert result.exit_code == 0, result.output
    (note,) = result.stderr.splitlines()
    assert note.startswith("note: ")
    assert "edge_generator.safetensors does not tell sigma=2.0" in note
    image = torch.from_numpy(RGB).permute(2, 0, 1)[None].float() / 255
    expected = model.complete(image, torch.from_numpy(HOLE)[None, None] > 0)
    expected = (expected[0].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
    assert np.array_equal(np.asarray(Image.open(out)), expected)
    result = run(*fill, *edges, *colours, "--overwrite", "--option", "sigma=2.0")
    assert (result.exit_code, result.stderr) == (0, "")


def test_fill_with_an_own_state_dict(run, tmp_path):
    model = create_model("deepfill_v2", base_channels=8, critic_channels=4)
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    Image.fromarray(RGB).save(tmp_path / "a.png")
    Image.fromarray(HOLE).save(tmp_path / "h.png")
    fill = ["fill", tmp_path / "a.png", tmp_path / "h.png", "-o", tmp_path / "o.png"]
    result = run(*fill, "--model", "deepfill_v2", "--weights", tmp_path / "weights.pt")
    assert result.exit_code == 0, result.output
    assert "note: " in result.stderr
    assert "padding='same', pick='align_corners', fuse=True, channel_order='rgb'" in result.stderr


def test_models_lists_all_methods(run):
    result = run("models")
    assert result.exit_code == 0
    facts = json.loads(run("models", "--json").output)
    assert list(facts) == list_models()
    for name, fact in facts.items():
        assert f"{name}: " in result.output
        assert all(count > 0 for count in fact["networks"].values())
        assert {one["network"] for one in fact["layouts"]} <= set(fact["networks"])
    layouts = facts["deepfill_v2"]["layouts"]
    assert {"nipponjo", "nipponjo_tf"} <= {one["name"] for one in layouts}
