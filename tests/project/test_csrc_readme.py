"""csrc/README.md: every operator has a row, and every file and function it names is there."""

import re
from pathlib import Path

import pytest

from inpaint_ops.ops import dispatch

CSRC = Path(__file__).resolve().parents[2] / "csrc"

pytestmark = pytest.mark.skipif(not CSRC.is_dir(), reason="needs the sources")

PATH = r"`((?:base|convolution|matching|attention|norm|python)/\w+\.(?:h|cpp))`"


def readme() -> str:
    return (CSRC / "README.md").read_text(encoding="utf-8")


def test_named_files_exist():
    named = re.findall(PATH, readme())
    assert len(named) > 20
    assert [path for path in named if not (CSRC / path).is_file()] == []


def test_named_functions_stand_in_their_files():
    pairs = re.findall(PATH + r" `(\w+)`", readme())
    assert len(pairs) > 15
    for path, name in pairs:
        text = (CSRC / path).read_text(encoding="utf-8")
        assert re.search(rf"\b{name}\b", text), (path, name)


def test_every_operator_has_a_row():
    rows = set(re.findall(r"^\| `(\w+)` \|", readme(), re.M))
    operators = {name for name in dispatch.OPERATORS if not name.endswith("_backward")}
    assert operators - rows == set()


def test_every_folder_has_a_row():
    rows = set(re.findall(r"^\| `(\w+)/` \|", readme(), re.M))
    assert rows == {path.name for path in CSRC.iterdir() if path.is_dir()}
