"""``python -m inpaint_ops.benchmarks``: whole runs, long cases, runs in pieces."""

import json
import signal
from dataclasses import replace

import pytest
import torch

pytest.importorskip("matplotlib")
pytest.importorskip("rich")

from benchmark_cases import PEAKS, TINY, doubling, only, photo_problem, stand_in

from inpaint_ops.benchmarks import main, options
from inpaint_ops.benchmarks.cases import bench_nearest_patch
from inpaint_ops.benchmarks.harness import case, memory, once, runner, timing
from inpaint_ops.benchmarks.harness.accuracy import Error
from inpaint_ops.benchmarks.harness.case import Case, Missing, Target
from inpaint_ops.benchmarks.report import report, stored

pytestmark = pytest.mark.filterwarnings("ignore:inpaint_ops. the compiled extension is missing")


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
    return only(monkeypatch, "nearest_patch", cases)


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


# The keys that programs may rely on.
KEYS = {
    *("schema", "method", "environment", "settings", "interrupted", "peaks", "results", "memory"),
    *("skipped", "failures"),
}
RESULT_KEYS = {
    *("op", "case", "sizes", "dtype", "threads", "floor_seconds", "floor_set_by", "target"),
    *("verdict", "contestants", "ours_faster_than", "error_over_eager"),
}


def test_json_is_all_that_standard_output_gets(tiny_op, tmp_path, capsys):
    arguments = ("--ops", "nearest_patch", "--only", "tiny-12", "--out", str(tmp_path), "--json")
    assert main.run(_quick(*arguments)) == 0
    printed = capsys.readouterr()
    report = json.loads(printed.out)
    assert set(report) == KEYS
    assert set(report["results"][0]) >= RESULT_KEYS
    assert report == json.loads((tmp_path / "benchmark.json").read_text())
    assert "vs eager" in printed.err


def test_list_as_json(tiny_op, capsys):
    assert main.run(["--list", "--json", "--ops", "nearest_patch"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["case"] for one in found] == ["tiny-12", "tiny-16"]
    assert found[0]["op"] == "nearest_patch"
    assert found[0]["sizes"]["map"] == 12


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
    photo_problem()
    stand_in(monkeypatch, lambda image, hole, seed=0, progress=None: image)
    small = Case(
        "exemplar",
        "small",
        {"photo": "chelsea.png", "side": 64, "hole": "box", "seed": 0},
        memory=False,
    )
    only(monkeypatch, "exemplar", (small,))
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


def test_the_usual_list_is_short_and_choosing_is_from_everything():
    def chosen(*arguments):
        return options.cases(options.parse(["--list", *arguments]))

    usual, everything = chosen(), chosen("--all")
    assert {c.op for c in usual} == set(case.OPS)
    assert len(usual) < len(everything) / 5
    assert {c.id for c in chosen("--quick")} < {c.id for c in usual}
    assert len(chosen("--ops", "gated_conv2d")) == len(case.load("gated_conv2d").CASES)
    assert any(c.once for c in chosen("--only", "512x512"))
    peers = chosen("--peers")
    assert {c.op for c in peers} >= {"models", "shift_connection", "partial_conv2d"}
    assert not any("backward" in c.id for c in peers)


def test_time_of_the_processor(monkeypatch):
    assert timing.clock() is timing.time.perf_counter
    monkeypatch.setenv(timing.CLOCK_VARIABLE, "processor")
    assert timing.clock() is timing.time.process_time
    assert options.parse(["--list", "--processor-time", "--threads", "1,2"]).threads == [1]


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
    only(monkeypatch, "nearest_patch", (replace(known, once=True),))
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
    problem = doubling(**dict.fromkeys(found), peer=Missing("not installed"))
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
