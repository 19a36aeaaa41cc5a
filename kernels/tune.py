"""Measure convolutions on this GPU, once: ``python -m inpaint_ops.kernels.tune``.

Of every layer of the methods it times each row of the fused kernel, and the vendor's library with
one pass after it. The fastest go to the user's cache (`tables.cache_file`), where calls find them
from the next start on. Beside the layers' own sizes the table has classes of sizes, so that
an unseen image finds its neighbour's row. ``INPAINT_OPS_TUNE=1`` measures other layers at their
first call instead.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from inpaint_ops.benchmarks.cases import conv_contestants
from inpaint_ops.benchmarks.cases.conv_layers import Layer
from inpaint_ops.benchmarks.gpu.steps.contestants import Work, bare, layers
from inpaint_ops.benchmarks.gpu.steps.task import Settings, on_kernels, precision
from inpaint_ops.ops import triton as ops_triton

BATCHES = (1, 16)
PRECISIONS = ("bf16", "tf32")


def problems(settings: Settings) -> list[tuple[Layer, str, int]]:
    """Layer, precision and batch of each problem; the first method's come first."""
    distinct: dict[str, Layer] = {}
    for one in map(bare, layers(settings)):
        distinct.setdefault(one.id, one)
    return [
        (layer, name, batch)
        for name in PRECISIONS
        for batch in BATCHES
        for layer in distinct.values()
    ]


def times_of(layer: Layer, name: str, batch: int, settings: Settings) -> dict[str, Any]:
    """Keys of a problem, and the microseconds of each row and of the library."""
    from inpaint_ops.kernels import plans, tuning

    with precision(name) as dtype, on_kernels(settings):
        call = Work.of(layer, batch, False, dtype, settings.device).call(
            conv_contestants.ours(layer)
        )
        plans.forget()  # a plan that is known would not be measured
        with tuning.collecting(settings.seconds) as found:
            call()
    if not found:
        return {"times": {}, "detail": "the fused kernel does not serve this layer"}
    (one,) = found
    return {"keys": [*one.keys[:2]], "times": dict(one.times), "library": one.library}


def entries_of(outcomes: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    """Entries of a table from outcomes of `times_of`."""
    from inpaint_ops.kernels import tuning

    return tuning.entries_of(
        tuning.Measurement(one["keys"], one["times"], one["library"])
        for one in outcomes
        if "keys" in one
    )


def main(arguments: list[str] | None = None) -> int:
    """Command line; 2 where there is no GPU to measure on."""
    parser = argparse.ArgumentParser(prog="python -m inpaint_ops.kernels.tune", description=__doc__)
    parser.add_argument("--out", type=Path, help="a file instead of the user's cache")
    parser.add_argument("--seconds", type=float, default=0.02, help="for each candidate")
    options = parser.parse_args(arguments)
    reason = ops_triton.missing()
    if reason is None and not torch.cuda.is_available():
        reason = "there is no CUDA or ROCm device"
    if reason is not None:
        print(f"tune: cannot measure: {reason}", file=sys.stderr)
        return 2
    from inpaint_ops.kernels import tables

    device = torch.device("cuda", torch.cuda.current_device())
    path = options.out or tables.cache_file(device)
    settings = Settings(device, path.parent, options.seconds)
    outcomes = []
    wanted = problems(settings)
    for number, (layer, name, batch) in enumerate(wanted, 1):
        try:
            outcomes.append(times_of(layer, name, batch, settings))
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            outcomes.append({"times": {}, "detail": "too little memory"})
        print(f"{number}/{len(wanted)} {layer.id} {name} batch {batch}: {outcomes[-1]}", flush=True)
        # What is measured stays if the rest is not.
        tables.store(path, device, entries_of(outcomes))
    print(f"written: {path}")
    if options.out is not None:
        print(f"INPAINT_OPS_TUNED={path} uses it")
    return 0


if __name__ == "__main__":
    sys.exit(main())
