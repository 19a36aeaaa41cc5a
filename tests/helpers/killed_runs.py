"""Runs that kill themselves at one point, and go on: prints which points change the result.

Each run is a process of its own, forked from this one, which has imported everything and has
started no threads.
"""

import json
import os
import shutil
import signal
import sys
from pathlib import Path

import torch
from training_runs import results, run, write_photos

from inpaint_ops.models import TrainingRecipe
from inpaint_ops.training import checkpoints, run_folder


def die(*_arguments, **_options):
    os.kill(os.getpid(), signal.SIGKILL)


def at_call(number, function, before):
    """A function that dies at a call, before or after it has done its work."""
    calls = 0

    def wrapped(*arguments, **options):
        nonlocal calls
        calls += 1
        if calls == number and before:
            die()
        result = function(*arguments, **options)
        if calls == number:
            die()
        return result

    return wrapped


def half_a_line(self, step, phase, losses):
    line = json.dumps({"step": step, "phase": phase, "losses": losses}).encode()
    if step == 3:
        self._losses.write(line[: len(line) // 2])
        self._losses.flush()
        die()
    self._losses.write(line + b"\n")
    self._losses.flush()


# Name to (object, attribute, replacement). A run has 6 steps and a checkpoint at every second one,
# of which two are kept.
POINTS = {
    "before the first checkpoint": (TrainingRecipe, "step", at_call(2, TrainingRecipe.step, True)),
    "between two steps": (TrainingRecipe, "step", at_call(4, TrainingRecipe.step, False)),
    "inside a line of losses": (run_folder.RunFolder, "add_losses", half_a_line),
    "while weights are written": (
        *(checkpoints, "save_weights"),
        at_call(3, checkpoints.save_weights, False),
    ),
    "before a checkpoint has its name": (Path, "rename", at_call(2, Path.rename, True)),
    "after a checkpoint has its name": (Path, "rename", at_call(2, Path.rename, False)),
    "while an old checkpoint is removed": (Path, "rename", at_call(4, Path.rename, False)),
}


def in_a_process(function, *arguments):
    """The exit status of a function in a forked process."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            torch.set_num_threads(1)
            function(*arguments)
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def begin(photos, out, point):
    setattr(*point)
    run(photos, out, "keep=2")


def go_on(photos, out):
    run(photos, out, "keep=2", resume=True)


def main():
    folder = Path(sys.argv[1])
    photos = write_photos(folder / "photos")
    assert in_a_process(run, photos, folder / "whole", "keep=2") == 0
    found = {}
    for name, point in POINTS.items():
        out = folder / "killed"
        killed = in_a_process(begin, photos, out, point)
        left = sorted(path.name for path in (out / "checkpoints").glob("[!.]*"))
        resumed = in_a_process(go_on, photos, out)
        same = resumed == 0 and results(out) == results(folder / "whole")
        hidden = [path.name for path in (out / "checkpoints").glob(".*")]
        found[name] = [killed, left, resumed, same, hidden]
        shutil.rmtree(out)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
