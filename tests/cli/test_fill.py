"""``inpaint-ops fill`` of one picture: files in and out, notes, refusals."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import FILLED, FOLDER_ARGUMENTS, HOLE, RGB, SIZE, read, write
from PIL import Image


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
        (
            ["a.png", "h.png", "-o", "o.png", "--window", "wide"],
            "'--window': must be auto, none or a number of pixels, got 'wide'",
        ),
        (["a.png", "h.png", "-o", "o.png", "--window", "-8"], "number of pixels, got '-8'"),
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
