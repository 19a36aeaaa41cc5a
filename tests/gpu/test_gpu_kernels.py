"""GPU kernels without a GPU: what is missing is named, the compile budget is read right."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

import inpaint_ops
from inpaint_ops import doctor
from inpaint_ops.benchmarks.cases import conv_layers
from inpaint_ops.benchmarks.gpu import compile, loops, roofline
from inpaint_ops.benchmarks.gpu.compile import Measured
from inpaint_ops.kernels import launch, plans, tune
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
    assert tune.main([]) == 2
    assert "cannot measure: there is no CUDA or ROCm device" in capsys.readouterr().err


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


def test_no_main_loop_waits_more_than_twice():
    """Sums over rows that only the end needs are formed after the loop, not in every step."""
    stored = json.loads(compile.STORED.read_text())
    waiting = {
        (arch, label): row["barriers"]
        for arch in compile.EVERY
        for label, row in stored[arch].items()
        if row["barriers"] > 2
    }
    # Each of the three TF32 products that stand for one of float32 goes to sm_100 by way of shared
    # memory, and is waited for.
    assert waiting == {
        ("sm_100", "contextual_attention_score fp32"): 11,
        ("sm_100", "search fp32"): 11,
    }


LAYERS = conv_layers.all_layers()


@pytest.mark.parametrize("dtype", ["bf16", "tf32", "fp32"])
def test_every_layer_of_the_models_has_a_row(dtype):
    """On every architecture; its blocks divide what the row takes for granted."""
    for layer in LAYERS:
        problem = roofline.problem_of(layer, dtype, 1)
        for arch in launch.ARCHITECTURES:
            name = fused.pick_row(problem, arch)
            assert name in fused.rows_of(problem, arch)
            row = CONV.row(name, arch)
            assert layer.out % row.constexprs["UNIT"] == 0
            assert row.dtype == ("half" if dtype == "bf16" else "fp32")
            assert row.constexprs["GATED"] == (layer.op == "gated")
            assert row.constexprs["MASKED"] == (layer.op == "partial")


def _chosen(arch, dtype, layers):
    problems = {layer.id: roofline.problem_of(layer, dtype, 16) for layer in layers}
    return {name for name, problem in problems.items() if choose.predicted(problem, arch)}


def test_the_fused_kernel_takes_shallow_layers_and_cudnn_deep_ones():
    layers = [layer for layer in LAYERS if layer.method == "deepfill_v2" and layer.op == "gated"]
    on_h100 = _chosen("sm_90", "bf16", layers)
    rest = {layer.id for layer in layers} - on_h100
    assert "gated-5-24-512x512-k5-elu" in on_h100
    assert "gated-48-48-256x256-k3-elu" in on_h100
    assert "gated-96-48-128x128-k3-up2-elu" in on_h100
    assert "gated-96-96-128x128-k3-elu" in rest
    assert "gated-192-96-128x128-k3-elu" in rest
    on_a100 = _chosen("sm_80", "bf16", layers)
    assert on_h100 - on_a100 == {
        "gated-48-48-256x256-k3-elu",
        "gated-48-96-256x256-k3-s2-elu",
        "gated-48-96-128x128-k3-elu",
        "gated-48-48-256x256-k3-s2-elu",
    }
    # TF32 has small blocks only; without matrix units nothing makes up for the products.
    assert _chosen("sm_90", "tf32", layers) == {
        "gated-3-24-512x512-k5-elu",
        "gated-48-24-256x256-k3-up2-elu",
    }
    assert _chosen("sm_90", "fp32", layers) == set()
    few = [layer for layer in LAYERS if layer.out <= 4 and layer.op == "fused"]
    shallow = {layer.id for layer in few if layer.kernel**2 * layer.channels <= 1728}
    assert _chosen("sm_90", "bf16", few) == shallow
    assert len(shallow) >= 3


@pytest.mark.parametrize("device", roofline.DEVICES, ids=lambda one: one.name)
@pytest.mark.parametrize("dtype", roofline.DTYPES)
def test_the_rule_follows_the_roofline(device, dtype):
    """A kernel that changes changes the depths up to which it is the faster one."""
    found = [roofline.predict(layer, device, dtype, batch) for layer in LAYERS for batch in (1, 16)]
    # With one image for each of the sixteen: both count the same.
    weights = [16 // one.batch for one in found]
    best = sum(w * min(one.library, one.fused) for w, one in zip(weights, found))
    ours = sum(w * one.ours for w, one in zip(weights, found))
    library = sum(w * one.library for w, one in zip(weights, found))
    assert ours < 1.1 * best
    assert ours < 1.01 * library


def test_the_roofline_knows_tf32():
    """Its products take the rows of TF32, float32 proper those without matrix units."""
    layer = LAYERS[0]
    kinds = {dtype: roofline.problem_of(layer, dtype, 1) for dtype in roofline.DTYPES}
    assert {dtype: one.precision for dtype, one in kinds.items()} == {
        "bf16": "half",
        "tf32": "tf32",
        "fp32": "ieee",
    }
    assert kinds["bf16"].depth == 25 * 8
    assert kinds["tf32"].depth == 25 * 8  # five channels are two times four
    device = roofline.DEVICES[0]
    half, tf32, fp32 = (
        roofline.predict(layer, device, dtype, 16).fused for dtype in roofline.DTYPES
    )
    assert half < tf32 < fp32


def test_what_bounds_a_loop():
    chip = roofline.DEVICES[0].chip("bf16")
    figures = loops.budget()
    deep = fused.Problem("gated", "half", 2**20, 64, 64 * 64, fused.Reading((3, 3)))
    one = loops.loop(deep, "gated-large", chip)
    assert one.seconds == max(one.instructions, one.matrix, one.cache)
    # Twice the pixels take twice as long, and a mirrored image more instructions.
    twice = loops.loop(deep._replace(pixels=2**21), "gated-large", chip)
    assert twice.matrix == pytest.approx(2 * one.matrix, rel=0.01)
    mirrored = fused.Reading((3, 3), padding_mode="reflect")
    assert loops.loop(deep._replace(reading=mirrored), "gated-large", chip).instructions > (
        1.3 * one.instructions
    )
    slots = figures["sm_80"]["conv_fwd gated-large common"]["slots"]
    slower = {"sm_80": {**figures["sm_80"]}}
    slower["sm_80"]["conv_fwd gated-large common"] = {
        **figures["sm_80"]["conv_fwd gated-large common"],
        "slots": 10 * slots,
    }
    assert loops.loop(deep, "gated-large", chip, figures=slower).bound == "instructions"
    assert loops.loop(deep, "gated-large", chip, reused=3.0).cache < one.cache


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
    assert roofline.main(["--batch", "1", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert printed.count("PREDICTED from data sheets, not measured") == len(roofline.DEVICES)
    content = json.loads((tmp_path / "gpu_roofline.json").read_text())
    assert content["predicted"] is True
    assert printed.count("deepfill_v2, stage 1, 17 layers") == len(roofline.DEVICES)
    rows = content["layers"]
    count = len(roofline.all_layers()) + len(roofline.MATCHINGS)
    assert len(rows) == len(roofline.DEVICES) * count
    for row in rows:
        assert 0 < row["floor"] < row["ours"]
        assert row["floor"] < row["compiled"] <= row["eager"]
        assert row["ours_bytes"] <= row["compiled_bytes"] <= row["eager_bytes"]
    with pytest.raises(SystemExit):
        roofline.main(["--batch", "0"])
