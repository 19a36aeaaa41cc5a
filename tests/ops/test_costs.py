"""Costs by which algorithms are chosen: the table's, and those that a machine keeps."""

import json
import os
import stat
import warnings

import pytest
import torch

import inpaint_ops
from inpaint_ops.ops import native
from inpaint_ops.ops.convolution import costs, plan, tuning
from inpaint_ops.ops.convolution.tuning import Layer

pytestmark = pytest.mark.skipif(
    not native.status().available, reason="the choice is the extension's"
)

# One layer of each kind that takes no time.
TINY = (
    Layer(16, 16, 3, 1, 12),
    Layer(16, 16, 3, 2, 8),
    Layer(3, 16, 7, 1, 12),
    Layer(16, 8, 4, 2, 6, transposed=True),
)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A cache folder that is read."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv(costs.VARIABLE, "1")
    forget()
    yield tmp_path / "inpaint_ops"
    forget()


def forget():
    tuning.choose_anew()


def table(name=None):
    module = native.extension()
    return tuple(module.measured_costs(name or module.instruction_set()))


def faked(**prices):
    """The table's costs but for some."""
    return tuple(prices.get(n, c) for n, c in zip(native.extension().cost_names, table()))


def here():
    return native.extension().instruction_set()


def test_every_instruction_set_has_positive_costs(instruction_set):
    found = table(instruction_set)
    assert len(found) == len(native.extension().cost_names)
    assert all(cost > 0 for cost in found)
    assert costs.current(instruction_set) == found
    with pytest.raises(ValueError, match="no costs for the instruction set sse9"):
        table("sse9")


@pytest.mark.parametrize("layer", tuning.LAYERS, ids=str)
def test_the_choice_follows_the_costs(layer):
    """Free tiles are always taken where a kernel is square, free direct sums too."""
    names = native.extension().cost_names
    free_tiles = faked(**{name: 1e-6 for name in names if name != "direct"})
    assert tuning.chosen(layer, free_tiles).startswith("winograd")
    free_sums = faked(direct=1e-6, packed=1e-6)
    assert tuning.chosen(layer, free_sums) == "direct"


@pytest.mark.parametrize("layer", tuning.LAYERS, ids=str)
def test_only_ratios_of_costs_count(layer):
    doubled = [2 * cost for cost in table()]
    assert tuning.chosen(layer, doubled) == tuning.chosen(layer, table())


@pytest.mark.parametrize("layer", tuning.LAYERS, ids=str)
def test_packed_weights_that_cost_much_are_not_made(layer):
    """What a training would pack at every step counts in the choice."""
    algorithm = tuning.chosen(layer, faked(packed=1e9))
    work = {
        name: native.extension().convolution_work(
            name,
            "transposed" if layer.transposed else "forward",
            1,
            layer.weight,
            layer.geometry.stride,
            (1, 1),
            (layer.size,) * 2,
        )[native.extension().cost_names.index("packed")]
        for name in ("direct", algorithm)
    }
    assert work[algorithm] <= work["direct"]


def test_what_is_kept_is_read():
    prices = faked(direct=12345.0)
    path = costs.store(prices, here())
    assert path.parent == costs.cache_folder()
    assert costs.current(here()) == prices
    content = json.loads(path.read_text())
    assert content["cpu"] == costs.cpu_name()
    assert content["unit"] == "picoseconds"
    # One machine, one choice: a file that changes meanwhile is not read again.
    costs.store(faked(direct=1.0), here())
    assert costs.current(here()) == prices
    forget()
    assert costs.current(here()) == faked(direct=1.0)


def test_plans_follow_what_is_kept():
    layer = tuning.LAYERS[0]
    shapes, what = tuning._shapes(layer), tuning._what(layer)
    first = plan.plan(what, shapes, "auto").algorithm
    assert first == tuning.chosen(layer, table()) != "direct"
    prices = faked(direct=1e-6)
    assert tuning.keep(tuning.Outcome(prices, [], (0.0, 0.0))) == costs.file_of(here())
    assert plan.plan(what, shapes, "auto").algorithm == "direct"
    assert tuning.keep(tuning.Outcome(None, [], (0.0, 0.0))) is None
    assert not costs.file_of(here()).exists()
    assert plan.plan(what, shapes, "auto").algorithm == first


def test_calls_that_are_known_follow_what_is_kept():
    torch.manual_seed(0)
    layer = inpaint_ops.FusedConv2d(32, 32, 3, padding=1)
    x = torch.rand(1, 32, 24, 24)
    with torch.no_grad():
        tiled, direct = (
            layer(x),
            inpaint_ops.fused_conv2d(x, layer.weight, layer.bias, padding=1, algorithm="direct"),
        )
        assert not torch.equal(tiled, direct)
        tuning.keep(tuning.Outcome(faked(direct=1e-6), [], (0.0, 0.0)))
        assert torch.equal(layer(x), direct)
        tuning.keep(tuning.Outcome(None, [], (0.0, 0.0)))
        assert torch.equal(layer(x), tiled)


@pytest.mark.parametrize("value", ["0", "off", "No", " false "])
def test_the_environment_switches_it_off(value, monkeypatch):
    costs.store(faked(direct=1.0), here())
    monkeypatch.setenv(costs.VARIABLE, value)
    assert costs.switched_off()
    assert costs.current(here()) == table()


def content(**changes):
    good = {
        **costs._key(here()),
        "costs": dict(zip(native.extension().cost_names, table())),
    }
    return json.dumps({**good, **changes})


