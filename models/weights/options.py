"""Options of a model from files, layouts and the user: their precedence, conflicts and notes."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from inpaint_ops.models.method import InpaintingModel
from inpaint_ops.models.weights.parts import Part


def settled_options(
    cls: type[InpaintingModel], parts: list[Part], given: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the options of a model to be built: the user's, then the tensors', then the layouts'.

    Raises:
        ValueError: they contradict each other, or one is missing or unknown.
    """
    facts: dict[str, Any] = {}
    recipe: dict[str, Any] = {}
    for part in parts:
        for name, value in part.facts.items():
            if name in given and given[name] != value:
                raise ValueError(
                    f"create_model: {name} must be {value!r} for {part.origin} ({part.label}), "
                    f"got {given[name]!r}"
                )
            if facts.setdefault(name, value) != value:
                raise ValueError(
                    f"create_model: {parts[0].origin} implies {name}={facts[name]!r}, "
                    f"{part.origin} ({part.label}) {value!r}: they are not of one model"
                )
        for name, text in part.asked.items():
            if name not in given and name not in part.facts:
                raise ValueError(
                    f"create_model: {part.origin} ({part.label}) needs the option {name}: {text}"
                )
    for part in parts:
        for name, value in part.recipe.items():
            if name in given or name in facts:
                continue
            if recipe.setdefault(name, value) != value:
                raise ValueError(
                    f"create_model: the files imply {name}={recipe[name]!r} and {value!r} "
                    f"({part.origin}, {part.label}): give the option {name}"
                )
    options = {**recipe, **facts, **given}
    known = inspect.signature(cls.__init__).parameters
    strange = [name for name in options if name not in known and name not in given]
    if strange:
        raise ValueError(
            f"create_model: {parts[0].origin} was saved with the option {strange[0]}, which "
            f"{cls.name} does not have"
        )
    return options


def check_options(model: InpaintingModel, part: Part) -> None:
    """Raise ValueError if a model that exists has other options than a file implies."""
    for name, text in part.asked.items():
        if name not in model.given and name not in part.facts:
            raise ValueError(
                f"load_weights: {part.origin} ({part.label}) needs a model with an explicit "
                f"{name}: {text}"
            )
    recipe = {name: value for name, value in part.recipe.items() if name in part.binding}
    for name, value in {**recipe, **part.facts}.items():
        mine = getattr(model, name, None)
        if mine == value or (name not in part.facts and name in model.given):
            continue
        kept = "" if name in part.facts else f"; an explicit {name}={mine!r} would be kept"
        raise ValueError(
            f"load_weights: {part.origin} ({part.label}) needs a model with {name}={value!r}, "
            f"this one has {mine!r}{kept}"
        )


def notes_on(parts: list[Part], model: InpaintingModel) -> list[tuple[bool, str]]:
    """Return a line for each file about options that were assumed, and whether the file is our own.

    The caller leaves out notes on our own state dicts where the model exists: its options were
    chosen when it was built.
    """
    stated = set(model.given)
    for part in parts:
        stated |= {*part.facts, *part.telling}
    found: dict[tuple[str, str, bool], list[str]] = {}
    for part in parts:
        names = [name for name in part.unstated if name not in stated]
        if names:
            key = (part.origin, part.hint, part.layout is None)
            listed = found.setdefault(key, [])
            listed += [name for name in names if name not in listed]
    notes = []
    for (origin, hint, own), names in found.items():
        values = ", ".join(f"{name}={getattr(model, name)!r}" for name in names)
        notes.append(
            (
                own,
                f"{origin} does not tell {values}: assumed ({hint}); give the "
                f"option{'s' * (len(names) > 1)} to confirm or change that",
            )
        )
    return notes
