"""The check on a GPU, rehearsed on the CPU in Triton's interpreter, with and without faults."""

import contextlib
import io
import json
import math
import os
import shutil
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import failing_worker
import numpy
import pytest
import torch
import triton
from operators import OPERATORS

from inpaint_ops.benchmarks.gpu import check, page, run_from_tree, worker
from inpaint_ops.benchmarks.gpu.steps import contestants, layers, right, stage
from inpaint_ops.benchmarks.gpu.steps.problems import Problem, problems
from inpaint_ops.benchmarks.gpu.steps.task import STEPS, Settings, Step, Task, precision
from inpaint_ops.benchmarks.gpu.store import FAILED, Store
from inpaint_ops.benchmarks.harness.case import Case
from inpaint_ops.kernels import tables, tune
from inpaint_ops.kernels.stopwatch import is_lost, measure, peak_memory

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
# Far from what a case takes on a busy machine.
PATIENT = ("--device", "cpu", "--minutes", "60", "--limit", "500")


@pytest.fixture(scope="module")
def rehearsal(tmp_path_factory):
    """The folder, exit status and output of a whole rehearsal in which every step fails once."""
    folder = tmp_path_factory.mktemp("gpu")
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        code = check.main(
            [*PATIENT, "--out", str(folder)], worker=(sys.executable, failing_worker.__file__)
        )
    return folder, code, printed.getvalue()


def cases(folder, step):
    (store,) = Store.all_of(folder, step)
    return store.cases


def test_a_step_that_fails_loses_one_case(rehearsal):
    folder, code, printed = rehearsal
    expected = {
        "right": "wrong",
        "warm": "error",
        "tuning": "crashed",
        "layers": "hung",
        "matching": "error",
        "networks": "memory",
        "compiled": "error",
    }
    assert set(expected) == {step.name for step in STEPS}
    for name, status in expected.items():
        found = cases(folder, name)
        assert found.pop(failing_worker.FAULT)["status"] == status, printed
        assert found
        assert all(one["status"] == "ok" for one in found.values()), (name, found)
        assert not Store.all_of(folder, name)[0].left
    # Too little memory is a result, everything else a failure.
    failed = [step for step in STEPS if expected[step.name] in FAILED]
    assert code == sum({step.code for step in failed})
    assert printed.count("FAILED") == len(failed)
    assert "FAILED tuning-0" in printed
    assert "exit status 9" in printed


def test_what_failed_runs_again_and_nothing_else(rehearsal):
    folder = rehearsal[0]
    before = {step.name: cases(folder, step.name) for step in STEPS}
    steps = ("tuning", "matching")
    options = [*PATIENT, "--out", str(folder), "--resume", "--only", steps[0], "--only", steps[1]]
    assert check.main(options, worker=(sys.executable, failing_worker.__file__)) == 0
    for name in steps:
        after = cases(folder, name)
        assert after.pop(failing_worker.FAULT)["status"] == "ok"
        del before[name][failing_worker.FAULT]
        assert after == before[name]


def test_one_file_and_one_page_at_the_end(rehearsal):
    folder = rehearsal[0]
    content = json.loads((folder / "gpu.json").read_text())
    assert set(content["steps"]) == {step.name for step in STEPS}
    assert content["environment"]["triton"]
    text = (folder / "gpu.html").read_text()
    assert "</html>" in text
    assert "http" not in text
    assert text == page.render(content)
    for one in content["steps"]["layers"]["cases"].values():
        if one["status"] == "ok":
            assert {"ours", "library+epilogue", "eager", "eager channels_last"} <= set(one["times"])
            assert one["roofline"]["floor"] > 0
    # What was found is there for the steps that follow, in a file that can be shipped as it is.
    table = tables.read(folder / "tuned.json")
    assert table["architecture"] == "sm_80"
    measured = [one for one in content["steps"]["tuning"]["cases"].values() if "keys" in one]
    assert set(table["convolutions"]) == {key for one in measured for key in one["keys"]} != set()


