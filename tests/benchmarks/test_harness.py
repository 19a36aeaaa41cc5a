"""Timing, checking and peak memory of one case."""

import json
from pathlib import Path

import pytest
import torch

pytest.importorskip("matplotlib")
pytest.importorskip("rich")

from benchmark_cases import PEAKS, TINY, doubling, only

from inpaint_ops.benchmarks.cases import bench_nearest_patch
from inpaint_ops.benchmarks.harness import machine, memory, runner, timing
from inpaint_ops.benchmarks.harness.case import Case, Missing, Problem, Target
from inpaint_ops.benchmarks.harness.machine import Peaks
from inpaint_ops.ops import native

pytestmark = pytest.mark.filterwarnings("ignore:inpaint_ops. the compiled extension is missing")


def _run(problem, **options):
    options = {"seconds": 0.0, "with_compile": False, "min_rounds": 1, **options}
    return next(runner.run_case(TINY, lambda _: problem, PEAKS, **options))


def test_contestants_take_turns():
    order = []
    calls = {name: (lambda name=name: order.append(name) or _wait()) for name in "abc"}
    timings = timing.interleave(calls, seconds=0.0, min_rounds=4)
    # Packed weights are kept from the fifth call on at the latest.
    assert order[:15] == ["a"] * 5 + ["b"] * 5 + ["c"] * 5, "warm-up calls"
    assert order[15:] == ["a", "b", "c"] * 4
    assert [t.samples for t in timings.values()] == [4, 4, 4]


def _wait():
    # Longer than the shortest sample, so that a sample is one call.
    timing.time.sleep(0.003)


def test_slow_calls_warm_up_twice(monkeypatch):
    monkeypatch.setattr(timing, "_WARM_UP_SECONDS", 0.0)
    count = [0]

    def call():
        count[0] += 1
        _wait()

    timing.interleave({"a": call}, seconds=0.0, min_rounds=1)
    assert count[0] == 2 + 1


def test_budget_ends_the_rounds():
    timings = timing.interleave({"a": _wait}, seconds=0.02, min_rounds=1, max_rounds=1000)
    assert 1 <= timings["a"].samples < 20


def test_short_calls_are_repeated_within_a_sample():
    count = [0]

    def call():
        count[0] += 1

    timing.interleave({"a": call}, seconds=0.0, min_rounds=1)
    assert count[0] > 100


def test_median_quartiles_minimum():
    t = timing.Timing.of([5.0, 1.0, 2.0, 3.0, 4.0])
    assert (t.median, t.iqr, t.minimum, t.samples) == (3.0, 2.0, 1.0, 5)
    assert timing.Timing.of([2.0]).iqr == 0.0


def test_thread_count_is_restored():
    before = torch.get_num_threads()

    def fail():
        with timing.thread_count(before + 1):
            assert torch.get_num_threads() == before + 1
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert torch.get_num_threads() == before


# Runner


def test_a_wrong_result_is_refused_and_not_timed():
    result = _run(doubling(ours=lambda x: x + 1, eager=lambda x: 2 * x))
    assert result.entries["ours"] == runner.Entry("wrong", "not doubled")
    assert result.entries["eager"].timing is not None
    assert result.ratio("eager") is None


def test_one_that_raises_or_is_missing_does_not_end_the_run():
    def broken(x):
        raise RuntimeError("no\nnever")

    result = _run(doubling(ours=lambda x: 2 * x, eager=broken, peer=Missing("not installed")))
    assert result.entries["eager"] == runner.Entry("error", "RuntimeError: no")
    assert result.entries["peer"] == runner.Entry("missing", "not installed")
    assert result.timing("ours") is not None


def test_no_compiler_is_reported(monkeypatch):
    def failing(*_, **__):
        raise RuntimeError("no compiler")

    problem = doubling(ours=lambda x: 2 * x, eager=lambda x: 2 * x)
    monkeypatch.setattr(torch, "compile", failing)
    assert _run(problem, with_compile=True).entries["compiled"].detail == "no compiler"
    monkeypatch.setattr(torch, "compile", lambda *_, **__: failing)
    entry = _run(problem, with_compile=True).entries["compiled"]
    assert (entry.status, entry.detail) == ("missing", "RuntimeError: no compiler")


def test_floor_and_ratios():
    problem = doubling(ours=lambda x: 2 * x, eager=lambda x: 2 * x)
    result = _run(problem)
    assert result.floor == pytest.approx(32 / 10e9)
    assert result.floor_set_by == "traffic"
    result.entries["ours"].timing = timing.Timing.of([1.0, 2.0, 3.0])
    result.entries["eager"].timing = timing.Timing.of([4.0, 5.0, 6.0])
    assert result.ratio("eager") == (2.5, 4.0)
    assert result.floor_reached("ours") == pytest.approx(32 / 10e9 / 2)