DAMAGED = {
    "empty": lambda: "",
    "binary": lambda: b"\xff\x00\xfe",
    "half": lambda: content()[:40],
    "list": lambda: "[1, 2]",
    "no costs": lambda: content(costs=None),
    "other kinds": lambda: content(costs={"direct": 1.0}),
    "text": lambda: content(costs=dict.fromkeys(native.extension().cost_names, "1")),
    "bool": lambda: content(costs=dict.fromkeys(native.extension().cost_names, True)),
    "negative": lambda: content(costs=dict.fromkeys(native.extension().cost_names, -1)),
    "infinite": lambda: content(costs=dict.fromkeys(native.extension().cost_names, 1e999)),
    "nan": lambda: content(costs=dict.fromkeys(native.extension().cost_names, float("nan"))),
    "other processor": lambda: content(cpu="Z80"),
    "other version": lambda: content(version="0.0.0"),
    "other set": lambda: content(instruction_set="sse9"),
}


@pytest.mark.parametrize("how", DAMAGED)
def test_a_file_that_does_not_fit_is_ignored_with_one_warning(how, folder):
    path = costs.file_of(here())
    folder.mkdir()
    text = DAMAGED[how]()
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.warns(RuntimeWarning, match="is ignored") as warned:
        assert costs.current(here()) == table()
    assert len(warned) == 1
    assert str(path) in str(warned[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert costs.current(here()) == table()


def test_a_folder_in_place_of_the_file_is_ignored(folder):
    costs.file_of(here()).mkdir(parents=True)
    with pytest.warns(RuntimeWarning, match="is ignored"):
        assert costs.current(here()) == table()


def test_a_file_appears_complete_or_not_at_all(folder, monkeypatch):
    path = costs.store(faked(direct=1.0), here())
    before = path.read_bytes()

    def fail(*_):
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="no space left"):
        costs.store(faked(direct=2.0), here())
    assert path.read_bytes() == before
    assert list(folder.iterdir()) == [path]


def test_a_missing_cache_is_made_and_a_file_in_its_place_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "a" / "b"))
    assert costs.store(table(), here()).is_file()
    (tmp_path / "taken").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "taken"))
    with pytest.raises(NotADirectoryError):
        costs.store(table(), here())
    # A relative path is none, says the standard.
    monkeypatch.setenv("XDG_CACHE_HOME", "here")
    assert costs.cache_folder().is_absolute()


def test_files_of_machines_and_versions_differ(monkeypatch):
    names = {costs.file_of(name) for name in native.extension().instruction_sets()}
    monkeypatch.setattr(costs, "cpu_name", lambda: "Z80")
    names.add(costs.file_of(here()))
    monkeypatch.setattr(costs, "_version", lambda: "0.0.0")
    names.add(costs.file_of(here()))
    assert len(names) == len(native.extension().instruction_sets()) + 2


def test_processors_are_told_apart(tmp_path, monkeypatch):
    info = tmp_path / "cpuinfo"
    info.write_text(
        "processor\t: 0\nmodel name\t: Zen 9\ncpu family\t: 25\n\nmodel name\t: other\n"
    )
    monkeypatch.setattr(costs, "_CPU", info)
    assert costs.cpu_name().endswith(" / Zen 9 / 25")
    monkeypatch.setattr(costs, "_CPU", tmp_path / "missing")
    assert costs.cpu_name()


def test_costs_are_fitted_to_times():
    """Times that follow from other costs give those that decided about them."""
    true = [3 * cost for cost in faked(direct=60.0, packed=900.0)]
    times = {}
    for layer in tuning.LAYERS:
        kind = "transposed" if layer.transposed else "forward"
        rest = (kind, 1, layer.weight, layer.geometry.stride, (1, 1), (layer.size,) * 2)
        times[layer] = {
            name: 1e-12
            * sum(a * b for a, b in zip(native.extension().convolution_work(name, *rest), true))
            for name in ("direct", "winograd_4x3", "winograd_4x2", "winograd_3x4")
        }
    fitted = tuning.fit(table(), times)
    assert tuning._error(fitted, times) < tuning._error(table(), times) / 2
    index = native.extension().cost_names.index
    ratio = fitted[index("direct")] / fitted[index("tiled")]
    assert ratio == pytest.approx(true[index("direct")] / true[index("tiled")], rel=0.25)


def test_tuning_takes_no_slower_choice(monkeypatch):
    """Whatever was measured at first: what is taken is measured once more."""
    layer = tuning.LAYERS[0]
    assert tuning.chosen(layer, table()) == "winograd_4x3"

    def outcome(seconds):
        def measure(layer, rounds, algorithms=None):
            # At first direct sums seem to be a hundred times as fast as they are.
            first = {"direct": 1e-6, "winograd_4x3": 1e-2, "winograd_4x2": 1e-2}
            return first if algorithms is None else {a: seconds[a] for a in algorithms}

        monkeypatch.setattr(tuning, "measure", measure)
        return tuning.tune([layer], rounds=1)

    worse = outcome({"winograd_4x3": 1.0, "direct": 1.1})
    assert worse.costs is None
    assert worse.choices == []
    better = outcome({"winograd_4x3": 1.0, "direct": 0.9})
    assert better.costs is not None
    assert better.choices == [(layer, "winograd_4x3", "direct", (1.0, 0.9))]
    assert tuning.chosen(layer, better.costs) == "direct"


def test_tuning_a_tiny_list(instruction_set):
    done = []
    outcome = tuning.tune(TINY, rounds=1, progress=done.append)
    assert done == sorted(done)
    assert done[-1] == 1.0
    if outcome.costs is not None:
        assert all(cost > 0 for cost in outcome.costs)
        assert outcome.choices
    assert not costs.cache_folder().exists()


def test_modes_of_the_file_are_those_of_a_cache():
    mode = stat.S_IMODE(costs.store(table(), here()).stat().st_mode)
    assert mode & stat.S_IRUSR
    assert not mode & stat.S_IXUSR
