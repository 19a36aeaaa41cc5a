"""Configurations: TOML in and out."""

import pytest

from inpaint_ops.training import Config, read_config
from inpaint_ops.training.values import read_toml, toml_text

TOML = """
batch = 4
ema = 0

[model]
base_channels = 8

[data]
path = "photos"
size = [64, 96]

[phases.joint]
learning_rate = 2e-4
"""


def test_files_settings_and_arguments_follow_each_other(tmp_path):
    file = tmp_path / "run.toml"
    file.write_text(TOML)
    config = read_config(
        "deepfill_v2",
        file,
        ("batch=8", "data.path=other", "phases.joint.l1=2", "sequence=['joint']"),
        **{"data.path": "third"},
    )
    assert config.batch == 8
    assert config.ema == 0.0
    assert config.data.path == "third"
    assert config.data.size == (64, 96)
    assert config.sequence == ("joint",)
    assert config.phases == {"joint": {"learning_rate": 2e-4, "l1": 2}}
    file.write_text(toml_text(config.values()))
    assert read_config("deepfill_v2", file) == config
    with pytest.raises(ValueError, match="is for deepfill_v2, but gmcnn is to be trained"):
        read_config("gmcnn", file)


def test_a_file_that_is_no_toml_is_an_error(tmp_path):
    file = tmp_path / "run.toml"
    file.write_text("batch =")
    with pytest.raises(ValueError, match=r"run\.toml: is no TOML: "):
        read_config("deepfill_v2", file)


def test_written_values_are_read_again(tmp_path):
    values = {
        "text": 'a "b" \\ \n ü \x7f',
        "numbers": [1, -2.5, 1e-5, float("inf")],
        "yes": True,
        "empty": [],
        "table": {"inner": {"x": 1}, "none": {}},
    }
    file = tmp_path / "written.toml"
    file.write_text(toml_text(values), encoding="utf-8")
    assert read_toml(file) == values


def test_defaults_are_written_too(tmp_path):
    file = tmp_path / "written.toml"
    file.write_text(toml_text(Config("deepfill_v2").values()))
    assert read_toml(file) == read_config("deepfill_v2").values()
    assert read_config("deepfill_v2", file) == Config("deepfill_v2")
