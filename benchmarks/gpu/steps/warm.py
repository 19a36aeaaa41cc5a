"""Compilation of the kernels that the later steps run, so that their time goes into measuring."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from inpaint_ops.benchmarks.cases.conv_layers import Layer
from inpaint_ops.benchmarks.gpu.steps.contestants import Work, layers
from inpaint_ops.benchmarks.gpu.steps.task import Outcome, Settings, Task, precision
from inpaint_ops.kernels import tune

WAYS = ("ours", "fused", "library+epilogue")


def tasks(settings: Settings) -> Iterator[Task]:
    """The rows that are tuned, then every layer in the precisions of the tables."""
    chosen = layers(settings)
    problems = [layer for layer, *_ in tune.problems(settings)]
    kinds = {
        (one.op, one.upsample, one.padding_mode, one.out % 8 == 0): one
        for one in reversed(problems)
    }
    if not settings.small:
        for name in tune.PRECISIONS:
            for layer in kinds.values():
                yield Task(f"rows-{layer.id}-{name}", partial(_rows, layer, name, settings))
    for name in ("bf16",) if settings.small else ("bf16", "tf32", "fp16"):
        for layer in chosen[:1] if settings.small else chosen:
            yield Task(f"{layer.id}-{name}", partial(_compile, layer, name, settings))


def _rows(layer: Layer, name: str, settings: Settings) -> Outcome:
    tune.times_of(layer, name, 1, settings)
    return {"status": "ok"}


def _compile(layer: Layer, name: str, settings: Settings) -> Outcome:
    with precision(name) as dtype:
        for batch, backward in ((1, False), (1, True), (16, False)):
            if settings.small and (batch > 1 or backward):
                continue
            calls = Work.of(layer, batch, backward, dtype, settings.device).contestants(settings)
            for way in WAYS:
                calls[way]()
    return {"status": "ok"}
