"""All ten methods end to end: a picture completed by ours and by the public formulas.

"eager" does what the public code does: it is the same method with every operator replaced by its
plain version in `inpaint_ops.reference`, in contiguous images, with batch normalisation not folded.
"compiled" is its network under torch.compile. Weights are random. The texture synthesis of MSNPS
takes a few steps instead of hundreds.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from inpaint_ops import needed, ops, reference
from inpaint_ops.benchmarks.harness.accuracy import Error
from inpaint_ops.benchmarks.harness.case import Case, Problem, Target
from inpaint_ops.benchmarks.harness.plain import Plain
from inpaint_ops.exporting import export
from inpaint_ops.models import InpaintingModel, create_model, list_models
from inpaint_ops.models.blocks import conv_block, pictures
from inpaint_ops.ops.shift_connection import concatenated_shift

SIDES = (256, 512)
# The target table promises this for DeepFill v2 at 512 and never below 1 for the others.
_TARGETS = {("deepfill_v2", 512): Target(must=4, aim=6)}

CASES = tuple(
    Case(
        "models",
        f"{name}-{side}",
        {"model": name, "side": side},
        target=_TARGETS.get((name, side), Target(must=1, aim=1.3)),
        quick=(name, side) == ("deepfill_v2", 256),
        usual=side == 256 or (name, side) == ("deepfill_v2", 512),
        peers=True,
        curve=name,
        x=side,
        # A minute or more for each network and thread count.
        compile=name == "deepfill_v2",
        once=(name, side) == ("msnps", 512),
    )
    for name in list_models()
    for side in SIDES
)


def setup(case: Case) -> Problem:
    """Return the problem: noise on a gradient, a quarter of the picture missing."""
    name, side = case.sizes["model"], case.sizes["side"]
    torch.manual_seed(0)
    model = _built(name)
    line = torch.linspace(0, 1, side)
    image = (line[:, None] + line[None, :]) / 2 * torch.ones(1, 3, 1, 1)
    image = (image * 0.8 + 0.2 * torch.rand(1, 3, side, side)).clamp(0, 1)
    hole = torch.zeros(1, 1, side, side)
    hole[:, :, side // 4 : 3 * side // 4, side // 4 : 3 * side // 4] = 1

    def eager(image: Tensor, hole: Tensor) -> Tensor:
        with public_formulas():
            return model.complete(image, hole)

    def build(layout: torch.memory_format, compiled: bool) -> Callable[..., Any]:
        model.to(memory_format=layout)  # type: ignore[call-overload]
        fill = torch.compile(model._fill, dynamic=False) if compiled else model._fill

        def call(image: Tensor, hole: Tensor, *hints: Tensor) -> Tensor:
            # It finds the hints itself, as the public code does.
            with public_formulas(layout), mock.patch.object(model, "_fill", fill):
                return model.complete(image, hole)

        return call

    def plain() -> Plain:
        given = (image, hole, *model.hints(image, hole > 0))
        return Plain(given, partial(export, model, dynamic=False, sample=given), build)

    @cache
    def expected() -> Tensor:
        return eager(image, hole)

    @cache
    def exact() -> Tensor:
        double = copy.deepcopy(model).double()
        with public_formulas():
            return double.complete(image.double(), hole.double())

    def check(outcome: Tensor) -> str | None:
        if outcome.shape != image.shape:
            return f"picture has shape {tuple(outcome.shape)}"
        if not torch.equal(torch.where(hole > 0, image, outcome), image):
            return "known pixels changed"
        off = (outcome - expected()).abs().mean().item()
        return None if off <= 1e-3 else f"picture is off by {off:.2g} on average"

    return Problem(
        inputs=(image, hole),
        implementations={"ours": model.complete, "eager": eager},
        check=check,
        compiled=partial(build, torch.contiguous_format, True),
        errors=lambda outcome: {"picture": Error.of(outcome, exact())},
        # A best match of two may turn with the last digit.
        limited=False,
        plain=plain,
    )


def _built(name: str) -> InpaintingModel:
    if name != "msnps":
        return create_model(name)
    from inpaint_ops.features import FeatureNetwork

    model: Any = create_model(name, iterations=3)
    model.load_features(FeatureNetwork.untrained("vgg19", layers=("relu3_1", "relu4_1")))
    return model  # type: ignore[no-any-return]


@contextmanager
def public_formulas(layout: torch.memory_format = torch.contiguous_format) -> Iterator[None]:
    """Replace every operator that layers and models call by its plain version, in a layout."""
    names = [name for name in ops.__all__ if name in reference.__all__]
    plain: dict[Any, Any] = {getattr(ops, name): getattr(reference, name) for name in names}
    plain[concatenated_shift] = _plain_shift
    with (
        mock.patch.object(needed, "saves", return_value=False),
        mock.patch.object(pictures, "arranged", lambda x: x.contiguous(memory_format=layout)),
        mock.patch.object(conv_block.ConvBlock, "may_fold", False),
    ):
        patches = [
            mock.patch.object(module, name, plain[value])
            for module in _modules()
            for name, value in list(vars(module).items())
            if callable(value) and getattr(value, "__hash__", None) and value in plain
        ]
        for patch in patches:
            patch.start()
        try:
            yield
        finally:
            for patch in patches:
                patch.stop()


def _plain_shift(
    decoder: Tensor, encoder: Tensor, hole: Tensor, gradient_scale: float
) -> tuple[Tensor, Tensor]:
    shifted, index = reference.shift_connection(
        decoder, encoder, hole, gradient_scale=gradient_scale
    )
    return torch.cat([decoder, encoder, shifted], 1), index


def _modules() -> list[Any]:
    packages = ("inpaint_ops.layers.", "inpaint_ops.models.", "inpaint_ops.features")
    return [module for name, module in sys.modules.items() if name.startswith(packages)]
