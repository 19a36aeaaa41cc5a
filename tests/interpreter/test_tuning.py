"""The measured choice reaches every convolution, and is measured where that is asked for."""

import json
import warnings

import pytest
import torch

import inpaint_ops
from inpaint_ops.benchmarks.cases.conv_layers import Layer
from inpaint_ops.benchmarks.gpu.steps.task import Settings
from inpaint_ops.kernels import plans, products, tables, tune, tuning
from inpaint_ops.kernels.convolution import choose, fused
from inpaint_ops.kernels.convolution.fused_kernel import CONV

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


def _mask(parts):
    return torch.ones(1, parts, 6, 6, dtype=torch.bool)


# name: (channels of x, shape of the weight, call, start of the key)
CALLS = {
    "gated": (
        8,
        (16, 8, 3, 3),
        lambda *t: inpaint_ops.gated_conv2d(*t, padding=1),
        "gated half m36 n8 k72",
    ),
    "doubled": (
        8,
        (16, 8, 3, 3),
        lambda *t: inpaint_ops.gated_conv2d(*t, padding=1, upsample=2),
        "gated half m36 n8 k32 p2",
    ),
    "doubled 5x5": (
        8,
        (8, 8, 5, 5),
        lambda *t: inpaint_ops.fused_conv2d(*t, padding=2, upsample=2),
        "plain half m144 n8 k200 doubled",
    ),
    "plain": (
        5,
        (8, 5, 3, 3),
        lambda *t: inpaint_ops.fused_conv2d(*t, padding=1, stride=2, activation="elu"),
        "plain half m9 n8 k72 s2",
    ),
    "dilated": (
        8,
        (8, 8, 3, 3),
        lambda *t: inpaint_ops.fused_conv2d(*t, padding=2, dilation=2, padding_mode="reflect"),
        "plain half m36 n8 k72 dilated edges",
    ),
    "partial": (
        8,
        (8, 8, 3, 3),
        lambda x, *t: inpaint_ops.partial_conv2d(x, _mask(1), *t, padding=1)[0],
        "partial half m36 n8 k72",
    ),
    "partial of two": (
        16,
        (8, 16, 3, 3),
        lambda x, *t: inpaint_ops.partial_conv2d(
            tuple(x.chunk(2, 1)), (_mask(1), _mask(1)), *t, padding=1
        )[0],
        "partial half m36 n8 k144",
    ),
    "transposed": (
        8,
        (8, 8, 4, 4),
        lambda *t: inpaint_ops.fused_conv_transpose2d(*t, stride=2, padding=1),
        "plain half m36 n8 k32 p2",
    ),
}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    for name in ("INPAINT_OPS_TUNED", "INPAINT_OPS_TUNE", "INPAINT_OPS_CONV"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("INPAINT_OPS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(tables, "_SHIPPED", tmp_path / "shipped")
    plans.forget()
    yield tmp_path / "cache"
    plans.forget()


@pytest.fixture
def ran(monkeypatch):
    """Who multiplied, call by call: rows of the fused kernel, or the library."""
    names = []
    run = CONV.run

    def fused_kernel(call, pointers):
        names.append(call.row)
        run(call, pointers)

    def by(function):
        def library(*given):
            names.append("library")
            return function(*given)

        return library

    monkeypatch.setattr(CONV, "run", fused_kernel)
    for name in ("convolve", "convolve_transposed"):
        monkeypatch.setattr(products, name, by(getattr(products, name)))
    return names


def call(name, dtype=torch.bfloat16):
    channels, shape, function, _ = CALLS[name]
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, channels, 6, 6, generator=generator).to(dtype)
    weight = torch.randn(shape, generator=generator).to(dtype)
    with inpaint_ops.backend("triton"):
        return function(
            x, weight, torch.zeros(shape[1 if name == "transposed" else 0], dtype=dtype)
        )


def rows(name):
    kind = CALLS[name][3].partition(" ")[0]
    return [row for row in fused.rivals(kind, "half", "sm_80") if row != f"{kind}-odd"]


@pytest.mark.parametrize("name", CALLS)
def test_the_table_decides(name, ran):
    """By the layer's own key and by that of its class; an entry that means nothing does nothing."""
    key = CALLS[name][3]
    usual = call(name)
    (first,) = ran
    path = tables.cache_file(CPU)
    for keys in ([key], choose_keys(name)[1:2]):
        for row in rows(name):
            for choice in ("fused", "library"):
                path.unlink(missing_ok=True)
                tables.store(path, CPU, {one: {"row": row, "choice": choice} for one in keys})
                plans.forget()
                del ran[:]
                y = call(name)
                assert ran == [row if choice == "fused" else "library"]
                assert torch.allclose(y.float(), usual.float(), rtol=0.02, atol=0.2)
    kind = key.partition(" ")[0]
    other = {"gated": "plain", "plain": "partial", "partial": "gated"}[kind]
    wrong = [
        {"row": "gone", "choice": "fused"},
        {"row": f"{kind}-tf32", "choice": "fused"},
        {"row": f"{other}-small", "choice": "fused"},
        {"row": f"{kind}-small", "choice": "winograd"},
    ]
    for entry in wrong:
        tables.store(path, CPU, {key: entry})
        plans.forget()
        del ran[:]
        call(name)
        assert ran == [first]


def test_a_neighbouring_class_stands_in_until_it_is_measured(monkeypatch, ran, stopwatch):
    asked, wanted = stopwatch
    own, *classes = choose_keys("gated")
    beside = {classes[1]: {"row": "gated-wide", "choice": "fused"}}
    tables.store(tables.cache_file(CPU), CPU, beside)
    plans.forget()
    call("gated")
    assert ran[-1] == "gated-wide"
    plans.forget()
    monkeypatch.setenv("INPAINT_OPS_TUNE", "1")
    wanted["gated-large"] = {"device": 1.0}
    call("gated")
    assert len(asked) == 1
    assert ran[-1] == "gated-large"
    assert set(tables.read(tables.cache_file(CPU))["convolutions"]) == {own, *classes[:2]}


def choose_keys(name):
    """The keys under which a call is looked for."""
    seen = []

    def find(keys, device):
        seen.append(keys)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "find", find)
        plans.forget()
        call(name)
    plans.forget()
    return seen[0]


