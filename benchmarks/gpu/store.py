"""Results of one step on disk: complete after every case, whatever happens to the process."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from inpaint_ops.atomic import write_atomically

# Of a case. The first two are results; "memory" says that the device has too little.
RIGHT = ("ok", "memory")
FAILED = ("wrong", "error", "crashed", "hung")


class Store:
    """The file ``<folder>/<name>.json``, read at the start if it is there.

    Attributes:
        cases: outcomes by the name of the case.
        planned: names of all cases.
        running: the case that has begun and not ended, and when.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.path = folder / f"{name}.json"
        self.name = name
        content: dict[str, Any] = {}
        if self.path.exists():
            content = json.loads(self.path.read_text(encoding="utf-8"))
        self.cases: dict[str, dict[str, Any]] = content.get("cases", {})
        self.planned: list[str] = content.get("planned", [])
        self.running: tuple[str, float] | None = content.get("running")

    def plan(self, names: Sequence[str]) -> None:
        """Note the names of all cases."""
        self.planned = list(names)
        self.write()

    def begin(self, name: str) -> None:
        """Note that a case runs."""
        self.running = (name, time.time())
        self.write()

    def end(self, name: str, outcome: dict[str, Any]) -> None:
        """Note its outcome."""
        self.cases[name] = outcome
        self.running = None
        self.write()

    def forget_failures(self) -> None:
        """Drop what failed, so that it runs again."""
        self.cases = {n: one for n, one in self.cases.items() if one["status"] in RIGHT}
        self.running = None
        self.write()

    @classmethod
    def all_of(cls, folder: Path, step: str) -> list[Store]:
        """Return the files of a step's processes that are there."""
        return [cls(folder, path.stem) for path in sorted(folder.glob(f"{step}-[0-9]*.json"))]

    @property
    def failures(self) -> list[str]:
        """A line for each case that failed."""
        return [
            f"{self.name} {name}: {one['status']}: {one.get('detail', '')}"
            for name, one in self.cases.items()
            if one["status"] in FAILED
        ]

    @property
    def left(self) -> list[str]:
        """Names of the cases that have no outcome."""
        return [name for name in self.planned if name not in self.cases]

    def write(self) -> None:
        """Put everything on disk, under a temporary name first."""
        content = {"planned": self.planned, "running": self.running, "cases": self.cases}
        with write_atomically(self.path) as stream:
            stream.write(json.dumps(content, indent=1).encode())
