"""Weights in: files and state dicts, ours and those of public implementations, into a model."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from inpaint_ops.checkpoints import Checkpoint, State, Weights, WeightsNote, read_checkpoints
from inpaint_ops.models.weights.parts import Part, parts_of
from inpaint_ops.models.weights.shapes import shapes_of
from inpaint_ops.models.weights.translation import translate, translate_own

if TYPE_CHECKING:
    from inpaint_ops.models.method import InpaintingModel

# Numbers that networks without weights may have on the word of a file's record alone.
_MOST_UNTOLD = 1 << 30


def load_weights(
    model: InpaintingModel,
    weights: Weights | Checkpoint | Sequence[Weights],
    *,
    layout: str = "auto",
) -> list[str]:
    """Fills a model, or those of its networks that the files hold.

    The options of the model must be those that the weights were trained with. Options that only
    the layout implies (not the tensors) may differ where they were given explicitly when the model
    was built; what neither the file nor the user told is stated in a `WeightsNote`.

    Args:
        model: from `create_model`, with the options that the files imply.
        weights: .safetensors or PyTorch file (read with weights_only), a loaded dict, or a list of
            them for methods whose networks are published one by one. Nested dicts, the prefixes of
            torch.compile, DataParallel and AveragedModel, and any other that all keys share, are
            recognised. The model's own `state_dict()` loads too, and that of one of its networks
            where its keys tell which.
        layout: "auto", the name of a layout, or "name/network" where one name has several.

    Returns:
        The networks that were filled; the others keep what they had. (`create_model` refuses
        files that lack a network which completion needs; this function leaves that to you.)

    Raises:
        FileNotFoundError: there is no such file.
        TypeError: neither path nor dict nor list of them.
        ValueError: damaged file, unknown layout, other options than the model's, missing, unknown
            or misshapen keys, values that are not finite in the model's dtype, two files for one
            network; the model is unchanged then.
    """
    parts = _collect(type(model), read_checkpoints(weights), layout)
    for part in parts:
        _check_options(model, part)
    translated = _translated(model, parts)
    _say([text for own, text in notes_on(parts, model) if not own], 3)
    _fill(model, translated)
    return list(translated)


def build(
    cls: type[InpaintingModel],
    weights: Weights | Sequence[Weights],
    layout: str,
    partial: bool,
    given: Mapping[str, Any],
) -> InpaintingModel:
    """A model with the weights of files; see `create_model`."""
    parts = _collect(cls, read_checkpoints(weights), layout)
    held = [part.network for part in parts]
    lacking = [name for name in cls.completion_networks if name not in held]
    if lacking and not partial:
        origins = ", ".join(dict.fromkeys(part.origin for part in parts))
        raise ValueError(
            f"create_model: {cls.name} needs {' and '.join(lacking)} to complete pictures, "
            f"{origins} holds {', '.join(held)}: give the missing file{'s' * (len(lacking) > 1)} "
            "too (a list of files, or --weights again); partial=True leaves the rest random, to "
            "be trained"
        )
    options = _settled(cls, parts, given)
    # Shapes are compared before memory is taken for them.
    skeleton = _skeleton(cls, options, given, parts)
    translated = _translated(skeleton, parts)
    _check_rest(skeleton, parts, given)
    model = cls(**options)
    model.given = frozenset(given)
    _say([text for _, text in notes_on(parts, model)], 4)
    _fill(model, translated)
    return model


def _collect(cls: type[InpaintingModel], checkpoints: list[Checkpoint], layout: str) -> list[Part]:
    """The networks of all files; one network may be in one file only."""
    found: dict[str, Part] = {}
    for checkpoint in checkpoints:
        for part in parts_of(cls, checkpoint, layout):
            if part.network in found:
                raise ValueError(
                    f"load_weights: {found[part.network].origin} and {part.origin} both hold "
                    f"{part.network} of {cls.name}: give one of them"
                )
            found[part.network] = part
    return sorted(found.values(), key=lambda part: cls.networks.index(part.network))


def _settled(
    cls: type[InpaintingModel], parts: list[Part], given: Mapping[str, Any]
) -> dict[str, Any]:
    """Constructor options: the user's, then the tensors', then the layouts'."""
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


def _skeleton(
    cls: type[InpaintingModel],
    options: Mapping[str, Any],
    given: Mapping[str, Any],
    parts: list[Part],
) -> InpaintingModel:
    """The model without memory for its weights."""
    try:
        return shapes_of(cls, options)
    except Exception as exc:
        try:
            shapes_of(cls, given)
        except Exception:
            raise exc from None  # the user's own options
        raise ValueError(
            f"create_model: {parts[0].origin} implies options that {cls.name} does not take: {exc}"
        ) from exc


def _check_rest(skeleton: InpaintingModel, parts: list[Part], given: Mapping[str, Any]) -> None:
    """Refuses sizes that no tensor of the file stands for."""
    held = {part.network for part in parts}
    rest = sum(
        value.numel()
        for name in skeleton.networks
        if name not in held
        for value in skeleton.get_submodule(name).state_dict().values()
    )
    told = {name for part in parts for name in part.recipe if name not in given}
    if rest > _MOST_UNTOLD and told:
        raise ValueError(
            f"create_model: {parts[0].origin} implies options with which the networks that it "
            f"lacks have {rest} numbers: give them explicitly if that is right"
        )


def _check_options(model: InpaintingModel, part: Part) -> None:
    """Compares a model that exists with what a file implies."""
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


def _translated(model: InpaintingModel, parts: list[Part]) -> dict[str, State]:
    translated: dict[str, State] = {}
    for part in parts:
        network = model.get_submodule(part.network)
        if part.layout is None:
            state = translate_own(network, part.state, part.origin, part.prefix, model.name)
        else:
            where = (part.origin, part.prefix, model.name)
            state = translate(network, part.layout, part.state, *where)
        translated[part.network] = state
    return translated


def _fill(model: InpaintingModel, translated: Mapping[str, State]) -> None:
    """Cannot fail: keys, shapes and values were checked."""
    for name, state in translated.items():
        network = model.get_submodule(name)
        network.load_state_dict({**network.state_dict(), **state})


def notes_on(parts: list[Part], model: InpaintingModel) -> list[tuple[bool, str]]:
    """One line for each file about the options that were assumed, and whether it is our own.

    A model that exists has chosen its options, and says nothing of its own state dict.
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


def _say(notes: list[str], depth: int) -> None:
    """Issues the notes, as warnings of the line that many calls above."""
    for text in notes:
        warnings.warn(text, WeightsNote, stacklevel=depth)
