"""The program around the commands: interrupts, entry points, standard output."""

import contextlib
import io
import os
import signal
import subprocess
import sys
import time
from importlib import metadata

import pytest
from command_line import FOLDER_ARGUMENTS

from inpaint_ops import program
from inpaint_ops.cli import fillers, main
from inpaint_ops.images import load_hole


def test_interrupt_leaves_no_partial_file(filler, folders, monkeypatch, capsys):
    monkeypatch.chdir(folders)
    filler.fail_at, filler.error = 2, KeyboardInterrupt()
    assert main(FOLDER_ARGUMENTS) == 130
    assert os.listdir(folders / "out") == ["a.png"]
    assert "interrupted" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(["--version"], 0), (["--help"], 0), (["nonsense"], 2), (["fill", "x.png", "-o", "y"], 2)],
)
def test_main_returns_exit_codes(arguments, code, capsys):
    assert main(arguments) == code


def python(*arguments, **options):
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=60, **options
    )


def test_entry_point_is_declared():
    (script,) = metadata.entry_points(group="console_scripts", name="inpaint-ops")
    assert script.load() is main


def test_as_a_program(tmp_path):
    folder = tmp_path / "new"
    done = python("-m", "inpaint_ops.cli", "masks", "--size", "20x30", "--out", folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert load_hole(folder / "irregular_00000.png", (20, 30)).any()


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_ctrl_c_ends_the_program_with_130(pair, tmp_path):
    code = (
        "import signal, sys, time\n"
        "from inpaint_ops import cli\n"
        "from inpaint_ops.cli import fillers\n"
        # A shell's background jobs ignore the signal.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "def slow(image, hole, *, seed=0, progress=None):\n"
        "    print('started', flush=True)\n"
        "    time.sleep(60)\n"
        "fillers.FILLERS['exemplar'] = lambda: slow\n"
        "sys.exit(cli.main(sys.argv[1:]))\n"
    )
    arguments = ["fill", *map(str, pair), "-o", str(tmp_path / "out" / "o.png")]
    with subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "started\n"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert os.listdir(tmp_path / "out") == []


@pytest.mark.parametrize("answer", ["swallowed", "turned into an error"])
def test_an_interrupt_that_does_not_arrive(sigint, filler, pair, monkeypatch, capsys, answer):
    monkeypatch.setattr(program, "_AGAIN", 0.05)

    def stubborn(image, hole, *, seed=0, progress=None):
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        if answer == "swallowed":
            for _ in range(3000):
                time.sleep(0.01)
        raise KeyError("initialisation failed")

    monkeypatch.setitem(fillers.FILLERS, "exemplar", lambda: stubborn)
    assert main(["fill", *map(str, pair), "-o", str(pair[0].parent / "o.png")]) == 130
    assert capsys.readouterr().err.endswith("inpaint-ops: interrupted\n")


# Sends itself SIGINT when a module is first asked for, as the program or with it.
INTERRUPTED_IMPORT = (
    "import atexit, importlib.abc, os, signal, sys\n"
    "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    "wanted, sys.argv = sys.argv[1], ['inpaint-ops', *sys.argv[2:]]\n"
    "class Finder(importlib.abc.MetaPathFinder):\n"
    "    def find_spec(self, name, path=None, target=None):\n"
    "        if name == wanted:\n"
    "            sys.meta_path.remove(self)\n"
    "            os.kill(os.getpid(), signal.SIGINT)\n"
    "sys.meta_path.insert(0, Finder())\n"
    "if wanted == 'exit':\n"
    "    atexit.register(os.kill, os.getpid(), signal.SIGINT)\n"
    "from inpaint_ops.cli import main\n"
    "sys.exit(main())\n"
)


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize(
    "module", ["torch", "torch.nn", "inpaint_ops.ops", "inpaint_ops.cli.commands", "PIL"]
)
def test_ctrl_c_during_an_import(pair, tmp_path, module):
    arguments = ["fill", *map(str, pair), "-o", str(tmp_path / "out.png")]
    done = python("-c", INTERRUPTED_IMPORT, module, *arguments)
    assert (done.returncode, done.stderr.strip()) == (130, "inpaint-ops: interrupted")
    assert not (tmp_path / "out.png").exists()


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_ctrl_c_after_the_work(tmp_path):
    done = python("-c", INTERRUPTED_IMPORT, "exit", "masks", "--size", "9x9", "--out", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("1 irregular hole written\n")


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_killed_run_leaves_nothing_after_the_next(run, filler, folders):
    code = (
        "import os, signal, sys\n"
        "from PIL import Image\n"
        "from inpaint_ops import cli\n"
        "from inpaint_ops.cli import fillers\n"
        "fillers.FILLERS['exemplar'] = lambda: lambda image, hole, **options: image\n"
        "save, count = Image.Image.save, []\n"
        "def killed(self, stream, **options):\n"
        "    count.append(1)\n"
        "    save(self, stream, **options)\n"
        "    if len(count) == 2:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "Image.Image.save = killed\n"
        "cli.main(sys.argv[1:])\n"
    )
    assert python("-c", code, *FOLDER_ARGUMENTS, cwd=folders).returncode == -signal.SIGKILL
    names = sorted(os.listdir(folders / "out"))
    assert len(names) == 2
    assert names[0].startswith(".b.png.")
    assert run(*FOLDER_ARGUMENTS).output.startswith("2 filled, 1 skipped, 0 failed")
    assert sorted(os.listdir(folders / "out")) == ["a.png", "b.png", "c.png"]


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_names_that_the_output_cannot_print(filler, pair, monkeypatch, tmp_path, encoding):
    monkeypatch.chdir(tmp_path)
    out, err = io.BytesIO(), io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(out, encoding=encoding))
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(err, encoding=encoding, errors="strict"))
    names = (
        ["\u51fa\u529b.png", os.fsdecode(b"caf\xe9.png")] if os.name == "posix" else ["\u51fa.png"]
    )
    for name in names:
        assert main(["fill", *map(str, pair), "-o", name]) == 0
        assert main(["fill", *map(str, pair), "-o", name]) == 1
        assert name in os.listdir(tmp_path)
    sys.stderr.flush()
    assert out.getvalue().count(b".png: 16.7 % filled") == len(names)
    assert err.getvalue().count(b".png: exists already; use --overwrite") == len(names)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
