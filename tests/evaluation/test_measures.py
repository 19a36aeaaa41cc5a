"""Measures with known answers, groups of holes, and networks from files."""

import math
import sys
import warnings

import pytest
import torch

from inpaint_ops.evaluation import (
    MEASURES,
    FrechetFeatures,
    PerceptualDistance,
    baseline,
    compare,
    frechet_distance,
)
from inpaint_ops.evaluation.groups import BINS, INSIDE, OTHER, TOUCHES, bin_of, border_of
from inpaint_ops.features import FeatureNetwork


def problem(size=(32, 40), error=0.1, box=(4, 12)):
    """A picture, its hole, and a result that is wrong by `error` in the hole alone."""
    generator = torch.Generator().manual_seed(0)
    truth = torch.rand(1, 3, *size, generator=generator) * 0.8
    hole = torch.zeros(1, 1, *size, dtype=torch.bool)
    hole[..., box[0] : box[1], box[0] : box[1]] = True
    return torch.where(hole, truth + error, truth), truth, hole


def test_a_constant_error_has_the_values_of_its_formula():
    result, truth, hole = problem(error=0.1)
    values, note = compare(result, truth, hole)
    share = 64 / (32 * 40)
    assert values["l1_hole"] == pytest.approx(0.1, rel=1e-5)
    assert values["l1"] == pytest.approx(0.1 * share, rel=1e-5)
    assert values["psnr_hole"] == pytest.approx(20.0, abs=1e-4)
    assert values["psnr"] == pytest.approx(20 - 10 * math.log10(share), abs=1e-4)
    assert values["ssim_hole"] < values["ssim"] < 1
    assert values["ms_ssim"] is None
    assert note == "MS-SSIM needs 176 pixels a side, here are 32"


def test_what_is_wrong_outside_is_not_counted_in_the_hole():
    result, truth, hole = problem(error=0.0)
    values, _ = compare(torch.where(hole, result, result + 0.1), truth, hole)
    assert values["l1_hole"] == 0
    assert values["psnr_hole"] == 100
    assert values["l1"] > 0.09


def test_ssim_of_constant_pictures_is_its_formula():
    _, truth, hole = problem()
    values, _ = compare(torch.full_like(truth, 0.5), torch.full_like(truth, 0.25), hole)
    expected = (2 * 0.5 * 0.25 + 1e-4) / (0.5**2 + 0.25**2 + 1e-4)
    assert values["ssim"] == pytest.approx(expected, rel=1e-4)
    assert values["ssim_hole"] == pytest.approx(expected, rel=1e-4)


def test_an_exact_result_is_the_best_there_is():
    _, truth, hole = problem(size=(176, 176))
    values, note = compare(truth, truth, hole)
    assert note == ""
    assert (values["l1"], values["psnr"], values["psnr_hole"]) == (0, 100, 100)
    for name in ("ssim", "ssim_hole", "ms_ssim"):
        assert values[name] == pytest.approx(1, abs=1e-4)


def test_what_cannot_be_measured_is_empty_with_the_reason():
    # The first side at which MS-SSIM is there, and the last at which it is not.
    assert compare(*problem(size=(175, 180)))[0]["ms_ssim"] is None
    values, note = compare(*problem(size=(5, 20), box=(1, 2)))
    assert values["ssim"] is None
    assert "SSIM needs 6 pixels a side, here are 5" in note
    values, note = compare(*problem(size=(6, 20), box=(0, 0)))
    assert (values["l1_hole"], values["psnr_hole"], values["ssim_hole"]) == (None, None, None)
    assert values["ssim"] is not None
    assert note.startswith("nothing is missing")
    assert list(values) == list(MEASURES)


def test_wrong_arguments_are_named():
    result, truth, hole = problem()
    with pytest.raises(ValueError, match="result must have the shape of truth"):
        compare(result[..., 1:], truth, hole)
    with pytest.raises(ValueError, match="hole must be bool"):
        compare(result, truth, hole.float())


def test_a_share_is_in_the_bin_that_it_ends():
    shares = (0.01, 0.0101, 0.1, 0.1001, 0.2, 0.5, 0.6, 0.6001)
    assert [bin_of(share) for share in shares] == [
        *(OTHER, BINS[0], BINS[0], BINS[1], BINS[1], BINS[4], BINS[5], OTHER)
    ]


@pytest.mark.parametrize(("row", "column"), [(0, 2), (4, 2), (2, 0), (2, 5)])
def test_one_pixel_at_the_edge_is_contact(row, column):
    hole = torch.zeros(1, 1, 5, 6, dtype=torch.bool)
    hole[..., 1:-1, 1:-1] = True
    assert border_of(hole) == INSIDE
    hole[..., row, column] = True
    assert border_of(hole) == TOUCHES