@pytest.mark.parametrize(
    ("ratio", "expected"),
    [(None, "not measured"), (1.9, "below must"), (2.0, "must reached"), (4.0, "aim reached")],
)
def test_verdict(ratio, expected):
    assert runner.verdict(Target(must=2, aim=4), ratio) == expected


def test_backward_is_part_of_the_run():
    x = torch.ones(3, requires_grad=True)
    gradient = torch.tensor([1.0, 2.0, 3.0])
    problem = Problem((x, 2.0), {}, check=lambda _: None, gradient=gradient)
    y, (grad,) = problem.run(lambda x, factor: x * factor)
    assert torch.equal(y, 2 * torch.ones(3))
    assert torch.equal(grad, 2 * gradient)


def test_a_trained_weight_changes_before_each_run():
    weight = torch.tensor([[1.0, 2.0]], requires_grad=True)
    seen = []

    def product(x, weight):
        seen.append(weight.detach().clone())
        return x * weight

    problem = Problem(
        (torch.ones(2), weight),
        {},
        check=lambda _: None,
        gradient=torch.ones(1, 2),
        trained=(weight,),
    )
    for _ in range(3):
        _, (grad,) = problem.run(product)
        assert torch.equal(grad, torch.ones(1, 2))
    assert not torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[1], seen[2])
    torch.testing.assert_close(seen[0], torch.tensor([[1.0, 2.0]]), rtol=1e-6, atol=0)


def test_measured_peaks(monkeypatch):
    monkeypatch.setattr(machine, "_COPY_BYTES", 1 << 20)
    one = machine.measure_peaks(1, seconds=0.01)
    assert one.gflops > 0.1
    assert one.copy_gb > 0.1
    assert one.gflops_from == ("registers" if native.status().available else "torch.mm")
    two = machine.measure_peaks(1, seconds=0.01, fewer=[Peaks(1, 1e9, "registers", 1e9)])
    assert (two.gflops, two.copy_gb) == (1e9, 1e9)


def test_peak_without_the_extension(monkeypatch):
    monkeypatch.setattr(machine.ops_native, "_module", None)
    monkeypatch.setattr(machine, "_COPY_BYTES", 1 << 20)
    assert machine.measure_peaks(1, seconds=0.01).gflops_from == "torch.mm"


def test_busy_processors(monkeypatch):
    busy = machine.busy_processors(0.01)
    assert busy is None or 0 <= busy <= machine.os.cpu_count()
    ticks = iter([(10, 100), (30, 140)])
    monkeypatch.setattr(machine, "_processor_ticks", lambda: next(ticks))
    monkeypatch.setattr(machine.os, "cpu_count", lambda: 4)
    assert machine.busy_processors(0) == 2.0
    monkeypatch.setattr(machine, "_processor_ticks", lambda: None)
    assert machine.busy_processors(0) is None


def test_environment_names_no_path():
    text = json.dumps(machine.environment())
    assert "/home" not in text
    assert str(Path(__file__).resolve().parents[2]) not in text


# Memory


def test_memory_probe(monkeypatch):
    def allocate(*_):
        return torch.ones(30_000_000)

    contestants = {"ours": allocate, "eager": lambda *_: 0}
    problem = Problem((), contestants, check=lambda _: "as always")
    only(monkeypatch, "nearest_patch", (TINY,), setup=lambda _: problem)
    found = memory.probe(TINY, "ours", judge=True)
    assert (found["detail"], found["wrong"]) == ("", "as always")
    assert 110e6 < found["extra"] < 180e6
    assert 0 < found["seconds"] < 60
    assert memory.probe(TINY, "eager")["extra"] < 20e6
    assert memory.probe(TINY, "other") == {"extra": None, "detail": "no such contestant"}


def test_memory_of_a_compiled_formula_is_that_of_its_second_call(monkeypatch):
    calls = []

    def formula():
        calls.append(1)
        return torch.ones(30_000_000 if len(calls) == 1 else 1)

    problem = Problem((), {"ours": formula, "eager": formula}, check=lambda _: None)
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    only(monkeypatch, "nearest_patch", (TINY,), setup=lambda _: problem)
    assert memory.probe(TINY, "compiled")["extra"] < 20e6
    assert len(calls) == 2


def test_memory_of_a_fresh_process():
    smallest = next(c for c in bench_nearest_patch.CASES if c.id == "cosine-3x3-c64-32x32")
    # The parent's own high-water mark must not hide the child's.
    ballast = torch.ones(50_000_000)
    entry = memory.measure(smallest, "eager")
    del ballast
    assert entry.detail == ""
    # Two unfolded maps of 900 x 576, scores of 900 x 900.
    assert 4e6 < entry.extra < 60e6


def test_memory_of_a_process_that_fails():
    lost = Case("nearest_patch", "no-such-case", {})
    entry = memory.measure(lost, "ours")
    assert entry.extra is None
    assert "exit code 1" in entry.detail