def test_every_operator_is_checked():
    for small in (True, False):
        assert {problem.op for problem in problems(small)} == set(OPERATORS)
    for problem in problems(True):
        assert set(problem.leaves) == {*OPERATORS[problem.op].leaves}


def test_the_cpu_kernels_pass_what_gpus_must_pass():
    settings = Settings(CPU, Path())
    for problem in problems(small=False):
        if problem.id == "deep":
            continue
        outcome = right.check(problem, "bf16", "", _Plain(CPU, Path()))
        assert outcome["status"] == "ok", (problem.op, problem.id, outcome["detail"])
    assert settings.small


class _Plain(Settings):
    """No rehearsal: the kernels that serve the device by themselves."""

    @property
    def small(self):
        return False


def test_a_wrong_result_is_told(monkeypatch):
    (problem,) = (one for one in problems(small=True) if one.op == "instance_norm")
    monkeypatch.setattr(right.ops, "instance_norm", lambda x, **rest: 1.1 * x.detach())
    broken = Problem(problem.op, problem.id, problem.tensors, problem.options)
    outcome = right.check(broken, "fp32", "", _Plain(CPU, Path()))
    assert outcome["status"] == "wrong"
    assert outcome["detail"].startswith("result 0 is off by")


def test_networks_are_held_to_the_error_of_the_formula(monkeypatch):
    """A bound for one operator says nothing on 17 layers in half precision."""
    x = torch.randn(1, 8, 6, 6, generator=torch.Generator().manual_seed(0))

    def formula(x):
        for _ in range(40):
            x = torch.tanh(1.5 * x) + 0.01
        return x

    def outcome_of(ours):
        made = SimpleNamespace(inputs=(x,), implementations={"ours": ours, "eager": formula})
        monkeypatch.setattr(stage, "load", lambda op: SimpleNamespace(setup=lambda case: made))
        return stage.check("bf16", _Plain(CPU, Path()), Case("gated_conv2d", "chain", {}))

    outcome = outcome_of(lambda x: formula(x.float()).to(x.dtype))
    assert outcome["status"] == "ok", outcome
    assert outcome["formula"] > outcome["error"] > 0
    outcome = outcome_of(lambda x: 1.2 * formula(x))
    assert outcome["status"] == "wrong"
    assert "times the formula's, allowed" in outcome["detail"]


def test_a_contestant_that_fails_is_not_timed_and_the_others_are():
    def broken():
        raise ValueError("no")

    times = measure({"a": lambda: None, "b": broken}, CPU, 0.001)
    assert times["a"]["device"] >= 0
    assert times["b"] == {"missing": "ValueError: no"}

    def lost():
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    assert is_lost(RuntimeError("Triton Error [CUDA]: an illegal memory access was encountered"))
    assert not is_lost(torch.OutOfMemoryError("CUDA out of memory"))
    with pytest.raises(RuntimeError, match="illegal"):
        measure({"a": lost}, CPU, 0.001)


def test_no_case_begins_after_the_time(tmp_path):
    step = _step(lambda settings: [Task("a", lambda: {"status": "ok"})])
    assert worker.run(step, Settings(CPU, tmp_path), ends=time.time() - 1)
    store = Store(tmp_path, step.file(0))
    assert store.left == ["a"]
    assert not store.cases


def _step(tasks):
    class Made(Step):
        def tasks(self, settings):
            return tasks(settings)

    return Made("made", 4, 1, 1)


def test_a_table_holds_what_loses_least_of_each_class():
    def outcome(name, library, **times):
        return {"keys": [name, "class"], "times": times, "library": library}

    entries = tune.entries_of(
        [
            outcome("a", 0.5, large=2.0, small=1.0),
            {"times": {}},
            outcome("b", 4.0, large=1.0, small=4.0),
            outcome("c", None, large=1.0, small=1.5),
            {**outcome("d", 1.0), "keys": ["d"]},
            {**outcome("e", None), "keys": ["e"]},
        ]
    )
    assert entries == {
        "a": {"row": "small", "choice": "library"},
        "b": {"row": "large", "choice": "fused"},
        "c": {"row": "large", "choice": "fused"},
        "d": {"row": "", "choice": "library"},
        "class": {"row": "large", "choice": "fused"},
    }


