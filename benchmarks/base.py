"""Ours at two commits: builds the other one in a worktree of its own, and lets the two take turns.

Cases, inputs and judges are those of this tree for both: a worker of the other commit has its
package with the benchmarks of this one.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inpaint_ops.benchmarks.harness.case import Case, Problem, Unavailable
from inpaint_ops.benchmarks.harness.machine import Peaks
from inpaint_ops.benchmarks.harness.runner import BASE, OURS, PAUSE, Entry, Result
from inpaint_ops.benchmarks.harness.timing import interleave
from inpaint_ops.benchmarks.peers.remote import Remote, RemoteError

ROOT = Path(__file__).resolve().parents[1]
# Folders of the top level that are installed inside the package, but for the benchmarks.
_INNER = ("kernels", "models")
# Statuses of what cannot run and of what is wrong. Neither is a failure of this commit where it is
# the other's.
_FAILED = {OURS: ("error", "wrong"), BASE: ("missing", "missing")}
_ENGINE = "inpaint_ops.benchmarks.peers.torch_engines:Ours"


@dataclass(frozen=True)
class Tree:
    """Another commit, built.

    Args:
        commit: its name.
        path: folder to import the package from.
    """

    commit: str
    path: Path


@contextmanager
def built(ref: str) -> Iterator[Tree]:
    """Yield the tree of a commit with its extension, and remove it afterwards.

    The extension is kept in ``build/base``: to build it takes minutes.

    Raises:
        Unavailable: this is no checkout, there is no such commit, or it cannot be built.
    """
    commit = _git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}")
    with tempfile.TemporaryDirectory(prefix="inpaint-ops-base-") as folder:
        tree, package = Path(folder) / "tree", Path(folder) / "package"
        _git("worktree", "add", "--detach", "--force", str(tree), commit)
        try:
            kept = ROOT / "build" / "base" / commit
            if not any(kept.glob("_C*")):
                build(tree)
                kept.mkdir(parents=True, exist_ok=True)
                for extension in (tree / "inpaint_ops").glob("_C*.so"):
                    shutil.copy2(extension, kept)
            for extension in kept.glob("_C*"):
                shutil.copy2(extension, tree / "inpaint_ops")
            _link(tree, package)
            yield Tree(commit, package)
        finally:
            _git("worktree", "remove", "--force", str(tree))


def build(tree: Path) -> None:
    """Build the extension of a tree in its place.

    Raises:
        Unavailable: it cannot be built.
    """
    done = subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "--inplace"],
        cwd=tree,
        env={**os.environ, "INPAINT_OPS_REQUIRE_EXTENSION": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise Unavailable(f"--base: it cannot be built: {last[:200]}")


def _link(tree: Path, package: Path) -> None:
    inner = package / "inpaint_ops"
    inner.mkdir(parents=True)
    for source in (tree / "inpaint_ops").iterdir():
        (inner / source.name).symlink_to(source)
    for name in _INNER:
        (inner / name).symlink_to(tree / name)
    (inner / "benchmarks").symlink_to(Path(__file__).resolve().parent)


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise Unavailable(f"--base needs git: {error}") from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"no commit {arguments[-1]}"])[-1]
        raise Unavailable(f"--base: git {arguments[0]}: {last}")
    return done.stdout.strip()


class Pair:
    """Two processes that run ours, of this tree and of another; a context that ends them."""

    def __init__(self, tree: Tree) -> None:
        others = os.environ.get("PYTHONPATH")
        path = f"{tree.path}{os.pathsep}{others}" if others else str(tree.path)
        self._remotes = {OURS: Remote(), BASE: Remote(environment={"PYTHONPATH": path})}

    def __enter__(self) -> Pair:
        return self

    def __exit__(self, *_: object) -> None:
        for remote in self._remotes.values():
            remote.close()

    def run_case(
        self,
        case: Case,
        setup: Callable[[Case], Problem],
        peaks: Mapping[int, Peaks],
        *,
        seconds: float | None,
        min_rounds: int = 3,
    ) -> Iterator[Result]:
        """Yield one result for each thread count, as `runner.run_case` does.

        `setup` is not called: each process builds the case for itself.
        """
        for threads in peaks:
            result = Result(case, threads, {})
            for remote in self._remotes.values():
                options: dict[str, Any] = {"op": case.op, "case": case.id}
                remote.tell(do="load", engine=_ENGINE, folder="", threads=threads, options=options)
            for name, remote in self._remotes.items():
                result.entries[name] = _entry(name, remote)
            if seconds is not None:
                calls = {n: self._remotes[n] for n, e in result.entries.items() if e.status == "ok"}
                share = seconds * case.time_share
                timings = interleave(calls, seconds=share, min_rounds=min_rounds, pause=PAUSE)
                for name in calls:
                    result.entries[name].timing = timings.get(name)
                    if name not in timings:
                        result.entries[name] = Entry(_FAILED[name][0], "its process ended")
            yield result


def _entry(name: str, remote: Remote) -> Entry:
    failed = _FAILED[name]
    try:
        remote.listen()
        wrong = remote.ask(do="judge")["wrong"]
    except RemoteError as error:
        return Entry(failed[0], str(error))
    return Entry("ok") if wrong is None else Entry(failed[1], f"its result is refused: {wrong}")