@pytest.mark.parametrize("counts", [(50, 40), (3, 5)])
def test_frechet_distance_is_that_of_the_formula(counts):
    generator = torch.Generator().manual_seed(1)
    first, second = (
        torch.randn(n, 6, generator=generator, dtype=torch.float64) * (k + 1) + k
        for k, n in enumerate(counts)
    )
    roots = torch.linalg.eigvals(first.T.cov() @ second.T.cov()).sqrt().real
    expected = (first.mean(0) - second.mean(0)).square().sum() - 2 * roots.sum()
    expected += first.T.cov().trace() + second.T.cov().trace()
    # Eigenvalues that are 0 come with an error of their square root.
    assert frechet_distance(first, second) == pytest.approx(float(expected), rel=1e-5)
    assert frechet_distance(first, first) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(first, first + 2) == pytest.approx(24, rel=1e-9)


def test_frechet_distance_refuses_single_pictures():
    with pytest.raises(ValueError, match="second must be"):
        frechet_distance(torch.zeros(3, 2), torch.zeros(1, 2))


class Means(torch.nn.Module):
    def forward(self, x, return_features: bool = False):
        x = x.float()
        return x.mean((2, 3)) if return_features else x.amax((2, 3))


class Difference(torch.nn.Module):
    def forward(self, a, b):
        return (a - b).abs().mean((1, 2, 3))


@pytest.fixture
def script(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        for name, module in (("means", Means()), ("difference", Difference())):
            torch.jit.save(torch.jit.script(module), tmp_path / f"{name}.pt")
    return tmp_path


def test_networks_come_from_torchscript(script):
    picture = torch.full((1, 3, 4, 4), 0.2)
    # Bytes go in, and NVIDIA's switch is on: the mean of two values, not the largest.
    picture[..., :2] = 0.4
    features = FrechetFeatures(script / "means.pt")(picture)
    assert features.tolist() == pytest.approx([76.5] * 3)
    assert PerceptualDistance(script / "difference.pt")(picture, picture * 0) == pytest.approx(0.6)


def test_networks_come_from_exported_programs(tmp_path):
    example = torch.zeros(1, 3, 4, 4, dtype=torch.uint8)
    torch.export.save(torch.export.export(Means(), (example,)), tmp_path / "means.pt2")
    assert FrechetFeatures(tmp_path / "means.pt2")(torch.ones(1, 3, 4, 4)).tolist() == [255] * 3


def test_lpips_takes_the_file_of_vgg(tmp_path):
    network = FeatureNetwork.untrained("vgg16", layers=("relu5_3",))
    positions = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
    state = {}
    for position, layer in zip(positions, network.convolutions.values()):
        state[f"features.{position}.weight"] = layer.weight.detach().clone()
        state[f"features.{position}.bias"] = layer.bias.detach().clone()
    torch.save(state, tmp_path / "vgg16.pth")
    distance = PerceptualDistance(tmp_path / "vgg16.pth")
    result, truth, _ = problem()
    assert distance(truth, truth) == 0
    assert distance(result, truth) == pytest.approx(distance(truth, result))
    assert 0 < distance(result, truth) < distance(1 - truth, truth)


def test_files_that_hold_no_network_are_named(tmp_path):
    file = tmp_path / "weights.pt"
    torch.save({"x": torch.zeros(1)}, file)
    with pytest.raises(ValueError, match=r"weights\.pt: is neither TorchScript nor a program"):
        FrechetFeatures(file)
    with pytest.raises(ValueError, match="must have the keys of torchvision's vgg16"):
        PerceptualDistance(file)
    with pytest.raises(FileNotFoundError, match="none"):
        FrechetFeatures(tmp_path / "none.pt")
    (tmp_path / "bad.pt2").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"bad\.pt2: cannot be read as a program"):
        FrechetFeatures(tmp_path / "bad.pt2")


def test_networks_that_return_something_else_are_refused():
    picture = torch.zeros(1, 3, 8, 8)
    with pytest.raises(ValueError, match=r"FID must return \(1, features\), got \(1, 3, 8, 8\)"):
        FrechetFeatures(lambda x: x)(picture)
    with pytest.raises(ValueError, match="LPIPS must return one number, got float"):
        PerceptualDistance(lambda a, b: 0.0)(picture, picture)


@pytest.mark.parametrize("name", ["telea", "navier-stokes", "biharmonic"])
def test_baselines_fill_a_smooth_hole(name):
    pytest.importorskip("skimage" if name == "biharmonic" else "cv2")
    ramp = torch.linspace(0, 1, 24).expand(1, 3, 16, 24)
    hole = torch.zeros(1, 1, 16, 24, dtype=torch.bool)
    hole[..., 6:10, 8:13] = True
    filled = baseline(name)(ramp.masked_fill(hole, 0), hole, seed=0)
    assert filled.shape == ramp.shape
    assert filled.dtype == torch.float32
    assert (filled - ramp)[..., 6:10, 8:13].abs().max() < 0.15


@pytest.mark.parametrize(
    ("name", "module", "who"),
    [
        ("telea", "cv2", "OpenCV"),
        ("navier-stokes", "cv2", "OpenCV"),
        ("biharmonic", "skimage.restoration", "scikit-image"),
    ],
)
def test_a_missing_library_is_named_with_its_extra(name, module, who, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf"{who} is not installed: .*\[fillers\]"):
        baseline(name)


def test_missing_torchmetrics_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchmetrics.functional.image", None)
    with pytest.raises(ImportError, match=r"not installed: pip install 'inpaint-ops\[evaluate"):
        compare(*problem())
