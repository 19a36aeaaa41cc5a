import importlib.util
import json
import signal
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch

pytest.importorskip("matplotlib")
pytest.importorskip("rich")

import inpaint_ops
from inpaint_ops.benchmarks import main
from inpaint_ops.benchmarks.cases import bench_nearest_patch
from inpaint_ops.benchmarks.harness import case, machine, memory, once, runner, timing
from inpaint_ops.benchmarks.harness.accuracy import Error
from inpaint_ops.benchmarks.harness.case import Case, Missing, Problem, Target, Unavailable, Work
from inpaint_ops.benchmarks.harness.machine import Peaks
from inpaint_ops.benchmarks.report import report, stored
from inpaint_ops.ops import native

pytestmark = pytest.mark.filterwarnings("ignore:inpaint_ops. the compiled extension is missing")

PEAKS = {1: Peaks(1, 100.0, "registers", 10.0)}
TINY = Case("nearest_patch", "tiny", {"map": 12, "channels": 3, "patch": 3, "stride": 1})


def _only(monkeypatch, op, cases, **replaced):
    """Leaves an operator's benchmark with these cases, and no other operator."""
    module = case.load(op)
    monkeypatch.setattr(module, "CASES", cases)
    for name, value in replaced.items():
        monkeypatch.setattr(module, name, value)
    return module


def _problem(**implementations):
    x = torch.arange(4.0)
    return Problem(
        inputs=(x,),
        implementations=implementations,
        check=lambda y: None if torch.equal(y, 2 * x) else "not doubled",
        work=Work(flops=8.0, moved=32.0),
    )


def _run(problem, **options):
    options = {"seconds": 0.0, "with_compile": False, "min_rounds": 1, **options}
    return next(runner.run_case(TINY, lambda _: problem, PEAKS, **options))


# Timing


def test_contestants_take_turns():
    order = []
    calls = {name: (lambda name=name: order.append(name) or _wait()) for name in "abc"}
    timings = timing.interleave(calls, seconds=0.0, min_rounds=4)
    assert order[:3] == ["a", "b", "c"], "one warm-up call each"
    assert order[3:] == ["a", "b", "c"] * 4
    assert [t.samples for t in timings.values()] == [4, 4, 4]


def _wait():
    # Longer than the shortest sample, so that a sample is one call.
    timing.time.sleep(0.003)


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
    result = _run(_problem(ours=lambda x: x + 1, eager=lambda x: 2 * x))
    assert result.entries["ours"] == runner.Entry("wrong", "not doubled")
    assert result.entries["eager"].timing is not None
    assert result.ratio("eager") is None


def test_one_that_raises_or_is_missing_does_not_end_the_run():
    def broken(x):
        raise RuntimeError("no\nnever")

    result = _run(_problem(ours=lambda x: 2 * x, eager=broken, peer=Missing("not installed")))
    assert result.entries["eager"] == runner.Entry("error", "RuntimeError: no")
    assert result.entries["peer"] == runner.Entry("missing", "not installed")
    assert result.timing("ours") is not None


def test_no_compiler_is_reported(monkeypatch):
    def failing(*_, **__):
        raise RuntimeError("no compiler")

    problem = _problem(ours=lambda x: 2 * x, eager=lambda x: 2 * x)
    monkeypatch.setattr(torch, "compile", failing)
    assert _run(problem, with_compile=True).entries["compiled"].detail == "no compiler"
    monkeypatch.setattr(torch, "compile", lambda *_, **__: failing)
    entry = _run(problem, with_compile=True).entries["compiled"]
    assert (entry.status, entry.detail) == ("missing", "RuntimeError: no compiler")


def test_floor_and_ratios():
    problem = _problem(ours=lambda x: 2 * x, eager=lambda x: 2 * x)
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
    _only(monkeypatch, "nearest_patch", (TINY,), setup=lambda _: problem)
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
    _only(monkeypatch, "nearest_patch", (TINY,), setup=lambda _: problem)
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


# The cases


@pytest.mark.parametrize("op", case.OPS)
def test_cases(op):
    cases = case.load(op).CASES
    assert len({c.id for c in cases}) == len(cases)
    assert any(c.quick for c in cases)
    assert all(c.op == op for c in cases)


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


