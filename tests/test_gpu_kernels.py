"""GPU kernels without a GPU: what is missing is named, the compile budget is read right."""

import json
import subprocess
import sys

import pytest
import torch

from inpaint_ops import _extension, _triton
from inpaint_ops.benchmarks import gpu_compile
from inpaint_ops.benchmarks.gpu_compile import Measured
from inpaint_ops.kernels import launch, tune


def test_import_never_imports_triton():
    code = "import sys, inpaint_ops, inpaint_ops.cli; print('triton' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.parametrize(
    ("version", "text"),
    [(None, "triton is not installed"), ("3.1.0", "triton 3.1.0 is too old, 3.6 or newer")],
)
def test_a_missing_triton_is_named(monkeypatch, version, text):
    if version is None:
        monkeypatch.setattr(_triton.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(_triton.metadata, "version", lambda name: version)
    with pytest.raises(RuntimeError, match=f"gated_conv2d: the GPU kernel cannot run: {text}"):
        _triton.kernels("gated_conv2d")
    assert text in _triton.status()
    served = _extension.backends()
    assert served["refine_patch"]["cuda"] == "reference"


def test_tuning_needs_a_gpu(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert tune.main(["--out", "nowhere.json"]) == 2
    assert "cannot measure: there is no CUDA or ROCm device" in capsys.readouterr().err


def test_tuned_rows_replace_the_heuristic(tmp_path, monkeypatch):
    kernel = next(k for k in tune.load_all() if k.name == "conv_epilogue:_conv_epilogue_fwd_kernel")
    device = torch.device("cpu")
    assert launch.tuned(kernel, "key", device, "half") == "half"
    table = {"sm_80": {kernel.name: {"key": "half-odd", "old": "no-such-row"}}}
    path = tmp_path / "tuned.json"
    path.write_text(json.dumps(table))
    monkeypatch.setenv("INPAINT_OPS_TUNED", str(path))
    assert launch.tuned(kernel, "key", device, "half") == "half-odd"
    assert launch.tuned(kernel, "old", device, "half") == "half"
    assert launch.tuned(kernel, "other", device, "half") == "half"


def test_architectures():
    names = {(8, 0): "sm_80", (8, 7): "sm_86", (8, 9): "sm_89", (9, 0): "sm_90"}
    names |= {(10, 3): "sm_100", (11, 0): "sm_100", (12, 1): "sm_120", (13, 0): "sm_120"}
    assert {key: launch.closest_architecture(*key) for key in names} == names
    with pytest.raises(RuntimeError, match=r"need compute capability 8\.0 or newer.* has 7\.5"):
        launch.closest_architecture(7, 5)


def test_one_row_compiles_within_its_budget(tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    kernel = next(k for k in tune.load_all() if k.name == "conv_epilogue:_conv_epilogue_fwd_kernel")
    row = kernel.rows[0]
    got = gpu_compile.measure(
        kernel.function.__module__, kernel.function.__name__, row.name, "sm_90"
    )
    assert gpu_compile.violations(row, "sm_90", got) == []
    assert got.wide >= 1
    assert 16 <= got.registers <= 255
    assert got.instructions > 100


def test_violations_are_told():
    row = launch.Row("r", "half", {}, dot=True, wide=("x_ptr",), occupancy=16)
    bad = Measured(255, 12, 200 * 1024, 900, 0, 0, 4, 8)
    told = gpu_compile.violations(row, "sm_80", bad)
    assert told == [
        "12 spills",
        "204800 bytes shared of 166912",
        "no matrix instruction",
        "0 wide loads for 1 operands",
        "4 asynchronous copies under 16 bytes",
        "8 warps fit, 16 planned",
    ]
    good = Measured(64, 0, 1024, 900, 8, 1, 0, 16)
    assert gpu_compile.violations(row, "sm_80", good) == []
    assert gpu_compile.growth(None, good) == ("new", True)
    before = {**vars(good), "registers": 60, "instructions": 700}
    assert gpu_compile.growth(before, good) == ("registers 60->64, instructions 700->900", True)
    assert gpu_compile.growth(vars(good), good) == ("", False)


def test_every_kernel_has_a_table():
    kernels = tune.load_all()
    assert len({k.name for k in kernels}) == len(kernels) >= 2
    for kernel in kernels:
        names = kernel.function.arg_names
        for row in kernel.rows:
            assert set(names) == {*kernel.types, *row.constexprs, *kernel.free}
