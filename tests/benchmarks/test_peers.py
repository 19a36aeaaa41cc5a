"""Other engines in the benchmarks: made-up ones, missing ones, and their table."""

import contextlib
import csv
import io
import json
import sys

import pytest
import torch

pytest.importorskip("matplotlib")
pytest.importorskip("rich")

from benchmark_cases import PEAKS, TINY, only

from inpaint_ops.benchmarks import main
from inpaint_ops.benchmarks.cases import conv_problems
from inpaint_ops.benchmarks.harness import runner, timing
from inpaint_ops.benchmarks.harness.accuracy import Error
from inpaint_ops.benchmarks.harness.case import Case, Problem, load
from inpaint_ops.benchmarks.harness.plain import Plain
from inpaint_ops.benchmarks.peers import invite
from inpaint_ops.benchmarks.peers.engines import MODEL
from inpaint_ops.benchmarks.peers.invite import AS_IT_COMES, OWN, PEERS, Party, Peer, Setting
from inpaint_ops.benchmarks.peers.remote import Remote, RemoteError
from inpaint_ops.benchmarks.report import peers, stored

pytestmark = pytest.mark.filterwarnings("ignore:inpaint_ops. the compiled extension is missing")

# An engine that doubles its input, off by what its options say. It writes to its output too.
FAKE = """
import os, sys, types
import numpy as np
from inpaint_ops.benchmarks.peers import worker

class Fake:
    def __init__(self, folder, inputs, threads, options):
        if options.get("refuses"):
            raise ValueError("cannot\\nexpress it")
        if options.get("dies"):
            print("no memory", file=sys.stderr, flush=True)
            os._exit(3)
        self.x, self.off = inputs[0], options.get("off", 0.0)
        self.lasts = options.get("lasts", 10**9)
    def run(self):
        print("an engine talks")
        self.lasts -= 1
        if self.lasts < 0:
            os._exit(3)
        self.y = 2 * self.x + np.float32(self.off)
    def outcome(self):
        return self.y

module = types.ModuleType("fake")
module.Fake = Fake
sys.modules["fake"] = module
sys.exit(worker.main())
"""
COMMAND = (sys.executable, "-c", FAKE)


def _peer(name, *options):
    texts = ("as it comes", "exact", "more exact")
    settings = tuple(Setting(text, given) for text, given in zip(texts, options))
    return Peer(name, "no-such-distribution", "fake:Fake", settings or (AS_IT_COMES,))


def _doubling():
    """A problem whose eager result is off by 2^-20."""
    x = torch.arange(1.0, 5.0)
    exact = 2 * x.double()
    return Problem(
        inputs=(x,),
        implementations={"ours": lambda x: 2 * x, "eager": lambda x: 2 * x + 2.0**-20},
        check=lambda y: None if (y - exact).abs().max() < 1e-3 else "not doubled",
        errors=lambda y: {"y": Error.of(y, exact)},
        plain=lambda: Plain((x,), lambda path: path.write_bytes(b"a file"), lambda *_: None),
    )


class _Pool:
    """Processes that several tests use one after the other: each takes a second to start."""

    def __init__(self):
        self.remotes, self.lent = [], 0

    def lend(self):
        if self.lent == len(self.remotes):
            self.remotes.append(Remote(COMMAND))
        self.lent += 1
        return self.remotes[self.lent - 1]


@pytest.fixture(scope="module")
def pool():
    shared = _Pool()
    yield shared
    for remote in shared.remotes:
        remote.close()


@pytest.fixture
def party(pool):
    """Makes a party of engines, whose processes go on."""

    def party_of(known):
        pool.lent = 0
        return Party(known, pool.lend)

    return party_of


def _run(party, problem=None):
    problem = _doubling() if problem is None else problem
    options = {"seconds": 0.0, "min_rounds": 1, "with_compile": False}
    return next(runner.run_case(TINY, lambda _: problem, PEAKS, invite=party.given, **options))


def test_engines_take_part_with_their_errors(party):
    result = _run(party({"a": _peer("A"), "b": _peer("B", {"off": 2.0**-19})}))
    for name, worst in (("A", 0.0), ("B", 2.0)):
        entry = result.entries[name]
        assert (entry.status, entry.detail) == ("ok", "as it comes")
        assert entry.timing.median > 0
        assert result.worst_error(entry) == pytest.approx(worst)
    assert set(result.entries) == {"ours", "eager", "A", "B"}