@pytest.mark.parametrize("name", CALLS)
def test_keys(name):
    keys = choose_keys(name)
    assert keys[0] == CALLS[name][3]
    assert len(set(keys)) == 4


def test_a_forced_way_goes_before_the_table(monkeypatch, ran):
    key = CALLS["gated"][3]
    tables.store(tables.cache_file(CPU), CPU, {key: {"row": "gated-wide", "choice": "library"}})
    for forced, wanted in (("fused", "gated-wide"), ("library", "library"), ("auto", "library")):
        monkeypatch.setenv("INPAINT_OPS_CONV", forced)
        del ran[:]
        call("gated")
        assert ran == [wanted]
    monkeypatch.setenv("INPAINT_OPS_TUNED", "off")
    del ran[:]
    call("gated")
    assert ran == ["gated-small"]
    monkeypatch.setenv("INPAINT_OPS_CONV", "cudnn")
    with pytest.raises(ValueError, match="must be auto, fused or library, got 'cudnn'"):
        call("gated")


def test_classes_stand_for_their_neighbours():
    def problem(pixels):
        return fused.Problem("gated", "half", pixels, 48, 432, fused.Reading((3, 3), (2, 2)))

    small, larger, largest = (problem(pixels).keys for pixels in (1024, 4096, 65536))
    assert small[1] in larger[2:]
    assert larger[1] in small[2:]
    assert not {*small} & {*largest}
    assert all(key.endswith("k~4 s2") for key in small[1:])


