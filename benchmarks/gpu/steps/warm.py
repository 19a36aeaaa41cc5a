"""Compilation of the kernels that the later steps run, so that their time goes into measuring."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from inpaint_ops.benchmarks.cases.conv_layers import Layer
from inpaint_ops.benchmarks.gpu.steps.contestants import Work, layers
from inpaint_ops.benchmarks.gpu.steps.task import Outcome, Settings, Task, precision

WAYS = ("ours", "fused", "library+epilogue")


def tasks(settings: Settings) -> Iterator[Task]:
    """Every layer in the precisions of the tables, in the order of `layers`."""
    chosen = layers(settings)
    for name in ("bf16",) if settings.small else ("bf16", "tf32", "fp16"):
        for layer in chosen[:1] if settings.small else chosen:
            yield Task(f"{layer.id}-{name}", partial(_compile, layer, name, settings))


def _compile(layer: Layer, name: str, settings: Settings) -> Outcome:
    with precision(name) as dtype:
        for batch, backward in ((1, False), (1, True), (16, False)):
            if settings.small and (batch > 1 or backward):
                continue
            calls = Work.of(layer, batch, backward, dtype, settings.device).contestants(settings)
            for way in WAYS:
                calls[way]()
    return {"status": "ok"}
