"""``inpaint-ops masks``, ``doctor``, ``bench`` and ``models``, and filling with real models."""

import json
import os
import re
import shutil
import subprocess
import sys
import types
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from command_line import HOLE, RGB, read, write
from PIL import Image
from safetensors.torch import load_file, save_file

from inpaint_ops import doctor
from inpaint_ops.cli import commands
from inpaint_ops.images import load_hole
from inpaint_ops.masks import HOLE_RATIO_BINS
from inpaint_ops.models import create_model, list_models, save_weights
from inpaint_ops.ops import native
from inpaint_ops.ops.dispatch import OPERATORS


@pytest.mark.parametrize("kind", ["center", "box", "free-form", "irregular"])
def test_masks_writes_holes(run, kind, tmp_path):
    ratio = () if kind == "center" else ("--ratio", "0.1-0.2")
    result = run("masks", "--size", "40x30", "--kind", kind, *ratio, "--count", 3, "--out", "m")
    assert result.exit_code == 0, result.output
    assert sorted(os.listdir("m")) == [f"{kind}_{index:05d}.png" for index in range(3)]
    for path in Path("m").iterdir():
        share = load_hole(path, (40, 30)).double().mean().item()
        assert share == 0.25 if kind == "center" else 0.1 < share <= 0.2
        assert set(np.unique(read(path))) == {0, 255}


def test_masks_depend_on_seed_and_index_only(run):
    def written(folder, *options):
        assert run("masks", "--size", "32x32", "--out", folder, *options).exit_code == 0
        return [path.read_bytes() for path in sorted(Path(folder).iterdir())]

    three = written("a", "--count", 3, "--seed", 5)
    assert len(set(three)) == 3
    assert written("b", "--count", 2, "--seed", 5) == three[:2]
    assert written("c", "--count", 3, "--seed", 6) != three


def test_masks_keeps_existing_files(run, tmp_path):
    write(tmp_path / "m" / "box_00001.png", HOLE)
    arguments = ("masks", "--size", "32x32", "--kind", "box", "--count", 2, "--out", "m")
    result = run(*arguments)
    assert result.exit_code == 1
    assert "box_00001.png: exists already (1 of 2 files do)" in result.output
    assert os.listdir("m") == ["box_00001.png"]
    assert run(*arguments, "--overwrite").exit_code == 0
    assert read("m/box_00001.png").shape == (32, 32)


@pytest.mark.parametrize(
    ("options", "code", "text"),
    [
        (["--size", "32"], 2, "expected HxW"),
        (["--size", "axb"], 2, "expected HxW"),
        (["--size", "32x32", "--ratio", "0.1"], 2, "expected LOW-HIGH"),
        (["--size", "32x32", "--kind", "star"], 2, "'free-form'"),
        (["--size", "32x32", "--kind", "center", "--ratio", "0.1-0.2"], 2, "neither --ratio"),
        (["--size", "32x32", "--ratio", "0.3-0.2"], 1, "ratio must satisfy"),
        (["--size", "0x32"], 1, "height must be >= 1, got 0"),
        (["--size", "8x8", "--border", "4"], 1, "border must leave"),
    ],
)
def test_masks_refusals(run, options, code, text):
    result = run("masks", *options, "--out", "m")
    assert result.exit_code == code
    assert text in " ".join(result.output.split())


def test_masks_ratio_takes_the_bins(run):
    low, high = HOLE_RATIO_BINS[0]
    assert run("masks", "--size", "64x64", "--ratio", f"{low}-{high}", "--out", "m").exit_code == 0