# The photo filler


def _stand_in(monkeypatch, fill):
    module = ModuleType("inpaint_ops.exemplar")
    module.fill_exemplar = fill
    monkeypatch.setitem(sys.modules, "inpaint_ops.exemplar", module)


def _photo_problem():
    small = Case(
        "exemplar", "small", {"photo": "chelsea.png", "side": 64, "hole": "box", "seed": 0}
    )
    try:
        return case.load("exemplar").setup(small)
    except Unavailable as reason:
        pytest.skip(str(reason))


def test_fillers(monkeypatch):
    def fill(image, hole, *, seed=0, progress=None):
        return torch.where(hole.bool(), image.new_tensor(0.5), image)

    _stand_in(monkeypatch, fill)
    problem = _photo_problem()
    for name, implementation in problem.implementations.items():
        if isinstance(implementation, Missing):
            assert "inpaint-ops[peers]" in implementation.reason, name
            continue
        outcome = problem.run(implementation)
        assert problem.check(outcome) is None, name
        assert set(problem.quality(outcome)) == {"psnr_db", "ssim"}
        assert problem.picture(outcome).shape == problem.shown["original"].shape


def test_a_filler_that_changes_known_pixels_is_caught(monkeypatch):
    _stand_in(monkeypatch, lambda image, hole, seed=0, progress=None: 1 - image)
    problem = _photo_problem()
    assert "known pixels changed" in problem.check(problem.run(problem.implementations["ours"]))


def test_peers_and_photos_that_are_missing(monkeypatch):
    if importlib.util.find_spec("skimage") is None:
        pytest.skip("scikit-image is not installed")
    for name in ("cv2", "patchmatch", "inpaint_ops.exemplar"):
        monkeypatch.setitem(sys.modules, name, None)
    problem = _photo_problem()
    for name in ("OpenCV Telea", "OpenCV Navier-Stokes", "PatchMatch"):
        assert "inpaint-ops[peers]" in problem.implementations[name].reason
    assert isinstance(problem.implementations["ours"], Missing)
    monkeypatch.setitem(sys.modules, "skimage", None)
    with pytest.raises(Unavailable, match="skimage"):
        case.load("exemplar").setup(case.load("exemplar").CASES[0])


# The command


def _quick(*arguments):
    return ["--threads", "1", "--seconds", "0.01", "--no-compile", "--no-memory", *arguments]


@pytest.fixture
def tiny_op(monkeypatch):
    cases = tuple(
        Case(
            "nearest_patch",
            f"tiny-{size}",
            {**TINY.sizes, "map": size, "metric": "cosine"},
            target=Target(must=2, aim=3),
            curve="tiny",
            x=size,
        )
        for size in (12, 16)
    )
    monkeypatch.setattr(main.machine, "measure_peaks", lambda *_, **__: PEAKS[1])
    return _only(monkeypatch, "nearest_patch", cases)


def test_end_to_end(tiny_op, tmp_path, capsys):
    out = tmp_path / "new" / "reports"
    assert main.run(_quick("--ops", "nearest_patch", "--out", str(out))) == 0
    report = json.loads((out / "benchmark.json").read_text())
    assert report["schema"] == 1
    assert {r["case"] for r in report["results"]} == {"tiny-12", "tiny-16"}
    for result in report["results"]:
        assert result["contestants"]["ours"]["seconds"]["median"] > 0
        assert result["contestants"]["eager"]["status"] == "ok"
        assert result["ours_faster_than"]["eager"]["by_minima"] > 0
        assert result["floor_seconds"] > 0
        assert result["target"] == {"must": 2, "aim": 3, "against": "eager"}
        assert result["verdict"]
    assert report["environment"]["cpu"]
    assert report["peaks"][0]["gflops_from"] == "registers"

    page = (out / "benchmark.html").read_text()
    assert page.count("data:image/svg+xml;base64,") == 2, "bars and a curve"
    assert "tiny-16" in page
    assert "take turns" in page
    assert "http:" not in page
    assert "https:" not in page
    assert str(tmp_path) not in page
    printed = capsys.readouterr().out
    assert "tiny-12" in printed
    assert "vs eager" in printed
    assert sorted(p.name for p in out.iterdir()) == ["benchmark.html", "benchmark.json"]


