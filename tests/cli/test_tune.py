"""``inpaint-ops tune``: what it prints, keeps and forgets."""

import pytest
from click.testing import CliRunner

from inpaint_ops.cli.commands import cli
from inpaint_ops.ops import native
from inpaint_ops.ops.convolution import costs, tuning
from inpaint_ops.ops.convolution.tuning import Layer

pytestmark = pytest.mark.skipif(not native.status().available, reason="measures the extension")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(tuning, "LAYERS", (Layer(16, 16, 3, 1, 12), Layer(16, 16, 3, 2, 8)))
    yield tmp_path / "inpaint_ops"
    tuning.choose_anew()


def run(*arguments):
    return CliRunner().invoke(cli, ["tune", *arguments])


def test_a_tiny_list():
    result = run("--rounds", "1")
    assert result.exit_code == 0
    assert native.extension().instruction_set() in result.output
    assert "predicted times are off" in result.output


@pytest.mark.parametrize("dry", [False, True])
def test_what_is_measured_is_kept_unless_it_is_a_trial(dry, folder, monkeypatch):
    name = native.extension().instruction_set()
    prices = tuple(2 * cost for cost in native.extension().measured_costs(name))
    choice = tuning.Choice(tuning.LAYERS[0], "direct", "winograd_4x3", (2.0, 1.0))
    outcome = tuning.Outcome(prices, [choice], (0.5, 0.1))
    monkeypatch.setattr(tuning, "tune", lambda *_, **__: outcome)
    result = run(*(["--dry-run"] if dry else []))
    assert result.exit_code == 0, result.output
    line = "3x3, 16 to 16, 12x12: winograd_4x3 for direct, 2.00 times as fast"
    assert line in result.output
    assert costs.file_of(name).exists() != dry
    assert ("nothing is kept" in result.output) == dry
    if not dry:
        assert f"kept in {costs.file_of(name)}" in result.output
        # The environment of the tests switches it off.
        assert "ignored while INPAINT_OPS_CPU_COSTS says so" in result.output
        assert "deleted" in run("--forget").output
    assert not costs.file_of(name).exists()
    assert "there is no" in run("--forget").output


def test_a_tuning_that_gains_nothing_forgets_an_earlier_one(folder, monkeypatch):
    name = native.extension().instruction_set()
    costs.store(native.extension().measured_costs(name), name)
    monkeypatch.setattr(tuning, "tune", lambda *_, **__: tuning.Outcome(None, [], (0.5, 0.5)))
    assert "the table stays" in run().output
    assert not costs.file_of(name).exists()


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path, monkeypatch):
    name = native.extension().instruction_set()
    prices = tuple(native.extension().measured_costs(name))
    monkeypatch.setattr(tuning, "tune", lambda *_, **__: tuning.Outcome(prices, [], (0.5, 0.5)))
    (tmp_path / "taken").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "taken"))
    result = run()
    assert result.exit_code == 1
    assert "is no folder" in result.output
