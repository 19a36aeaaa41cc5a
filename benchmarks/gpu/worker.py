"""Run of one step: ``python -m inpaint_ops.benchmarks.gpu.worker STEP``, started by `check`."""

from __future__ import annotations

import argparse
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

import torch

from inpaint_ops.benchmarks.gpu.steps.task import STEPS, Outcome, Settings, Step, Task
from inpaint_ops.benchmarks.gpu.store import Store
from inpaint_ops.kernels.stopwatch import is_lost

# Exit status of a process whose device answers nothing any more.
LOST = 3


def run(
    step: Step,
    settings: Settings,
    *,
    ends: float,
    share: tuple[int, int] = (0, 1),
    most: int | None = None,
) -> bool:
    """Run the cases of a share that have no outcome; return False if the device was lost.

    Args:
        step, settings: which, and where.
        ends: by `time.time`; no case begins after it.
        share: number of this process, and how many there are.
        most: run the first so many cases of the step.
    """
    store = Store(settings.folder, step.file(share[0]))
    tasks = step.tasks(settings)[share[0] : most : share[1]]
    store.plan([task.id for task in tasks])
    for task in tasks:
        if task.id in store.cases:
            continue
        if time.time() >= ends:
            break
        store.begin(task.id)
        begun = time.perf_counter()
        outcome, lost = outcome_of(task)
        outcome["took"] = round(time.perf_counter() - begun, 3)
        if settings.device.type == "cuda" and not lost:
            # For the other processes, and for the next case's figures of memory.
            torch.cuda.empty_cache()
        store.end(task.id, outcome)
        print(f"{step.name} {task.id}: {outcome['status']} {outcome.get('detail', '')}", flush=True)
        if lost:
            return False
    return True


def outcome_of(task: Task) -> tuple[Outcome, bool]:
    """Outcome of a case, which an exception is too, and whether the device was lost with it."""
    try:
        return task.run(), False
    except torch.OutOfMemoryError as error:
        return {"status": "memory", "detail": _first_line(error)}, False
    except Exception as error:  # one case's failure must not end the step
        traceback.print_exc()
        return {"status": "error", "detail": _first_line(error)}, is_lost(error)


def _first_line(error: Exception) -> str:
    text = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {text[:300]}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line, written by `check`."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("step", choices=[step.name for step in STEPS])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--ends", type=float, required=True, help="time.time() of the last start")
    parser.add_argument("--share", type=int, nargs=2, default=(0, 1), metavar=("I", "OF"))
    parser.add_argument("--most", type=int, help="run the first so many cases")
    options = parser.parse_args(arguments)
    (step,) = (step for step in STEPS if step.name == options.step)
    settings = Settings(torch.device(options.device), options.folder)
    kept = run(step, settings, ends=options.ends, share=tuple(options.share), most=options.most)
    return 0 if kept else LOST


if __name__ == "__main__":
    raise SystemExit(main())
