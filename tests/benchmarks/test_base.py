"""``--base``: ours at two commits, on a repository made up of this package's own sources."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("rich")

from benchmark_cases import PEAKS, only

import inpaint_ops
from inpaint_ops.benchmarks import base, main
from inpaint_ops.benchmarks.harness.case import Unavailable, load
from inpaint_ops.ops import native

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")

PACKAGE = Path(inpaint_ops.__file__).parent
SOURCES = {"inpaint_ops": PACKAGE, "kernels": base.ROOT / "kernels", "models": base.ROOT / "models"}


def _git(folder, *arguments):
    identity = ("-c", "user.name=x", "-c", "user.email=x@x", "-c", "commit.gpgsign=false")
    subprocess.run(
        ["git", *identity, "-C", str(folder), *arguments], check=True, capture_output=True
    )


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository whose tag "old" multiplies the shifted features by two."""
    root = tmp_path / "repository"
    for name, source in SOURCES.items():
        if not source.is_dir():
            pytest.skip("not in the tree of the sources")
        wanted = shutil.ignore_patterns("*.so", "__pycache__", "page", "measured")
        shutil.copytree(source, root / name, ignore=wanted)
    layer = root / "inpaint_ops" / "layers" / "shift_connection.py"
    good = layer.read_text()
    layer.write_text(
        good + "\n\n_forward = ShiftConnection.forward\n\n\n"
        "def _doubled(self, x, hole):\n"
        "    y, index = _forward(self, x, hole)\n"
        "    return 2 * y, index\n\n\n"
        "ShiftConnection.forward = _doubled\n"
    )
    _git(root.parent, "init", "-q", str(root))
    _git(root, "add", "-A")
    _git(root, "commit", "-q", "-m", "old")
    _git(root, "tag", "old")
    layer.write_text(good)
    _git(root, "commit", "-q", "-a", "-m", "new")
    _git(root, "tag", "new")
    monkeypatch.setattr(base, "ROOT", root)
    return root


def _stand_in(builds):
    def build(tree):
        builds.append(tree)
        for extension in PACKAGE.glob("_C*.so"):
            shutil.copy2(extension, tree / "inpaint_ops")

    return build


@pytest.mark.skipif(not native.status().available, reason="needs the extension")
def test_two_commits_take_turns(repository, monkeypatch, tmp_path, capsys):
    builds = []
    monkeypatch.setattr(base, "build", _stand_in(builds))
    monkeypatch.setattr(main.machine, "measure_peaks", lambda *_, **__: PEAKS[1])
    case = next(c for c in load("shift_connection").CASES if c.id == "forward-n1-c128-16x16")
    only(monkeypatch, "shift_connection", (case,))
    arguments = ["--ops", "shift_connection", "--threads", "1", "--seconds", "0.01"]
    found = {}
    for ref in ("new", "old"):
        out = tmp_path / ref
        assert main.run([*arguments, "--base", ref, "--out", str(out)]) == 0
        (result,) = json.loads((out / "benchmark.json").read_text())["results"]
        found[ref] = result
        assert result["contestants"]["ours"]["status"] == "ok"
    assert found["new"]["contestants"]["base"]["status"] == "ok"
    ratio = found["new"]["ours_faster_than"]["base"]
    assert ratio["by_medians"] > 0
    assert ratio["by_minima"] > 0
    assert "vs base (minima)" in (tmp_path / "new" / "benchmark.html").read_text()
    # The other commit's code ran: its judge is this tree's.
    entry = found["old"]["contestants"]["base"]
    assert entry["status"] == "missing"
    assert entry["detail"].startswith("its result is refused")
    # Built once each, and nothing is left of the trees.
    assert len(builds) == 2
    assert not any(tree.exists() for tree in builds)
    assert "vs base (minima)" in capsys.readouterr().out
    with base.built("old"):
        assert len(builds) == 2, "the extension is kept"


def test_no_such_commit(repository, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(main.machine, "measure_peaks", lambda *_, **__: PEAKS[1])
    with pytest.raises(Unavailable, match="no commit"), base.built("nowhere"):
        pass
    assert main.run(["--quick", "--base", "nowhere", "--out", str(tmp_path)]) == 2
    assert "--base" in capsys.readouterr().out


def test_a_tree_that_cannot_be_built_is_removed(repository):
    # It has no setup.py.
    with pytest.raises(Unavailable, match="it cannot be built"), base.built("new"):
        pass
    trees = subprocess.run(
        ["git", "-C", str(repository), "worktree", "list"], capture_output=True, text=True
    )
    assert len(trees.stdout.splitlines()) == 1


def test_away_from_a_checkout(monkeypatch, tmp_path):
    monkeypatch.setattr(base, "ROOT", tmp_path)
    with pytest.raises(Unavailable, match="--base: git rev-parse"), base.built("HEAD"):
        pass
