"""Runs that end early and go on: killed, terminated, out of disk, with another configuration."""

import errno
import json
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from killed_runs import POINTS
from training_runs import config_of, results, run, write_photos

from inpaint_ops import atomic
from inpaint_ops.training import NonFiniteLossError, Stopped, read_config, train
from inpaint_ops.training.run_folder import RunFolder

HELPERS = Path(__file__).parents[1] / "helpers"


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return write_photos(tmp_path_factory.mktemp("data") / "photos")


@pytest.fixture(scope="module")
def whole(photos, tmp_path_factory):
    """The results of a run that nothing happened to."""
    out = tmp_path_factory.mktemp("whole") / "run"
    run(photos, out)
    return results(out)


def names(out):
    return sorted(path.name for path in (out / "checkpoints").iterdir())


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    command = [sys.executable, str(HELPERS / "killed_runs.py")]
    command.append(str(tmp_path_factory.mktemp("killed")))
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(HELPERS)},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("point", POINTS)
def test_a_killed_run_goes_on_to_the_same_bits(point, killed):
    status, left, resumed, same, hidden = killed[point]
    assert status == -signal.SIGKILL
    assert left in ([], ["step_000000002"], ["step_000000002", "step_000000004"]) or (
        point == "while an old checkpoint is removed"
        and left == ["step_000000004", "step_000000006"]
    )
    assert (resumed, same, hidden) == (0, True, [])


@pytest.mark.parametrize(
    ("number", "name"), [(signal.SIGTERM, "SIGTERM"), (signal.SIGINT, "Ctrl-C")]
)
@pytest.mark.usefixtures("sigint")
def test_a_signal_writes_a_checkpoint_and_says_so(photos, whole, tmp_path, number, name):
    out = tmp_path / "run"
    before = signal.getsignal(signal.SIGTERM)

    def on_step(progress):
        if progress.step == 3:
            os.kill(os.getpid(), number)

    with pytest.raises(Stopped, match=rf"stopped by {name} after step [34] of 6.*--resume") as end:
        run(photos, out, on_step=on_step)
    assert end.value.number == number
    copy = pickle.loads(pickle.dumps(end.value))
    assert (str(copy), copy.number) == (str(end.value), number)
    assert signal.getsignal(signal.SIGTERM) is before
    assert names(out)[-1] in ("step_000000003", "step_000000004")
    run(photos, out, resume=True)
    assert results(out) == whole


@pytest.mark.usefixtures("sigint")
def test_a_second_ctrl_c_ends_the_run_at_once(photos, tmp_path):
    def on_step(progress):
        if progress.step == 3:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run(photos, tmp_path / "run", on_step=on_step)
    assert names(tmp_path / "run")[-1] == "step_000000002"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.usefixtures("sigint")
def test_a_signal_to_all_processes_at_once_still_writes_a_checkpoint(
    photos, whole, tmp_path, number
):
    out = tmp_path / "run"

    def on_step(progress):
        if progress.step == 3:
            readers = multiprocessing.active_children()
            assert len(readers) == 2
            for pid in (*(one.pid for one in readers), os.getpid()):
                os.kill(pid, number)

    with pytest.raises(Stopped):
        run(photos, out, "data.workers=2", on_step=on_step)
    assert multiprocessing.active_children() == []
    run(photos, out, resume=True)
    assert results(out) == whole


def test_a_full_disk_leaves_the_checkpoint_before(photos, whole, tmp_path, monkeypatch):
    out, fsync, left = tmp_path / "run", os.fsync, 100

    def on_step(progress):
        nonlocal left
        if progress.step == 4:
            left = 1  # the weights fit, the rest does not

    def full(descriptor):
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    monkeypatch.setattr(atomic.os, "fsync", full)
    with pytest.raises(
        OSError, match=r"step_000000004: the checkpoint could not be written: no space left on "
    ) as caught:
        run(photos, out, on_step=on_step)
    assert "step_000000002 is whole; --resume" in str(caught.value)
    assert names(out) == ["step_000000002"]
    monkeypatch.setattr(atomic.os, "fsync", fsync)
    run(photos, out, resume=True)
    assert results(out) == whole


def test_a_loss_that_is_not_finite_ends_the_run(photos, tmp_path):
    out = tmp_path / "run"
    with pytest.raises(
        NonFiniteLossError,
        match=r"step 1, phase joint: the loss 'adversarial' is nan; no checkpoint was written",
    ):
        run(photos, out, "phases.joint.learning_rate=1e30")
    assert not (out / "checkpoints").exists()
    assert (out / "losses.jsonl").read_bytes() == b""


def test_a_run_that_failed_before_its_first_step_may_be_begun_anew(photos, tmp_path, whole):
    out = tmp_path / "run"
    with pytest.raises(NonFiniteLossError):
        run(photos, out, "phases.joint.learning_rate=1e30")
    run(photos, out)
    assert results(out) == whole


def test_sides_that_the_networks_do_not_take_are_refused_before_anything_is_written(
    photos, tmp_path
):
    out = tmp_path / "run"
    with pytest.raises(ValueError, match=r"data\.size must be a multiple of \d+ .* got 30"):
        run(photos, out, "data.size=30")
    assert not out.exists()


def test_a_run_is_not_begun_twice_nor_continued_as_another(photos, tmp_path):
    out = tmp_path / "run"
    run(photos, out, "iterations=2")
    with pytest.raises(FileExistsError, match="holds a run; --resume goes on with it"):
        run(photos, out, "iterations=2")
    with pytest.raises(
        ValueError,
        match=r"holds another run: iterations was 2, is 6; seed was 0, is 1; give --out a new one$",
    ):
        run(photos, out, "seed=1", resume=True)
    # What may differ.
    run(photos, out, "iterations=2", "keep=1", "log_every=1", resume=True)
    moved = write_photos(tmp_path / "moved")
    run(moved, out, "iterations=2", resume=True)
    (moved / "4.png").unlink()
    with pytest.raises(ValueError, match=r"the list of data was 5 files of .*, is 4 of .*moved"):
        run(moved, out, "iterations=2", resume=True)


def test_the_folder_says_what_the_run_is(photos, tmp_path):
    out = tmp_path / "run"
    run(photos, out, "iterations=2", "ema=0.5", "data.scale=[1.0, 1.25]", "phases.joint.l1=2")
    assert read_config("deepfill_v2", RunFolder.config_of(out)) == config_of(
        photos, "iterations=2", "ema=0.5", "data.scale=[1.0, 1.25]", "phases.joint.l1=2"
    )
    facts = json.loads((out / "run.json").read_text())
    assert facts["versions"]["torch"] == torch.__version__
    assert facts["data"]["count"] == 5
    assert len(facts["data"]["digest"]) == 64
    train(read_config("deepfill_v2", RunFolder.config_of(out)), out, resume=True)


def test_damaged_checkpoints_are_named(photos, tmp_path):
    out = tmp_path / "run"
    run(photos, out, "iterations=2")
    state = out / "checkpoints/step_000000002/state.pt"
    state.write_bytes(state.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"state\.pt: is damaged"):
        run(photos, out, "iterations=2", resume=True)


def test_two_processes_do_not_share_a_folder(photos, tmp_path):
    out = tmp_path / "run"
    run(photos, out, "iterations=2")
    code = (
        "import fcntl, sys; f = open(sys.argv[1], 'ab'); fcntl.lockf(f, fcntl.LOCK_EX);"
        "print('locked', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(out / ".lock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as other:
        other.stdout.readline()
        with pytest.raises(OSError, match="is being trained by another process"):
            run(photos, out, "iterations=2", resume=True)
        other.stdin.close()