def test_an_engine_that_errs_much_is_there_at_both_accuracies(party):
    result = _run(party({"a": _peer("A", {"off": 2.0**-10}, {"off": 2.0**-14}, {"off": 2.0**-18})}))
    entries = result.entries
    assert (entries["A"].detail, entries["A" + OWN].detail) == ("more exact", "as it comes")
    assert result.worst_error(entries["A"]) == pytest.approx(4, rel=0.1)
    assert result.worst_error(entries["A" + OWN]) == pytest.approx(1024, rel=0.1)
    assert result.timing("A") is not None
    assert result.timing("A" + OWN) is not None
    # Refused as it comes.
    result = _run(party({"a": _peer("A", {"off": 100.0}, {})}))
    assert set(result.entries) == {"ours", "eager", "A"}
    assert result.entries["A"].detail == "exact"
    # Nothing gained: one entry.
    result = _run(party({"a": _peer("A", {"off": 2.0**-10}, {"off": 2.0**-10})}))
    assert set(result.entries) == {"ours", "eager", "A"}


def test_an_engine_that_fails_says_why_and_fails_nothing(party):
    known = {
        "refuses": _peer("refuses", {"refuses": True}),
        "dies": _peer("dies", {"dies": True}),
        "wrong": _peer("wrong", {"off": 100.0}),
        "missing": Peer("missing", "x", "surely_not_installed:Engine"),
        "fine": _peer("fine"),
    }
    result = _run(party(known))
    reasons = {name: result.entries[name].detail for name in list(known)[:4]}
    assert reasons["refuses"] == "ValueError: cannot"
    assert reasons["dies"] == "its process ended with 3: no memory"
    assert "its result is refused: y is off by" in reasons["wrong"]
    assert reasons["missing"] == "not installed: surely_not_installed"
    assert all(result.entries[name].status == "missing" for name in reasons)
    assert not any(entry.failed for entry in result.entries.values())
    assert result.timing("fine") is not None


def test_a_formula_without_a_file_and_a_case_without_a_formula(party):
    problem = _doubling()

    def unwritable(path):
        raise ValueError("no graph\nholds it")

    plain = problem.plain()
    problem.plain = lambda: Plain(plain.inputs, unwritable, plain.build)
    result = _run(party({"a": _peer("A")}), problem)
    assert result.entries["A"] == runner.Entry("missing", "no ONNX file: no graph")
    problem.plain = None
    assert set(_run(party({"a": _peer("A")}), problem).entries) == {"ours", "eager"}


def test_an_engine_that_hangs_is_given_up():
    remote = Remote((sys.executable, "-c", "import time; time.sleep(60)"), patience=0.2)
    with pytest.raises(RemoteError, match="more than 0 s"):
        remote.ask(do="sample", repeats=1)
    remote.close()


def test_calls_elsewhere_take_their_own_time():
    class Elsewhere:
        asked = []  # noqa: RUF012

        def __call__(self):
            raise AssertionError

        def sample(self, repeats):
            self.asked.append(repeats)
            return 1e-3

    timings = timing.interleave({"a": Elsewhere()}, seconds=0.0, min_rounds=2, pause=1e-3)
    assert timings["a"].median == 1e-3
    # Five to warm up, then one call to wake up and the sample, twice.
    assert Elsewhere.asked == [1] * 5 + [1, 2, 1, 2]


def test_a_process_that_ends_while_it_is_timed_fails_nothing(party):
    result = _run(party({"a": _peer("A", {"lasts": 2}), "b": _peer("B")}))
    assert result.entries["A"] == runner.Entry("missing", "its process ended while it was timed")
    assert result.timing("B") is not None


# The command


@pytest.fixture
def written(party, monkeypatch, tmp_path, capsys):
    """What a run with two made-up engines wrote: a folder; what it printed is there too."""
    case = Case("nearest_patch", "tiny", TINY.sizes, peers=True, quick=True)
    only(monkeypatch, "nearest_patch", (case,), setup=lambda _: _doubling())
    monkeypatch.setattr(main.machine, "measure_peaks", lambda *_, **__: PEAKS[1])
    known = {
        "mnn": _peer("MNN", {"off": 2.0**-10}, {"off": 2.0**-19}),
        "ncnn": Peer("ncnn", "x", "surely_not_installed:Engine"),
    }
    monkeypatch.setattr(main, "PEERS", known)
    lent = contextlib.nullcontext
    monkeypatch.setattr(main, "Party", lambda known: lent(party(known)))
    arguments = ["--threads", "1", "--seconds", "0.01", "--ops", "nearest_patch"]
    assert main.run([*arguments, "--peers", "mnn,ncnn", "--out", str(tmp_path)]) == 0
    (tmp_path / "printed").write_text(capsys.readouterr().out)
    return tmp_path


