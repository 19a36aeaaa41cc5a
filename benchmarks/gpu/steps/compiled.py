"""Layers and networks against torch.compile, each compiled anew: max-autotune for layers."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any
from unittest import mock

import torch

from inpaint_ops.benchmarks.cases import conv_contestants
from inpaint_ops.benchmarks.cases.bench_models import public_formulas
from inpaint_ops.benchmarks.cases.conv_layers import Layer
from inpaint_ops.benchmarks.cases.conv_problems import QUICK
from inpaint_ops.benchmarks.gpu.steps.contestants import Work, layers
from inpaint_ops.benchmarks.gpu.steps.networks import built, computing, picture
from inpaint_ops.benchmarks.gpu.steps.right import BOUNDS, relative_error
from inpaint_ops.benchmarks.gpu.steps.task import Outcome, Settings, Task, on_kernels, precision
from inpaint_ops.kernels.stopwatch import measure

# Without CUDA graphs, which would spare its calls the host's time and no other's.
_MODE = "max-autotune-no-cudagraphs"


def tasks(settings: Settings) -> Iterator[Task]:
    """A layer of each kind with 16 images, a network, then the same layers with gradients."""
    if settings.small:
        layer = layers(settings)[0]
        yield Task(f"{layer.id}-forward", partial(_layer, layer, 1, False, settings))
        return
    chosen = [layer for layer in layers(settings) if layer.id in QUICK]
    for layer in chosen[:3]:
        yield Task(f"{layer.id}-forward", partial(_layer, layer, 16, False, settings))
    yield Task("deepfill_v2-512", partial(_network, "deepfill_v2", 512, settings))
    for layer in chosen[3:]:
        yield Task(f"{layer.id}-forward", partial(_layer, layer, 16, False, settings))
    for layer in chosen:
        yield Task(f"{layer.id}-forward-backward", partial(_layer, layer, 16, True, settings))


def _compiled(function: Callable[..., Any], mode: str | None = _MODE) -> Callable[..., Any]:
    torch.compiler.reset()
    return torch.compile(function, dynamic=False, mode=mode)


def _layer(layer: Layer, batch: int, backward: bool, settings: Settings) -> Outcome:
    with precision("bf16") as dtype, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        work = Work.of(layer, batch, backward, dtype, settings.device)
        # A rehearsal compiles for the CPU by the cheapest way.
        mode = None if settings.small else _MODE
        compiled = _compiled(conv_contestants.public(layer), mode)
        calls = work.contestants(settings)
        calls["compiled"] = work.call(compiled)
        times = measure(calls, settings.device, settings.seconds)
        detail = [f"{who}: {one['missing']}" for who, one in times.items() if "missing" in one]
        errors: dict[str, float] = {}
        if not backward and "missing" not in times["compiled"]:
            errors["compiled"] = relative_error(calls["compiled"](), work.exact())
            if not errors["compiled"] <= 4 * BOUNDS["bf16"]:
                detail.append(f"compiled is off by {errors['compiled']:.2g}")
    return {
        "status": "error" if "missing" in times["ours"] else "ok",
        "detail": "; ".join(detail),
        "layer": layer.id,
        "method": layer.method,
        "precision": "bf16",
        "batch": batch,
        "backward": backward,
        "times": times,
        "errors": errors,
    }


def _network(name: str, side: int, settings: Settings) -> Outcome:
    model = built(name, settings.device, settings.small)
    image, hole = picture(side, 1, settings.device)
    call = partial(model.complete, image, hole)
    with computing("bf16", settings), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with on_kernels(settings):
            times = measure({"ours": call}, settings.device, settings.seconds)
        with public_formulas():
            fill = _compiled(model._fill, None)
            with mock.patch.object(model, "_fill", fill):
                times |= measure({"compiled": call}, settings.device, settings.seconds)
    detail = [f"{who}: {one['missing']}" for who, one in times.items() if "missing" in one]
    return {
        "status": "error" if "missing" in times["ours"] else "ok",
        "detail": "; ".join(detail),
        "method": name,
        "side": side,
        "precision": "bf16",
        "times": times,
    }
