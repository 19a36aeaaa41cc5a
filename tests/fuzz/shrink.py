"""Makes a failing case small, and writes it as a script."""

from __future__ import annotations

import contextlib
import copy
import json
import pprint
import re
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fuzz.engine import Found, command, environment

Case = dict[str, Any]

# What an option is worth trying as, simplest first.
_SIMPLE = {
    "stride": ([1, 1], 1),
    "dilation": ([1, 1],),
    "padding": ([0, 0], [1, 1], 0, 1),
    "padding_mode": ("zeros",),
    "activation": ("identity", "relu"),
    "upsample": (1,),
    "groups": (1,),
    "rate": (1, 2),
    "fuse": (False,),
    "patch_size": (1, 2, 3),
    "key_stride": (1,),
    "radius": (0, 1),
    "reach": (1,),
    "max_patches": (None,),
}
_RUN = {
    "again": ("same",),
    "threads": (1, 2),
    "grad": (False,),
    "edit": (False,),
    "backend": ("direct",),
}
_ATTEMPTS = 250


class Checker:
    """A process that says what is wrong with a case; a crash is one of the answers."""

    def __init__(self, skip: Sequence[str] = ()) -> None:
        self._arguments = ["--serve", *(["--skip", *skip] if skip else [])]
        self._child: subprocess.Popen[str] | None = None

    def __call__(self, case: Case) -> str | None:
        if self._child is None:
            self._child = subprocess.Popen(
                command(*self._arguments),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                env=environment(),
            )
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        try:
            self._child.stdin.write(json.dumps(case) + "\n")
            self._child.stdin.flush()
            line = self._child.stdout.readline()
        except BrokenPipeError:
            line = ""
        if line:
            error: str | None = json.loads(line)["error"]
            return error
        self.close()
        return "crash"

    def close(self) -> None:
        if self._child is not None:
            self._child.kill()
            with contextlib.suppress(BrokenPipeError):
                self._child.communicate()
            self._child = None


def kind(error: str | None) -> str:
    """Failures that differ in numbers alone are of one kind."""
    if error is None:
        return ""
    if error.startswith("crash"):
        return "crash"
    words = re.sub(r"[-+]?\d[\d.e+-]*", "0", error).split()
    return " ".join(words[:4])


def _changed(case: Case, *path: Any, to: Any) -> Case:
    result = copy.deepcopy(case)
    inner = result
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = to
    return result


def moves(case: Case) -> Iterator[Case]:
    """Simpler cases, one change each; some are not legal, which shows when they run."""
    for name, choices in _RUN.items():
        now = case["run"].get(name)
        for value in choices[: choices.index(now) if now in choices else None]:
            yield _changed(case, "run", name, to=value)
    yield from _smaller(case)
    for name, now in case.get("options", {}).items():
        for value in _SIMPLE.get(name, ()):
            if value == now:
                break
            if isinstance(value, list) == isinstance(now, list) or isinstance(now, str):
                yield _changed(case, "options", name, to=value)
    yield from _plainer(case)


def _smaller(case: Case) -> Iterator[Case]:
    for name, size in case.get("sizes", {}).items():
        for smaller in sorted({1, 2, size // 4, size // 2, size - 8, size - 2, size - 1}):
            if 0 < smaller < size:
                yield _changed(case, "sizes", name, to=smaller)
    for axis, size in enumerate(case.get("kernel", ())):
        for smaller in range(1, size):
            yield _changed(case, "kernel", axis, to=smaller)


def _plainer(case: Case) -> Iterator[Case]:
    """Tensors in the usual type and layout, or none."""
    for name, value in case.items():
        if name in ("run", "sizes", "options", "spoil") or not isinstance(value, dict):
            continue
        if name in ("bias", "hole", "valid", "where", "residual"):
            yield _changed(case, name, to=None)
        if value.get("layout", "contiguous") != "contiguous":
            yield _changed(case, name, "layout", to="contiguous")
        if "dtype" in value and value["dtype"] != "bool":
            yield _changed(case, name, "dtype", to="bool")
        elif "dtype" not in value and value.get("values", "normal") != "normal":
            yield _changed(case, name, "values", to="normal")
    if case.get("dtype") not in (None, "float32"):
        yield _changed(case, "dtype", to="float32")
    if case.get("poisoned"):
        yield _changed(case, "poisoned", to=False)


def shrink(case: Case, error: str, skip: Sequence[str] = ()) -> tuple[Case, str]:
    """A simpler case that fails in the same way, and its error; the case itself if it does not."""
    check = Checker(skip)
    try:
        wanted, attempts = kind(error), 0
        again = check(case)
        if kind(again) != wanted:
            return case, f"{error} (alone: {again})"
        progress = True
        while progress and attempts < _ATTEMPTS:
            progress = False
            for simpler in moves(case):
                attempts += 1
                got = check(simpler)
                if kind(got) == wanted and got is not None:
                    case, error, progress = simpler, got, True
                    break
                if attempts >= _ATTEMPTS:
                    break
        return case, error
    finally:
        check.close()


def script(found: Found, case: Case, error: str, seed: int) -> str:
    """A file that fails until the fault is mended; it runs from the root of the project."""
    arguments = pprint.pformat(case, width=96, compact=True, sort_dicts=False)
    said = "\n".join(f"# {line}" for line in error.splitlines()[:12])
    return (
        f"# Seed {seed}, case {found.number}; PYTHONPATH=tests python FILE\n{said}\n"
        f"from fuzz import replay\n\nreplay({arguments})\n"
    )


def write(folder: Path, found: Found, text: str) -> Path:
    """Keeps a script; the file is whole or not there."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{found.case.get('op', 'unknown')}-{found.number}.py"
    with tempfile.NamedTemporaryFile("w", dir=folder, delete=False) as file:
        file.write(text)
    return Path(file.name).replace(path)
