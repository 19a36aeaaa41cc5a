"""Time the rows of the kernels on this GPU: ``python -m inpaint_ops.benchmarks.gpu.tune``.

The result is the table that `launch.tuned` reads when INPAINT_OPS_TUNED names the file. The
problems of `tune_problems` are merged into classes of size, so that the table stays short and an
unseen image size finds its neighbour's row.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

import torch

from inpaint_ops.atomic import write_atomically
from inpaint_ops.ops import triton as ops_triton


def _measure(kernel: Any, call: Any, rows: list[Any]) -> dict[str, float]:
    import triton.testing

    from inpaint_ops.benchmarks.gpu.tune_problems import Unfit

    times = {}
    for row in rows:
        try:
            times[row.name] = triton.testing.do_bench(lambda name=row.name: call(name))
        except Unfit:
            continue
    return times


def tune(device: torch.device, arch: str) -> dict[str, Any]:
    """Fastest row of each kernel and key: architecture -> kernel -> key -> name of the row."""
    from inpaint_ops.benchmarks.gpu.tune_problems import PROBLEMS
    from inpaint_ops.kernels import launch

    table: dict[str, dict[str, str]] = {}
    for kernel in launch.all_kernels():
        if kernel.name not in PROBLEMS:
            continue
        best: dict[str, dict[str, list[float]]] = {}
        for key, call in PROBLEMS[kernel.name](device):
            rows = [row for row in kernel.rows if arch in row.archs]
            times = _measure(kernel, call, rows)
            fastest = min(times.values())
            for name, seconds in times.items():
                best.setdefault(key, {}).setdefault(name, []).append(seconds / fastest)
            print(f"{kernel.name} {key}: " + ", ".join(f"{n} {t:.3f} ms" for n, t in times.items()))
        table[kernel.name] = {key: _most_even(rows) for key, rows in best.items()}
    return {arch: table}


def _most_even(rows: dict[str, list[float]]) -> str:
    """Row of the least geometric mean of slowdowns, among those that ran every problem."""
    every = max(len(slowdowns) for slowdowns in rows.values())
    means = {
        name: math.exp(sum(map(math.log, slowdowns)) / every)
        for name, slowdowns in rows.items()
        if len(slowdowns) == every
    }
    return min(means, key=lambda name: means[name])


def main(arguments: list[str] | None = None) -> int:
    """Command line; 2 where there is no GPU to measure on."""
    parser = argparse.ArgumentParser(
        prog="python -m inpaint_ops.benchmarks.gpu.tune", description=__doc__
    )
    parser.add_argument("--out", required=True, help="file the table is written to")
    options = parser.parse_args(arguments)
    reason = ops_triton.missing()
    if reason is None and not torch.cuda.is_available():
        reason = "there is no CUDA or ROCm device"
    if reason is not None:
        print(f"tune: cannot measure: {reason}", file=sys.stderr)
        return 2
    from inpaint_ops.kernels import launch

    device = torch.device("cuda", torch.cuda.current_device())
    table = tune(device, launch.architecture(device))
    path = Path(options.out)
    if path.exists():
        table = {**json.loads(path.read_text(encoding="utf-8")), **table}
    with write_atomically(path) as file:
        file.write(json.dumps(table, indent=2, sort_keys=True).encode() + b"\n")
    print(f"written: {path}; set INPAINT_OPS_TUNED={path} to use it")
    return 0


if __name__ == "__main__":
    sys.exit(main())
