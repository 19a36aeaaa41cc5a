"""Weights in: files and state dicts, ours and those of public implementations, into a model."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from inpaint_ops.checkpoints import Checkpoint, State, Weights, WeightsNote, read_checkpoints
from inpaint_ops.models.method import InpaintingModel
from inpaint_ops.models.weights.options import check_options, notes_on, settled_options
from inpaint_ops.models.weights.parts import Part, parts_of
from inpaint_ops.models.weights.skeleton import check_absent_networks, skeleton
from inpaint_ops.models.weights.translation import translate, translate_own


def load_weights(
    model: InpaintingModel,
    weights: Weights | Checkpoint | Sequence[Weights],
    *,
    layout: str = "auto",
) -> list[str]:
    """Fill a model, or those of its networks that the files hold.

    The options of the model must be those with which the weights were trained. Options that only
    the layout implies (not the tensors) may differ where they were given explicitly when the model
    was built. Options that neither the file nor the user states are named in a `WeightsNote`.

    Args:
        model: from `create_model`, with the options that the files imply.
        weights: .safetensors or PyTorch file (read with weights_only), a loaded dict, or a list of
            them for methods whose networks are published one by one. Nested dicts, the prefixes of
            torch.compile, DataParallel and AveragedModel, and any other that all keys share, are
            recognised. The model's own `state_dict()` loads too, and that of one of its networks
            where its keys tell which.
        layout: "auto", the name of a layout, or "name/network" where one name has several.

    Returns:
        The networks that were filled; the others keep their weights. (`create_model` refuses files
        that lack a network which completion needs; this function accepts them.)

    Raises:
        FileNotFoundError: there is no such file.
        TypeError: neither path nor dict nor list of them.
        ValueError: damaged file, unknown layout, other options than the model's, missing, unknown
            or misshapen keys, values that are not finite in the model's dtype, two files for one
            network; the model is unchanged then.
    """
    parts = _collect(type(model), read_checkpoints(weights), layout)
    for part in parts:
        check_options(model, part)
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
    """Build a model with the weights of files; see `create_model`."""
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
    options = settled_options(cls, parts, given)
    # Shapes are compared before memory is taken for them.
    shapes = skeleton(cls, options, given, parts)
    translated = _translated(shapes, parts)
    check_absent_networks(shapes, parts, given)
    model = cls(**options)
    model.given = frozenset(given)
    _say([text for _, text in notes_on(parts, model)], 4)
    _fill(model, translated)
    return model


def _collect(cls: type[InpaintingModel], checkpoints: list[Checkpoint], layout: str) -> list[Part]:
    """Return the networks of all files; a network may be in one file only."""
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


def _translated(model: InpaintingModel, parts: list[Part]) -> dict[str, State]:
    """Return the state dicts of the model's networks from those of files."""
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
    """Fill networks. This cannot fail: keys, shapes and values were checked."""
    for name, state in translated.items():
        network = model.get_submodule(name)
        network.load_state_dict({**network.state_dict(), **state})


def _say(notes: list[str], depth: int) -> None:
    """Issue the notes, as warnings of the line `depth` calls above."""
    for text in notes:
        warnings.warn(text, WeightsNote, stacklevel=depth)
