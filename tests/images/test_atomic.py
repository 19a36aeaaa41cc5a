"""Files that appear complete or not at all, and what killed processes leave behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from inpaint_ops import atomic
from inpaint_ops.atomic import remove_left_overs, write_atomically

DAY = 24 * 3600


def left_over(folder, host=None, age=0.0):
    path = folder / f".a.png.{host or atomic._host()}-0123456789ab.part"
    path.write_bytes(b"half")
    os.utime(path, (time.time() - age,) * 2)
    return path


def test_content_appears_at_the_end(tmp_path):
    with write_atomically(tmp_path / "a") as stream:
        stream.write(b"content")
        assert not (tmp_path / "a").exists()
        (temporary,) = tmp_path.iterdir()
        assert atomic._LEFT_OVER.fullmatch(temporary.name)
    assert (tmp_path / "a").read_bytes() == b"content"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_long_names_of_wide_characters(tmp_path):
    name = "写" * 80  # 240 bytes
    with write_atomically(tmp_path / name) as stream:
        stream.write(b"x")
    assert os.listdir(tmp_path) == [name]


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_killed_writer_leaves_a_file_that_the_next_write_removes(tmp_path):
    code = (
        "import os, signal, sys\n"
        "from inpaint_ops.atomic import write_atomically\n"
        "with write_atomically(sys.argv[1]) as stream:\n"
        "    stream.write(b'half')\n"
        "    stream.flush()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "a"], timeout=60)
    assert done.returncode == -signal.SIGKILL
    (part,) = tmp_path.iterdir()
    assert part.name.endswith(".part")
    with write_atomically(tmp_path / "b") as stream:
        stream.write(b"x")
    assert os.listdir(tmp_path) == ["b"]


def test_a_living_writer_keeps_its_file(tmp_path):
    with write_atomically(tmp_path / "a") as stream:
        stream.write(b"x")
        stale = left_over(tmp_path)
        remove_left_overs(tmp_path)
        assert stale.exists() == (atomic.fcntl is None)
        assert len(list(tmp_path.glob("*.part"))) == 1 + stale.exists()
    assert (tmp_path / "a").read_bytes() == b"x"


@pytest.mark.parametrize("locks", [True, False])
def test_files_that_nobody_can_be_asked_about_go_after_a_day(tmp_path, monkeypatch, locks):
    if not locks:
        monkeypatch.setattr(atomic, "fcntl", None)
    host = "01234567" if locks else None
    path = left_over(tmp_path, host, age=DAY - 600)
    remove_left_overs(tmp_path)
    assert path.exists()
    left_over(tmp_path, host, age=DAY + 600)
    remove_left_overs(tmp_path)
    assert not path.exists()


@pytest.mark.skipif(atomic.fcntl is None, reason="locks")
def test_a_file_system_without_locks(tmp_path, monkeypatch):
    def refuse(stream, operation):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(atomic.fcntl, "flock", refuse)
    with write_atomically(tmp_path / "a") as stream:
        stream.write(b"x")
        remove_left_overs(tmp_path)
    assert (tmp_path / "a").read_bytes() == b"x"


def test_other_files_are_left_alone(tmp_path):
    names = [".a.png.part", ".a.0123456789ab.part", "a.part", ".b.01234567-0123456789ab.partial"]
    for name in names:
        (tmp_path / name).write_bytes(b"")
        os.utime(tmp_path / name, (0, 0))
    folder = tmp_path / f".c.{atomic._host()}-0123456789ab.part"
    folder.mkdir()
    remove_left_overs(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted([*names, folder.name])
    remove_left_overs(tmp_path / "nowhere")


def test_a_file_taken_for_a_left_over_before_it_was_locked(tmp_path, monkeypatch):
    real, taken = atomic._lock, []

    def taken_first(stream):
        if not taken:
            taken.append(stream.name)
            Path(stream.name).unlink()
        return real(stream)

    monkeypatch.setattr(atomic, "_lock", taken_first)
    with write_atomically(tmp_path / "a") as stream:
        stream.write(b"x")
    assert taken
    assert (tmp_path / "a").read_bytes() == b"x"
    assert os.listdir(tmp_path) == ["a"]


def test_a_file_that_cannot_be_made_is_named_as_it_was_asked_for(tmp_path):
    target = tmp_path.resolve() / "missing" / "picture.png"
    with pytest.raises(FileNotFoundError) as caught, atomic.write_atomically(target):
        pass
    assert caught.value.filename == str(target)
