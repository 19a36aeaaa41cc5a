"""Measured choices on disk: which row is fastest for a convolution, and who multiplies.

A table is of one chip. It holds the device's name, its architecture, the versions that were
measured, and an entry for each key: the fastest row, and "fused" or "library". Tables are looked
through in this order, the first that knows a key decides:

1. the file that INPAINT_OPS_TUNED names, alone, whatever its versions; "off" means no table;
2. the file of this chip and these versions in the folder of `cache_folder`, which
   ``python -m inpaint_ops.kernels.tune`` writes;
3. those that are shipped in ``kernels/measured``, of this architecture, this device's name first.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import torch

from inpaint_ops.atomic import lock_beside, make_folder, write_atomically
from inpaint_ops.kernels.launch import architecture

FORMAT = 1
# Key -> {"row": name, "choice": "fused" or "library"}.
Entries = dict[str, dict[str, str]]
_SHIPPED = Path(__file__).parent / "measured"
# By what they were read for; those of the cache get what is measured later.
_read: dict[Any, list[Entries]] = {}


class Chip(NamedTuple):
    """What a table is for: a device's name and its architecture."""

    device: str
    architecture: str


def chip_of(device: torch.device) -> Chip:
    """The chip that a device is; "interpreter" where there is none."""
    name = "interpreter" if device.type != "cuda" else torch.cuda.get_device_name(device)
    return Chip(name, architecture(device))


@lru_cache
def versions() -> dict[str, str]:
    """What measured times depend on: torch, Triton and the sources of the kernels."""
    sources = hashlib.sha256()
    folder = Path(__file__).parent
    for file in sorted(folder.rglob("*.py")):
        sources.update(str(file.relative_to(folder)).encode() + b"\0" + file.read_bytes())
    try:
        triton = metadata.version("triton")
    except metadata.PackageNotFoundError:  # a build of its own
        triton = "unknown"
    return {
        "torch": str(torch.__version__),
        "triton": triton,
        "kernels": sources.hexdigest()[:16],
    }


def cache_folder() -> Path:
    """Folder of what is measured: INPAINT_OPS_CACHE, else inpaint_ops in the user's caches."""
    own = os.environ.get("INPAINT_OPS_CACHE")
    if own:
        return Path(own)
    caches = os.environ.get("XDG_CACHE_HOME")
    # A relative path there counts as none, says the XDG specification.
    if caches and Path(caches).is_absolute():
        return Path(caches, "inpaint_ops")
    home = os.path.expanduser("~")
    # Without a home, a place where nothing can be read or written.
    return Path(home if home != "~" else os.devnull, ".cache", "inpaint_ops")


def cache_file(device: torch.device) -> Path:
    """The table of a device and of these versions in that folder; it may be missing."""
    chip = chip_of(device)
    name = re.sub(r"[^a-z0-9]+", "_", chip.device.lower()).strip("_")
    digest = hashlib.sha256(json.dumps([FORMAT, *chip, versions()]).encode()).hexdigest()[:8]
    return cache_folder() / f"convolutions-{name}-{chip.architecture}-{digest}.json"


def find(keys: Sequence[str], device: torch.device) -> Mapping[str, str] | None:
    """Entry of the first key that a table knows, None where none does.

    Raises:
        ValueError: a table cannot be read; the text names the file.
    """
    for entries in _tables(device):
        for key in keys:
            if key in entries:
                return entries[key]
    return None


def may_grow() -> bool:
    """Whether calls may add to the cache: not beside a table that is forced, nor without any."""
    return not os.environ.get("INPAINT_OPS_TUNED")


def _tables(device: torch.device) -> list[Entries]:
    forced = os.environ.get("INPAINT_OPS_TUNED")
    if forced == "off":
        return []
    key = (chip_of(device), forced or cache_folder())
    if key not in _read:
        _read[key] = _forced(Path(forced), device) if forced else _own(device)
    return _read[key]


def _forced(path: Path, device: torch.device) -> list[Entries]:
    table = read(path)
    fits = table["architecture"] == chip_of(device).architecture
    return [table["convolutions"]] if fits else []


def _own(device: torch.device) -> list[Entries]:
    """Tables of the cache, always one, and of the package."""
    chip, mine, path = chip_of(device), {}, cache_file(device)
    if os.path.isfile(path):
        table = read(path)
        if _is_current(table, chip):
            mine = table["convolutions"]
    shipped = [read(file) for file in sorted(_SHIPPED.glob("*.json"))]
    shipped = [table for table in shipped if table["architecture"] == chip.architecture]
    shipped.sort(key=lambda table: table["device"] != chip.device)
    return [mine, *(table["convolutions"] for table in shipped)]


def _is_current(table: Mapping[str, Any], chip: Chip) -> bool:
    return (table["device"], table["architecture"]) == chip and table["versions"] == versions()


def read(path: Path) -> dict[str, Any]:
    """Content of a table.

    Raises:
        ValueError: the file is missing, or no table of this format.
    """
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        _check(table)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{path}: must be a table of measured convolutions, got {error}; remove it, or measure "
            "with `python -m inpaint_ops.kernels.tune`"
        ) from error
    return table  # type: ignore[no-any-return]


def _check(table: Any) -> None:
    if not isinstance(table, dict) or table.get("format") != FORMAT:
        found = table.get("format") if isinstance(table, dict) else type(table).__name__
        raise ValueError(f"format {found!r} where {FORMAT} is known")
    wanted = {"device": str, "architecture": str, "versions": dict, "convolutions": dict}
    for name, kind in wanted.items():
        if not isinstance(table.get(name), kind):
            raise ValueError(f"no {name}")
    for key, entry in table["convolutions"].items():
        texts = isinstance(entry, dict) and all(isinstance(one, str) for one in entry.values())
        if not texts or not entry.keys() >= {"row", "choice"}:
            raise ValueError(f"entry {key!r} without row and choice")


def store(path: Path, device: torch.device, entries: Mapping[str, dict[str, str]]) -> None:
    """Put entries into a table, beside what it holds of this chip and of these versions.

    Other processes may do the same at the same time: each adds its own.

    Raises:
        OSError: the folder cannot be made or written.
        ValueError: the file is there and no table.
    """
    chip = chip_of(device)
    make_folder(path.parent)
    with lock_beside(path):
        known: Mapping[str, dict[str, str]] = {}
        if path.exists():
            before = read(path)
            if _is_current(before, chip):
                known = before["convolutions"]
        content = {"format": FORMAT, **chip._asdict(), "versions": versions()}
        content["convolutions"] = {**known, **entries}
        with write_atomically(path) as stream:
            stream.write(json.dumps(content, indent=1, sort_keys=True).encode() + b"\n")


def remember(device: torch.device, entries: Mapping[str, dict[str, str]]) -> None:
    """Let `find` know entries of the cache in this process."""
    _tables(device)[0].update(entries)


def forget() -> None:
    """Read all tables anew."""
    _read.clear()
