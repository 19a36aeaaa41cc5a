"""Errors against float64 in multiples of eager's: the measure, and a sample of the layers."""

import pytest
import torch

pytest.importorskip("matplotlib")
pytest.importorskip("rich")

from inpaint_ops.benchmarks.cases import conv_contestants, conv_problems
from inpaint_ops.benchmarks.cases.conv_layers import Layer
from inpaint_ops.benchmarks.harness import runner
from inpaint_ops.benchmarks.harness.accuracy import Error
from inpaint_ops.benchmarks.harness.case import Case, Problem
from inpaint_ops.benchmarks.harness.machine import Peaks
from inpaint_ops.ops import native, shortcut
from inpaint_ops.ops.convolution import cpu

PEAKS = {1: Peaks(1, 100.0, "registers", 10.0)}


def _judged(ours, eager):
    """A problem whose exact result is 1, and contestants that err as much as given."""
    exact = torch.ones(8, dtype=torch.float64)
    return Problem(
        inputs=(),
        implementations={
            "ours": lambda: torch.ones(8) + ours,
            "eager": lambda: torch.ones(8) + eager,
        },
        check=lambda _: None,
        errors=lambda y: {"y": Error.of(y, exact)},
    )


def test_an_error_is_the_largest_and_the_root_mean_square():
    got, exact = torch.tensor([1.0, 2.0, 3.0, 8.0]), torch.tensor([1.0, 2.0, 3.0, 4.0]).double()
    assert Error.of(got, exact) == Error(4.0, 2.0, 4.0, pytest.approx(7.5**0.5))
    assert Error.of(torch.zeros(0), torch.zeros(0).double()) == Error(0.0, 0.0, 0.0, 0.0)


def test_eager_is_never_taken_to_be_exact():
    exact = Error(0.0, 0.0, 4.0, 2.0)
    assert Error(2.0**-21, 2.0**-21, 4.0, 2.0).times(exact) == (1.0, 2.0)
    assert Error(1.0, 0.0, 0.0, 0.0).times(Error(0.0, 0.0, 0.0, 0.0)) == (float("inf"), 0.0)


def test_ours_may_err_eight_times_as_much_as_eager():
    case = Case("x", "made-up", {})

    def result(ours):
        problem = _judged(ours * 2.0**-10, 2.0**-10)
        options = {"seconds": 0.0, "min_rounds": 1, "with_compile": False}
        return next(runner.run_case(case, lambda _: problem, PEAKS, **options))

    fine = result(7)
    assert fine.error_ratios() == {"y": pytest.approx((7.0, 7.0))}
    assert fine.timing("ours") is not None
    refused = result(9)
    entry = refused.entries["ours"]
    assert (entry.status, entry.timing) == ("wrong", None)
    assert entry.detail == "y errs 9.0 times as much as eager, limit 8"
    assert refused.timing("eager") is not None


# Of each operator and algorithm the listed layer with the fewest multiplications, or nearly.
SAMPLE = {
    "gated-24-24-512x512-k3-s2-elu": "winograd_5x2",
    "fused-512-1-31x31-k4": "direct",
    "fused-512-512-4x4-k4-s2": "unpacked",
    "fused-512-512-8x8-k5-s2": "direct",
    "fused-16-3-256x256-k3-reflect": "direct",
    "fused-128-128-64x64-k3-d8-reflect-elu": "winograd_4x3",
    "fused-4-64-256x256-k4-s2": "winograd_5x2",
    "fused-64-32-128x128-k3-up2-elu": "winograd_4x3_upsampled",
    "fused-4-32-256x256-k7-reflect-elu": "winograd_3x4",
    "fused-64-128-128x128-k7-s2-reflect-elu": "winograd_5x4",
    "fused-64-64-128x128-k5-reflect-elu": "winograd_4x5",
    "partial-512-512-8x8-k3-s2": "direct",
    "partial-1024-512-8x8-k3": "winograd_4x3",
    "transposed-64-3-32x32-k4-s2-tanh": "direct",
    "transposed-256-64-64x64-k4-s2": "winograd_5x2",
    "transposed-128-64-16x16-k4-s2": "winograd_4x2",
    "fused-64-64-64x64-k4-s2": "winograd_4x2",
}


