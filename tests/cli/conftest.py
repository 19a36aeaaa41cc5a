"""Fixtures of the tests of the command line."""

import pytest
from click.testing import CliRunner
from command_line import HOLE, RGB, StubFiller, write

from inpaint_ops.cli import commands, fillers


@pytest.fixture
def filler(monkeypatch):
    stub = StubFiller()
    monkeypatch.setitem(fillers.FILLERS, "exemplar", lambda: stub)
    return stub


@pytest.fixture
def run(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        return CliRunner().invoke(commands.cli, [str(argument) for argument in arguments])

    return call


@pytest.fixture
def pair(tmp_path):
    return write(tmp_path / "photo.png", RGB), write(tmp_path / "hole.png", HOLE)


@pytest.fixture
def folders(tmp_path):
    for name in ("a", "b", "c"):
        write(tmp_path / "photos" / f"{name}.png", RGB)
        write(tmp_path / "holes" / f"{name}.png", HOLE)
    return tmp_path
