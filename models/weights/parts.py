"""The networks of a method in a checkpoint, and the options of the model that it implies."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from inpaint_ops.checkpoints import Checkpoint, State, unwrapped
from inpaint_ops.models.method import InpaintingModel
from inpaint_ops.models.weights.candidates import (
    NESTING,
    Candidate,
    candidates,
    own_networks,
    split,
)
from inpaint_ops.models.weights.layouts import Implied, Layout
from inpaint_ops.models.weights.saving import NATIVE

_LAYOUTS_NAMED = 3


class UnknownWeightsError(ValueError):
    """A file with no layout of the method."""


@dataclass(frozen=True)
class Part:
    """The weights of one network in one file.

    Attributes:
        network: submodule of the model.
        state: its state dict, without prefixes.
        origin: the file.
        layout: the public layout, None for our own.
        prefix: of the keys in the file.
        facts: options that the tensors show; `Layout` defines this and the other kinds of options.
        recipe: options that the layout or the record of `save_weights` implies, and those of
            `Layout.fitting`.
        binding: names in `recipe` without which the weights compute something else: a model that
            was built with other values refuses the file, `norm_first` for example.
        telling: names in `recipe` whose values are known, not assumed: no note is made of them.
        unstated: names in `recipe` whose values are assumed: a note says so.
        asked: options that the user must give, and where to find them.
        hint: the origin of the assumptions, for messages.
    """

    network: str
    state: State
    origin: str
    layout: Layout | None
    prefix: str
    facts: Mapping[str, Any]
    recipe: Mapping[str, Any]
    binding: frozenset[str]
    telling: frozenset[str]
    unstated: tuple[str, ...]
    asked: Mapping[str, str]
    hint: str

    @property
    def label(self) -> str:
        """Return the layout's label, for messages."""
        return NATIVE if self.layout is None else self.layout.label


@dataclass(frozen=True)
class _Record:
    """The record that `save_weights` wrote beside the tensors."""

    layout: str
    options: Mapping[str, Any]


def _record(cls: type[InpaintingModel], checkpoint: Checkpoint) -> _Record | None:
    metadata = checkpoint.metadata
    names = ("method", "options", "layout")
    if metadata.get("layout") != NATIVE and not all(name in metadata for name in names):
        return None
    method = metadata.get("method")
    if method != cls.name:
        raise ValueError(f"load_weights: {checkpoint.origin} is of {method}, not of {cls.name}")
    try:
        options = json.loads(metadata["options"])
    except (KeyError, ValueError, RecursionError) as exc:
        raise ValueError(
            f"load_weights: {checkpoint.origin} has damaged metadata: options must be a JSON object"
        ) from exc
    if not isinstance(options, dict):
        raise ValueError(
            f"load_weights: {checkpoint.origin} has damaged metadata: options must be a JSON "
            f"object, got {type(options).__name__}"
        )
    options = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
    return _Record(metadata["layout"], options)


def _guarded(function: Callable[[], Any], origin: str, label: str) -> Any:
    """Call a reader of tensors; shapes that fit no model of the method become a ValueError."""
    try:
        return function()
    except (ArithmeticError, AttributeError, IndexError, KeyError, TypeError, ValueError) as exc:
        raise ValueError(
            f"load_weights: {origin} has keys of {label}, but other keys or shapes than any of its "
            f"models ({type(exc).__name__}: {exc})"
        ) from exc


def parts_of(
    cls: type[InpaintingModel], checkpoint: Checkpoint, layout: str, *, public: bool = False
) -> list[Part]:
    """The networks that a checkpoint holds.

    Args:
        cls: the method.
        checkpoint: the file.
        layout: "auto", "inpaint_ops", a layout's name, or "name/network".
        public: leaves our own layout out.

    Raises:
        ValueError: unknown layout, another method's file, damaged record, nothing that is known.
    """
    record = _record(cls, checkpoint)
    name, _, network = (record.layout if record and layout == "auto" else layout).partition("/")
    known = [one for one in cls.layouts if name in ("auto", one.name)]
    known = [one for one in known if not network or one.network == network]
    if not known and name not in ("auto", NATIVE):
        names = ", ".join(dict.fromkeys([*(one.name for one in cls.layouts), NATIVE]))
        raise ValueError(
            f"load_weights: layout must be auto or of {names} (or name/network), got {layout!r}"
        )
    # A name alone is a choice where it has one layout with such keys.
    signatures = [one.signature for one in known]
    choices = {
        one.label: bool(network) or (name != "auto" and signatures.count(one.signature) == 1)
        for one in known
    }
    inside = candidates(checkpoint, cls.networks)
    files = [(checkpoint, "", None)]
    states = [(Checkpoint(c.state, {}, checkpoint.origin), c.prefix, c.network) for c in inside]
    for places in (files, states):
        found: dict[str, Part] = {}
        for place, prefix, only in places:
            for one in known:
                if one.network in found or only not in (None, one.network):
                    continue
                match = one.find(place, chosen=choices[one.label])
                if match is not None:
                    state, own_prefix = match
                    where = (prefix + own_prefix, checkpoint.origin)
                    found[one.network] = _public(one, state, *where, record)
        if found:
            return list(found.values())
    if name in ("auto", NATIVE) and not public:
        own = _own(cls, checkpoint.origin, inside, record, strict=name == "auto")
        if own:
            return own
    raise UnknownWeightsError(_unknown(cls, checkpoint, known))