@pytest.fixture
def stopwatch(monkeypatch):
    """A stopwatch that runs every candidate and says what the test wants; calls on CPUs count."""
    asked = []
    wanted = {}

    def measure(calls, device, seconds):
        asked.append(list(calls))
        for one in calls.values():
            one()
        return {name: wanted.get(name, {"device": 9.0}) for name in calls}

    monkeypatch.setattr(tuning, "measure", measure)
    monkeypatch.setattr(tuning, "_TIMED", ("cpu",))
    return asked, wanted


@pytest.mark.parametrize("name", CALLS)
def test_a_first_call_measures_if_asked(name, monkeypatch, ran, stopwatch):
    asked, wanted = stopwatch
    call(name)
    assert not asked
    plans.forget()
    monkeypatch.setenv("INPAINT_OPS_TUNE", "1")
    fastest = rows(name)[-1]
    wanted[fastest] = {"device": 2.0}
    state = torch.get_rng_state()
    del ran[:]
    first = call(name)
    # All rows and the library, each once; then the call itself.
    assert asked == [[*fused.rivals(fastest.partition("-")[0], "half", "sm_80"), "library"]]
    assert ran == [*asked[0], fastest]
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(first, call(name))
    assert len(asked) == 1
    # It is kept, for the class too: a process that does not ask finds it.
    monkeypatch.delenv("INPAINT_OPS_TUNE")
    entries = tables.read(tables.cache_file(CPU))["convolutions"]
    assert set(entries) == set(choose_keys(name)[:2])
    del ran[:]
    call(name)
    assert ran == [fastest]
    assert len(asked) == 1


def test_what_is_known_is_not_measured(monkeypatch, ran, stopwatch):
    asked, wanted = stopwatch
    monkeypatch.setenv("INPAINT_OPS_TUNE", "1")
    wanted["library"] = {"device": 1.0}
    call("gated")
    plans.forget()
    del ran[:]
    call("gated")
    assert ran == ["library"]
    # Nor where a table or a way is forced, or there is to be none.
    for name, value in {"INPAINT_OPS_TUNED": "off", "INPAINT_OPS_CONV": "fused"}.items():
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            call("gated")
    # Nor where runs are to repeat each other's digits.
    with monkeypatch.context() as patch:
        patch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
        call("plain")
    assert len(asked) == 1
    monkeypatch.setenv("INPAINT_OPS_TUNE", "yes")
    with pytest.raises(ValueError, match="INPAINT_OPS_TUNE: must be 0 or 1, got 'yes'"):
        call("partial")


@pytest.mark.parametrize("why", ["captured", "traced"])
def test_nothing_is_measured_while_calls_are_recorded(why, monkeypatch, ran, stopwatch):
    is_recorded = tuning._is_recorded
    asked, wanted = stopwatch
    monkeypatch.setenv("INPAINT_OPS_TUNE", "1")
    wanted["gated-wide"] = {"device": 1.0}
    with monkeypatch.context() as patch:
        if why == "captured":
            # As on a device: CPU tensors are never captured.
            patch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
            patch.setattr(tuning, "_is_recorded", lambda device: is_recorded(GPU))
        else:
            patch.setattr(torch.compiler, "is_compiling", lambda: True)
        call("gated")
        with tuning.collecting(0.0) as found:
            call("gated")
    assert not asked
    assert not found
    assert set(ran) == {"gated-small"}
    # The call that follows is the first that can be measured.
    call("gated")
    assert len(asked) == 1
    assert ran[-1] == "gated-wide"


def test_candidates_that_fail_are_left_out(monkeypatch, ran, stopwatch):
    asked, wanted = stopwatch
    monkeypatch.setenv("INPAINT_OPS_TUNE", "1")
    failed = {"missing": "OutOfMemoryError"}
    wanted |= {"library": failed, "gated-large": failed, "gated-small": {"device": 3.0}}
    call("gated")
    assert ran[-1] == "gated-small"
    wanted |= dict.fromkeys(asked[0], failed)
    call("doubled")
    assert len(asked) == 2
    assert "gated half m36 n8 k32 p2" not in tables.read(tables.cache_file(CPU))["convolutions"]