@pytest.mark.parametrize(("target", "code"), [(">&-", 0), ("> /dev/full", 1)])
def test_standard_output_that_takes_nothing(tmp_path, target, code):
    command = f'"{sys.executable}" -m inpaint_ops.cli masks --size 9x9 --out "{tmp_path}" {target}'
    done = subprocess.run(["sh", "-c", command], stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    assert ("inpaint-ops: no space left on device" in done.stderr) == (code == 1)
    assert os.listdir(tmp_path) == ["irregular_00000.png"]


@pytest.mark.skipif(os.name != "posix", reason="pipes")
def test_standard_output_whose_reader_has_gone(pair, tmp_path):
    read_end, write_end = os.pipe()
    os.close(read_end)
    command = [sys.executable, "-m", "inpaint_ops.cli", "models"]
    done = subprocess.run(
        command, stdout=write_end, stderr=subprocess.PIPE, text=True, timeout=60, check=False
    )
    os.close(write_end)
    assert (done.returncode, done.stderr) == (1, "")


def test_no_progress_without_standard_error(filler, pair, monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    assert main(["fill", *map(str, pair), "-o", str(pair[0].parent / "o.png")]) == 0


@pytest.mark.parametrize("missing", ["click", "rich"])
def test_missing_extra_is_one_line(missing, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, missing, None)
    assert main(["doctor"]) == 1
    errors = capsys.readouterr().err
    assert errors == f"inpaint-ops: {missing} is not installed: pip install 'inpaint-ops[cli]'\n"


def test_modules_import_without_any_extra():
    code = (
        "import sys\n"
        "sys.modules.update(dict.fromkeys(['click', 'rich', 'PIL']))\n"
        "import inpaint_ops.images, inpaint_ops.masks\n"
        "from inpaint_ops.cli import main\n"
        "sys.exit(main([]))\n"
    )
    done = python("-c", code)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "pip install 'inpaint-ops[cli]'" in done.stderr
