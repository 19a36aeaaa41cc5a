"""The ten methods end to end: pictures completed, training steps, and replayed graphs."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from inpaint_ops.benchmarks.cases.bench_models import public_formulas
from inpaint_ops.benchmarks.gpu.steps.task import (
    HALF,
    Outcome,
    Settings,
    Task,
    on_kernels,
    precision,
)
from inpaint_ops.features import FeatureNetwork
from inpaint_ops.kernels.stopwatch import is_lost, measure, peak_memory, settle
from inpaint_ops.models import InpaintingModel, create_model, list_models
from inpaint_ops.models.blocks import pictures

# Multiples of the formulas' error, in the same precision against float32, that ours may reach; and
# an error of a picture in [0, 1] that is fine in any case.
_MARGIN, _FINE = 3.0, 1e-3
_TRAINED_SIDE, _TRAINED_BATCH = 256, 8
_SMALL: dict[str, Any] = {"base_channels": 2, "global_size": 64, "local_size": 32}


def tasks(settings: Settings) -> Iterator[Task]:
    """Completion at 256 and 512, training steps, graphs, then completion at 2048."""
    if settings.small:
        name = "glcic"
        yield Task(f"{name}-16-bf16", partial(_complete, name, 16, "bf16", settings))
        yield Task(f"{name}-graph", partial(_replay, name, 16, settings))
        yield Task(f"{name}-training", partial(_train, name, 64, 2, "bf16", settings))
        return
    # Most promises are about the first.
    names = sorted(list_models(), key=lambda name: name != "deepfill_v2")
    for side, kind in ((512, "bf16"), (256, "bf16"), (512, "tf32")):
        for name in names:
            yield Task(f"{name}-{side}-{kind}", partial(_complete, name, side, kind, settings))
        if side == 512 and kind == "bf16":
            for name in names:
                yield _training(name, "bf16", settings)
            # The texture synthesis asks the device at every step how far it got.
            for name in (name for name in names if name != "msnps"):
                yield Task(f"{name}-graph", partial(_replay, name, 256, settings))
    for name in names:
        yield Task(f"{name}-2048-bf16", partial(_complete, name, 2048, "bf16", settings))
        yield Task(f"{name}-512-fp16", partial(_complete, name, 512, "fp16", settings))
        yield _training(name, "tf32", settings)


def _training(name: str, kind: str, settings: Settings) -> Task:
    run = partial(_train, name, _TRAINED_SIDE, _TRAINED_BATCH, kind, settings)
    return Task(f"{name}-training-{kind}", run)


@contextmanager
def computing(kind: str, settings: Settings) -> Iterator[None]:
    """Torch's switches for a precision; half precision by autocast, as users train and run."""
    with precision(kind):
        if kind in HALF:
            with torch.autocast(settings.device.type, HALF[kind]):
                yield
        else:
            yield


@lru_cache(maxsize=16)
def built(name: str, device: torch.device, small: bool) -> InpaintingModel:
    """Return a method with random weights."""
    torch.manual_seed(0)
    if name != "msnps":
        return create_model(name, **(_SMALL if small else {})).to(device)
    # Three steps of the texture synthesis instead of hundreds.
    model: Any = create_model(name, iterations=3)
    model.load_features(FeatureNetwork.untrained("vgg19", layers=("relu3_1", "relu4_1")))
    return model.to(device)  # type: ignore[no-any-return]


