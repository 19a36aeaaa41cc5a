"""GPU kernels without a GPU: what is missing is named, the compile budget is read right."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

import inpaint_ops
from inpaint_ops.benchmarks.cases import conv_layers
from inpaint_ops.benchmarks.gpu import compile, tune
from inpaint_ops.benchmarks.gpu.compile import Measured
from inpaint_ops.cli import doctor
from inpaint_ops.kernels import launch, plans
from inpaint_ops.kernels.convolution import choose, fused
from inpaint_ops.kernels.convolution.fused_kernel import CONV
from inpaint_ops.ops import triton


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
        monkeypatch.setattr(triton.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(triton.metadata, "version", lambda name: version)
    triton.kernels.cache_clear()
    with pytest.raises(RuntimeError, match=f"gated_conv2d: the GPU kernel cannot run: {text}"):
        triton.kernels("gated_conv2d")
    assert text in triton.status()
    served = doctor.backends()
    assert served["refine_patch"]["cuda"] == "reference"


def test_tuning_needs_a_gpu(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert tune.main(["--out", "nowhere.json"]) == 2
    assert "cannot measure: there is no CUDA or ROCm device" in capsys.readouterr().err


def test_tuned_rows_replace_the_heuristic(tmp_path, monkeypatch):
    kernel = next(k for k in launch.all_kernels() if k.name == "conv_epilogue_fwd")
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
    kernel = next(k for k in launch.all_kernels() if k.name == "conv_epilogue_fwd")
    row = kernel.rows[0]
    got = compile.measure(kernel.name, row.name, "sm_90")
    assert compile.violations(row, "sm_90", got) == []
    assert got.vector_loads >= 1
    assert 16 <= got.registers <= 255
    assert got.instructions > 100


def test_violations_are_told():
    row = launch.Row("r", "half", {}, dot=True, vectors=("x_ptr",), occupancy=16)
    bad = Measured(255, 12, 200 * 1024, 900, 0, 0, 4, 8, 300, 256)
    told = compile.violations(row, "sm_80", bad)
    assert told == [
        "12 spills",
        "204800 bytes shared of 166912",
        "no matrix instruction",
        "0 loads of 16 bytes for 1 operands",
        "4 asynchronous copies under 16 bytes",
        "8 warps fit, 16 planned",
        "300 instructions a step for 256 cycles of products",
    ]
    assert told[:-1] == compile.violations(replace(row, paced=False), "sm_80", bad)
    assert told[:-1] == compile.violations(row, "sm_80", bad, paced=False)
    good = Measured(64, 0, 1024, 900, 8, 1, 0, 16)
    assert compile.violations(row, "sm_80", good) == []
    assert compile.growth(None, good) == ("new", True)
    before = {**vars(good), "registers": 60, "instructions": 700}
    assert compile.growth(before, good) == ("registers 60->64, instructions 700->900", True)
    assert compile.growth(vars(good), good) == ("", False)


def test_every_kernel_has_a_table():
    kernels = launch.all_kernels()
    assert len({k.name for k in kernels}) == len(kernels) >= 2
    for kernel in kernels:
        names = kernel.function.arg_names
        for row in kernel.rows:
            assert set(names) == {*kernel.types, *row.constexprs, *kernel.free}


@pytest.mark.parametrize("release", ["3.6", "3.7"])
def test_every_row_has_a_stored_budget_and_no_other(release):
    stored = json.loads(compile.stored_for(release).read_text())
    assert stored["triton"].startswith(f"{release}.")
    for arch in compile.EVERY:
        assert {compile.label(task) for task in compile.tasks([arch])} == set(stored[arch])


LAYERS = conv_layers.all_layers()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_every_layer_of_the_models_has_a_row(dtype):
    """On every architecture; its blocks divide what the row takes for granted."""
    for layer in LAYERS:
        kind = {"gated": "gated", "partial": "partial"}.get(layer.op, "plain")
        x = torch.empty(1, 8, 1, 1, dtype=dtype)
        depth = layer.kernel**2 * layer.channels
        name = fused.pick_row(kind, x, layer.out_size**2, layer.out, depth)
        for arch in launch.ARCHITECTURES:
            row = CONV.row(name, arch)
            assert layer.out % row.constexprs["UNIT"] == 0
            assert row.dtype == launch.dtype_class(dtype)
            assert row.constexprs["GATED"] == (kind == "gated")
            assert row.constexprs["MASKED"] == (kind == "partial")


def _chosen(arch, dtype, layers):
    fused = set()
    for layer in layers:
        depth = layer.kernel**2 * layer.channels
        depth = depth * 4 // 9 if layer.upsample == 2 and layer.kernel == 3 else depth
        if choose.fuses(
            torch.empty(1, 8, 1, 1, dtype=dtype),
            depth=depth,
            outputs=layer.out,
            pixels=16 * layer.out_size**2,
            saves=layer.upsample == 2,
            arch=arch,
        ):
            fused.add(layer.id)
    return fused


def test_the_fused_kernel_takes_shallow_layers_and_cudnn_deep_ones(monkeypatch):
    monkeypatch.delenv("INPAINT_OPS_CONV", raising=False)
    layers = [layer for layer in LAYERS if layer.method == "deepfill_v2" and layer.op == "gated"]
    on_h100 = _chosen("sm_90", torch.bfloat16, layers)
    rest = {layer.id for layer in layers} - on_h100
    assert "gated-5-24-512x512-k5-elu" in on_h100
    assert "gated-48-48-256x256-k3-elu" in on_h100
    assert "gated-96-48-128x128-k3-up2-elu" in on_h100
    assert "gated-96-96-128x128-k3-elu" in rest
    assert "gated-192-96-128x128-k3-elu" in rest
    on_a100 = _chosen("sm_80", torch.bfloat16, layers)
    assert on_h100 - on_a100 == {
        "gated-48-48-256x256-k3-elu",
        "gated-48-96-256x256-k3-s2-elu",
        "gated-48-96-128x128-k3-elu",
        "gated-48-48-256x256-k3-s2-elu",
    }
    assert _chosen("sm_90", torch.float32, layers) == on_h100  # in TF32
    # Without matrix units the library multiplies, few filters excepted.
    monkeypatch.setattr(choose, "tf32_convolutions", lambda: False)
    assert _chosen("sm_90", torch.float32, layers) == set()
    few = [layer for layer in LAYERS if layer.out <= 4 and layer.op == "fused"]
    shallow = {layer.id for layer in few if layer.kernel**2 * layer.channels <= 1728}
    assert _chosen("sm_90", torch.float32, few) == shallow
    assert len(shallow) >= 3


def test_the_choice_can_be_forced(monkeypatch):
    layers = LAYERS[:4]
    monkeypatch.setenv("INPAINT_OPS_CONV", "fused")
    assert len(_chosen("sm_90", torch.float32, layers)) == 4
    monkeypatch.setenv("INPAINT_OPS_CONV", "library")
    assert _chosen("sm_90", torch.bfloat16, layers) == set()
    monkeypatch.setenv("INPAINT_OPS_CONV", "cudnn")
    with pytest.raises(ValueError, match="must be auto, fused or library, got 'cudnn'"):
        _chosen("sm_90", torch.bfloat16, layers)


def test_tf32_is_as_torch_says():
    """Convolutions and matrix products each have a switch of torch's own."""
    matmul, conv = torch.get_float32_matmul_precision(), torch.backends.cudnn.conv.fp32_precision
    assert (plans.tf32_convolutions(), plans.tf32_products()) == (True, False)
    try:
        torch.set_float32_matmul_precision("high")
        assert plans.tf32_products()
        torch.backends.cudnn.conv.fp32_precision = "ieee"
        assert (plans.tf32_convolutions(), plans.tf32_products()) == (False, True)
    finally:
        torch.set_float32_matmul_precision(matmul)
        torch.backends.cudnn.conv.fp32_precision = conv


