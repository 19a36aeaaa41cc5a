"""What kinds of work cost, for the choice of an algorithm: by the table or by this machine.

The kinds of work and the table are in csrc/convolution/costs.h and costs.cpp. `inpaint-ops tune`
measures a machine and keeps its numbers in a file of the user's cache folder, which is read once in
a process, when the first algorithm is chosen. A file that does not fit is ignored with a warning.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import re
import sys
import warnings
from collections.abc import Sequence
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from inpaint_ops.atomic import make_folder, write_atomically
from inpaint_ops.ops.tensors import native

VARIABLE = "INPAINT_OPS_CPU_COSTS"
_CPU = Path("/proc/cpuinfo")


@cache
def current(instruction_set: str) -> tuple[float, ...]:
    """Return the costs in use, picoseconds in the order of the extension's `cost_names`."""
    if not switched_off():
        path = file_of(instruction_set)
        try:
            return read(path, instruction_set)
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as reason:
            warnings.warn(
                f"inpaint_ops: {path} is ignored ({reason}); `inpaint-ops tune` writes it anew, "
                "and it may be deleted",
                RuntimeWarning,
                stacklevel=2,
            )
    return tuple(native().measured_costs(instruction_set))


def switched_off() -> bool:
    """Return whether the environment says that measured numbers are not read."""
    return os.environ.get(VARIABLE, "").strip().lower() in ("0", "off", "no", "false")


def cache_folder() -> Path:
    """Return the folder of this library in the user's cache folder; it may be missing."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    if base and os.path.isabs(base):
        return Path(base) / "inpaint_ops"
    if sys.platform == "win32" and os.environ.get("LOCALAPPDATA"):
        return Path(os.environ["LOCALAPPDATA"]) / "inpaint_ops"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "inpaint_ops"
    return Path.home() / ".cache" / "inpaint_ops"


def file_of(instruction_set: str) -> Path:
    """Return where the costs of this machine are kept."""
    key = _key(instruction_set)
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:12]
    return cache_folder() / f"costs-{instruction_set}-{digest}.json"


def read(path: Path, instruction_set: str) -> tuple[float, ...]:
    """Read costs.

    Raises:
        FileNotFoundError: there is no file.
        OSError: it cannot be read.
        ValueError: it holds something else, or costs of another machine or version.
    """
    try:
        content: Any = json.loads(path.read_bytes())
    except (UnicodeDecodeError, json.JSONDecodeError):
        raise ValueError("it is no JSON") from None
    key, names = _key(instruction_set), native().cost_names
    if not isinstance(content, dict) or not isinstance(content.get("costs"), dict):
        raise ValueError("it holds no costs")
    for name, expected in key.items():
        if content.get(name) != expected:
            raise ValueError(f"{name} is {content.get(name)!r}, here it is {expected!r}")
    costs = content["costs"]
    if set(costs) != set(names):
        raise ValueError("it names other kinds of work")
    for name in names:
        value = costs[name]
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ValueError(f"{name} must be a number, got {value!r}")
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name} must be positive, got {value!r}")
    return tuple(float(costs[name]) for name in names)


def store(costs: Sequence[float], instruction_set: str) -> Path:
    """Keep costs for this machine and return their file; it appears complete or not at all.

    Raises:
        OSError: the folder cannot be made or written to.
    """
    path = file_of(instruction_set)
    content = {
        **_key(instruction_set),
        "unit": "picoseconds",
        "costs": dict(zip(native().cost_names, map(float, costs))),
    }
    make_folder(path.parent)
    with write_atomically(path) as stream:
        stream.write(json.dumps(content, indent=2).encode() + b"\n")
    return path


def _key(instruction_set: str) -> dict[str, str]:
    return {"cpu": cpu_name(), "instruction_set": instruction_set, "version": _version()}


def cpu_name() -> str:
    """Return name, family, model and stepping of the processor, as far as the system tells."""
    try:
        text = _CPU.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return f"{platform.machine()} {platform.processor()}".strip()
    # Of the first core.
    found = dict(re.findall(r"^([^\t\n:]+?)[\t ]*:[\t ]*(.*)$", text.partition("\n\n")[0], re.M))
    words = ["model name", "cpu family", "model", "stepping", "CPU implementer", "CPU part"]
    return " / ".join([platform.machine(), *(found[word] for word in words if word in found)])


def _version() -> str:
    try:
        return metadata.version("inpaint-ops")
    except metadata.PackageNotFoundError:
        return "0+unknown"
