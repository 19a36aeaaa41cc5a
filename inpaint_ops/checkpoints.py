"""Reading of checkpoint files: runs no code from them and removes the prefixes of wrappers."""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from inpaint_ops import checks
from inpaint_ops.program import reason

State = dict[str, Tensor]
Weights = str | os.PathLike[str] | Mapping[str, Any]

# Files of torch.save are not compressed; one that unpacks to more than this is refused.
_MOST_UNPACKED = 4
_SAFETENSORS_HEADER = 8


class WeightsNote(checks.Note):
    """Note on an assumption, where a checkpoint does not tell how its weights are to be used."""


@dataclass(frozen=True)
class Checkpoint:
    """Content of a file: nested dicts with tensors, and a metadata record."""

    content: Mapping[Any, Any]
    metadata: Mapping[str, str]
    origin: str

    def state(self, key: str | None) -> State:
        """Return the state dict under a key, or at the top level; empty if there is none.

        Raises:
            ValueError: keys that are no text, or values that are no tensors among tensors.
        """
        candidate = self.content if key is None else self.content.get(key)
        if not isinstance(candidate, Mapping):
            return {}
        state = {k: v for k, v in candidate.items() if isinstance(v, Tensor)}
        if not state:
            return {}
        for name, value in candidate.items():
            if not isinstance(name, str):
                raise ValueError(
                    f"load_weights: {self.origin}: keys must be text, got {name!r}"
                    f" ({type(name).__name__})"
                )
            layer_value = "." in name and not name.endswith("_extra_state")
            if layer_value and not isinstance(value, Tensor):
                raise ValueError(
                    f"load_weights: {self.origin}: {name} must be a tensor, "
                    f"got {type(value).__name__}"
                )
        return unwrapped(state)

    def dicts(self, nesting: tuple[str, ...]) -> Iterator[State]:
        """Yield the state dicts at the top level and under the keys of `nesting`."""
        for key in (None, *nesting):
            state = self.state(key)
            if state:
                yield state


def unwrapped(state: State) -> State:
    """Return a state dict without the prefixes that wrappers of modules add.

    Those are ``_orig_mod.`` of torch.compile, anywhere in a key, and ``module.`` of DataParallel,
    DistributedDataParallel and AveragedModel. The counter of AveragedModel is removed, too.
    """
    plain = {re.sub(r"(^|\.)(_orig_mod\.)+", r"\1", key): v for key, v in state.items()}
    if len(plain) < len(state):
        return state
    while True:
        layers = [key for key in plain if key != "n_averaged"]
        if not layers or not all(key.startswith("module.") for key in layers):
            return plain
        plain = {key.removeprefix("module."): plain[key] for key in layers}


def peeled(state: State) -> Iterator[tuple[State, str]]:
    """Yield the state dict, then the same without the first name of its keys while all share one.

    Each comes with the prefix that it has lost. Modules that hold a network under a name of their
    own, as Lightning's do, put such a prefix before its keys.
    """
    prefix = ""
    while state:
        yield state, prefix
        head = next(iter(state)).partition(".")[0] + "."
        if not all(key.startswith(head) for key in state):
            return
        state = unwrapped({key.removeprefix(head): value for key, value in state.items()})
        prefix += head


def read_checkpoints(weights: Weights | Checkpoint | Sequence[Weights]) -> list[Checkpoint]:
    """Read one checkpoint or several that belong together.

    Raises:
        FileNotFoundError, TypeError, ValueError: as `read_checkpoint`; or an empty list.
    """
    if not isinstance(weights, (list, tuple)):
        return [read_checkpoint(weights)]  # type: ignore[arg-type]
    if not weights:
        raise ValueError("load_weights: weights must hold at least one file, got an empty list")
    return [read_checkpoint(one, f"weights[{i}]") for i, one in enumerate(weights)]


def read_checkpoint(weights: Weights | Checkpoint, name: str = "weights") -> Checkpoint:
    """Read a file without running code from it; mappings are taken as they are.

    Args:
        weights: path, mapping, or what was read before.
        name: of the argument, for messages.

    Raises:
        FileNotFoundError: there is no such file.
        TypeError: neither path nor mapping.
        ValueError: the file is damaged or holds anything but tensors, numbers and text.
    """
    if isinstance(weights, Checkpoint):
        return weights
    if isinstance(weights, Mapping):
        return Checkpoint(weights, {}, "the given state dict" if name == "weights" else name)
    if not isinstance(weights, (str, os.PathLike)):
        raise _wrong_type(weights, name)
    path = Path(weights)
    if not path.is_file():
        found = "a folder, not a file" if path.is_dir() else "not a file"
        raise FileNotFoundError(f"load_weights: {path} is {found}")
    if path.stat().st_size == 0:
        raise ValueError(
            f"load_weights: {path} cannot be read as weights: it is empty; download it again"
        )
    if path.suffix == ".safetensors" or _looks_like_safetensors(path):
        return _read_safetensors(path)
    return _read_torch(path)


