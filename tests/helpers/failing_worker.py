"""A worker of the check on a GPU in which every step fails once, each in a way of its own.

A case in front of the others does not end well the first time: a file in the folder of the results
remembers. What comes after it, and every other step, is as usual.
"""

import os
import sys
import time

import torch

from inpaint_ops.benchmarks.gpu import worker
from inpaint_ops.benchmarks.gpu.steps.task import Step, Task
from inpaint_ops.benchmarks.gpu.store import Store

FAULT = "fault"


def _raise():
    raise ArithmeticError("a stand-in for a fault")


def _exhaust():
    raise torch.OutOfMemoryError("CUDA out of memory, says a stand-in")


def _lose():
    raise RuntimeError("CUDA error: an illegal memory access, says a stand-in")


def hang(store):
    """Wait longer than anybody does, from long ago: nobody wants to wait for that."""
    store.running = (FAULT, 0.0)
    store.write()
    time.sleep(600)


def _fail_to_add_up():
    return {"status": "wrong", "detail": "a stand-in for a wrong result"}


FAULTS = {
    "right": _fail_to_add_up,
    "warm": _lose,
    "tuning": lambda: os._exit(9),
    "layers": None,  # hangs
    "matching": _raise,
    "networks": _exhaust,
    "compiled": _raise,
}


def main() -> int:
    plain = Step.tasks

    def tasks(step, settings):
        mark = settings.folder / f"{step.name}.failed"

        def run():
            if mark.exists():
                return {"status": "ok"}
            mark.touch()
            if step.name == "layers":
                hang(Store(settings.folder, step.file(0)))
            return FAULTS[step.name]()

        return [Task(FAULT, run), *plain(step, settings)]

    Step.tasks = tasks
    return worker.main()


if __name__ == "__main__":
    sys.exit(main())
