"""``inpaint-ops fill`` of a folder: resuming, pairing, failures of single files."""

import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from command_line import FILLED, FOLDER_ARGUMENTS, HOLE, RGB, read, write
from PIL import Image

from inpaint_ops import progress
from inpaint_ops.cli import filling, main


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


@pytest.mark.parametrize("seen", [True, False])
def test_progress_bar_on_a_terminal(filler, pair, tmp_path, monkeypatch, capsys, seen):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: seen, raising=False)
    monkeypatch.setattr(progress, "_PATIENCE", 0.0)
    assert main(["fill", *map(str, pair), "-o", str(tmp_path / "out.png")]) == 0
    captured = capsys.readouterr()
    assert ("photo.png [############............]  50 %" in captured.err) == seen
    assert "photo.png [" not in captured.out