def picture(side: int, batch: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return noise on a gradient, and a hole of a quarter of it."""
    torch.manual_seed(1)
    line = torch.linspace(0, 1, side)
    image = (line[:, None] + line[None, :]) / 2 * torch.ones(batch, 3, 1, 1)
    image = (image * 0.8 + 0.2 * torch.rand(batch, 3, side, side)).clamp(0, 1)
    hole = torch.zeros(batch, 1, side, side)
    hole[:, :, side // 4 : 3 * side // 4, side // 4 : 3 * side // 4] = 1
    return image.to(device), hole.to(device)


def _complete(name: str, side: int, kind: str, settings: Settings) -> Outcome:
    model = built(name, settings.device, settings.small)
    image, hole = picture(side, 1, settings.device)
    call = partial(model.complete, image, hole)
    last = copy.deepcopy(model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    with computing(kind, settings):
        with on_kernels(settings):
            times = _measured({"ours": call}, settings)
            mine = call()
        with public_formulas():
            times |= _measured({"eager": call}, settings)
            with mock.patch.object(pictures, "arranged", _channels_last):
                calls = {"eager channels_last": partial(last.complete, image, hole)}
                times |= _measured(calls, settings)
    errors: dict[str, float] = {}
    if "missing" not in times["eager"] and side <= 512:
        errors = _errors(mine, call, kind, settings)
    allowed = max(_FINE, _MARGIN * errors.get("eager", 0.0))
    wrong = bool(errors) and not errors["ours"] <= allowed
    known = torch.equal(torch.where(hole > 0, image, mine.to(image)), image)
    detail = [f"{who}: {one['missing']}" for who, one in times.items() if "missing" in one]
    if not known:
        detail.insert(0, "known pixels changed")
    if wrong:
        detail.insert(0, f"picture is off by {errors['ours']:.2g}, allowed {allowed:.2g}")
    return {
        "status": "wrong" if wrong or not known else "ok",
        "detail": "; ".join(detail),
        "method": name,
        "side": side,
        "precision": kind,
        "times": times,
        "errors": errors,
    }


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def _errors(
    mine: Tensor, call: Callable[[], Tensor], kind: str, settings: Settings
) -> dict[str, float]:
    """Root mean square differences from the formulas in float32."""
    with public_formulas():
        with computing("fp32", settings):
            exact = call()
        with computing(kind, settings):
            theirs = call()
    found = {"ours": mine, "eager": theirs}
    return {who: (got.float() - exact).square().mean().sqrt().item() for who, got in found.items()}


def _measured(calls: Mapping[str, Callable[[], Any]], settings: Settings) -> dict[str, Any]:
    times = measure(calls, settings.device, settings.seconds)
    for who, call in calls.items():
        if "missing" not in times[who]:
            try:
                times[who]["bytes"] = peak_memory(call, settings.device)
            except torch.OutOfMemoryError:
                times[who]["bytes"] = None
    return times


def _train(name: str, side: int, batch: int, kind: str, settings: Settings) -> Outcome:
    model = copy.deepcopy(built(name, settings.device, settings.small))
    recipe = _recipe(model, settings)
    image, hole = picture(side, batch, settings.device)

    def step() -> Any:
        return recipe.step(image, hole)

    # A rehearsal trains on the CPU's kernels: in the interpreter a step takes half a minute.
    with computing(kind, settings):
        times = _measured({"ours": step}, settings)
        with public_formulas():
            times |= _measured({"eager": step}, settings)
    broken = [f"{who}: {one['missing']}" for who, one in times.items() if "missing" in one]
    return {
        "status": "error" if "missing" in times["ours"] else "ok",
        "detail": "; ".join(broken),
        "method": name,
        "phase": recipe.phase.name,
        "side": side,
        "batch": batch,
        "precision": kind,
        "times": times,
    }


def _recipe(model: InpaintingModel, settings: Settings) -> Any:
    """Return the recipe of the last phase, with random features where it needs some."""
    kind = model.variant_recipes.get(getattr(model, "variant", ""), model.recipe_class)
    phase = kind.phases[-1]
    features = None
    if kind.needs_features(phase.numbers):
        features = FeatureNetwork.untrained(**kind.feature_network).to(settings.device)
    return model.recipe(phase.name, features=features)


def _replay(name: str, side: int, settings: Settings) -> Outcome:
    """The networks of a method captured once as a CUDA graph, and replayed."""
    model = built(name, settings.device, settings.small).eval()
    image, hole = picture(side, 1, settings.device)
    given = pictures.arranged(torch.where(hole > 0, 0, image))

    def fill() -> Tensor:
        with torch.no_grad(), on_kernels(settings):
            return model._fill(given, hole, seed=0)

    with precision("tf32"):
        plain = fill()
        if settings.device.type != "cuda":
            return {"status": "ok", "detail": "a CPU has no graphs", "method": name, "side": side}
        try:
            replay, result = _captured(fill, settings)
        except Exception as error:  # a method that draws or waits cannot be captured: say so
            if is_lost(error):
                raise
            return {"status": "error", "detail": f"{type(error).__name__}: {str(error)[:200]}"}
        times = measure({"ours": fill, "replayed": replay}, settings.device, settings.seconds)
        replay()
        settle(settings.device)
    equal = torch.equal(result, plain)
    return {
        "status": "ok" if equal else "wrong",
        "detail": "" if equal else "the replayed graph gives another picture",
        "method": name,
        "side": side,
        "precision": "tf32",
        "times": times,
    }


def _captured(call: Callable[[], Tensor], settings: Settings) -> tuple[Callable[[], None], Tensor]:
    stream = torch.cuda.Stream(settings.device)
    stream.wait_stream(torch.cuda.current_stream(settings.device))
    with torch.cuda.stream(stream):
        for _ in range(3):
            call()
    torch.cuda.current_stream(settings.device).wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = call()
    return graph.replay, result