CONVOLUTIONS = ("gated_conv2d", "fused_conv2d", "fused_conv_transpose2d", "partial_conv2d")


@pytest.mark.parametrize("op", CONVOLUTIONS)
def test_convolutions_have_gpu_kernels_both_ways(op):
    for name in (op, f"{op}_backward"):
        assert torch._C._dispatch_has_kernel_for_dispatch_key(f"inpaint_ops::{name}", "CUDA")
    assert doctor.backends()[op]["cuda"] == "triton and cuDNN"


def test_cpu_tensors_need_the_interpreter():
    x, weight = torch.zeros(1, 2, 4, 4), torch.zeros(2, 2, 3, 3)
    with (
        inpaint_ops.backend("triton"),
        pytest.raises(RuntimeError, match="start the process with TRITON_INTERPRET=1"),
    ):
        inpaint_ops.fused_conv2d(x, weight)


def test_roofline_is_labelled_and_ordered(tmp_path, capsys):
    from inpaint_ops.benchmarks.gpu import roofline

    assert roofline.main(["--batch", "1", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert printed.count("PREDICTED from data sheets, not measured") == len(roofline.DEVICES)
    content = json.loads((tmp_path / "gpu_roofline.json").read_text())
    assert content["predicted"] is True
    rows = content["layers"]
    count = len(roofline.all_layers()) + len(roofline.MATCHINGS)
    assert len(rows) == len(roofline.DEVICES) * count
    for row in rows:
        assert 0 < row["floor"] < row["ours"]
        assert row["floor"] < row["compiled"] <= row["eager"]
        assert row["ours_bytes"] <= row["compiled_bytes"] <= row["eager_bytes"]
    with pytest.raises(SystemExit):
        roofline.main(["--batch", "0"])
