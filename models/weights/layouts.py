"""Layouts of public implementations: names of weights, and what the names say of the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from inpaint_ops.checkpoints import Checkpoint, State, unwrapped

# A place in a state dict: a key, or (key, i, n): the i-th of n equal parts along dimension 0.
Place = str | tuple[str, int, int]


@dataclass(frozen=True)
class Implied:
    """What a state dict in our own names says of the options of its model.

    Attributes:
        facts: options that its keys and shapes tell.
        unstated: options that its weights were trained with and that no tensor tells.
        asked: options without which the model cannot be built, and what to give.
        fitting: options with values that fit the tensors, as others would.
    """

    facts: Mapping[str, Any]
    unstated: tuple[str, ...] = ()
    asked: Mapping[str, str] = field(default_factory=dict)
    fitting: Mapping[str, Any] = field(default_factory=dict)


def no_options(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """A layout that implies nothing about the model."""
    return {}


def fixed(**options: Any) -> Callable[[Mapping[str, Tensor]], dict[str, Any]]:
    """A recipe that is the same for all files of a layout."""
    return lambda state: dict(options)


def nothing(network: nn.Module) -> State:
    """A layout that writes nothing of its own."""
    return {}


def unchanged(state: State) -> State:
    """A layout whose values are ours."""
    return state


def always(state: Mapping[str, Tensor]) -> bool:
    """A layout that its signature alone identifies."""
    return True


def no_doubt(state: Mapping[str, Tensor], prefix: str) -> str | None:
    """A layout that cannot be taken for another."""
    return None


def nothing_more(state: Mapping[str, Tensor]) -> tuple[str, ...]:
    """A layout whose files all leave the same options open."""
    return ()


@dataclass(frozen=True)
class Layout:
    """How a public implementation names the weights of one network, and how it uses them.

    Options of the model come from three sources, and an option that the user gives explicitly
    comes before the last two: `options` are facts of the tensors; `recipe` is how the
    implementation computes, which its names identify; `unstated` are those of the recipe that
    differ between files with the same names, so that loading says what it takes.

    Attributes:
        name: of the implementation.
        network: submodule of the model that it fills.
        keys: from that submodule to a dict: public key to our place in the submodule's state dict.
        signature: public keys that are all present in such a file.
        recognise: decides, on the public state dict, where signatures agree.
        doubt: on the public state dict and the prefix its keys had: the question that only the
            user can answer, or None.
        options: constructor options that the tensors imply.
        fitting: constructor options with values that fit the tensors, as others would.
        recipe: constructor options that the implementation implies.
        unstated: names of the options of the recipe that are assumptions.
        stated: on the public state dict, those of `unstated` that this file tells.
        asked: options that the user must give, and where to find them.
        hint: where the options in `unstated` come from.
        nesting: keys under which files keep the dict of this network, besides the top level.
        names: keys or prefixes under which only this network is kept.
        prefix: that all keys of this network carry in the file.
        prefixes: others that they may carry.
        ignored: patterns of public keys that hold nothing of ours.
        emitted: those of them that a file written in this layout gets.
        optional: patterns of public keys that may be missing.
        convert: from the public values to ours, on the whole public state dict.
        restore: the inverse.
        channel_order: of the pictures these weights were trained on; None: as the generator's.
        licence: of published weights.
        source: owner/repository.
    """

    name: str
    network: str
    keys: Callable[[Any], Mapping[str, Place]]
    signature: tuple[str, ...]
    recognise: Callable[[Mapping[str, Tensor]], bool] = always
    doubt: Callable[[Mapping[str, Tensor], str], str | None] = no_doubt
    options: Callable[[Mapping[str, Tensor]], dict[str, Any]] = no_options
    fitting: Callable[[Mapping[str, Tensor]], dict[str, Any]] = no_options
    recipe: Callable[[Mapping[str, Tensor]], dict[str, Any]] = no_options
    unstated: tuple[str, ...] = ()
    stated: Callable[[Mapping[str, Tensor]], tuple[str, ...]] = nothing_more
    asked: Mapping[str, str] = field(default_factory=dict)
    hint: str = ""
    nesting: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    prefix: str = ""
    prefixes: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    emitted: Callable[[Any], State] = nothing
    optional: tuple[str, ...] = (r"num_batches_tracked$", r"weight_v$")
    convert: Callable[[State], State] = unchanged
    restore: Callable[[State], State] = unchanged
    channel_order: str | None = "rgb"
    licence: str = ""
    source: str = ""

    @property
    def label(self) -> str:
        """Name and network, as `load_weights` takes them."""
        return f"{self.name}/{self.network}"

    def find(self, checkpoint: Checkpoint, *, chosen: bool = False) -> tuple[State, str] | None:
        """The state dict of this network in a file, and the prefix its keys had there, or None.

        Args:
            checkpoint: the file.
            chosen: whether the user named this layout, so that nothing is in doubt.

        Raises:
            ValueError: the file can be read in two ways.
        """
        for key in (None, *self.nesting, *self.names):
            state = checkpoint.state(key)
            if not state:
                continue
            state = {_spectral_name(name): value for name, value in state.items()}
            own, prefix = self._own(state)
            if not all(name in own for name in self.signature):
                continue
            named = key in self.names or prefix.removesuffix(".") in self.names
            if not (chosen or named):
                if not self.recognise(own):
                    continue
                question = self.doubt(own, prefix)
                if question is not None:
                    raise ValueError(f"load_weights: {checkpoint.origin}: {question}")
            return own, prefix
        return None

    def _own(self, state: State) -> tuple[State, str]:
        for prefix in (self.prefix, *self.prefixes, *(f"{name}." for name in self.names)):
            inside = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
            if prefix and inside:
                others = {k: v for k, v in state.items() if not k.startswith(prefix)}
                return {**others, **unwrapped(inside)}, prefix
        return state, ""


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