def test_the_report_says_who_is_ahead(written):
    assert "Who is ahead" in (written / "printed").read_text()
    page = (written / "benchmark.html").read_text()
    assert "<h2>Who is ahead</h2>" in page
    assert "not installed: surely_not_installed" in page
    text = (written / "benchmark.json").read_text()
    found = json.loads(text)
    assert found["settings"]["peers"] == ["mnn", "ncnn"]
    contestants = found["results"][0]["contestants"]
    assert contestants["MNN"]["detail"] == "exact"
    assert contestants["MNN"]["error_over_eager"] == pytest.approx(2)
    assert contestants["MNN, less exact"]["error_over_eager"] == pytest.approx(1024, rel=0.1)
    assert contestants["ncnn"]["status"] == "missing"
    rows = list(csv.DictReader(io.StringIO((written / "peers.csv").read_text())))
    by_name = {row["contestant"]: row for row in rows}
    assert set(by_name) == {"ours", "eager", "MNN", "MNN, less exact", "ncnn"}
    assert float(by_name["MNN"]["over_ours_by_medians"]) > 0
    assert float(by_name["MNN"]["error_over_eager"]) == pytest.approx(2)
    assert by_name["ncnn"]["setting_or_reason"] == "not installed: surely_not_installed"


def test_who_is_ahead():
    def entry(seconds, error):
        return runner.Entry(
            "ok", timing=timing.Timing.of([seconds]), errors={"y": Error(error, error, 1.0, 1.0)}
        )

    entries = {"ours": entry(2.0, 3e-6), "eager": entry(3.0, 1e-6), "quick": entry(1.0, 9e-6)}
    result = runner.Result(TINY, 1, entries)
    assert peers.ahead(result) == "ours", "the quick one errs nine times as much"
    entries["quick"] = entry(1.0, 7e-6)
    assert peers.ahead(result) == "quick"
    assert peers.ahead(runner.Result(TINY, 1, {})) == ""


def test_a_stored_report_has_the_engines_still(written):
    text = (written / "benchmark.json").read_text()
    restored = stored.restore(text)
    assert restored.to_json() == text
    assert peers.table(restored) is not None


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--peers", "nothing"], "unknown nothing, known: eager_last"),
        (["--peers", "--base", "HEAD"], "leave --peers out"),
    ],
)
def test_wrong_usage(arguments, text, capsys):
    assert main.run(arguments) == 2
    assert text in capsys.readouterr().err


# What engines are given

KINDS = {
    "fused_conv2d": "fused-128-128-64x64-k5-reflect-elu",
    "gated_conv2d": "gated-48-24-256x256-k3-up2-elu",
    "partial_conv2d": "partial-1024-512-8x8-k3",
    "fused_conv_transpose2d": "transposed-64-3-32x32-k4-s2-tanh",
}


@pytest.mark.parametrize("op", KINDS)
def test_the_file_of_a_layer_is_its_public_formula(op, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    layer = conv_problems.LAYERS[KINDS[op]]
    case = next(c for c in load(op).CASES if c.peers and c.sizes["layer"] == layer.id)
    problem = conv_problems.setup(case)
    plain = problem.plain()
    plain.write(tmp_path / MODEL)
    session = runtime.InferenceSession(str(tmp_path / MODEL), providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]
    (y,) = session.run(None, {name: x.numpy() for name, x in zip(names, plain.inputs)})
    expected = problem.run(problem.implementations["eager"])
    assert problem.check(torch.from_numpy(y)) is None
    for layout in (torch.contiguous_format, torch.channels_last):
        torch.testing.assert_close(
            plain.build(layout, False)(*plain.inputs), expected, atol=1e-4, rtol=0
        )


def test_the_real_engines_that_are_installed(tmp_path):
    case = next(c for c in load("fused_conv_transpose2d").CASES if "1024-512-4x4" in c.id)
    result = next(
        _real(case, {name: PEERS[name] for name in ("onnxruntime", "openvino", "ncnn", "mnn")})
    )
    for peer in PEERS.values():
        entry = result.entries.get(peer.name)
        if entry is not None and entry.status == "missing":
            assert entry.detail.startswith("not installed: "), entry.detail
    assert result.entries["ONNX Runtime"].status == "ok"
    assert result.worst_error(result.entries["ONNX Runtime"]) < 8


def _real(case, known):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    with Party(known) as party:
        yield from runner.run_case(
            case, conv_problems.setup, PEAKS, seconds=None, with_compile=False, invite=party.given
        )


def test_eager_in_the_other_layout_runs_in_a_process_of_its_own():
    case = next(c for c in load("fused_conv_transpose2d").CASES if "64-3-32x32" in c.id)
    result = next(_real(case, {"eager_last": PEERS["eager_last"]}))
    assert result.entries["eager channels_last"].status == "ok"
    assert result.worst_error(result.entries["eager channels_last"]) < 8


def test_every_peer_is_a_class():
    for peer in PEERS.values():
        module, _, name = peer.engine.partition(":")
        assert hasattr(__import__(module, fromlist=[name]), name)
    assert invite.versions(PEERS.values())["torch"] == torch.__version__