def _public(layout: Layout, state: State, prefix: str, origin: str, record: _Record | None) -> Part:
    told = dict(record.options) if record else {}
    recipe = _guarded(lambda: layout.recipe(state), origin, layout.label)
    unstated = [name for name in layout.unstated if name not in layout.stated(state)]
    telling = frozenset(recipe) - frozenset(unstated) | frozenset(told)
    if layout.channel_order is not None:
        recipe["channel_order"] = layout.channel_order
    fitting = _guarded(lambda: layout.fitting(state), origin, layout.label)
    return Part(
        layout.network,
        state,
        origin,
        layout,
        prefix,
        _guarded(lambda: layout.options(state), origin, layout.label),
        {**fitting, **recipe, **told},
        frozenset(recipe),
        telling,
        tuple(name for name in unstated if name not in told),
        {name: text for name, text in layout.asked.items() if name not in told},
        layout.hint,
    )


def _own(
    cls: type[InpaintingModel],
    origin: str,
    inside: list[Candidate],
    record: _Record | None,
    *,
    strict: bool,
) -> list[Part]:
    """The networks in our own keys, with the names of the networks before them or without.

    `strict`: nothing else may be among the former.
    """
    for candidate in inside:
        parts = split(candidate.state)
        if candidate.network is not None or not set(parts) & set(cls.networks):
            continue
        strange = set(parts) - set(cls.networks)
        if not strange:
            named = {name: (part, f"{candidate.prefix}{name}.") for name, part in parts.items()}
            return _own_parts(cls, named, origin, record)
        if not strict:
            keys = [key for key in candidate.state if key.partition(".")[0] in strange]
            raise ValueError(
                f"load_weights: {origin} does not fit {cls.name}; {len(keys)} unknown: "
                f"{', '.join(keys[:12])}; {cls.name} has {', '.join(cls.networks)}"
            )
    bare: dict[str, tuple[State, str]] = {}
    for candidate in inside:
        names = own_networks(cls, candidate)
        if len(names) > 1:
            listed = " or ".join(f"{name}." for name in names)
            raise ValueError(
                f"load_weights: {origin} has keys of {' and of '.join(names)} of {cls.name}: put "
                f"{listed} before them to say which it is"
            )
        if names:
            bare.setdefault(names[0], (candidate.state, candidate.prefix))
    return _own_parts(cls, bare, origin, record) if bare else []


def _own_parts(
    cls: type[InpaintingModel],
    found: Mapping[str, tuple[State, str]],
    origin: str,
    record: _Record | None,
) -> list[Part]:
    """Parts of networks with their state dicts in our keys and the prefixes in the file."""
    by_network = {network: unwrapped(inside) for network, (inside, _) in found.items()}
    plain = {
        f"{n}.{key}": value for n, inside in by_network.items() for key, value in inside.items()
    }
    implied: Implied = _guarded(lambda: cls.read_options(plain), origin, f"{cls.name}'s own files")
    told = dict(record.options) if record else {}
    wrong = [name for name, value in implied.facts.items() if told.get(name, value) != value]
    if wrong:
        name = wrong[0]
        raise ValueError(
            f"load_weights: {origin} has damaged metadata: {name}={told[name]!r}, but its tensors "
            f"are those of {name}={implied.facts[name]!r}"
        )
    return [
        Part(
            network,
            inside,
            origin,
            None,
            found[network][1],
            implied.facts,
            {**implied.fitting, **told},
            frozenset(implied.unstated),
            frozenset(told),
            () if record else implied.unstated,
            {} if record else implied.asked,
            "a state dict does not record them, save_weights does",
        )
        for network, inside in by_network.items()
    ]


def _unknown(cls: type[InpaintingModel], checkpoint: Checkpoint, known: list[Layout]) -> str:
    """Describe the keys of an unknown file and the closest known ones, for a message."""
    nesting = tuple(dict.fromkeys(k for one in known for k in (*one.nesting, *one.names)))
    keys = sorted({k for state in checkpoint.dicts((*NESTING, *nesting)) for k in state})
    if not keys:
        top = ", ".join(repr(key) for key in list(checkpoint.content)[:6]) or "nothing"
        return f"load_weights: {checkpoint.origin} holds no state dict of tensors, but {top}"
    own = " or ".join(f"{network}." for network in cls.networks)
    heads = sorted({key.partition(".")[0] + "." for key in keys if "." in key})
    prefixes = f"{', '.join(heads[:4])}{', ...' if len(heads) > 4 else ''}" or "no prefix"
    text = (
        f"load_weights: {checkpoint.origin} is no file of {cls.name}: its keys begin with "
        f"{prefixes}, those of its own files begin with {own}"
    )
    if not known:
        return f"{text}; {cls.name} has no other layouts"
    close = [
        f"{one.label} has {one.signature[0]} (closest here: {_closest(one.signature[0], keys)})"
        for one in known[:_LAYOUTS_NAMED]
    ]
    more = ", ..." if len(known) > len(close) else ""
    return f"{text}; of public ones {', '.join(close)}{more}"


def _closest(key: str, keys: list[str]) -> str:
    # Quadratic in the number of keys and their lengths: a file may have any number.
    short = [one for one in keys[:2000] if len(one) < 200]
    return ", ".join(difflib.get_close_matches(key, short, 1, 0.0)) or "none"