def test_doctor_json(run):
    result = run("doctor", "--json")
    facts = json.loads(result.output)
    assert result.exit_code == (1 if facts["broken"] else 0)
    assert facts["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert facts["versions"]["torch"] == torch.__version__
    assert facts["machine"]["torch_threads"] == torch.get_num_threads()
    assert facts["extension"]["available"] == native.status().available
    isa = native.status().instruction_set
    assert set(facts["backends"]) == set(OPERATORS)
    served = "reference" if isa is None else f"csrc ({isa})"
    assert facts["backends"]["nearest_patch"]["cpu"] == served
    if facts["extension"]["available"]:
        assert facts["convolutions"]["3x3"].startswith("winograd")
        assert facts["convolutions"]["grouped"] == "aten"
    assert facts["extras"]["cli"]["missing"] == []


# The keys that programs may rely on, by command.
DOCTOR_KEYS = {
    *("versions", "machine", "extension", "backends", "convolutions", "cuda", "gpu_kernels"),
    *("extras", "broken"),
}
MODEL_KEYS = {"summary", "networks", "layouts", "options", "multiple", "minimum"}


def test_keys_of_json_are_stable(run):
    facts = json.loads(run("doctor", "--json").output)
    assert set(facts) == DOCTOR_KEYS
    assert set(facts["extension"]) == {
        *("available", "built", "error", "instruction_set", "instruction_sets", "openmp"),
    }
    assert set(facts["machine"]) == {"platform", "cpu", "cores", "torch_threads"}
    listed = json.loads(run("models", "--json").output)
    assert list(listed) == list_models()
    for model in listed.values():
        assert set(model) == MODEL_KEYS
        for layout in model["layouts"]:
            assert set(layout) == {"name", "network", "source", "licence", "channel_order"}


def test_doctor_needs_neither_click_nor_rich(monkeypatch, capsys):
    for name in ("click", "rich"):
        monkeypatch.setitem(sys.modules, name, None)
    broken = doctor.collect()["broken"]
    assert doctor.main(["--json"]) == (1 if broken else 0)
    assert set(json.loads(capsys.readouterr().out)) == DOCTOR_KEYS
    assert doctor.main([]) == (1 if broken else 0)
    assert re.search(r"^torch +2\.", capsys.readouterr().out, re.MULTILINE)


def test_doctor_is_a_module_that_runs():
    code = (
        "import runpy, sys\n"
        "sys.modules.update(click=None, rich=None)\n"
        "sys.argv[1:] = ['--json']\n"
        "runpy.run_module('inpaint_ops.doctor', run_name='__main__')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert set(json.loads(done.stdout)) == DOCTOR_KEYS, done.stderr
    assert done.returncode in (0, 1)


@pytest.mark.skipif(os.name != "posix", reason="pipes")
def test_doctor_is_quiet_when_its_reader_has_gone():
    read_end, write_end = os.pipe()
    os.close(read_end)
    command = [sys.executable, "-m", "inpaint_ops.doctor", "--json"]
    try:
        done = subprocess.run(command, stdout=write_end, stderr=subprocess.PIPE, check=False)
    finally:
        os.close(write_end)
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(run, shell):
    result = run("completion", shell)
    assert result.exit_code == 0
    assert f"_INPAINT_OPS_COMPLETE={shell}_complete" in result.output
    assert "inpaint-ops" in result.output


def test_bash_takes_the_script(run, tmp_path):
    if shutil.which("bash") is None:
        pytest.skip("no bash")
    script = write_text(tmp_path / "script", run("completion", "bash").output)
    done = subprocess.run(
        ["bash", "-c", f"source {script} && complete -p inpaint-ops"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "inpaint-ops" in done.stdout, done.stderr


def write_text(path, text):
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("words", "found", "not_found"),
    [
        (["fi"], {"fill"}, {"masks"}),
        (["fill", "--model", "deepfill"], {"deepfill_v1", "deepfill_v2"}, {"exemplar", "glcic"}),
        (["fill", "--model", "e"], {"exemplar", "edge_connect"}, {"telea"}),
        (["evaluate", "--model", ""], {"exemplar", "telea", *list_models()}, set()),
        (["train", "g"], {"glcic", "gmcnn"}, {"exemplar"}),
        (["export", "shift"], {"shift_net"}, set()),
        (["masks", "--kind", "i"], {"irregular"}, {"box"}),
        (["doctor", "--js"], {"--json"}, set()),
    ],
)
def test_completion_knows_commands_options_and_methods(words, found, not_found):
    """As bash asks: the words of the line, and the number of the one to be completed."""
    line = {"COMP_WORDS": " ".join(["inpaint-ops", *words]), "COMP_CWORD": str(len(words))}
    answer = CliRunner(env={**line, "_INPAINT_OPS_COMPLETE": "bash_complete"}).invoke(
        commands.cli, prog_name="inpaint-ops"
    )
    given = {row.partition(",")[2] for row in answer.output.split()}
    assert found <= given, answer.output
    assert not not_found & given


def test_doctor_text_names_what_is_missing_and_how_to_get_it(run, monkeypatch):
    monkeypatch.setitem(doctor.EXTRAS, "peers", ("surely-not-installed",))
    result = run("doctor")
    assert "missing surely-not-installed: pip install 'inpaint-ops[peers]'" in result.output
    assert re.search(r"^torch +2\.", result.output, re.MULTILINE)
    assert re.search(r"^  nearest_patch +cpu: ", result.output, re.MULTILINE)


def fake_status(**changes):
    fields = {
        "available": True,
        "error": None,
        "instruction_set": "avx2",
        "instruction_sets": ("baseline", "avx2"),
        "openmp": True,
    }
    return lambda: types.SimpleNamespace(**{**fields, **changes})


def test_doctor_with_the_extension(run, monkeypatch):
    monkeypatch.setattr(native, "status", fake_status())
    result = run("doctor")
    assert re.search(r"extension +avx2 \(of baseline, avx2\), with OpenMP", result.output)
    assert re.search(r"^  5x5 stride 2 +winograd_4x3$", result.output, re.MULTILINE)


def test_doctor_with_one_instruction_set(run, monkeypatch):
    monkeypatch.setattr(native, "status", fake_status(instruction_sets=("avx2",)))
    result = run("doctor")
    assert re.search(r"extension +avx2 \(no other here\), with OpenMP", result.output)


@pytest.mark.parametrize("built", [True, False])
def test_doctor_without_the_extension(run, monkeypatch, built):
    monkeypatch.delenv("INPAINT_OPS_DISABLE_EXTENSION", raising=False)
    absent = fake_status(available=False, error="no libgomp", instruction_set=None)
    monkeypatch.setattr(native, "status", absent)
    monkeypatch.setattr(
        doctor.importlib.util, "find_spec", lambda name: object() if built else None
    )
    result = run("doctor")
    assert re.search(r"extension +not loaded: no libgomp", result.output)
    # The pure PyTorch installation is a working one; a library that does not load is not.
    assert result.exit_code == (1 if built else 0)
    assert ("built but not loaded: no libgomp" in result.output) == built


def test_doctor_survives_a_broken_section(run, monkeypatch):
    def fail():
        raise RuntimeError("driver mismatch")

    monkeypatch.setattr(torch.cuda, "is_available", fail)
    for arguments in (["doctor"], ["doctor", "--json"]):
        result = run(*arguments)
        assert result.exit_code == 1
        assert "cuda: RuntimeError: driver mismatch" in result.output


def test_doctor_extras_are_those_of_the_package():
    declared = {}
    for line in metadata.requires("inpaint-ops"):
        found = re.match(r"([\w.-]+)[^;]*;.*extra == ['\"](\w+)['\"]", line)
        # What an older Python needs is not missing from a newer one.
        if found and "python_version" not in line:
            declared.setdefault(found[2], set()).add(found[1].lower())
    for extra, distributions in doctor.EXTRAS.items():
        assert declared[extra] == set(distributions), extra
    assert set(declared) - {"demo", "docs", "notebook", "test", "dev", "all"} == set(doctor.EXTRAS)


def test_bench_forwards_everything(run, monkeypatch):
    seen = []
    module = types.ModuleType("inpaint_ops.benchmarks.main")
    module.run = lambda argv: seen.append(argv) or 3
    monkeypatch.setitem(sys.modules, "inpaint_ops.benchmarks.main", module)
    assert run("bench", "gated_conv2d", "--quick", "-h", "--threads=2").exit_code == 3
    assert seen == [["gated_conv2d", "--quick", "-h", "--threads=2"]]


@pytest.mark.parametrize(
    ("missing", "text"),
    [
        ("matplotlib", "matplotlib is not installed: pip install 'inpaint-ops[bench]'"),
        ("inpaint_ops.benchmarks.main", "the benchmarks are not installed"),
    ],
)
def test_bench_without_its_extra(run, monkeypatch, missing, text):
    class Finder:
        def find_spec(self, name, path=None, target=None):
            if name == "inpaint_ops.benchmarks.main":
                raise ModuleNotFoundError(f"No module named {missing!r}", name=missing)

    monkeypatch.delitem(sys.modules, "inpaint_ops.benchmarks.main", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    result = run("bench")
    assert result.exit_code == 1
    assert text in result.output


def test_fill_with_the_real_filler(run, tmp_path):
    rows, columns = np.mgrid[:48, :48]
    stripes = np.repeat(((rows // 4 + columns // 4) % 2 * 200 + 20)[..., None], 3, 2)
    photo = write(tmp_path / "photo.png", stripes.astype(np.uint8))
    hole = np.zeros((48, 48), np.uint8)
    hole[18:30, 16:32] = 255
    write(tmp_path / "hole.png", hole)
    for name in ("one.png", "two.png"):
        result = run("fill", photo, "hole.png", "-o", name, "--seed", 1)
        assert result.exit_code == 0, result.output
    filled = read("one.png")
    np.testing.assert_array_equal(filled[hole == 0], stripes[hole == 0])
    np.testing.assert_array_equal(filled, read("two.png"))
    # A checkerboard continues into the hole.
    error = np.abs(filled.astype(int) - stripes)[hole > 0].mean()
    assert error < 30


def test_fill_with_a_model(run, tmp_path):
    torch.manual_seed(0)
    model = create_model("deepfill_v2", base_channels=8, critic_channels=4)
    weights = tmp_path / "weights.safetensors"
    save_weights(model, weights)
    Image.fromarray(RGB).save(tmp_path / "a.png")
    Image.fromarray(HOLE).save(tmp_path / "h.png")
    arguments = [str(tmp_path / "a.png"), str(tmp_path / "h.png"), "--model", "deepfill_v2"]
    out = tmp_path / "o.png"
    result = run("fill", *arguments, "--weights", str(weights), "-o", str(out))
    assert result.exit_code == 0, result.output
    filled = np.asarray(Image.open(out))
    assert np.array_equal(filled[HOLE == 0], RGB[HOLE == 0])
    image = torch.from_numpy(RGB).permute(2, 0, 1)[None].float() / 255
    expected = model.complete(image, torch.from_numpy(HOLE)[None, None] > 0)
    expected = (expected[0].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
    assert np.array_equal(filled, expected)
    result = run(
        "fill", *arguments, "--weights", str(weights), "-o", str(out), "--overwrite",
        "--option", "base_channels=12",
    )  # fmt: skip
    assert result.exit_code == 1
    assert "weights.safetensors" in result.output


def test_fill_in_windows(run, tmp_path):
    torch.manual_seed(0)
    model = create_model("glcic", base_channels=4, global_size=32, local_size=32)
    save_weights(model, tmp_path / "w.safetensors")
    rgb = np.random.default_rng(2).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    mask = np.zeros((70, 90), np.uint8)
    mask[10:14, 5:12], mask[40:70, 30:80] = 255, 255
    for folder, pixels in (("photos", rgb), ("holes", mask)):
        (tmp_path / folder).mkdir()
        Image.fromarray(pixels).save(tmp_path / folder / "a.png")
    image, hole = torch.from_numpy(rgb / 255).permute(2, 0, 1)[None].float(), mask > 0
    one = ["photos/a.png", "holes/a.png", "-o", "o.png", "--overwrite"]
    many = ["--images", "photos", "--holes", "holes", "--out", "out", "--overwrite"]
    with_model = ["--model", "glcic", "--weights", "w.safetensors"]
    for given, window in (([], "auto"), (["--window", 40], 40), (["--window", "none"], None)):
        filled = model.complete(image, torch.from_numpy(hole)[None, None], window=window)
        wanted = (filled[0].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
        for arguments, out in ((one, "o.png"), (many, "out/a.png")):
            result = run("fill", *arguments, *with_model, *given)
            assert result.exit_code == 0, result.output
            np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / out)), wanted)
    result = run("fill", *one, *with_model, "--window", 31)
    assert result.exit_code == 1
    assert "glcic.complete: window must be at least 32, got 31" in result.output
    # The filler without weights looks at the whole picture, whatever the window.
    assert run("fill", *one, "--window", 31).exit_code == 0


def test_fill_with_several_files_of_weights(run, tmp_path):
    torch.manual_seed(0)
    model = create_model("edge_connect", base_channels=8, critic_channels=4, residual_blocks=2)
    files = {}
    for network in model.networks:
        files[network] = tmp_path / f"{network}.safetensors"
        save_weights(model, files[network], layout=f"knazeri/{network}")
        # As the port's own files: without a record of options.
        save_file(load_file(files[network]), files[network])
    Image.fromarray(RGB).save(tmp_path / "a.png")
    Image.fromarray(HOLE).save(tmp_path / "h.png")
    out = tmp_path / "o.png"
    fill = ["fill", tmp_path / "a.png", tmp_path / "h.png", "-o", out, "--model", "edge_connect"]
    edges = ["--weights", files["edge_generator"]]
    colours = ["--weights", files["inpaint_generator"]]
    for given, text in (
        (edges, "needs inpaint_generator to complete pictures"),
        (["--weights", files["edge_discriminator"]], "needs edge_generator and inpaint_generator"),
        ([*edges, *colours, *edges], "both hold edge_generator"),
        ([*edges, *colours, "--layout", "magic"], "layout must be auto or of knazeri"),
    ):
        result = run(*fill, *given)
        assert result.exit_code == 1
        assert text in result.stderr
        assert "Traceback" not in result.output
        assert not out.exists()
    result = run(*fill, *edges, *colours)
    assert result.exit_code == 0, result.output
    (note,) = result.stderr.splitlines()
    assert note.startswith("note: ")
    assert "edge_generator.safetensors does not tell sigma=2.0" in note
    image = torch.from_numpy(RGB).permute(2, 0, 1)[None].float() / 255
    expected = model.complete(image, torch.from_numpy(HOLE)[None, None] > 0)
    expected = (expected[0].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
    assert np.array_equal(np.asarray(Image.open(out)), expected)
    result = run(*fill, *edges, *colours, "--overwrite", "--option", "sigma=2.0")
    assert (result.exit_code, result.stderr) == (0, "")


def test_fill_with_an_own_state_dict(run, tmp_path):
    model = create_model("deepfill_v2", base_channels=8, critic_channels=4)
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    Image.fromarray(RGB).save(tmp_path / "a.png")
    Image.fromarray(HOLE).save(tmp_path / "h.png")
    fill = ["fill", tmp_path / "a.png", tmp_path / "h.png", "-o", tmp_path / "o.png"]
    result = run(*fill, "--model", "deepfill_v2", "--weights", tmp_path / "weights.pt")
    assert result.exit_code == 0, result.output
    assert "note: " in result.stderr
    assert "padding='same', pick='align_corners', fuse=True, channel_order='rgb'" in result.stderr


def test_models_lists_all_methods(run):
    result = run("models")
    assert result.exit_code == 0
    facts = json.loads(run("models", "--json").output)
    assert list(facts) == list_models()
    for name, fact in facts.items():
        assert f"{name}: " in result.output
        assert all(count > 0 for count in fact["networks"].values())
        assert {one["network"] for one in fact["layouts"]} <= set(fact["networks"])
    layouts = facts["deepfill_v2"]["layouts"]
    assert {"nipponjo", "nipponjo_tf"} <= {one["name"] for one in layouts}