def test_wrong_usage(capsys, tmp_path):
    if not torch.cuda.is_available():
        assert check.main(["--out", str(tmp_path)]) == 2
        assert "sees no GPU" in capsys.readouterr().out
    for wrong in (["--only", "median_filter"], ["--minutes", "0"]):
        with pytest.raises(SystemExit, match="2"):
            check.main(wrong)


def test_runs_from_a_copied_tree(tmp_path):
    """Where nothing is installed but torch and Triton: no package of ours, no extension."""
    tree = tmp_path / "tree"
    ignored = shutil.ignore_patterns("__pycache__", "*.so")
    for folder in ("inpaint_ops", "kernels", "models", "benchmarks"):
        shutil.copytree(ROOT / folder, tree / folder, ignore=ignored)
    with (tree / "inpaint_ops" / "__init__.py").open("a") as file:
        file.write("\nprint('from the copy', flush=True)\n")
    environment = {key: v for key, v in os.environ.items() if not key.startswith("PYTHON")}
    # As folders of PYTHONPATH these do not make editable packages known.
    packages = {str(Path(module.__file__).parents[1]) for module in (torch, triton, numpy)}
    environment["PYTHONPATH"] = os.pathsep.join(packages)
    start = partial(subprocess.run, capture_output=True, text=True, env=environment, cwd=tmp_path)
    python = getattr(sys, "_base_executable", sys.executable)
    missing = start([python, "-c", "import inpaint_ops"])
    assert "ModuleNotFoundError" in missing.stderr
    script = tree / "benchmarks" / "gpu" / "run_from_tree.py"
    out = tmp_path / "out"
    options = ["--only", "right", "--most", "2", "--out", "out"]
    done = start([python, str(script), *PATIENT, *options])
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("from the copy")
    assert (out / "right-0.log").read_text().startswith("from the copy")
    (store,) = Store.all_of(out, "right")
    assert [one["status"] for one in store.cases.values()] == ["ok", "ok"]
    facts = json.loads((out / "gpu.json").read_text())["environment"]
    assert facts["instruction_set"] == "none (no extension)"


class _Clock:
    """A device that takes two milliseconds a call, and stands in for torch.cuda."""

    def __init__(self):
        self.now = 0.0
        self.slept = 0

    def sleep(self, cycles):
        self.slept += cycles
        self.now += 1e3 * cycles / 1e9

    def event(self, enable_timing):
        assert enable_timing
        return _Event(self)


class _Event:
    def __init__(self, clock):
        self.clock, self.at = clock, None

    def record(self):
        self.at = self.clock.now

    def synchronize(self):
        assert self.at is not None

    def elapsed_time(self, other):
        return other.at - self.at


def test_the_device_is_timed_by_its_own_clock(monkeypatch):
    clock = _Clock()
    monkeypatch.setattr(torch.cuda, "Event", clock.event)
    monkeypatch.setattr(torch.cuda, "_sleep", clock.sleep)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)

    def call():
        clock.now += 2.0

    times = measure({"a": call}, torch.device("cuda"), 0.01)
    assert times["a"]["device"] == pytest.approx(2000)
    assert 0 <= times["a"]["call"] < 2000
    assert clock.slept > 0


def test_memory_is_what_a_call_adds(monkeypatch):
    held = {"memory_allocated": 1000, "max_memory_allocated": 1500}
    for name, value in held.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value)
    for name in ("synchronize", "reset_peak_memory_stats"):
        monkeypatch.setattr(torch.cuda, name, lambda device: None)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    assert peak_memory(lambda: None, torch.device("cuda")) == 500
    assert peak_memory(lambda: None, CPU) is None


def test_the_copied_tree_has_the_folders_that_are_installed():
    text = (ROOT / "setup.py").read_text()
    (line,) = (line for line in text.splitlines() if line.startswith("INNER = "))
    assert line == f"INNER = {run_from_tree.INNER!r}".replace("'", '"')


