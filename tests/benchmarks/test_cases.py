"""Files of cases: every contestant is right, every judge sees what is wrong."""

import importlib.util
import sys

import pytest
import torch

pytest.importorskip("matplotlib")
pytest.importorskip("rich")

from benchmark_cases import photo_problem, stand_in

import inpaint_ops
from inpaint_ops.benchmarks.cases import bench_nearest_patch
from inpaint_ops.benchmarks.harness import case
from inpaint_ops.benchmarks.harness.case import Case, Missing, Unavailable

pytestmark = pytest.mark.filterwarnings("ignore:inpaint_ops. the compiled extension is missing")


@pytest.mark.parametrize("op", case.OPS)
def test_cases(op):
    cases = case.load(op).CASES
    assert len({c.id for c in cases}) == len(cases)
    assert any(c.quick for c in cases)
    assert all(c.op == op for c in cases)


def test_training_steps_have_the_losses_of_the_public_formulas(monkeypatch):
    module = case.load("training")
    options = {"base_channels": 8, "critic_channels": 4}
    monkeypatch.setitem(module._METHODS, "deepfill_v2", module._Method(options=options))
    sizes = {"model": "deepfill_v2", "phase": "joint", "batch": 2, "side": 64}
    problem = module.setup(Case("training", "small", sizes))
    for implementation in problem.implementations.values():
        step, losses = problem.run(implementation)
        assert problem.check((step, losses)) is None
        assert problem.check((1, {**losses, "l1": 0.0})) == "losses are wrong: l1"
        assert problem.check((2, {**losses, "l1": 0.0})) is None
        assert problem.check((2, {**losses, "l1": float("nan")})) == "losses are wrong: l1"
        assert problem.run(implementation)[0] == 2


def test_unknown_operator():
    with pytest.raises(ValueError, match="unknown operator 'os'"):
        case.load("os")


def _small_nearest(**sizes):
    base = {"map": 15, "channels": 4, "patch": 3, "stride": 1, "metric": "cosine"}
    return Case("nearest_patch", "small", {**base, **sizes})


NEAREST = [
    _small_nearest(),
    _small_nearest(stride=2),
    _small_nearest(map=32, channels=3, patch=7, metric="l2", hole=0.1),
]
SHIFT = [
    Case("shift_connection", "small", {"batch": n, "map": 8, "channels": 16, "backward": backward})
    for n in (1, 2)
    for backward in (False, True)
]


@pytest.mark.parametrize(
    "small", [*NEAREST, *SHIFT], ids=lambda c: f"{c.op}-{list(c.sizes.values())}"
)
def test_public_formula_and_ours_are_right(small):
    problem = case.load(small.op).setup(small)
    for implementation in problem.implementations.values():
        assert problem.check(problem.run(implementation)) is None


@pytest.mark.parametrize("small", NEAREST)
def test_public_nearest_formula_is_the_reference(small):
    problem = bench_nearest_patch.setup(small)
    query, key, valid, where, patch, stride, metric = problem.inputs
    index, score = bench_nearest_patch.unfold_matmul_argmax(
        query.double(), key.double(), valid, where, patch, stride, metric
    )
    expected = inpaint_ops.reference.nearest_patch(
        query.double(),
        key.double(),
        valid=valid,
        where=where,
        patch_size=patch,
        stride=stride,
        key_stride=stride,
        metric=metric,
    )
    assert torch.equal(index, expected[0])
    torch.testing.assert_close(score, expected[1])


@pytest.mark.parametrize("small", NEAREST)
def test_nearest_judge_sees_a_wrong_index_and_score(small):
    problem = bench_nearest_patch.setup(small)
    index, score = problem.run(problem.implementations["ours"])
    at = tuple((index >= 0).nonzero()[0].tolist())
    wrong_index, wrong_score = index.clone(), score.clone()
    wrong_index[at] = index[index >= 0].max() if index[at] != index.max() else 0
    wrong_score[at] += 0.01 * score[at].abs()
    assert problem.check((wrong_index, score)) is not None
    assert problem.check((index, wrong_score)) is not None
    wrong_index[at] = -1
    assert problem.check((wrong_index, score)) is not None


def test_shift_judge_sees_wrong_parts():
    problem = case.load("shift_connection").setup(SHIFT[1])
    y, (grad,) = problem.run(problem.implementations["ours"])
    y = y.detach()

    def verdict(value, at):
        other = y.clone()
        other[:, 32:, at[0], at[1]] = value
        return problem.check((other, (grad,)))

    verdicts = [verdict(y[:, 16:32, 0, column], (2, 2)) for column in range(8)]
    assert sum("better match" in str(text) for text in verdicts) >= 7
    assert "no known feature" in verdict(0.5, (2, 2))
    assert "outside the hole" in verdict(0.5, (0, 0))
    assert "changed" in problem.check((y + 1, (grad,)))
    assert "gradient" in problem.check((y, (1.01 * grad,)))


def test_fillers(monkeypatch):
    def fill(image, hole, *, seed=0, progress=None):
        return torch.where(hole.bool(), image.new_tensor(0.5), image)

    stand_in(monkeypatch, fill)
    problem = photo_problem()
    for name, implementation in problem.implementations.items():
        if isinstance(implementation, Missing):
            assert "inpaint-ops[fillers]" in implementation.reason, name
            continue
        outcome = problem.run(implementation)
        assert problem.check(outcome) is None, name
        assert set(problem.quality(outcome)) == {"psnr_db", "ssim"}
        assert problem.picture(outcome).shape == problem.shown["original"].shape


def test_a_filler_that_changes_known_pixels_is_caught(monkeypatch):
    stand_in(monkeypatch, lambda image, hole, seed=0, progress=None: 1 - image)
    problem = photo_problem()
    assert "known pixels changed" in problem.check(problem.run(problem.implementations["ours"]))


def test_peers_and_photos_that_are_missing(monkeypatch):
    if importlib.util.find_spec("skimage") is None:
        pytest.skip("scikit-image is not installed")
    for name in ("cv2", "patchmatch", "inpaint_ops.exemplar"):
        monkeypatch.setitem(sys.modules, name, None)
    problem = photo_problem()
    for name in ("OpenCV Telea", "OpenCV Navier-Stokes", "PatchMatch"):
        assert "inpaint-ops[fillers]" in problem.implementations[name].reason
    assert isinstance(problem.implementations["ours"], Missing)
    monkeypatch.setitem(sys.modules, "skimage", None)
    with pytest.raises(Unavailable, match="skimage"):
        case.load("exemplar").setup(case.load("exemplar").CASES[0])
