"""Tables of measured choices on disk: where they are, what is passed over, who writes them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from inpaint_ops.benchmarks.cases.conv_layers import Layer
from inpaint_ops.kernels import plans, tables, tune

CPU = torch.device("cpu")
FUSED = {"row": "plain-odd", "choice": "fused"}
LIBRARY = {"row": "plain-odd", "choice": "library"}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    for name in ("INPAINT_OPS_TUNED", "INPAINT_OPS_TUNE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("INPAINT_OPS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(tables, "_SHIPPED", tmp_path / "shipped")
    plans.forget()
    yield tmp_path / "cache"
    plans.forget()


def shipped(folder, name, device="interpreter", architecture="sm_80", **entries):
    folder.mkdir(exist_ok=True)
    head = {"format": tables.FORMAT, "device": device, "architecture": architecture}
    table = {**head, "versions": {"torch": "of long ago"}, "convolutions": entries}
    (folder / f"{name}.json").write_text(json.dumps(table))


def test_what_is_stored_is_found_at_the_next_start(cache):
    path = tables.cache_file(CPU)
    assert path.parent == cache
    assert tables.find(["a"], CPU) is None
    tables.store(path, CPU, {"a": FUSED})
    tables.store(path, CPU, {"b": LIBRARY})
    assert tables.find(["a"], CPU) is None  # it was read before
    tables.forget()
    assert tables.find(["a"], CPU) == FUSED
    assert tables.find(["c", "b"], CPU) == LIBRARY


def test_the_folder_is_the_users(monkeypatch, tmp_path):
    monkeypatch.delenv("INPAINT_OPS_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert tables.cache_folder() == tmp_path / ".cache" / "inpaint_ops"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert tables.cache_folder() == tmp_path / ".cache" / "inpaint_ops"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert tables.cache_folder() == tmp_path / "xdg" / "inpaint_ops"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(tables.os.path, "expanduser", lambda path: path)
    assert tables.find(["a"], CPU) is None
    with pytest.raises(OSError, match="no folder"):
        tables.store(tables.cache_file(CPU), CPU, {"a": FUSED})


@pytest.mark.parametrize("what", ["torch", "triton", "kernels"])
def test_tables_of_other_versions_are_passed_over(monkeypatch, what):
    before = tables.cache_file(CPU)
    tables.store(before, CPU, {"a": FUSED})
    changed = {**tables.versions(), what: "newer"}
    monkeypatch.setattr(tables, "versions", lambda: changed)
    tables.forget()
    path = tables.cache_file(CPU)
    assert path != before
    assert tables.find(["a"], CPU) is None
    # Even under the name of the right versions, and it is not added to.
    before.rename(path)
    tables.forget()
    assert tables.find(["a"], CPU) is None
    tables.store(path, CPU, {"b": FUSED})
    tables.forget()
    assert tables.find(["a"], CPU) is None
    assert tables.find(["b"], CPU) == FUSED


BROKEN = {
    "empty": "",
    "cut": '{"format": 1, "device',
    "a-list": "[]",
    "older": json.dumps({"format": 0}),
    "headless": json.dumps({"format": tables.FORMAT}),
    "no-entry": json.dumps(
        {
            **{"format": tables.FORMAT, "device": "interpreter", "architecture": "sm_80"},
            **{"versions": {}, "convolutions": {"a": {"row": 3}}},
        }
    ),
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("place", ["cache", "named", "shipped"])
def test_a_broken_table_is_named(monkeypatch, tmp_path, name, place):
    path = tables.cache_file(CPU) if place == "cache" else tmp_path / "shipped" / "a.json"
    path.parent.mkdir()
    path.write_text(BROKEN[name])
    if place == "named":
        monkeypatch.setenv("INPAINT_OPS_TUNED", str(path))
    with pytest.raises(ValueError, match=rf"{path.name}: must be a table of measured"):
        tables.find(["a"], CPU)
    if place == "cache":
        with pytest.raises(ValueError, match=path.name):
            tables.store(path, CPU, {"a": FUSED})
        assert path.read_text() == BROKEN[name]


def test_the_users_table_goes_before_those_shipped(monkeypatch, tmp_path):
    folder = tmp_path / "shipped"
    own = {"own": LIBRARY, "mine": LIBRARY}
    shipped(folder, "z", **own, here=FUSED)
    shipped(folder, "a", device="a sister", own=FUSED, here=LIBRARY, there=LIBRARY)
    shipped(folder, "b", architecture="sm_90", elsewhere=FUSED)
    tables.store(tables.cache_file(CPU), CPU, {"mine": FUSED})
    found = {key: tables.find([key], CPU) for key in ("mine", "own", "here", "there", "elsewhere")}
    assert found == {
        "mine": FUSED,
        "own": LIBRARY,
        "here": FUSED,
        "there": LIBRARY,
        "elsewhere": None,
    }
    # A file that is named is the only one, and none is none.
    shipped(tmp_path, "named", mine=LIBRARY)
    monkeypatch.setenv("INPAINT_OPS_TUNED", str(tmp_path / "named.json"))
    assert tables.find(["mine"], CPU) == LIBRARY
    assert tables.find(["own"], CPU) is None
    monkeypatch.setenv("INPAINT_OPS_TUNED", str(folder / "b.json"))
    assert tables.find(["elsewhere"], CPU) is None  # of another architecture
    monkeypatch.setenv("INPAINT_OPS_TUNED", "off")
    assert tables.find(["mine"], CPU) is None
    monkeypatch.setenv("INPAINT_OPS_TUNED", str(tmp_path / "missing.json"))
    with pytest.raises(ValueError, match=r"missing\.json: must be a table"):
        tables.find(["mine"], CPU)


def test_shipped_tables_are_whole():
    for file in Path(tables.__file__).with_name("measured").glob("*.json"):
        assert tables.read(file)["convolutions"]


WRITER = """
import sys, torch
from inpaint_ops.kernels import tables
cpu, first = torch.device("cpu"), int(sys.argv[1])
for number in range(first, first + 30):
    entry = {str(number): {"row": "plain-odd", "choice": "fused"}}
    tables.store(tables.cache_file(cpu), cpu, entry)