def test_a_failed_check_decides_the_exit_code(tiny_op, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(tiny_op, "_ours", lambda *inputs: (torch.zeros(1, 3, 3), torch.zeros(1)))
    assert main.run(_quick("--ops", "nearest_patch", "--out", str(tmp_path))) == 1
    report = json.loads((tmp_path / "benchmark.json").read_text())
    assert report["results"][0]["contestants"]["ours"]["status"] == "wrong"
    assert "FAILED" in capsys.readouterr().out
    assert "FAILED" in (tmp_path / "benchmark.html").read_text()


def test_an_interrupted_run_is_written(tiny_op, monkeypatch, tmp_path):
    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(tiny_op, "setup", interrupted)
    assert main.run(_quick("--ops", "nearest_patch", "--out", str(tmp_path))) == 130
    assert json.loads((tmp_path / "benchmark.json").read_text())["interrupted"] is True


def test_photos_get_into_the_page(monkeypatch, tmp_path):
    _photo_problem()
    _stand_in(monkeypatch, lambda image, hole, seed=0, progress=None: image)
    small = Case(
        "exemplar",
        "small",
        {"photo": "chelsea.png", "side": 64, "hole": "box", "seed": 0},
        memory=False,
    )
    _only(monkeypatch, "exemplar", (small,))
    monkeypatch.setattr(main.machine, "measure_peaks", lambda *_, **__: PEAKS[1])
    assert main.run(_quick("--ops", "exemplar", "--out", str(tmp_path))) == 0
    page = (tmp_path / "benchmark.html").read_text()
    assert page.count("data:image/jpeg;base64,") >= 3
    assert "psnr_db" in page


def test_list(capsys):
    assert main.run(["--list", "--quick"]) == 0
    printed = capsys.readouterr().out
    assert "cosine-3x3-c256-64x64" in printed
    assert "astronaut-128-box" in printed
    assert main.run(["--list", "--ops", "contextual_attention", "--only", "512x512"]) == 0
    assert capsys.readouterr().out.startswith("contextual_attention  forward-sharp-c96-512x512")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--ops", "nothing"], "unknown nothing"),
        (["--threads", "0"], "expected numbers"),
        (["--threads", "x"], "expected numbers"),
        (["--seconds", "-1"], "positive"),
        (["--out", __file__], "--out"),
    ],
)
def test_wrong_usage(arguments, text, capsys):
    assert main.run(arguments) == 2
    assert text in capsys.readouterr().err


def test_help(capsys):
    assert main.run(["--help"]) == 0
    assert "--quick" in capsys.readouterr().out


# Cases that run once


def test_a_long_case_runs_once_in_processes_of_their_own(monkeypatch, tmp_path, capsys):
    # The first case that is found by its id there.
    known = next(c for c in bench_nearest_patch.CASES if c.id == "cosine-3x3-c64-32x32")
    _only(monkeypatch, "nearest_patch", (replace(known, once=True),))
    monkeypatch.setattr(main.machine, "measure_peaks", lambda *_, **__: PEAKS[1])
    arguments = ["--threads", "1", "--no-compile", "--ops", "nearest_patch", "--out", str(tmp_path)]
    assert main.run(arguments) == 0
    report = json.loads((tmp_path / "benchmark.json").read_text())
    (result,) = report["results"]
    assert result["floor_seconds"] > 0
    for contestant in ("ours", "eager"):
        assert result["contestants"][contestant]["status"] == "ok"
        assert result["contestants"][contestant]["seconds"]["samples"] == 1
    assert {m["contestant"] for m in report["memory"]} == {"ours", "eager"}
    assert all(m["extra_bytes"] is not None for m in report["memory"])
    assert "1, one run" in (tmp_path / "benchmark.html").read_text()
    printed = capsys.readouterr().out
    assert "one run" in printed
    assert "nearest_patch: extra memory of one call" in printed


