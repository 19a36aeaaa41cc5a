"""A training step of each of the ten methods: ours against the same recipe by public formulas.

A step is all of a phase: forward and backward passes of every network, losses, optimisers. Weights
change at each of them, so the packing of weights counts. "eager" is the recipe with every operator
replaced by its plain version, in contiguous images, and Adam as torch has it by default;
"eager_channels_last" the same in that layout, "compiled" the first with its networks under
torch.compile. Networks of features have random weights. Each contestant trains a model of its own,
all from the same weights.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from inpaint_ops.benchmarks.cases.bench_models import public_formulas
from inpaint_ops.benchmarks.harness.case import Case, Problem, Target
from inpaint_ops.features import FeatureNetwork
from inpaint_ops.models import InpaintingModel, create_model, list_models
from inpaint_ops.models.training import TrainingRecipe


class _Method(NamedTuple):
    """The phase that does most, side of the paper's pictures, and a batch of small ones.

    `small`: their side, the least that the networks take from 128 on; `options`: what it asks of
    the model. No paper's size: it is this one, and codes are normalised over the batch.
    """

    phase: str = "joint"
    paper: int | None = 256
    small: int = 128
    options: Mapping[str, Any] = {}


_METHODS = {
    "context_encoder": _Method(paper=None),
    "msnps": _Method(paper=None),
    "glcic": _Method(options={"global_size": 128, "local_size": 64}),
    "patch_gan": _Method(options={"image_size": 128}),
    "shift_net": _Method(small=256),
    "deepfill_v1": _Method(options={"size": 128}),
    "gmcnn": _Method("finetune", small=196, options={"critic_size": 196, "local_size": 64}),
    "partial_conv_unet": _Method("train", 512),
    "edge_connect": _Method(),
    "deepfill_v2": _Method(),
}

CASES = tuple(
    Case(
        "training",
        f"{name}-{batch}x{side}",
        {"model": name, "phase": _METHODS[name].phase, "batch": batch, "side": side},
        target=Target(must=1.2, aim=2),
        quick=name == "context_encoder",
        usual=name == "deepfill_v2" and batch == 4,
        curve=name,
        x=side,
        # Minutes for each method and thread count.
        compile=batch == 4,
    )
    for name in list_models()
    for batch, side in ((4, _METHODS[name].small), (1, _METHODS[name].paper))
    if side is not None
)


def setup(case: Case) -> Problem:
    """Return the problem: noise on a gradient, a quarter of each picture missing."""
    batch, side = case.sizes["batch"], case.sizes["side"]
    model = _built(case)
    torch.manual_seed(1)
    line = torch.linspace(0, 1, side)
    image = (line[:, None] + line[None, :]) / 2 * torch.ones(batch, 3, 1, 1)
    image = (image * 0.8 + 0.2 * torch.rand(batch, 3, side, side)).clamp(0, 1)
    hole = torch.zeros(batch, 1, side, side)
    hole[:, :, side // 4 : 3 * side // 4, side // 4 : 3 * side // 4] = 1
    # Finding them is not part of the step.
    hints: dict[str, Any] = {
        name: (line < 0.1).expand(batch, 1, side, side) for name in model.hint_names
    }

    def ours() -> Callable[..., dict[str, float]]:
        step = _recipe(model, case).step
        return lambda image, hole: step(image, hole, **hints)

    def eager(layout: torch.memory_format, **options: Any) -> Callable[..., dict[str, float]]:
        recipe = _recipe(model, case, **options)
        for optimizer in recipe.optimizers.values():
            for group in optimizer.param_groups:
                group.update(fused=None)
        step = recipe.step

        def call(image: Tensor, hole: Tensor) -> dict[str, float]:
            with public_formulas(layout):
                return step(image, hole, **hints)

        return call

    def compiled() -> Callable[..., dict[str, float]]:
        return eager(torch.contiguous_format, wrap=lambda net: torch.compile(net, dynamic=False))

    @cache
    def expected() -> dict[str, float]:
        return eager(torch.contiguous_format)(image, hole)

    def check(outcome: tuple[int, dict[str, float]]) -> str | None:
        step, losses = outcome
        wrong = [name for name, value in losses.items() if not math.isfinite(value)]
        if step == 1:  # later ones follow from weights that have gone their own ways
            wanted = expected().items()
            wrong += [k for k, v in wanted if abs(losses[k] - v) > 0.02 * abs(v) + 1e-3]
        return f"losses are wrong: {', '.join(wrong)}" if wrong else None

    return Problem(
        inputs=(image, hole),
        implementations={
            "ours": _Steps(ours),
            "eager": _Steps(partial(eager, torch.contiguous_format)),
            "eager_channels_last": _Steps(partial(eager, torch.channels_last)),
        },
        check=check,
        compiled=lambda: _Steps(compiled),
        limited=False,
    )


class _Steps:
    """A contestant, made at its first call: each holds a model and what trains it.

    Returns the number of the step and its losses.
    """

    def __init__(self, make: Callable[[], Callable[..., dict[str, float]]]) -> None:
        self._make = make
        self._step: Callable[..., dict[str, float]] | None = None
        self._done = 0

    def __call__(self, image: Tensor, hole: Tensor) -> tuple[int, dict[str, float]]:
        if self._step is None:
            self._step = self._make()
        self._done += 1
        return self._done, self._step(image, hole)


def _built(case: Case) -> InpaintingModel:
    torch.manual_seed(0)
    name = case.sizes["model"]
    options = dict(_METHODS[name].options) if case.sizes["batch"] > 1 else {}
    if name == "msnps":
        options["energy"] = "none"
    return create_model(name, **options)


def _recipe(model: InpaintingModel, case: Case, **options: Any) -> TrainingRecipe:
    own = copy.deepcopy(model)
    recipe = own.recipe_class
    features = None
    (phase,) = (one for one in recipe.phases if one.name == case.sizes["phase"])
    if recipe.needs_features(phase.numbers):
        asked = dict(recipe.feature_network)
        features = FeatureNetwork.untrained(asked.pop("name"), **asked)
    return own.recipe(case.sizes["phase"], features=features, **options)
