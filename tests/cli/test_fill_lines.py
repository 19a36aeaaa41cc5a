"""``inpaint-ops fill`` with lines, and on a device."""

import numpy as np
import pytest
import torch
from command_line import FOLDER_ARGUMENTS, HOLE, RGB, SIZE, read, write

from inpaint_ops.cli import devices
from inpaint_ops.images import load_lines
from inpaint_ops.models import create_model, save_weights

LINES = np.zeros((SIZE, SIZE), np.uint8)
LINES[5, 2:10] = 255
LINES[1, 1:6] = 200
MODELS = {
    "sketch": ("deepfill_v2", {"base_channels": 8, "critic_channels": 4, "sketch": True}),
    "edges": (
        "edge_connect",
        {"base_channels": 8, "critic_channels": 4, "residual_blocks": 1},
    ),
}


def saved(argument, path):
    torch.manual_seed(0)
    name, options = MODELS[argument]
    model = create_model(name, **options)
    save_weights(model, path)
    return model, ["--model", name, "--weights", path]


@pytest.mark.parametrize("argument", MODELS)
def test_lines_reach_the_method(run, pair, folders, argument):
    model, with_model = saved(argument, folders / "w.safetensors")
    write(folders / "lines.png", LINES)
    for name in ("a", "b", "c"):
        write(folders / "drawn" / f"{name}.png", LINES)
    image = torch.from_numpy(RGB / 255).permute(2, 0, 1)[None].float()
    given = {argument: torch.from_numpy(LINES / 255)[None, None].float()}
    filled = model.complete(image, torch.from_numpy(HOLE)[None, None] > 0, **given)
    wanted = (filled[0].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
    result = run("fill", *pair, "-o", "o.png", *with_model, f"--{argument}", "lines.png")
    assert result.exit_code == 0, result.output
    np.testing.assert_array_equal(read("o.png"), wanted)
    for source in ("drawn", "lines.png"):
        result = run(*FOLDER_ARGUMENTS, "--overwrite", *with_model, f"--{argument}", source)
        assert result.exit_code == 0, result.output
        np.testing.assert_array_equal(read("out/b.png"), wanted)
    (folders / "drawn" / "b.png").unlink()
    result = run(*FOLDER_ARGUMENTS, "--overwrite", *with_model, f"--{argument}", "drawn")
    assert result.exit_code == 1
    assert "failed: b.png: no line file named b.* in drawn" in result.output
    assert "2 filled" in result.output


def test_lines_where_nothing_takes_them(run, pair, tmp_path):
    write(tmp_path / "lines.png", LINES)
    result = run("fill", *pair, "-o", "o.png", "--sketch", "lines.png")
    assert (result.exit_code, result.output) == (1, "Error: exemplar takes no --sketch\n")
    _, with_model = saved("edges", tmp_path / "w.safetensors")
    result = run("fill", *pair, "-o", "o.png", *with_model, "--sketch", "lines.png")
    assert result.exit_code == 1
    assert "edge_connect.complete: sketch must be left out" in result.output
    result = run("fill", *pair, "-o", "o.png", *with_model, "--edges", "nowhere.png")
    assert result.exit_code == 2
    assert "--edges: nowhere.png does not exist" in result.output


def test_lines_of_files(tmp_path):
    soft = write(tmp_path / "soft.png", LINES)
    lines = load_lines(soft, (SIZE, SIZE))
    assert lines.shape == (1, 1, SIZE, SIZE)
    assert lines.dtype == torch.float32
    torch.testing.assert_close(lines[0, 0], torch.from_numpy(LINES / 255).float())
    colours = np.dstack([LINES] * 3 + [np.where(LINES == 200, 0, 255).astype(np.uint8)])
    shown = load_lines(write(tmp_path / "rgba.png", colours), (SIZE, SIZE))
    assert float(shown[0, 0, 1].max()) == 0
    torch.testing.assert_close(shown[0, 0, 5], lines[0, 0, 5])
    with pytest.raises(ValueError, match=r"soft.png: the lines have 12x12 .* picture has 9x12"):
        load_lines(soft, (SIZE, 9))
    for name, pixels, got in (("dark", 255 - LINES, "92 % white"), ("none", LINES * 0, "no line")):
        path = write(tmp_path / f"{name}.png", pixels)
        with pytest.raises(ValueError, match=f"{name}.png: lines must be white on black .*{got}"):
            load_lines(path, (SIZE, SIZE))


@pytest.mark.parametrize("device", ["cuda:77", "meta", "gpu", ""])
@pytest.mark.parametrize("command", ["fill", "serve"])
def test_a_device_that_is_not_there(run, pair, filler, device, command):
    arguments = [*pair, "-o", "o.png"] if command == "fill" else ["--port", 0]
    result = run(command, *arguments, "--device", device)
    assert (result.exit_code, filler.seeds) == (2, [])
    assert f"--device: {device!r} is not there; here are cpu" in " ".join(result.output.split())


def test_a_device_fills_and_the_result_comes_back(run, pair, monkeypatch, tmp_path):
    """A device that is none: what would go there stays where it is."""

    place = torch.device("cuda", 0)
    went = []

    def to(tensor, where, *rest, **options):
        went.append(where)
        return tensor

    _, with_model = saved("sketch", tmp_path / "w.safetensors")
    write(tmp_path / "lines.png", LINES)
    arguments = ["fill", *pair, *with_model, "--sketch", "lines.png"]
    assert run(*arguments, "-o", "one.png", "--device", "cpu").exit_code == 0
    monkeypatch.setattr("inpaint_ops.cli.fill_command.find_device", lambda text: place)
    monkeypatch.setattr(torch.nn.Module, "to", to)
    real = torch.Tensor.to
    monkeypatch.setattr(
        torch.Tensor,
        "to",
        lambda x, *a, **o: to(x, *a) if a[:1] == (place,) else real(x, *a, **o),
    )
    result = run(*arguments, "-o", "two.png", "--device", "cuda")
    assert result.exit_code == 0, result.output
    # The weights, the picture, its hole and its sketch.
    assert went == [place] * 4
    np.testing.assert_array_equal(read("one.png"), read("two.png"))


def test_devices_that_are_there():
    assert devices.find_device("cpu") == torch.device("cpu")
    assert devices._devices()[0] == "cpu"
