"""The methods by name: how they are registered, listed and built."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from inpaint_ops.checkpoints import Weights, read_checkpoints
from inpaint_ops.models.method import InpaintingModel
from inpaint_ops.models.training import TrainingRecipe
from inpaint_ops.models.weights import files
from inpaint_ops.models.weights.parts import UnknownWeightsError, parts_of

_MODELS: dict[str, type[InpaintingModel]] = {}


def register_model(
    name: str,
    model: type[InpaintingModel],
    *,
    recipe: type[TrainingRecipe],
    variant_recipes: Mapping[str, type[TrainingRecipe]] | None = None,
) -> None:
    """Make a method known to `create_model` under a name, with the recipe that trains it.

    Args:
        name: an identifier.
        model: the class of the method. `networks` lists its submodules, `completion_networks`
            those that `complete` runs, `layouts` the public files that it reads.
        recipe: the class of its training.
        variant_recipes: classes for those values of the option `variant` that train otherwise.

    Raises:
        TypeError: model does not derive from `InpaintingModel`, or a recipe from `TrainingRecipe`.
        ValueError: the name is taken or no identifier, or completion needs an unknown network.
    """
    if not isinstance(name, str) or not name.isidentifier():
        raise ValueError(f"register_model: name must be an identifier, got {name!r}")
    if not _is_subclass(model, InpaintingModel):
        raise TypeError(f"register_model: {name} must be an InpaintingModel, got {model!r}")
    recipes = dict(variant_recipes or {})
    for one in (recipe, *recipes.values()):
        if not _is_subclass(one, TrainingRecipe):
            raise TypeError(
                f"register_model: recipe of {name} must be a TrainingRecipe, got {one!r}"
            )
    if name in _MODELS:
        raise ValueError(f"register_model: name must be new, got {name!r}")
    unknown = set(model.completion_networks) - set(model.networks)
    if unknown:
        raise ValueError(
            f"register_model: completion_networks of {name} must be among its networks "
            f"{', '.join(model.networks)}, got {', '.join(sorted(unknown))}"
        )
    model.name = name
    model.recipe_class = recipe
    model.variant_recipes = recipes
    _MODELS[name] = model


def _is_subclass(value: Any, base: type) -> bool:
    return isinstance(value, type) and issubclass(value, base)


def list_models() -> list[str]:
    """Return the names that `create_model` takes, sorted."""
    return sorted(_MODELS)


def model_class(name: str) -> type[InpaintingModel]:
    """Return the class registered under a name.

    Raises:
        ValueError: there is none.
    """
    if name not in _MODELS:
        raise ValueError(
            f"create_model: name must be one of {', '.join(list_models())}, got {name!r}"
        )
    return _MODELS[name]


def create_model(
    name: str,
    *,
    weights: Weights | Sequence[Weights] | None = None,
    layout: str = "auto",
    partial: bool = False,
    **options: Any,
) -> InpaintingModel:
    """Build a method, with fresh random weights or those of files.

    Options come from three places. Those that the tensors show (widths, levels) are taken from
    them, and a contradicting option is an error. Those that only the layout implies (padding, order
    of channels) are taken from it unless they are given. All others must be given, or get a default
    that a `WeightsNote`, a warning of one line, states.

    Args:
        name: one of `list_models`.
        weights: file or state dict as for `load_weights`, or a list of them that hold one network
            each (EdgeConnect publishes its two generators so).
        layout: as for `load_weights`.
        partial: accept files that lack a network which completion needs
            (`InpaintingModel.completion_networks`). Its weights are random, to be trained.
        options: of the method's class, for example base_channels.

    Raises:
        FileNotFoundError: there is no such file.
        TypeError: an option the method does not have.
        ValueError: unknown name, wrong value, weights that do not fit, lack a network that
            completion needs, or leave an option open.
    """
    cls = model_class(name)
    if weights is None:
        return cls(**options)
    try:
        return files.build(cls, weights, layout, partial, options)
    except UnknownWeightsError as exc:
        others = _methods_with(weights)
        if not others:
            raise
        raise ValueError(f"{exc}; it is a file of {', '.join(others)}") from exc


def _methods_with(weights: Weights | Sequence[Weights]) -> list[str]:
    """Return the methods, with their layouts, that can read these files."""
    found = []
    for checkpoint in read_checkpoints(weights):
        for name, cls in _MODELS.items():
            try:
                parts = parts_of(cls, checkpoint, "auto", public=True)
            except ValueError:
                continue
            found += [f"{name} ({part.label})" for part in parts]
    return list(dict.fromkeys(found))


def parameter_counts(model: InpaintingModel) -> dict[str, int]:
    """Return the count of trainable numbers of each network."""
    return {
        name: sum(p.numel() for p in model.get_submodule(name).parameters() if p.requires_grad)
        for name in model.networks
    }