def test_float32_is_held_to_its_bounds_without_tf32():
    """PyTorch allows TF32 in convolutions, which a bound of float32 would call wrong."""
    matmul, conv = torch.backends.cuda.matmul, torch.backends.cudnn.conv
    before = matmul.fp32_precision, conv.fp32_precision
    for name, wanted in (("fp32", "ieee"), ("tf32", "tf32")):
        with precision(name) as dtype:
            assert dtype == torch.float32
            assert (matmul.fp32_precision, conv.fp32_precision) == (wanted, wanted)
        assert (matmul.fp32_precision, conv.fp32_precision) == before
    assert right.bound("tf32", 64) > 100 * right.bound("fp32", 64)


def test_a_fault_of_the_page_does_not_stop_the_steps(tmp_path, monkeypatch):
    monkeypatch.setattr(check.page, "render", lambda content: 1 / 0)
    assert not check.write_report(tmp_path, {"steps": {}})
    assert json.loads((tmp_path / "gpu.json").read_text()) == {"steps": {}}
    assert "ZeroDivisionError" in (tmp_path / "gpu.html").read_text()


def test_a_process_that_does_not_start_is_told(tmp_path, capsys):
    options = [*PATIENT, "--only", "right", "--out", str(tmp_path)]
    python = (sys.executable, "-S", "-c")
    assert check.main(options, worker=(*python, "raise SystemExit(5)")) == 4
    assert "FAILED right-0 start: crashed: exit status 5" in capsys.readouterr().out


def test_a_process_that_never_begins_a_case_is_ended(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(check, "_LOADING", 0.0)
    options = ["--device", "cpu", "--minutes", "0.01", "--only", "right", "--out", str(tmp_path)]
    sleep = (sys.executable, "-S", "-c", "import time; time.sleep(600)")
    assert check.main(options, worker=sleep) == 4
    assert "FAILED no results" in capsys.readouterr().out


def test_a_baseline_beyond_its_bound_is_timed(monkeypatch):
    """What eager computes is no fault of ours; what ours computes is."""
    settings = Settings(CPU, Path())

    def contest(wrong):
        calls = {who: lambda: torch.zeros(1) for who in ("ours", "eager")}
        errors = {"ours": 0.0, "eager": 0.0, wrong: math.nan}
        monkeypatch.setattr(contestants.Work, "contestants", lambda work, settings: calls)
        monkeypatch.setattr(layers, "errors_of", lambda work, calls: errors)
        (task, *_) = layers.tasks(settings)
        return task.run()

    assert contest("eager")["status"] == "ok"
    assert "eager is off by nan" in contest("eager")["detail"]
    assert contest("eager")["times"]["eager"]["device"] >= 0
    assert contest("ours")["status"] == "wrong"


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
def test_every_step_lists_its_cases_for_a_gpu(step):
    """Named once each, those that tell most first, without asking a device."""
    names = [task.id for task in step.tasks(Settings(torch.device("cuda"), Path()))]
    assert len(set(names)) == len(names)
    least = {"right": 150, "warm": 300, "tuning": 400, "layers": 1000, "matching": 60}
    assert len(names) >= least.get(step.name, 10)
    if step.name == "layers":
        assert names[0] == "gated-5-24-512x512-k5-elu-n16-bf16-forward"


def test_the_steps_take_nine_minutes():
    assert sum(step.seconds for step in STEPS) == 540
    assert sum({step.code for step in STEPS}) < 256


def test_the_page_has_memory_by_size():
    def case(side, ours):
        times = {"ours": {"device": 1.0, "call": 2.0, "bytes": ours}, "eager": {"missing": "no"}}
        sizes = {"grid": side, "backward": False}
        row = {"op": "contextual_attention", "precision": "bf16", "sizes": sizes, "times": times}
        return {"status": "ok", "detail": "", **row}

    found = {"a": case(32, 2_000_000), "b": case(64, 8_000_000)}
    step = {"cases": found, "not_run": ["c"], "failures": []}
    text = page.render({"environment": {}, "steps": {"matching": step}})
    line = next(line for line in text.splitlines() if "bf16 forward ours" in line)
    assert line.endswith("<td>2.0</td><td>8.0</td></tr>")
    assert "No time was left for 1 cases." in text