def _wrong_type(weights: Any, name: str) -> TypeError:
    expected = "a path, a dict or a list of them" if name == "weights" else "a path or a dict"
    hint = "; give its state_dict()" if isinstance(weights, torch.nn.Module) else ""
    return TypeError(f"load_weights: {name} must be {expected}, got {type(weights).__name__}{hint}")


def _looks_like_safetensors(path: Path) -> bool:
    """Return whether a file starts with the length of a JSON header and that header."""
    with path.open("rb") as file:
        start = file.read(_SAFETENSORS_HEADER + 1)
    length = int.from_bytes(start[:_SAFETENSORS_HEADER], "little")
    return start[_SAFETENSORS_HEADER:] == b"{" and length <= path.stat().st_size


def _read_torch(path: Path) -> Checkpoint:
    _check_archive(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as exc:
        raise ValueError(
            f"load_weights: {path} cannot be read as weights ({_reason(exc)}); "
            "it must be a whole file of torch.save(model.state_dict()) or safetensors"
        ) from exc
    if not isinstance(content, Mapping):
        raise ValueError(
            f"load_weights: {path} must hold a dict of tensors, got {type(content).__name__}"
        )
    _check_sizes(content, str(path))
    return Checkpoint(content, {}, str(path))


def _reason(exc: Exception) -> str:
    """Return torch's reason in one line, without its advice to read the file unsafely."""
    text = reason(exc)
    found = re.search(r"GLOBAL (\S+)", text)
    if found:
        return f"it holds {found[1]}, a Python object, which is not read as it could run code"
    if text.startswith("Weights only load failed"):
        found = re.search(r"WeightsUnpickler error: ([^\n]*)", text)
        return f"damaged pickle: {found[1].strip() if found else 'not safe to read'}"
    if isinstance(exc, LookupError):  # torch names a byte that is no instruction of pickle
        return "not a pickle"
    return text.partition("\n")[0].strip() or type(exc).__name__


def _check_archive(path: Path) -> None:
    """Refuse archives that unpack to many times their size."""
    try:
        if not zipfile.is_zipfile(path):
            return
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
    except Exception as exc:
        raise ValueError(
            f"load_weights: {path} cannot be read as weights (damaged archive: {reason(exc)}); "
            "download it again"
        ) from exc
    size = path.stat().st_size
    if unpacked > _MOST_UNPACKED * size + (1 << 20):
        raise ValueError(
            f"load_weights: {path} cannot be read as weights: {size} bytes that unpack to "
            f"{unpacked}; torch.save does not compress"
        )


def _check_sizes(content: Any, origin: str, depth: int = 4) -> None:
    """Refuse tensors that claim more values than their storage has (strides of 0)."""
    if isinstance(content, Mapping) and depth:
        for value in content.values():
            _check_sizes(value, origin, depth - 1)
    elif isinstance(content, Tensor) and content.layout is torch.strided:
        stored = content.untyped_storage().nbytes()
        if content.device.type != "meta" and content.numel() * content.element_size() > stored:
            raise ValueError(
                f"load_weights: {origin}: a tensor of shape {tuple(content.shape)} has only "
                f"{stored} bytes in the file"
            )


def _read_safetensors(path: Path) -> Checkpoint:
    safe_open = safetensors_package().safe_open
    try:
        with safe_open(str(path), framework="pt", device="cpu") as file:
            content = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            metadata = file.metadata() or {}
    except Exception as exc:
        raise ValueError(
            f"load_weights: {path} cannot be read as safetensors: {reason(exc)}; "
            "a whole file is one, download it again"
        ) from exc
    return Checkpoint(content, metadata, str(path))


def safetensors_package() -> Any:
    """Return the package; an ImportError says how to install it."""
    try:
        import safetensors
    except ImportError as exc:
        raise ImportError(
            "load_weights: safetensors is not installed: pip install 'inpaint-ops[models]'"
        ) from exc
    return safetensors