def test_verdicts_of_a_single_run(monkeypatch):
    found = {
        "ours": memory.Memory(TINY, "ours", 5, seconds=1.0, wrong="not doubled"),
        "eager": memory.Memory(TINY, "eager", None, "exit code 9: killed"),
        "other": memory.Memory(TINY, "other", 7, seconds=2.0),
    }
    problem = _problem(**dict.fromkeys(found), peer=Missing("not installed"))
    monkeypatch.setattr(once, "measure", lambda case, name, **_: found[name])
    result, memories = once.run_once(TINY, lambda _: problem, PEAKS[1])
    assert result.entries["ours"] == runner.Entry("wrong", "not doubled")
    assert result.entries["eager"] == runner.Entry("error", "exit code 9: killed")
    assert result.entries["peer"] == runner.Entry("missing", "not installed")
    assert result.timing("other").median == 2.0
    assert memories == list(found.values())


# A run in pieces


def test_a_run_in_pieces_ends_as_one_report(tiny_op, monkeypatch, tmp_path):
    arguments = ["--seconds", "0.01", "--threads", "1", "--no-compile"]
    arguments += ["--ops", "nearest_patch", "--out", str(tmp_path)]
    path = tmp_path / "benchmark.json"
    assert main.run([*arguments, "--resume"]) == 2, "nothing to resume"
    both, first = tiny_op.CASES, tiny_op.CASES[:1]
    # What the measuring process prints.
    fixed = memory.Memory(first[0], "ours", 10, "")
    monkeypatch.setattr(main, "measure", lambda case, name, **_: replace(fixed, contestant=name))
    monkeypatch.setattr(tiny_op, "CASES", first)
    assert main.run(arguments) == 0
    piece = json.loads(path.read_text())
    assert stored.restore(path.read_text()).to_json() == path.read_text()
    monkeypatch.setattr(tiny_op, "CASES", both)
    assert main.run([*arguments, "--resume"]) == 0
    whole = json.loads(path.read_text())
    assert [r["case"] for r in whole["results"]] == ["tiny-12", "tiny-16"]
    assert whole["results"][:1] == piece["results"]
    assert whole["memory"][:2] == piece["memory"]
    assert "tiny-16" in (tmp_path / "benchmark.html").read_text()


def test_errors_and_failures_come_back_from_json():
    known = next(c for c in case.load("gated_conv2d").CASES if "k5" in c.id)
    error = Error(1.0, 0.5, 4.0, 2.0)
    ours = runner.Entry("ok", timing=timing.Timing.of([1.0, 2.0]), errors={"y": error})
    eager = runner.Entry("wrong", "no", quality={"a": 1.0}, errors={"y": error})
    result = runner.Result(known, 2, {"ours": ours, "eager": eager}, 0.25, "traffic")
    kept = memory.Memory(known, "ours", None, "killed")
    written = report.Report({"cpu": "x"}, {}, {1: PEAKS[1]}, [result], [kept], [("a", "b", "c")])
    back = stored.restore(written.to_json())
    assert back == written
    assert back.results[0].error_ratios() == {"y": (1.0, 1.0)}


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": 0}'])
def test_what_is_no_report_is_refused(text):
    with pytest.raises(ValueError, match=r"schema 1|Expecting value"):
        stored.restore(text)


def test_a_terminated_run_is_written(tiny_op, monkeypatch, tmp_path):
    setup, before = tiny_op.setup, signal.getsignal(signal.SIGTERM)

    def terminated(asked):
        if asked.id == "tiny-16":
            signal.raise_signal(signal.SIGTERM)
        return setup(asked)

    monkeypatch.setattr(tiny_op, "setup", terminated)
    assert main.run(_quick("--ops", "nearest_patch", "--out", str(tmp_path))) == 130
    written = json.loads((tmp_path / "benchmark.json").read_text())
    assert written["interrupted"] is True
    assert [r["case"] for r in written["results"]] == ["tiny-12"]
    assert (tmp_path / "benchmark.html").exists()
    assert signal.getsignal(signal.SIGTERM) is before


def test_checks_without_timing(tiny_op, tmp_path):
    arguments = ["--no-timing", *_quick("--ops", "nearest_patch", "--out", str(tmp_path))]
    assert main.run(arguments) == 0
    for result in json.loads((tmp_path / "benchmark.json").read_text())["results"]:
        for entry in result["contestants"].values():
            assert entry["status"] == "ok"
            assert "seconds" not in entry
