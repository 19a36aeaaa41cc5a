"""The networks of a method in a checkpoint, and the options of the model that it implies."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from inpaint_ops.checkpoints import Checkpoint, State, unwrapped
from inpaint_ops.models.method import InpaintingModel
from inpaint_ops.models.weights.layouts import Implied, Layout
from inpaint_ops.models.weights.saving import NATIVE

# Keys under which training scripts keep a model's state dict.
_NESTING = ("state_dict", "model", "model_state_dict")


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
        facts: options that the tensors show.
        recipe: options that the layout, or the record of `save_weights`, implies.
        binding: names of those of the recipe on which the weights depend.
        telling: names of those of the recipe that are no assumptions.
        unstated: names of options that nothing states; their values are assumptions.
        asked: options that must be given, and where to find them.
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


def parts_of(cls: type[InpaintingModel], checkpoint: Checkpoint, layout: str) -> list[Part]:
    """Return the networks that a checkpoint holds.

    Args:
        cls: the method.
        checkpoint: the file.
        layout: "auto", "inpaint_ops", a layout's name, or "name/network".

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
    found: dict[str, Part] = {}
    for one in known:
        # A name alone chooses a layout if no other of that name has the same signature.
        alone = name != "auto" and sum(x.signature == one.signature for x in known) == 1
        match = one.find(checkpoint, chosen=bool(network) or alone)
        if match is not None and one.network not in found:
            found[one.network] = _public(one, *match, checkpoint.origin, record)
    if found:
        return list(found.values())
    if name in ("auto", NATIVE):
        own = _own_state(cls, checkpoint, strict=name == "auto")
        if own:
            return _own_parts(cls, own, checkpoint.origin, record)
    raise UnknownWeightsError(_unknown(cls, checkpoint, known))


def _public(layout: Layout, state: State, prefix: str, origin: str, record: _Record | None) -> Part:
    told = dict(record.options) if record else {}
    recipe = _guarded(lambda: layout.recipe(state), origin, layout.label)
    telling = frozenset(recipe) - frozenset(layout.unstated) | frozenset(told)
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
        tuple(name for name in layout.unstated if name not in told),
        {name: text for name, text in layout.asked.items() if name not in told},
        layout.hint,
    )


def _own_state(cls: type[InpaintingModel], checkpoint: Checkpoint, *, strict: bool) -> State:
    """Return the state dict with our own keys; `strict`: nothing else may be in it."""
    for state in checkpoint.dicts(_NESTING):
        inside = [key.partition(".")[0] in cls.networks for key in state]
        if all(inside) or (any(inside) and not strict):
            return state
    return {}


def _own_parts(
    cls: type[InpaintingModel], state: State, origin: str, record: _Record | None
) -> list[Part]:
    by_network: dict[str, State] = {}
    for key, value in state.items():
        network, _, inside = key.partition(".")
        by_network.setdefault(network, {})[inside] = value
    strange = sorted(set(by_network) - set(cls.networks))
    if strange:
        unknown = [key for key in state if key.partition(".")[0] in strange]
        raise ValueError(
            f"load_weights: {origin} does not fit {NATIVE}; {len(unknown)} unknown: "
            f"{', '.join(unknown[:12])}; {cls.name} has {', '.join(cls.networks)}"
        )
    by_network = {network: unwrapped(inside) for network, inside in by_network.items()}
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
            f"{network}.",
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
    keys = sorted({k for state in checkpoint.dicts((*_NESTING, *nesting)) for k in state})
    if not keys:
        top = ", ".join(repr(key) for key in list(checkpoint.content)[:6]) or "nothing"
        return f"load_weights: {checkpoint.origin} holds no state dict of tensors, but {top}"
    own = " or ".join(f"{network}." for network in cls.networks)
    if not known:
        return (
            f"load_weights: {checkpoint.origin} is no file of {cls.name}: only its own files load, "
            f"whose keys begin with {own}; here they are {', '.join(keys[:4])}"
            f"{', ...' if len(keys) > 4 else ''}"
        )
    wanted = [(one, key) for one in known for key in one.signature]
    close = [
        f"{one.label} has {key} (closest here: {_closest(key, keys)})" for one, key in wanted[:8]
    ]
    return (
        f"load_weights: {checkpoint.origin} has no known layout of {cls.name}: "
        + "; ".join(close)
        + f"; {cls.name}'s own files have keys that begin with {own}"
    )


def _closest(key: str, keys: list[str]) -> str:
    # Quadratic in the number of keys and their lengths: a file may have any number.
    short = [one for one in keys[:2000] if len(one) < 200]
    return ", ".join(difflib.get_close_matches(key, short, 1, 0.0)) or "none"
