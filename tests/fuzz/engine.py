"""Child processes that run cases, and what they found."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# A case takes milliseconds, under a sanitizer up to a second.
_HANGS_AFTER = 180.0
# Threads that wait in a loop would take the processors from the others' work.
_ENVIRONMENT = {"OMP_WAIT_POLICY": "passive", "PYTHONWARNINGS": "ignore"}


@dataclass
class Found:
    """A case that failed, and how."""

    number: int
    case: dict[str, Any]
    error: str
    output: str = ""


@dataclass
class Outcome:
    """Failures, and how many cases ran in each instruction set."""

    found: list[Found] = field(default_factory=list)
    done: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-P", "-m", "fuzz.worker", *arguments]


def environment(path: str = "") -> dict[str, str]:
    """The caller's, in which this package can be imported; `path`: where inpaint_ops comes from."""
    tests = Path(__file__).resolve().parents[1]
    paths = [path or os.environ.get("PYTHONPATH", ""), str(tests), str(tests / "helpers")]
    return {**os.environ, **_ENVIRONMENT, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


class _Lane:
    """Every `step`-th case, in one process after another: a new one after each crash."""

    def __init__(
        self, first: int, end: int, step: int, arguments: Sequence[str], most: int, path: str
    ):
        self.path = path
        self.first, self.end, self.step, self.most = first, end, step, most
        self.arguments = arguments
        self.found: list[Found] = []
        self.done: dict[str, int] = {}
        self.stopped = False

    def run(self, folder: Path) -> None:
        progress, errors = folder / f"{self.first}.number", folder / f"{self.first}.errors"
        first = self.first
        while first < self.end and not self.stopped:
            progress.write_text(f"{first:20d}")
            where = ["--first", str(first), "--end", str(self.end), "--step", str(self.step)]
            with (
                errors.open("w") as log,
                subprocess.Popen(
                    command(*where, "--progress", str(progress), *self.arguments),
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                    env=environment(self.path),
                ) as child,
            ):
                with self._watched(child, progress):
                    finished = self._read(child)
                code = child.wait()
            if finished or self.stopped:
                return
            number = int(progress.read_text())
            reason = signal.Signals(-code).name if code < 0 else f"exit status {code}"
            self.found.append(Found(number, {}, f"crash: {reason}", errors.read_text()[-6000:]))
            self.stopped = len(self.found) >= self.most
            first = number + self.step

    def _read(self, child: subprocess.Popen[str]) -> bool:
        assert child.stdout is not None
        for line in child.stdout:
            said = json.loads(line)
            if "done" in said:
                for isa, count in said["done"].items():
                    self.done[isa] = self.done.get(isa, 0) + count
                return True
            self.found.append(Found(said["number"], said["case"], said["error"]))
            if len(self.found) >= self.most:
                self.stopped = True
                child.kill()
        return False

    @contextlib.contextmanager
    def _watched(self, child: subprocess.Popen[str], progress: Path) -> Iterator[None]:
        """Kills a process that has been at one case for too long."""
        over = threading.Event()

        def watch() -> None:
            while not over.wait(5):
                if time.time() - progress.stat().st_mtime > _HANGS_AFTER or self.stopped:
                    child.kill()

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()


def run(
    count: int,
    seed: int,
    *,
    ops: Sequence[str] = (),
    skip: Sequence[str] = (),
    isas: Sequence[str] = (),
    jobs: int = 2,
    first: int = 0,
    most: int = 10,
    path: str = "",
) -> Outcome:
    """Runs cases `first` to `first + count` and stops at `most` failures.

    Args:
        count: cases.
        seed: of all of them.
        ops: operators and layers that take turns; all.
        skip: checks to leave out.
        isas: instruction sets; all.
        jobs: processes.
        first: number of the first case.
        most: failures to stop at.
        path: where inpaint_ops is imported from; as in this process.
    """
    arguments = ["--seed", str(seed)]
    arguments += ["--ops", *ops] if ops else []
    arguments += ["--skip", *skip] if skip else []
    arguments += ["--isas", *isas] if isas else []
    start = time.monotonic()
    lanes = [_Lane(first + i, first + count, jobs, arguments, most, path) for i in range(jobs)]
    with tempfile.TemporaryDirectory() as folder:
        threads = [threading.Thread(target=lane.run, args=(Path(folder),)) for lane in lanes]
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():
                thread.join(0.2)
                if sum(len(lane.found) for lane in lanes) >= most:
                    for lane in lanes:
                        lane.stopped = True
    outcome = Outcome(seconds=time.monotonic() - start)
    for lane in lanes:
        outcome.found += lane.found
        for isa, number in lane.done.items():
            outcome.done[isa] = outcome.done.get(isa, 0) + number
    outcome.found = sorted(outcome.found, key=lambda found: found.number)[:most]
    for found in outcome.found:
        found.case = found.case or _drawn(found.number, seed, ops, isas)
    return outcome


def _drawn(number: int, seed: int, ops: Sequence[str], isas: Sequence[str]) -> dict[str, Any]:
    from fuzz.case import entries, instruction_sets
    from fuzz.worker import numbered

    return numbered(number, list(ops) or list(entries()), seed, list(isas) or instruction_sets())
