"""Rows of the fused convolution by shape, and who multiplies faster; the table is kept."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from inpaint_ops.benchmarks.cases.conv_layers import Layer
from inpaint_ops.benchmarks.gpu.steps.task import Outcome, Settings, Task
from inpaint_ops.benchmarks.gpu.store import Store
from inpaint_ops.kernels import tune

# Beside the results; the steps that follow use it.
TABLE = "tuned.json"


def tasks(settings: Settings) -> Iterator[Task]:
    """Each layer, precision and batch."""
    for layer, name, batch in tune.problems(settings)[: 2 if settings.small else None]:
        yield Task(f"{layer.id}-n{batch}-{name}", partial(_tune, layer, name, batch, settings))


def _tune(layer: Layer, name: str, batch: int, settings: Settings) -> Outcome:
    from inpaint_ops.kernels import tables

    outcome = tune.times_of(layer, name, batch, settings)
    stores = Store.all_of(settings.folder, "tuning")
    known = [one for store in stores for one in store.cases.values() if "times" in one]
    entries = tune.entries_of([*known, outcome])
    tables.store(settings.folder / TABLE, settings.device, entries)
    return {"status": "ok", **outcome}
