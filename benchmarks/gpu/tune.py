"""Time the rows of the kernels on this GPU: ``python -m inpaint_ops.benchmarks.gpu.tune``.

The result is the table that `launch.tuned` reads when INPAINT_OPS_TUNED names the file. The layers
of the methods are merged into classes of size, so that the table stays short and an unseen image
size finds its neighbour's row. Beside the rows it says, under `tune_problems.CHOICE`, whether the
fused kernel or the library with one pass after it was faster.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from inpaint_ops.atomic import write_atomically
from inpaint_ops.benchmarks.cases import conv_contestants
from inpaint_ops.benchmarks.cases.conv_layers import Layer
from inpaint_ops.benchmarks.gpu.steps.contestants import Work, bare, layers
from inpaint_ops.benchmarks.gpu.steps.task import Settings, multiplied_by, on_kernels, precision
from inpaint_ops.benchmarks.gpu.stopwatch import measure
from inpaint_ops.ops import triton as ops_triton

BATCHES = (1, 16)
PRECISIONS = ("bf16", "tf32")
_LIBRARY = "library"


def problems(settings: Settings) -> list[tuple[Layer, str, int]]:
    """Layer, precision and batch of each problem; the first method's come first."""
    return [
        (layer, name, batch)
        for name in PRECISIONS
        for batch in BATCHES
        for layer in layers(settings)
    ]


def times_of(layer: Layer, name: str, batch: int, settings: Settings) -> dict[str, Any]:
    """Key of a problem, and the microseconds of each row and of the library."""
    from inpaint_ops.benchmarks.gpu.tune_problems import key_and_row, rivals, tuned_by
    from inpaint_ops.kernels import launch
    from inpaint_ops.kernels.convolution.fused_kernel import CONV

    arch = launch.architecture(settings.device)
    layer = bare(layer)
    with precision(name) as dtype, on_kernels(settings):
        work = Work.of(layer, batch, False, dtype, settings.device)
        call = work.call(conv_contestants.ours(layer))
        with multiplied_by("fused"):
            found = key_and_row(call)
            if found is None:
                return {"times": {}, "detail": "the fused kernel does not serve this layer"}
            key, own, outputs = found
            times = {}
            for row in rivals(own, outputs, arch):
                with tuned_by({arch: {CONV.name: {key: row}}}):
                    got = measure({row: call}, settings.device, settings.seconds)[row]
                if "device" in got:
                    times[row] = got["device"]
        with multiplied_by(_LIBRARY):
            got = measure({_LIBRARY: call}, settings.device, settings.seconds)[_LIBRARY]
    return {"key": key, "arch": arch, "times": times, _LIBRARY: got.get("device")}


def table_of(outcomes: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, dict[str, str]]]:
    """Fastest row and fastest way of each key: architecture -> kernel -> key -> name."""
    from inpaint_ops.benchmarks.gpu.tune_problems import CHOICE
    from inpaint_ops.kernels.convolution.fused_kernel import CONV

    rows: dict[tuple[str, str], list[dict[str, float]]] = {}
    ways: dict[tuple[str, str], list[dict[str, float]]] = {}
    for one in outcomes:
        if one["times"]:
            where = one["arch"], one["key"]
            rows.setdefault(where, []).append(one["times"])
            if one[_LIBRARY] is not None:
                both = {"fused": min(one["times"].values()), _LIBRARY: one[_LIBRARY]}
                ways.setdefault(where, []).append(both)
    table: dict[str, dict[str, dict[str, str]]] = {}
    for kernel, measured in ((CONV.name, rows), (CHOICE, ways)):
        for (arch, key), times in measured.items():
            table.setdefault(arch, {}).setdefault(kernel, {})[key] = _most_even(times)
    return table


def _most_even(problems: Sequence[Mapping[str, float]]) -> str:
    """Name of the least geometric mean of slowdowns, among those that ran every problem."""
    everywhere = [name for name in problems[0] if all(name in times for times in problems)]

    def slowdown(name: str) -> float:
        return math.fsum(math.log(times[name] / min(times.values())) for times in problems)

    return min(everywhere or list(problems[0]), key=slowdown)


def write(path: Path, table: Mapping[str, Any]) -> None:
    """Put a table into a file, beside those of other architectures that are there."""
    if path.exists():
        table = {**json.loads(path.read_text(encoding="utf-8")), **table}
    with write_atomically(path) as file:
        file.write(json.dumps(table, indent=2, sort_keys=True).encode() + b"\n")


def main(arguments: list[str] | None = None) -> int:
    """Command line; 2 where there is no GPU to measure on."""
    parser = argparse.ArgumentParser(
        prog="python -m inpaint_ops.benchmarks.gpu.tune", description=__doc__
    )
    parser.add_argument("--out", required=True, type=Path, help="file the table is written to")
    options = parser.parse_args(arguments)
    reason = ops_triton.missing()
    if reason is None and not torch.cuda.is_available():
        reason = "there is no CUDA or ROCm device"
    if reason is not None:
        print(f"tune: cannot measure: {reason}", file=sys.stderr)
        return 2
    device = torch.device("cuda", torch.cuda.current_device())
    settings = Settings(device, options.out.parent)
    outcomes = []
    for problem in problems(settings):
        outcomes.append(times_of(*problem, settings))
        print(*problem[1:], problem[0].id, outcomes[-1])
        write(options.out, table_of(outcomes))
    print(f"written: {options.out}; set INPAINT_OPS_TUNED={options.out} to use it")
    return 0


if __name__ == "__main__":
    sys.exit(main())
