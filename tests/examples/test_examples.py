"""The examples run, on small inputs, and do what they say."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty folder to work in, and torch's random numbers as they were."""
    monkeypatch.chdir(tmp_path)
    with torch.random.fork_rng(devices=[]):
        yield tmp_path


def load(name):
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_swap_a_layer():
    assert load("swap_a_layer").main() < 1e-5


def test_train_unet(folder):
    pytest.importorskip("safetensors")
    pixels = np.full((40, 48, 3), (200, 100, 50), np.uint8)  # easily learned
    example = load("train_unet")
    (folder / "photos").mkdir()
    for number in range(6):
        example.Photo(pixels).save(folder / f"photos/{number}.png")
    size = ["--size", "32", "--width", "4", "--steps", "8"]
    losses = example.main(["--photos", "photos", "--out", "out", *size])
    assert losses[-1] < 0.8 * losses[0]
    assert (folder / "out/sample.png").is_file()
    assert (folder / "out/unet.safetensors").is_file()


def test_train_unet_brings_six_photos(folder):
    pytest.importorskip("skimage")
    made = load("train_unet").own_photos(folder / "photos")
    assert len(list(made.glob("*.png"))) == 6


def test_fill_a_folder(folder):
    example = load("fill_a_folder")
    assert len(example.main([])) == 2
    before = example.load_photo("photos/stripes1.png").pixels
    after = example.load_photo("filled/stripes1.png").pixels
    hole = example.load_hole("holes/stripes1.png", (48, 64), "white")[0, 0].numpy()
    assert np.array_equal(before[~hole], after[~hole])
    assert np.abs(before[hole].astype(int) - after[hole]).mean() < 5  # stripes go on
    assert len(example.main(["photos", "holes", "again"])) == 2


def test_match_map(folder):
    assert load("match_map").main(["map.png"]) > 0.95
    assert (folder / "map.png").is_file()


def test_benchmark_your_layer(capsys):
    ratio = load("benchmark_your_layer").main(["--size", "16", "--channels", "4", "--rounds", "3"])
    assert ratio > 0
    assert "ratio" in capsys.readouterr().out


def test_export_and_run(folder):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    assert load("export_and_run").main(["glcic.onnx"]) < 1e-4


def test_ray_batch(folder):
    written = load("ray_batch").main(["--plain", "--out", "out"])
    assert [file.name for file in written] == [f"stripes{number}.png" for number in range(4)]
    assert all(file.is_file() for file in written)


def test_notebook(folder):
    for package in ("nbclient", "ipykernel", "skimage"):
        pytest.importorskip(package)
    # In a process of its own: what notebooks run in has warnings of its own.
    code = f"""
import nbclient, nbformat
notebook = nbformat.read({str(EXAMPLES / "first_steps.ipynb")!r}, 4)
nbformat.validate(notebook)
nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
print(sum(bool(cell.get("outputs")) for cell in notebook.cells), "cells with outputs")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout.split()[0]) >= 6


def test_the_page_names_every_example_and_its_extra_exists():
    page = (ROOT / "docs/start/examples.md").read_text(encoding="utf-8")
    declared = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for file in (*EXAMPLES.glob("*.py"), *EXAMPLES.glob("*.ipynb")):
        assert f"(../../examples/{file.name})" in page or f"`examples/{file.name}`" in page, file
        for extras in re.findall(r"inpaint-ops\[([\w,]+)\]", file.read_text(encoding="utf-8")):
            for extra in extras.split(","):
                assert re.search(rf"^{extra} = \[", declared, re.MULTILINE), (file, extra)
