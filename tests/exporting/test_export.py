"""Exported files: every method and layer beside itself, at several sizes; files and errors."""

import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from model_cases import CASES, initialise, picture, small
from torch import nn

import inpaint_ops
from inpaint_ops.exporting import onnx_file
from inpaint_ops.exporting.graph import OPSET
from inpaint_ops.models import create_model

# Standard deviations of weights with which the filled pixels differ, and few are 0 or 1.
SPREAD = {
    "deepfill_v1": 0.09,
    "deepfill_v2": 0.25,
    "glcic": 0.13,
    "partial_conv_unet": 0.06,
    "patch_gan": 0.09,
    "shift_net": 0.05,
}
# Largest difference between an exported graph and `complete`, in levels of [0, 1]: rounding, of
# sums in another order.
TOLERANCE = 1e-4
# Batches of picture and hole, height and width: none is that of the sample, nor a multiple of what
# networks take.
SIZES = [(2, 2, 76, 93), (3, 1, 41, 30)]
ROOT = str(Path(__file__).parents[2])


def model_of(name):
    model = small(name)
    if name in SPREAD:
        initialise(model, SPREAD[name])
    return model


def inputs(n, holes, height, width):
    """A picture with NaN in its holes, which differ in shape, and the holes."""
    image = picture(n, 3, height, width)
    hole = torch.zeros(holes, 1, height, width)
    for i in range(holes):
        hole[i, :, height // 4 : height // 2 + i, width // 3 - i : width // 2] = 1
    return torch.where(hole > 0, torch.nan, image), hole


def session(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def run(session, *tensors):
    feed = {one.name: value.numpy() for one, value in zip(session.get_inputs(), tensors)}
    return [torch.from_numpy(result) for result in session.run(None, feed)]


def check(result, model, image, hole):
    wanted = model.complete(image, hole)
    known = (hole == 0).expand_as(image)
    assert torch.equal(result[known], image[known])
    assert torch.isfinite(result).all()
    assert (result - wanted).abs().max() <= TOLERANCE
    # The test would see a graph that fills with one colour.
    assert wanted[~known].std() > 0.01


@pytest.mark.parametrize("name", CASES)
def test_methods_in_onnx_runtime(name, tmp_path):
    model = model_of(name).train()
    path = tmp_path / "model.onnx"
    inpaint_ops.export(model, path)
    assert model.training
    written = onnx.load(path)
    onnx.checker.check_model(written, full_check=True)
    assert [(one.domain, one.version) for one in written.opset_import] == [("", OPSET)]
    assert not written.functions
    assert ROOT.encode() not in path.read_bytes()
    running = session(path)
    names = ["image", "hole", *model.hint_names]
    assert [one.name for one in running.get_inputs()] == names
    assert running.get_inputs()[0].shape == ["batch", 3, "height", "width"]
    assert running.get_inputs()[1].shape == ["hole_batch", 1, "height", "width"]
    assert [one.name for one in running.get_outputs()] == ["picture"]
    for size in SIZES:
        image, hole = inputs(*size)
        check(run(running, image, hole, *model.hints(image, hole))[0], model, image, hole)


@pytest.mark.parametrize("name", CASES)
def test_methods_in_torch_export(name, tmp_path):
    model = model_of(name)
    path = tmp_path / "model.pt2"
    inpaint_ops.export(model, path)
    program = torch.export.load(path)
    assert any("inpaint_ops" in str(node.target) for node in program.graph.nodes)
    assert ROOT.encode() not in path.read_bytes()
    completed = program.module()
    for size in (*SIZES, (1, 1, 20, 33)):
        image, hole = inputs(*size)
        check(completed(image, hole, *model.hints(image, hole)), model, image, hole)


def test_a_picture_without_a_hole_stays_as_it_is(tmp_path):
    model = model_of("context_encoder")
    inpaint_ops.export(model, tmp_path / "model.onnx")
    image = picture(2, 3, 20, 40)
    hole = torch.zeros(2, 1, 20, 40)
    hole[1, :, 5:9, 3:8] = 1
    result = run(session(tmp_path / "model.onnx"), image, hole)[0]
    assert torch.equal(result[0], image[0])
    check(result[1:], model, image[1:], hole[1:])


def test_fixed_sizes(tmp_path):
    model = model_of("edge_connect")
    path = tmp_path / "model.onnx"
    inpaint_ops.export(model, path, dynamic=False)
    running = session(path)
    assert running.get_inputs()[0].shape == [1, 3, 256, 256]
    image, hole = inputs(1, 1, 24, 32)
    edges = model.hints(image, hole)
    inpaint_ops.export(model, path, dynamic=False, sample=(image, hole, *edges), opset=18)
    check(run(session(path), image, hole, *edges)[0], model, image, hole)


class Patches(nn.Module):
    def forward(self, query, key, valid):
        return inpaint_ops.nearest_patch(
            query, key, valid=valid, patch_size=3, stride=2, key_stride=3
        )


class Small(nn.Module):
    """A module of a user that holds our layers, and pads with sizes as Python computes them."""

    def __init__(self):
        super().__init__()
        self.first = inpaint_ops.GatedConv2d(3, 4, 5, stride=2, padding="same")
        self.second = inpaint_ops.FusedConv2d(4, 3, 3, padding=1, upsample=2)

    def forward(self, x):
        height, width = x.shape[2:]
        more = [-(-side // 8) * 8 - side for side in (height, width)]
        x = nn.functional.pad(x, (0, more[1], 0, more[0]))
        return self.second(self.first(x))[:, :, :height, :width]


def mask(n, h, w):
    return (picture(n, 1, h, w, seed=5) > 0.7).float()


LAYERS = {
    # Square samples of one picture, whose sizes must not be taken for equal or fixed.
    "small": (Small, lambda n, h, w: [picture(n, 3, h, w)]),
    "transposed": (
        lambda: inpaint_ops.FusedConvTranspose2d(3, 4, 4, 2, 1, activation="relu"),
        lambda n, h, w: [picture(n, 3, h, w)],
    ),
    "partial": (
        lambda: inpaint_ops.PartialConv2d(3, 4, 3, padding=1, return_mask=True),
        lambda n, h, w: [picture(n, 3, h, w), mask(n, h, w)],
    ),
    "attention": (
        lambda: inpaint_ops.ContextualAttention(
            n_down=1, pick="align_corners", hole_mode="exclude", overlap="count", key_norm="sum"
        ),
        lambda n, h, w: [picture(n, 4, h, w), picture(n, 4, h, w, seed=2), mask(n, 2 * h, 2 * w)],
    ),
    "shift": (
        inpaint_ops.ShiftConnection,
        # Of few channels two cosines may be equal but for rounding, and either wins.
        lambda n, h, w: [picture(n, 24, h, w), mask(n, 8 * h, 8 * w)],
    ),
    "patches": (
        Patches,
        lambda n, h, w: [picture(n, 2, h, w), picture(n, 2, h, w, seed=2), 1 - mask(n, h, w) > 0],
    ),
    "norm": (
        lambda: inpaint_ops.layers.InstanceNorm2d(3, activation="elu"),
        lambda n, h, w: [picture(n, 3, h, w)],
    ),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_in_onnx_runtime(name, tmp_path):
    torch.manual_seed(0)
    make, of = LAYERS[name]
    layer = make()
    inpaint_ops.export(layer, tmp_path / "layer.onnx", sample=of(1, 16, 16))
    running = session(tmp_path / "layer.onnx")
    for size in ((1, 16, 16), (3, 11, 18)):
        with torch.no_grad():
            wanted = layer(*of(*size))
        wanted = wanted if isinstance(wanted, tuple) else [wanted]
        for result, one in zip(run(running, *of(*size)), filter(torch.is_tensor, wanted)):
            torch.testing.assert_close(result, one, rtol=1e-5, atol=1e-5)


class Quotient(torch.nn.Module):
    def forward(self, x):
        return x / (x.abs() + 1e-8) + (x + 1e-8) * 1e8


def test_small_numbers_are_not_taken_for_nothing(tmp_path):
    x = torch.tensor([[[[0.0, 1e-8, 1.0]]]])
    inpaint_ops.export(Quotient(), tmp_path / "module.onnx", sample=x)
    (result,) = run(session(tmp_path / "module.onnx"), x)
    torch.testing.assert_close(result, Quotient()(x))


def test_sizes_that_are_not_free(tmp_path):
    layer = inpaint_ops.ChannelwiseLinear(2, (4, 5))
    sample = picture(2, 2, 4, 5)
    with pytest.raises(ValueError, match="dynamic must be False for ChannelwiseLinear"):
        inpaint_ops.export(layer, tmp_path / "layer.onnx", sample=sample)
    inpaint_ops.export(layer, tmp_path / "layer.onnx", sample=sample, dynamic=False)
    (result,) = run(session(tmp_path / "layer.onnx"), sample)
    torch.testing.assert_close(result, layer(sample).detach())


def test_large_weights_have_a_file_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_file, "MOST_INSIDE", 100)
    torch.manual_seed(0)
    layer, x = inpaint_ops.FusedConv2d(3, 8, 3), picture(2, 3, 9, 8)
    inpaint_ops.export(layer, tmp_path / "layer.onnx", sample=x)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["layer.onnx", "layer.onnx.data"]
    (result,) = run(session(tmp_path / "layer.onnx"), x)
    torch.testing.assert_close(result, layer(x).detach())


@pytest.mark.parametrize("most", [100, 2**30])
def test_a_failure_leaves_files_as_they_were(tmp_path, monkeypatch, most):
    class Broken:
        def SerializeToString(self):
            raise OSError("disk full")

    path = tmp_path / "layer.onnx"
    path.write_bytes(b"older")
    monkeypatch.setattr(onnx_file, "MOST_INSIDE", most)
    monkeypatch.setattr("onnx_ir.serde.serialize_model", lambda model: Broken())
    with pytest.raises(OSError, match="disk full"):
        inpaint_ops.export(inpaint_ops.FusedConv2d(3, 8, 3), path, sample=picture(2, 3, 9, 8))
    assert [p.name for p in tmp_path.iterdir()] == ["layer.onnx"]
    assert path.read_bytes() == b"older"


def test_without_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ImportError, match=r"onnxscript is not installed.*inpaint-ops\[export\]"):
        inpaint_ops.export(model_of("glcic"), tmp_path / "model.onnx")


class Branching(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


class Inverse(nn.Module):
    def forward(self, x):
        return torch.linalg.eigvals(x).real


@pytest.mark.parametrize(
    ("make", "path", "options", "error", "text"),
    [
        (lambda: "glcic", "m.onnx", {}, TypeError, "model must be an nn.Module, got str"),
        (nn.ReLU, 3, {}, TypeError, "path must be a str or a path, got int"),
        (nn.ReLU, "m.onnx", {"dynamic": 1}, TypeError, "dynamic must be a bool, got int"),
        (nn.ReLU, "m.onnx", {"opset": 17}, ValueError, "opset must be at least 18, got 17"),
        (nn.ReLU, "m.onnx", {"opset": "20"}, TypeError, "opset must be an int, got str"),
        (
            nn.ReLU,
            "m.onnx",
            {"format": "tf"},
            ValueError,
            "format must be one of onnx, torch_export",
        ),
        (nn.ReLU, "m.tf", {}, ValueError, r"path must end in .onnx or .pt2.*got 'm.tf'"),
        (nn.ReLU, "m.onnx", {}, ValueError, "sample must hold the inputs of ReLU, got None"),
        (nn.ReLU, "m.onnx", {"sample": 3}, TypeError, "sample must be a Tensor or a tuple"),
        (nn.ReLU, "m.onnx", {"sample": (3,)}, TypeError, "sample must hold Tensors alone, got int"),
        (
            nn.ReLU,
            "m.onnx",
            {"sample": (torch.zeros(1), torch.zeros(1))},
            ValueError,
            "sample must hold the inputs of ReLU.forward, got 2 tensors",
        ),
        (
            Branching,
            "m.onnx",
            {"sample": torch.zeros(2, 3)},
            ValueError,
            "model must be one that torch.export records, Branching is not",
        ),
        (
            Inverse,
            "m.onnx",
            {"sample": torch.zeros(2, 3, 3)},
            ValueError,
            "model must be one that ONNX can hold",
        ),
        (
            lambda: small("glcic"),
            "m.onnx",
            {"sample": torch.zeros(1, 3, 8, 8)},
            ValueError,
            "sample must hold image, hole, got 1 tensors",
        ),
        (
            lambda: small("glcic"),
            "m.onnx",
            {"sample": (torch.zeros(1, 3, 8, 8),) * 2},
            ValueError,
            r"hole in sample must have shape \(N, 1, H, W\), got \(1, 3, 8, 8\)",
        ),
        (
            lambda: small("msnps", energy="paper"),
            "m.onnx",
            {},
            ValueError,
            "msnps: energy must be 'none' to be exported, got 'paper'",
        ),
        (
            lambda: small("glcic", blend="poisson"),
            "m.onnx",
            {},
            ValueError,
            "glcic: blend must be 'none' to be exported, got 'poisson'",
        ),
    ],
)
def test_refusals(tmp_path, monkeypatch, make, path, options, error, text):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=text):
        inpaint_ops.export(make(), path, **options)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_no_file(tmp_path):
    (tmp_path / "m.onnx").mkdir()
    with pytest.raises(IsADirectoryError, match=r"path must be a file, got the folder"):
        inpaint_ops.export(nn.ReLU(), tmp_path / "m.onnx", sample=torch.zeros(2))


def test_edges_of_the_picture_alone_are_taken(tmp_path):
    """Edges may be those of the padded picture, as `hints` gives them, or of the picture."""
    model = create_model("edge_connect", base_channels=4, critic_channels=4, residual_blocks=1)
    inpaint_ops.export(model, tmp_path / "m.pt2")
    completed = torch.export.load(tmp_path / "m.pt2").module()
    image, hole = inputs(1, 1, 32, 41)
    (edges,) = model.hints(image, hole)
    assert edges.shape == (1, 1, 32, 44)
    assert set(np.unique(edges)) <= {0, 1}
    cut = edges[..., :41]
    padded = nn.functional.pad(cut, (0, 3))
    assert torch.equal(completed(image, hole, cut), completed(image, hole, padded))


def test_a_missing_folder_is_said_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr("inpaint_ops.exporting.tracing.traced", pytest.fail)
    with pytest.raises(
        FileNotFoundError, match=r"path must lie in a folder, there is no .*nowhere"
    ):
        inpaint_ops.export(torch.nn.ReLU(), tmp_path / "nowhere" / "a.onnx", sample=torch.zeros(2))


def test_autocast_around_the_call_has_no_influence(tmp_path):
    layer, x = inpaint_ops.FusedConv2d(3, 4, 3, padding=1), torch.randn(1, 3, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        inpaint_ops.export(layer, tmp_path / "a.pt2", sample=x)
        inpaint_ops.export(layer, tmp_path / "a.onnx", sample=x)
    y = torch.export.load(tmp_path / "a.pt2").module()(x)
    assert torch.equal(y, layer(x))
    (exported,) = run(session(tmp_path / "a.onnx"), x)
    torch.testing.assert_close(exported, y.detach())
