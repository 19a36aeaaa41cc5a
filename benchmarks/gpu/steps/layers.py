"""Every convolution of the methods: ours in three ways, cuDNN in two layouts, the roofline."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch

from inpaint_ops.benchmarks.cases.conv_layers import Layer
from inpaint_ops.benchmarks.gpu.roofline import DEVICES, Device, predict
from inpaint_ops.benchmarks.gpu.steps.contestants import Work, layers
from inpaint_ops.benchmarks.gpu.steps.right import BOUNDS, relative_error
from inpaint_ops.benchmarks.gpu.steps.task import Outcome, Settings, Task, precision
from inpaint_ops.kernels.stopwatch import is_lost, measure

# Precision, batch and whether with gradients, in the order of their worth.
_PASSES = (
    ("bf16", 16, False),
    ("bf16", 1, False),
    ("bf16", 16, True),
    ("tf32", 16, False),
    ("tf32", 1, False),
    ("fp16", 16, False),
    ("tf32", 16, True),
    ("fp16", 16, True),
    ("bf16", 1, True),
    ("fp16", 1, False),
)
# Sums of a layer have more terms than those that `BOUNDS` is for, and are of the same order.
_SLACK = 4.0


def tasks(settings: Settings) -> Iterator[Task]:
    """The first method's layers in every pass, then all others."""
    chosen = layers(settings)
    if settings.small:
        for layer, wanted in ((chosen[0], _PASSES[1]), (chosen[2], _PASSES[8])):
            yield _task(layer, wanted, settings)
        return
    first = [layer for layer in chosen if layer.method == chosen[0].method]
    for some in (first, [layer for layer in chosen if layer not in first]):
        for wanted in _PASSES:
            for layer in some:
                yield _task(layer, wanted, settings)


def _task(layer: Layer, wanted: tuple[str, int, bool], settings: Settings) -> Task:
    name, batch, backward = wanted
    way = "forward-backward" if backward else "forward"
    return Task(f"{layer.id}-n{batch}-{name}-{way}", partial(_run, layer, *wanted, settings))


def _run(layer: Layer, name: str, batch: int, backward: bool, settings: Settings) -> Outcome:
    with precision(name) as dtype:
        work = Work.of(layer, batch, backward, dtype, settings.device)
        calls = work.contestants(settings)
        errors: dict[str, Any] = {}
        if batch == 1 and not backward:
            errors = errors_of(work, calls)
        times = measure(calls, settings.device, settings.seconds)
    bound = _SLACK * BOUNDS[name]
    # A contestant beyond its bound is timed all the same, and what eager does is no fault of ours.
    judged = {who: error for who, error in errors.items() if isinstance(error, float)}
    beyond = [who for who, error in judged.items() if not error <= bound]
    remarks = [f"{who} is off by {errors[who]:.2g}, allowed {bound:.2g}" for who in beyond]
    remarks += [f"{who}: {times[who]['missing']}" for who in times if "missing" in times[who]]
    wrong = any(not who.startswith("eager") for who in beyond)
    status = "wrong" if wrong else "error" if "missing" in times["ours"] else "ok"
    return {
        "status": status,
        "detail": "; ".join(remarks),
        "method": layer.method,
        "layer": layer.id,
        "precision": name,
        "batch": batch,
        "backward": backward,
        "times": times,
        "errors": errors,
        "bound": bound,
        "roofline": roofline(layer, name, batch, backward, settings),
    }


def errors_of(work: Work, calls: dict[str, Any]) -> dict[str, Any]:
    """Relative error of each contestant against float64, or the text of its exception."""
    exact = work.exact()
    errors: dict[str, Any] = {}
    for who, call in calls.items():
        try:
            errors[who] = relative_error(call(), exact)
        except Exception as error:  # its time will say the same
            if is_lost(error):
                raise
            errors[who] = f"{type(error).__name__}: {str(error)[:200]}"
    return errors


def device_of(settings: Settings) -> Device | None:
    """Data sheet of this device, None for one we do not know; a rehearsal takes an H100's."""
    name = "H100" if settings.small else torch.cuda.get_device_name(settings.device)
    return next((one for one in DEVICES if one.name.split()[0] in name), None)


def roofline(
    layer: Layer, name: str, batch: int, backward: bool, settings: Settings
) -> dict[str, float] | None:
    """Predicted microseconds of the forward pass, and the least that the device needs."""
    device = device_of(settings)
    if device is None:
        return None
    found = predict(layer, device, "bf16" if name in ("bf16", "fp16") else name, batch)
    # The gradients of x and of the weight are a product each.
    floor = found.floor * (3 if backward else 1)
    predicted = {} if backward else {"ours": found.ours, "eager": found.eager}
    return {k: round(1e6 * v, 4) for k, v in {"floor": floor, **predicted}.items()}
