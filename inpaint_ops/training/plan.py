"""From a configuration to the method, its data and its phases, with all checks before the start."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from inpaint_ops.checks import check_choice, check_int
from inpaint_ops.data import (
    DrawnHoles,
    Framing,
    HoleFiles,
    Holes,
    Pictures,
    Samples,
    find_pictures,
)
from inpaint_ops.features import FeatureNetwork
from inpaint_ops.models import InpaintingModel, Phase, TrainingRecipe, create_model, model_class
from inpaint_ops.training.config import Config
from inpaint_ops.training.values import unknown


@dataclass(frozen=True)
class Stage:
    """A phase as it is trained: with the user's steps, batch and numbers."""

    name: str
    steps: int
    batch: int
    numbers: Mapping[str, float]


@dataclass(frozen=True)
class Plan:
    """All that a run trains with.

    Attributes:
        pictures: of the data set.
        samples: of training.
        looks: samples that are drawn to look at, the same all the time: in the middle, unmirrored.
    """

    model: InpaintingModel
    stages: tuple[Stage, ...]
    pictures: Pictures
    samples: Samples
    looks: Samples
    features: nn.Module | None


def make_plan(config: Config, features: nn.Module | None = None) -> Plan:
    """Build the method and find its data.

    Args:
        config: what the user chose.
        features: in place of the file that the configuration names.

    Raises:
        OSError: files do not exist.
        ValueError: a name or a number is wrong, or one that must be given is not.
    """
    model = _model(config)
    recipe = model.variant_recipes.get(getattr(model, "variant", ""), model.recipe_class)
    stages = _stages(config, recipe)
    if features is None and config.features is not None:
        if not recipe.feature_network:
            raise ValueError(f"train: {config.method} takes no features, got {config.features}")
        features = FeatureNetwork(weights=config.features, **recipe.feature_network)
    sources = {phase.name: phase.numbers for phase in recipe.phases}
    needing = [s.name for s in stages if recipe.needs_features({**sources[s.name], **s.numbers})]
    if needing and features is None:
        network = ", ".join(f"{key}={value!r}" for key, value in recipe.feature_network.items())
        raise ValueError(
            f"train: features must be the file of a feature network for {', '.join(needing)} of "
            f"{config.method} ({network}); --set features=FILE, or weights of 0 in each phase: "
            f"{_without_features(recipe, needing)}"
        )
    pictures = find_pictures(config.data.path, split=config.data.split, root=config.data.root)
    options = config.data
    size = _size(model, config)
    framing = Framing(
        *(size, options.resize, options.scale, options.crop, options.flip, options.recolour)
    )
    middle = Framing(size, options.resize, crop="center", flip=False)
    holes = _holes(config, recipe)
    return Plan(
        model,
        stages,
        pictures,
        Samples(pictures, framing, holes, seed=config.seed, on_error=options.on_error),
        Samples(pictures, middle, holes, seed=config.seed, on_error=options.on_error),
        features,
    )


def _model(config: Config) -> InpaintingModel:
    known = list(inspect.signature(model_class(config.method).__init__).parameters)[1:]
    for name in config.model:
        if name not in known:
            raise unknown(f"{config.method}: option model", name, known)
    # Also what a file leaves random, such as the critics.
    torch.manual_seed(config.seed)
    if not config.weights:
        return create_model(config.method, **config.model)
    return create_model(
        config.method,
        weights=list(config.weights),
        layout=config.layout,
        partial=True,
        **config.model,
    )


def _without_features(recipe: type[TrainingRecipe], phases: Sequence[str]) -> str:
    return " ".join(
        f"--set phases.{phase}.{loss}=0" for phase in phases for loss in recipe.feature_losses
    )


def _size(model: InpaintingModel, config: Config) -> tuple[int, int]:
    size = model.trained_size if config.data.size is None else config.data.size
    height, width = size if isinstance(size, tuple) else (size, size)
    least, step = model.minimum, model.multiple
    if min(height, width) < least or height % step or width % step:
        raise ValueError(
            f"train: data.size must be a multiple of {step} and at least {least} for "
            f"{config.method} as it is set, got {size}"
        )
    return height, width


def _holes(config: Config, recipe: type[TrainingRecipe]) -> Holes:
    holes = config.holes
    if holes.path is not None and holes.polarity is not None:
        return HoleFiles(holes.path, holes.polarity)
    return DrawnHoles(holes.kind or recipe.hole_kind, holes.ratio, holes.border)


def _stages(config: Config, recipe: type[TrainingRecipe]) -> tuple[Stage, ...]:
    phases = {phase.name: phase for phase in recipe.phases}
    for name in config.phases:
        if name not in phases:
            raise unknown(f"{config.method}: phase", name, phases)
    names = config.sequence or recipe.sequence or tuple(phases)
    for name in names:
        check_choice("train", "sequence", name, tuple(phases))
    if len(set(names)) < len(names):
        raise ValueError(f"train: sequence must name a phase once, got {', '.join(names)}")
    return tuple(_stage(config, phases[name]) for name in names)


def _stage(config: Config, phase: Phase) -> Stage:
    numbers = dict(config.phases.get(phase.name, {}))
    counts = {}
    for name, general, source in (
        ("iterations", config.iterations, phase.iterations),
        ("batch", config.batch, phase.batch),
    ):
        count = numbers.pop(name, source if general is None else general)
        if count is None:
            raise ValueError(
                f"train: {name} of phase {phase.name} must be given, as the source of "
                f"{config.method} does not state it; --set {name}=NUMBER, or --set phases."
                f"{phase.name}.{name}=NUMBER"
            )
        check_int("train", f"{name} of phase {phase.name}", count, 1)
        counts[name] = count
    for name, value in numbers.items():
        if name not in phase.numbers:
            known = ("iterations", "batch", *phase.numbers)
            raise unknown(f"{config.method}: number of phase {phase.name}", name, known)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ValueError(f"train: {name} of phase {phase.name} must be a number, got {value!r}")
    return Stage(phase.name, counts["iterations"], counts["batch"], numbers)
