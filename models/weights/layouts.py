"""Layouts of public implementations: their names of weights, and the options these imply.

A layout states its names as a table of layers, the public name to ours, which `layer_keys` turns
into keys of a state dict.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from inpaint_ops.checkpoints import Checkpoint, State, unwrapped

# A place in our state dict: a key, or (key, i, n): the i-th of n equal parts along dimension 0.
Place = str | tuple[str, int, int]

# Spectral normalisation in our state dicts, where it is a parametrisation of the weight.
_PARAMETRISED = ".parametrizations."
_ORIGINAL, _U, _V = "weight.original", "weight.0._u", "weight.0._v"


@dataclass(frozen=True)
class Implied:
    """The options of a model as its own state dict implies them.

    Attributes:
        facts: options that keys and shapes show, as `Layout.options`.
        unstated: names of options that no tensor shows, though the weights depend on them.
        asked: options that must be given, with a description of their values.
        fitting: options with values that fit the tensors, as other values would.
    """

    facts: Mapping[str, Any]
    unstated: tuple[str, ...] = ()
    asked: Mapping[str, str] = field(default_factory=dict)
    fitting: Mapping[str, Any] = field(default_factory=dict)


def layer_keys(
    table: Mapping[str, str], *, weight: str = "weight_orig"
) -> Callable[[nn.Module], dict[str, Place]]:
    """Return the `keys` of a `Layout` from a table of layers, public name to our name.

    Each layer contributes all that our network holds of it: weight, bias, statistics, and the
    vectors of spectral normalisation.

    Args:
        table: the layers. "{n}" in both names of a row stands for a number that counts up from n,
            as long as our network has the layer, at least once: "conv{1}" to "layers.{0}.conv" is
            conv1 to layers.0.conv, conv2 to layers.1.conv, and so on.
        weight: the public name of a weight under spectral normalisation.

    Raises (when called with a network):
        KeyError: it lacks a layer of the table.
    """
    public_kinds = {_ORIGINAL: weight, _U: "weight_u", _V: "weight_v"}

    def keys(network: nn.Module) -> dict[str, Place]:
        held: dict[str, list[tuple[str, str]]] = {}
        for key in network.state_dict():
            layer, separator, kind = key.partition(_PARAMETRISED)
            if not separator:
                layer, _, kind = key.rpartition(".")
            held.setdefault(layer, []).append((public_kinds.get(kind, kind), key))
        found: dict[str, Place] = {}
        for public, ours in table.items():
            for theirs, mine in _numbered(public, ours, held):
                found |= {f"{theirs}.{kind}": key for kind, key in held[mine]}
        return found

    return keys


def _numbered(public: str, ours: str, layers: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the pairs of names that a row stands for; see `layer_keys`."""
    if "{" not in ours:
        return [(public, ours)]

    def counted(name: str, count: int) -> str:
        return re.sub(r"\{(\d+)\}", lambda start: str(int(start[1]) + count), name)

    pairs = [(counted(public, 0), counted(ours, 0))]
    while (following := counted(ours, len(pairs))) in layers:
        pairs.append((counted(public, len(pairs)), following))
    return pairs


def no_options(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Imply nothing about the model."""
    return {}


def fixed(**options: Any) -> Callable[[Mapping[str, Tensor]], dict[str, Any]]:
    """Imply the same options for all files of a layout."""
    return lambda state: dict(options)


def nothing(network: nn.Module) -> State:
    """Write no keys besides those of our network."""
    return {}


def unchanged(state: State) -> State:
    """Take values as they are."""
    return state


def always(state: Mapping[str, Tensor]) -> bool:
    """Recognise a file by the signature alone."""
    return True


def no_doubt(state: Mapping[str, Tensor], prefix: str) -> str | None:
    """Ask nothing."""
    return None


def nothing_more(state: Mapping[str, Tensor]) -> tuple[str, ...]:
    """A layout whose files all leave the same options open."""
    return ()


@dataclass(frozen=True)
class Layout:
    """The names that a public implementation has for the weights of one network.

    A layout also implies options of the model, from the most to the least certain. Examples are of
    the layouts of GLCIC unless another method is named.

    * `options` follow from shapes or keys: `base_channels`, from the first layer's filters. A user
      who gives another value gets an error.
    * `recipe` follows from the code that belongs to the names of the keys: `norm_first=False` in
      otenim's. No tensor shows it. A value that the user gives takes its place.
    * `unstated` names entries of `recipe` that are assumed, because files with these keys differ in
      them: `mean` of a converted official file. Loading reports the value that it assumed.
    * `stated` takes names out of `unstated` again where a certain file shows them after all.
    * `fitting` holds values that fit the tensors, as others would: the side of the pictures that
      GMCNN's discriminator takes, from its number of weights.
    * `asked` has no value that could be assumed: `mean` of otenim's file. The user must give it.

    Attributes:
        name: of the implementation.
        network: submodule of the model that it fills.
        keys: from that submodule to a dict: public key to our place in the submodule's state dict;
            see `layer_keys`.
        signature: public keys that are all present in such a file.
        recognise: decides, on the public state dict, where signatures of layouts agree.
        doubt: on the public state dict and the prefix that its keys had: a question that only the
            user can answer, or None.
        options, fitting, recipe: constructor options, from the public state dict; see above.
        unstated: names among those of `recipe`.
        stated: names among those of `unstated`, from the public state dict.
        asked: names of options, each with a sentence on where the user finds the value.
        hint: the origin of the options in `unstated`, for messages.
        nesting: keys under which files keep the dict of this network, besides the top level.
        names: keys or prefixes under which only this network is kept.
        prefix: of all keys of this network in the file.
        prefixes: others that they may have.
        ignored: patterns of public keys that hold nothing of ours.
        emitted: those of them that are written, with their values.
        optional: patterns of public keys that may be missing.
        convert: public values to ours, on the whole public state dict.
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
        """Return name and network, as `load_weights` takes them."""
        return f"{self.name}/{self.network}"

    def find(self, checkpoint: Checkpoint, *, chosen: bool = False) -> tuple[State, str] | None:
        """Return the state dict of this network in a file and the prefix of its keys, or None.

        Args:
            checkpoint: the file.
            chosen: the user named this layout, so that nothing is in doubt.

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


def _spectral_name(key: str) -> str:
    """Return the name that public files have for a key of PyTorch's parametrisation."""
    for kind, public in ((_ORIGINAL, "weight_orig"), (_U, "weight_u"), (_V, "weight_v")):
        ending = _PARAMETRISED + kind
        if key.endswith(ending):
            return f"{key.removesuffix(ending)}.{public}"
    return key