def test_a_candidate_that_cannot_be_prepared_is_left_out(monkeypatch):
    """The fused kernel counts pixels in 32 bits; the library may form what it cannot."""
    monkeypatch.setattr(tuning, "_TIMED", ("cpu",))
    monkeypatch.setenv("INPAINT_OPS_TUNE", "1")

    def trial(row):
        if row is not None:
            raise ValueError("too many pixels")
        return lambda: None

    only = {"row": "", "choice": "library"}
    assert tuning.measured(["own", "class"], ["plain-odd"], CPU, trial, False) == only
    problem = fused.Problem("plain", "half", 36, 8, 72, fused.Reading((3, 3)))
    assert choose.row_of(torch.zeros(1, dtype=torch.bfloat16), problem, trial) is None
    one = tuning._measure(["own"], ["plain-odd"], CPU, trial, 0.001)
    assert not one.times
    assert one.library >= 0


def test_a_cache_that_cannot_be_written_is_told_and_costs_nothing(
    monkeypatch, tmp_path, ran, stopwatch
):
    _, wanted = stopwatch
    (tmp_path / "file").touch()
    monkeypatch.setenv("INPAINT_OPS_CACHE", str(tmp_path / "file" / "folder"))
    monkeypatch.setenv("INPAINT_OPS_TUNE", "1")
    wanted["gated-wide"] = {"device": 1.0}
    with pytest.warns(RuntimeWarning, match="measured choices cannot be kept in .*folder"):
        call("gated")
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        call("gated")
    assert ran[-1] == "gated-wide"


def test_the_command_measures_layers(monkeypatch, tmp_path, stopwatch):
    layers = [
        Layer("test", "gated", 5, 8, 6, activation="elu"),
        Layer("test", "partial", 8, 16, 6, parts=((8, 1),)),
        Layer("test", "fused", 8, 3, 6, stride=2, padding_mode="reflect"),
        Layer("test", "transposed", 8, 8, 4, 4, 2),
        Layer("test", "fused", 600, 8, 3),
    ]
    asked, wanted = stopwatch
    wanted |= {"gated-wide": {"device": 1.0}, "library": {"device": 4.0}}
    settings = Settings(CPU, tmp_path)
    outcomes = [
        tune.times_of(layer, name, 1, settings) for layer in layers for name in tune.PRECISIONS
    ]
    assert len(asked) == len(outcomes)
    assert all("library" in one for one in asked)
    again = tune.times_of(layers[0], "bf16", 1, settings)
    assert again == outcomes[0]
    entries = tune.entries_of(outcomes)
    assert entries["gated half m36 n8 k72"] == {"row": "gated-wide", "choice": "fused"}
    assert entries["gated tf32 m36 n8 k72"] == {"row": "gated-tf32", "choice": "library"}
    assert {key.split()[0] for key in entries} == {"gated", "partial", "plain"}
    # Deep layers too: the library is no rule's, but what was fastest.
    assert entries["plain half m9 n8 k5400"]["choice"] == "library"
    tables.store(tables.cache_file(CPU), CPU, entries)
    table = json.loads(tables.cache_file(CPU).read_text())
    assert table["versions"] == tables.versions()


def test_problems_of_the_command_differ():
    found = tune.problems(Settings(torch.device("cuda"), tables.cache_folder()))
    names = [(layer.id, *rest) for layer, *rest in found]
    assert len(set(names)) == len(names)
    assert names[0] == ("gated-5-24-512x512-k5", "bf16", 1)


def test_the_rule_follows_what_is_known():
    """`predicted` alone where there is no table."""
    deep = fused.Problem("gated", "half", 10**6, 96, 5000, fused.Reading((3, 3)))
    assert not choose.predicted(deep, "sm_90")
    assert choose.predicted(deep._replace(depth=72), "sm_90")
