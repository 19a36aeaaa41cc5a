"""Layouts of public implementations, and checkpoint files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

State = dict[str, Tensor]
# A place in a state dict: a key, or (key, i, n): the i-th of n equal parts along dimension 0.
Place = str | tuple[str, int, int]


def no_options(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """A layout that implies nothing about the model."""
    return {}


def nothing(network: nn.Module) -> State:
    """A layout that writes nothing of its own."""
    return {}


def unchanged(state: State) -> State:
    """A layout whose values are ours."""
    return state


def always(state: Mapping[str, Tensor]) -> bool:
    """A layout that its signature alone identifies."""
    return True


@dataclass(frozen=True)
class Layout:
    """How a public implementation names the weights of one network.

    Attributes:
        name: of the implementation.
        network: submodule of the model that it fills.
        keys: from that submodule to a dict: public key to our place in the submodule's state dict.
        signature: public keys that are all present in such a file.
        recognise: decides, on the public state dict, where signatures agree.
        options: constructor options that the tensors imply.
        nesting: keys under which files keep the dict of this network, besides the top level.
        prefix: that all keys of this network carry in the file.
        ignored: patterns of public keys that hold nothing of ours.
        emitted: those of them that a file written in this layout gets.
        optional: patterns of public keys that may be missing.
        convert: from the public values to ours, on the whole public state dict.
        restore: the inverse.
        channel_order: of the pictures these weights were trained on.
        licence: of published weights.
        source: owner/repository.
    """

    name: str
    network: str
    keys: Callable[[Any], Mapping[str, Place]]
    signature: tuple[str, ...]
    recognise: Callable[[Mapping[str, Tensor]], bool] = always
    options: Callable[[Mapping[str, Tensor]], dict[str, Any]] = no_options
    nesting: tuple[str, ...] = ()
    prefix: str = ""
    ignored: tuple[str, ...] = ()
    emitted: Callable[[Any], State] = nothing
    optional: tuple[str, ...] = (r"num_batches_tracked$", r"weight_v$")
    convert: Callable[[State], State] = unchanged
    restore: Callable[[State], State] = unchanged
    channel_order: str = "rgb"
    licence: str = ""
    source: str = ""

    def find(self, checkpoint: Checkpoint) -> State | None:
        """The state dict of this network in a file, or None."""
        for found in checkpoint.dicts(self.nesting):
            state = {_spectral_name(key): value for key, value in found.items()}
            own = {k.removeprefix(self.prefix): v for k, v in state.items()}
            if self.prefix and not any(k.startswith(self.prefix) for k in state):
                own = state
            if all(key in own for key in self.signature) and self.recognise(own):
                return own
        return None


# Spectral normalisation as PyTorch's parametrisation names it, and as public files do.
_SPECTRAL = (
    (".parametrizations.weight.original", ".weight_orig"),
    (".parametrizations.weight.0._u", ".weight_u"),
    (".parametrizations.weight.0._v", ".weight_v"),
)


def _spectral_name(key: str) -> str:
    for today, public in _SPECTRAL:
        if key.endswith(today):
            return key.removesuffix(today) + public
    return key


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds: nested dicts with tensors, and a metadata record."""

    content: Mapping[str, Any]
    metadata: Mapping[str, str]
    origin: str

    def dicts(self, nesting: tuple[str, ...]) -> Iterator[State]:
        """The state dicts at the top level and under some keys."""
        for candidate in (self.content, *(self.content.get(key) for key in nesting)):
            if isinstance(candidate, Mapping):
                state = {k: v for k, v in candidate.items() if isinstance(v, Tensor)}
                if state and all(key.startswith("module.") for key in state):
                    state = {k.removeprefix("module."): v for k, v in state.items()}
                if state:
                    yield state


def read_checkpoint(
    weights: str | os.PathLike[str] | Mapping[str, Any] | Checkpoint,
) -> Checkpoint:
    """Reads a file without running code from it; mappings are taken as they are.

    Raises:
        FileNotFoundError: there is no such file.
        TypeError: neither path nor mapping.
        ValueError: the file is damaged or holds anything but tensors, numbers and text.
    """
    if isinstance(weights, Checkpoint):
        return weights
    if isinstance(weights, Mapping):
        return Checkpoint(weights, {}, "the given state dict")
    if not isinstance(weights, (str, os.PathLike)):
        raise TypeError(f"load_weights: weights must be a path or a dict, got {type(weights)}")
    path = Path(weights)
    if not path.is_file():
        raise FileNotFoundError(f"load_weights: {path} is not a file")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as exc:
        raise ValueError(f"load_weights: {path} cannot be read as weights: {exc}") from exc
    if not isinstance(content, Mapping):
        raise ValueError(f"load_weights: {path} must hold a dict, got {type(content).__name__}")
    return Checkpoint(content, {}, str(path))


def _read_safetensors(path: Path) -> Checkpoint:
    safe_open = safetensors_package().safe_open
    try:
        with safe_open(str(path), framework="pt", device="cpu") as file:
            content = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            metadata = file.metadata() or {}
    except Exception as exc:
        raise ValueError(f"load_weights: {path} cannot be read as safetensors: {exc}") from exc
    return Checkpoint(content, metadata, str(path))


def safetensors_package() -> Any:
    """The package, or an error that says how to install it."""
    try:
        import safetensors
    except ImportError as exc:
        raise ImportError(
            "load_weights: safetensors is not installed: pip install 'inpaint-ops[models]'"
        ) from exc
    return safetensors
