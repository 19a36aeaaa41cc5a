"""The folder of a run, which says by itself what it is."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy
import torch

import inpaint_ops
from inpaint_ops.atomic import fcntl, make_folder, write_atomically
from inpaint_ops.program import reason
from inpaint_ops.training.checkpoints import Checkpoints
from inpaint_ops.training.config import FREE, Config
from inpaint_ops.training.plan import Plan
from inpaint_ops.training.values import flat, toml_text

_CONFIG, _FACTS, _LOSSES, _LOCK = "config.toml", "run.json", "losses.jsonl", ".lock"


class RunFolder:
    """Configuration, facts, losses and checkpoints of a run.

    ``config.toml`` is the configuration, with the defaults of its names but without the numbers of
    the recipe. ``run.json`` has versions and the data set's size and digest. ``losses.jsonl`` has a
    line for each step. ``checkpoints`` has the last ones, ``tensorboard`` the curves.

    Args:
        path: of the folder.
        keep: number of checkpoints.
    """

    def __init__(self, path: Path, keep: int) -> None:
        self.path = path
        self.checkpoints = Checkpoints(path / "checkpoints", keep)
        self._losses: BinaryIO | None = None
        self._lock: BinaryIO | None = None

    @staticmethod
    def config_of(path: Path) -> Path | None:
        """Return the configuration that a folder holds, None if no run has begun there."""
        file = path / _CONFIG
        return file if file.is_file() else None

    @property
    def board(self) -> Path:
        """The folder of the curves."""
        return self.path / "tensorboard"

    def begin(self, config: Config, plan: Plan, resume: bool) -> None:
        """Write what the run is, or compare it with what the folder says.

        Raises:
            FileExistsError: a run that has done steps is there, and it is not to be resumed.
            OSError: the folder cannot be made or written.
            ValueError: the run is another one; what differs is said.
        """
        if self.path.exists() and not self.path.is_dir():
            raise NotADirectoryError(f"{self.path}: is a file, expected a folder")
        begun = self.config_of(self.path) is not None and self._has_steps()
        if begun and not resume:
            raise FileExistsError(
                f"{self.path}: holds a run; --resume goes on with it, another --out begins anew"
            )
        make_folder(self.path)
        self._take()
        facts = _facts(plan)
        # Last of the two is the one by which a run is known to have begun.
        if begun:
            self._compare(config, facts)
        else:
            _write(self.path / _FACTS, json.dumps(facts, indent=2) + "\n")
            _write(self.path / _CONFIG, toml_text(config.values()))
        self.checkpoints.sweep()

    def _has_steps(self) -> bool:
        """Return whether a step was done: a run that failed before may be begun anew."""
        losses = self.path / _LOSSES
        return bool(self.checkpoints.all()) or (losses.is_file() and losses.stat().st_size > 0)

    def _take(self) -> None:
        """Keep other processes out. The lock is not inherited by processes that read data."""
        self._lock = (self.path / _LOCK).open("ab")
        if fcntl is not None:
            try:
                fcntl.lockf(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError) as exc:
                raise OSError(f"{self.path}: is being trained by another process") from exc
            except OSError:  # a file system without locks
                pass

    def _compare(self, config: Config, facts: Mapping[str, Any]) -> None:
        from inpaint_ops.training.values import read_toml

        before = dict(flat(read_toml(self.path / _CONFIG)))
        now = dict(flat(config.values()))
        differing = [
            f"{name} was {before.get(name, 'not given')}, is {now.get(name, 'not given')}"
            for name in sorted(before.keys() | now.keys())
            if name not in FREE and before.get(name) != now.get(name)
        ]
        old = json.loads((self.path / _FACTS).read_text(encoding="utf-8"))
        for kind in ("data", "holes"):
            then, today = old.get(kind), facts.get(kind)
            if then and today and then["digest"] != today["digest"]:
                differing.append(
                    f"the list of {kind} was {then['count']} files of {then['origin']}, is "
                    f"{today['count']} of {today['origin']}"
                )
        if differing:
            raise ValueError(
                f"{self.path}: holds another run: {'; '.join(differing)}; give --out a new one"
            )

    def open_losses(self, step: int) -> None:
        """Open the list of losses behind those of a step; what came after it is removed."""
        file = self.path / _LOSSES
        kept = 0
        if file.exists():
            with file.open("rb") as lines:
                for line in lines:
                    # The process may have been killed inside a line.
                    if not line.endswith(b"\n") or json.loads(line)["step"] > step:
                        break
                    kept += len(line)
        self._losses = file.open("ab")
        self._losses.truncate(kept)

    def add_losses(self, step: int, phase: str, losses: Mapping[str, float]) -> None:
        """Add the line of a step."""
        assert self._losses is not None
        line = json.dumps({"step": step, "phase": phase, "losses": dict(losses)})
        try:
            self._losses.write(line.encode() + b"\n")
            self._losses.flush()
        except OSError as exc:  # which does not say where
            raise OSError(f"{self.path / _LOSSES}: {reason(exc)}") from exc

    def close(self) -> None:
        """Close files, and let other processes in."""
        for stream in (self._losses, self._lock):
            if stream is not None:
                stream.close()


def _facts(plan: Plan) -> dict[str, Any]:
    from importlib.metadata import version

    files = getattr(plan.samples.holes, "files", None)
    lists = {"data": plan.pictures, **({} if files is None else {"holes": files})}
    return {
        "versions": {
            "inpaint-ops": inpaint_ops.__version__,
            "torch": str(torch.__version__),
            "numpy": numpy.__version__,
            "accelerate": version("accelerate"),
            "python": platform.python_version(),
        },
        **{
            kind: {"origin": one.origin, "count": len(one), "digest": one.digest}
            for kind, one in lists.items()
        },
    }


def _write(path: str | os.PathLike[str], text: str) -> None:
    with write_atomically(path) as stream:
        stream.write(text.encode("utf-8"))
