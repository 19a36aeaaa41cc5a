"""The targets of the Makefile: each installs what it needs, and no more."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


def planned(target, venv):
    """What make would run."""
    command = ["make", "-n", target, f"VENV={venv}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout


def test_demo_alone_installs_the_demo_for_this_machine(tmp_path):
    text = planned("demo", tmp_path)
    assert '-e ".[demo]"' in text
    assert "TEST_BUILD" not in text
    rules = (ROOT / "Makefile").read_text()
    assert "$(DEMO_INSTALLED): export INPAINT_OPS_NATIVE_BUILD = 1" in rules
    assert "[dev]" not in text
    assert text.index("pip install") < text.index("inpaint_ops.benchmarks.demo")


@pytest.mark.parametrize("target", ["test", "lint", "bench", "gpu-compile"])
@pytest.mark.parametrize("after_demo", [False, True])
def test_other_targets_install_everything(target, after_demo, tmp_path):
    if after_demo:
        (tmp_path / ".installed_demo").touch()
    text = planned(target, tmp_path)
    assert "INPAINT_OPS_TEST_BUILD=1" in text
    assert '-e ".[dev]"' in text


def test_demo_after_everything_installs_nothing(tmp_path):
    (tmp_path / ".installed").touch()
    assert "pip install" not in planned("demo", tmp_path)


def test_clean_lets_everything_be_installed_again(tmp_path):
    text = planned("clean", tmp_path)
    assert "inpaint_ops/_C" in text
    for stamp in (".installed", ".installed_demo"):
        assert f"{tmp_path}/{stamp}" in text.split()


def test_lint_links_every_part_of_the_package(tmp_path):
    (link,) = [line for line in planned("lint", tmp_path).splitlines() if line.startswith("ln -s")]
    for folder in ("kernels", "models", "benchmarks", "inpaint_ops/ops", "inpaint_ops/__init__.py"):
        assert f" ../../../{folder} " in link
    assert ".so" not in link