@pytest.mark.skipif(not native.status().available, reason="needs the extension")
@pytest.mark.parametrize("name", SAMPLE)
def test_listed_layers_err_at_most_eight_times_as_much_as_eager(name, monkeypatch):
    algorithms = []
    run = cpu.run

    def recorded(chosen, *arguments, **options):
        algorithms.append(chosen.algorithm)
        run(chosen, *arguments, **options)

    monkeypatch.setattr(cpu, "run", recorded)
    # A call that is taken whole in C++ would not be seen.
    monkeypatch.setattr(shortcut, "AVAILABLE", False)
    layer = conv_problems.LAYERS[name]
    for case in conv_problems.cases("any", layer.op):
        if case.sizes["layer"] == name:
            checks = {"seconds": None, "with_compile": False}
            (result,) = runner.run_case(case, conv_problems.setup, PEAKS, **checks)
            statuses = {key: (entry.status, entry.detail) for key, entry in result.entries.items()}
            assert set(statuses.values()) == {("ok", "")}
            assert statuses.keys() >= {"ours", "eager"}
            images = {"grad x 1", "grad x 2"} if len(layer.parts) > 1 else {"grad x"}
            parts = {"y", *images, "grad weight", "grad bias"} if case.sizes["backward"] else {"y"}
            assert set(result.error_ratios()) == parts
    assert algorithms[0] == SAMPLE[name]


def test_kinks_get_no_gradient():
    layer = conv_problems.LAYERS["fused-3-64-128x128-k4-s2-leaky_relu"]
    x, weight, bias = conv_contestants.draw(layer)
    z = torch.nn.functional.conv2d(x.double(), weight.double(), bias.double(), 2, 1)
    gradient = conv_contestants.upstream(layer)
    assert bool((gradient[z.abs() < 9e-5] == 0).all())
    assert 0 < (gradient == 0).double().mean() < 1e-3


def test_a_wrong_layer_is_refused():
    layer = conv_problems.LAYERS["transposed-64-3-32x32-k4-s2-tanh"]
    case = conv_problems.cases("x", "transposed")[-1]
    assert (case.sizes["layer"], case.sizes["backward"]) == (layer.id, True)
    problem = conv_problems.setup(case)
    y, grads = problem.run(problem.implementations["eager"])
    assert problem.check((y, grads)) is None
    assert "y is off" in problem.check((1.001 * y, grads))
    for i, name in enumerate(("x", "weight", "bias")):
        off = [1.001 * grad if i == j else grad for j, grad in enumerate(grads)]
        assert f"grad {name} is off" in problem.check((y, off))


def test_networks_with_kinks_are_judged_by_the_root_mean_square():
    small = Layer("x", "fused", 3, 4, 8, activation="relu")
    x, weight, bias = conv_contestants.draw(small)
    function = conv_contestants.public(small)
    options = {"backward": True, "terms": 64}
    problem, strict = (
        conv_problems.network([small], (x, weight, bias), function, function, kinks=k, **options)
        for k in (True, False)
    )
    y, grads = problem.run(problem.implementations["ours"])
    assert problem.check((y, grads)) is None
    for i in range(3):
        slightly, far = (
            [factor * grad if i == j else grad for j, grad in enumerate(grads)]
            for factor in (1.01, 1.03)
        )
        assert problem.check((y, slightly)) is None
        assert f"gradient {i} is off" in strict.check((y, slightly))
        assert f"gradient {i} is off" in problem.check((y, far))
    assert "y is off" in problem.check((1.01 * y, grads))
