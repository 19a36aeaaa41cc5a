"""``inpaint-ops serve``: its options, and the program from its start to Ctrl-C."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from command_line import FILLED, HOLE, RGB
from page_client import Client, decoded, encoded, running

from inpaint_ops.cli import serve_command
from inpaint_ops.cli.fillers import FillerChoice
from inpaint_ops.models import create_model, list_models, save_weights
from inpaint_ops.serving import PageServer


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(0)
    model = create_model("deepfill_v2", base_channels=8, critic_channels=4)
    save_weights(model, tmp_path / "faces.safetensors")
    return model, tmp_path / "faces.safetensors"


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--weights", "deepfill_v2"], "expected METHOD=VALUE or METHOD:LABEL=VALUE"),
        (["--weights", "=a.pth"], "expected METHOD=VALUE"),
        (["--weights", "deepfill_v2:=a.pth"], "expected METHOD=VALUE"),
        (["--weights", "magic=a.pth"], "unknown model 'magic', known: exemplar"),
        (["--weights", "exemplar=a.pth"], "exemplar takes no --weights"),
        (["--weights", "deepfill_v2=none.pth"], "deepfill_v2: none.pth is no file"),
        (["--layout", "deepfill_v2=x"], "there is no --weights deepfill_v2=FILE"),
        (["--features", "deepfill_v2=x"], "there is no --weights deepfill_v2=FILE"),
        (["--option", "deepfill_v2:a=x=1"], "there is no --weights deepfill_v2:a=FILE"),
        (["--weights", "glcic=a.pth", "--features", "glcic=v.pth"], "glcic takes no --features"),
        (["--weights", "glcic=a.pth", "--option", "glcic=x"], "--option must be NAME=VALUE"),
        (["--port", "70000"], "70000 is not in the range"),
    ],
)
def test_wrong_options(run, options, text):
    result = run("serve", *options)
    assert result.exit_code == 2
    assert text in " ".join(result.output.split())


def test_a_port_in_use(run):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        result = run("serve", "--port", port)
    assert result.exit_code == 1
    assert f"port {port}: " in result.output
    assert "--port 0 takes a free one" in result.output
    assert "Traceback" not in result.output


def test_the_browser_is_opened_only_if_asked(run, monkeypatch):
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(PageServer, "serve_forever", stop)
    for options in ([], ["--open"]):
        result = run("serve", "--port", 0, *options)
        assert result.output.startswith("http://127.0.0.1:")
        assert len(opened) == len(options)
    assert opened[0] == result.output.split()[0]


def test_methods_are_those_of_the_registry(weights):
    _, path = weights
    choices = serve_command._choices(
        [("deepfill_v2", str(path)), ("deepfill_v2:faces", str(path))], [], [], []
    )
    methods = serve_command._methods(choices)
    assert [m.key for m in methods if m.build is not None] == [
        "exemplar",
        "deepfill_v2",
        "deepfill_v2:faces",
    ]
    assert {m.name for m in methods} == {"exemplar", *list_models()}
    assert all(m.summary for m in methods)
    # The page shows no path.
    assert {m.files for m in methods} == {(), ("faces.safetensors",)}


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_the_program_fills_with_a_model_and_ctrl_c_does_not_wait_for_a_filling(weights):
    model, path = weights
    code = (
        "import signal, sys, time\n"
        # A shell's background jobs ignore the signal.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "sys.argv[0] = 'inpaint-ops'\n"
        "from inpaint_ops import cli\n"
        "from inpaint_ops.cli import fillers\n"
        # It tells no progress, as a network, so nothing can stop it inside.
        "def slow(image, hole, *, seed=0, progress=None):\n"
        "    time.sleep(600)\n"
        "fillers.FILLERS['exemplar'] = lambda: slow\n"
        "sys.exit(cli.main(sys.argv[1:]))\n"
    )
    given = ["serve", "--port", "0", "--weights", f"deepfill_v2:faces={path}", "--threads", "1"]
    with subprocess.Popen(
        [sys.executable, "-c", code, *given],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            url = process.stdout.readline().split()[0]
            client = Client(int(url.rstrip("/").rpartition(":")[2]))
            opened = client.open(encoded(RGB))["id"]
            job = client.start(opened, HOLE, method="deepfill_v2:faces")
            client.finish(job)
            pixels = decoded(client.get(f"/api/jobs/{job}/file", suffix="png"))
            job = client.start(opened, HOLE)
            while client.state(job)["state"] != "filling":
                time.sleep(0.01)
            process.send_signal(signal.SIGINT)
            rest, errors = process.communicate(timeout=120)
        finally:
            process.kill()
    assert (process.returncode, rest, errors) == (130, "", "inpaint-ops: interrupted\n")
    image = torch.from_numpy(RGB).permute(2, 0, 1)[None].float() / 255
    expected = model.complete(image, torch.from_numpy(HOLE)[None, None] > 0)
    expected = (expected[0].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
    assert (pixels == expected).all()


def test_filled_pictures_are_those_of_fill(filler):
    """The same filler, rules of rounding and hole as the command ``fill``."""
    with running(serve_command._methods({})) as server:
        client = Client(server.port)
        job = client.start(client.open(encoded(RGB))["id"], HOLE)
        client.finish(job)
        assert (decoded(client.get(f"/api/jobs/{job}/file", suffix="png")) == FILLED).all()


def test_methods_see_large_pictures_in_windows_as_fill_does(monkeypatch):
    seen = []

    def build(_, window, *, device):
        seen.append((window, device))

    monkeypatch.setattr(FillerChoice, "build", build)
    choice = FillerChoice(model="glcic", weights=(Path("w.pth"),))
    methods = serve_command._methods({"glcic": choice}, torch.device("cpu"))
    next(method for method in methods if method.name == "glcic").build()
    assert seen == [("auto", torch.device("cpu"))]