"""


def test_processes_that_write_together_keep_each_others_entries():
    path = tables.cache_file(CPU)
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(first)]) for first in (0, 30)]
    assert [one.wait() for one in writers] == [0, 0]
    assert set(tables.read(path)["convolutions"]) == {str(i) for i in range(60)}
    assert {file.name for file in path.parent.iterdir()} == {path.name, f".{path.name}.lock"}


@pytest.mark.parametrize("named", [True, False], ids=["named", "cache"])
def test_the_command_writes_the_users_table(named, monkeypatch, tmp_path, capsys):
    """A layer that has too little memory costs the others nothing."""
    layers = [Layer("test", "fused", 8, size, 8) for size in (8, 16, 24)]
    measured = {
        layer.id: {"keys": [layer.id, "class"], "times": {"plain-odd": 2.0}, "library": 1.0}
        for layer in layers[::2]
    }

    def times_of(layer, name, batch, settings):
        if layer.id not in measured:
            raise torch.OutOfMemoryError("CUDA out of memory, says a stand-in")
        assert (name, batch, settings.seconds) == ("bf16", 1, 0.5)
        return measured[layer.id]

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(tables, "chip_of", lambda device: tables.Chip("A chip of 2030", "sm_90"))
    monkeypatch.setattr(tune, "problems", lambda settings: [(one, "bf16", 1) for one in layers])
    monkeypatch.setattr(tune, "times_of", times_of)
    out = tmp_path / "chip.json"
    assert tune.main(["--seconds", "0.5", *(["--out", str(out)] if named else [])]) == 0
    path = out if named else tables.cache_file(torch.device("cuda", 0))
    assert f"written: {path}" in capsys.readouterr().out
    assert named or path.name.startswith("convolutions-a_chip_of_2030-sm_90-")
    wanted = dict.fromkeys([*measured, "class"], LIBRARY)
    assert tables.read(path)["convolutions"] == wanted
    if named:
        monkeypatch.setenv("INPAINT_OPS_TUNED", str(out))
    assert tables.find(["class"], torch.device("cuda", 0)) == LIBRARY
