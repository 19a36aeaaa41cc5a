"""Speed-ups predicted from data sheets and machine code for the GPU kernels: never a measurement.

Operations and bytes (`costs`) are counted for every layer of the ten methods in these ways: the
public formula run eagerly, the same under a compiler that fuses the passes after the library's
convolution, and our two, of which ours is the one that `choose` takes without a table. The data
sheet's rates give the least time (floor) and predicted times, and hence speed-ups.
``make gpu-roofline`` prints the tables and writes the layers as JSON.

Assumptions, from published figures: memory reaches 85 % of its rate; the library's convolutions
reach 60 % of the matrix rate (70 % on older chips), its transposed ones 80 % of that; its blocks
are 256 pixels by 256 filters (by 128 on older chips), filled to 32 filters, and read through the
same cache as ours; a launch costs 3 us from Python and 2.5 us from compiled code or from us;
channels_last throughout; a product and the passes around it follow each other. Without matrix units
(float32 proper) the library reaches 70 % of the vector rate. The fused kernel's time is `loops`'
or that of its bytes from memory, whichever is longer.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import exp, log
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from inpaint_ops.atomic import write_atomically
from inpaint_ops.benchmarks.cases.conv_layers import Layer, all_layers
from inpaint_ops.benchmarks.gpu import costs, loops
from inpaint_ops.benchmarks.gpu.costs import Cost
from inpaint_ops.benchmarks.gpu.matchings import MATCHINGS, Matching
from inpaint_ops.benchmarks.gpu.steps.task import precision

if TYPE_CHECKING:
    from inpaint_ops.kernels.convolution.fused import Problem

_MEMORY_SHARE = 0.85
_VECTOR_SHARE = 0.7
# Pixels and filters of the library's blocks; two multiprocessors share one from sm_90 on.
_TILES = {"sm_90": (256, 256), "sm_100": (256, 256)}
_TILE = (256, 128)
# Of a multiprocessor in a cycle, in half precision.
_OPERATIONS = {"sm_80": 2048, "sm_86": 1024, "sm_89": 1024, "sm_90": 4096, "sm_100": 8192}
_FILTERS = 32
_EAGER_LAUNCH = 3e-6
_LAUNCH = 2.5e-6


@dataclass(frozen=True)
class Device:
    """Data sheet rates: bytes a second, dense operations a second by type."""

    name: str
    arch: str
    memory: float
    half: float
    tf32: float
    fp32: float
    processors: int
    library_share: float = 0.6

    def chip(self, dtype: str) -> loops.Processors:
        """What the fused kernel's loop runs on, at the clock of the matrix rate."""
        clock = self.half / _OPERATIONS[self.arch] / self.processors
        return loops.Processors(self.arch, self.processors, clock, self.share(dtype))

    def rate(self, dtype: str) -> float:
        """Operations a second of a type."""
        return {"bf16": self.half, "tf32": self.tf32, "fp32": self.fp32}[dtype]

    def share(self, dtype: str) -> float:
        """Part of that rate that the library's convolutions reach."""
        return _VECTOR_SHARE if dtype == "fp32" else self.library_share


DEVICES = (
    Device("A100 80 GB", "sm_80", 2.04e12, 312e12, 156e12, 19.5e12, 108, 0.7),
    Device("A40", "sm_86", 0.696e12, 149.7e12, 74.8e12, 37.4e12, 84, 0.7),
    Device("L40S", "sm_89", 0.864e12, 362e12, 183e12, 91.6e12, 142, 0.7),
    Device("H100 SXM", "sm_90", 3.35e12, 990e12, 495e12, 67e12, 132),
    Device("H200", "sm_90", 4.8e12, 990e12, 495e12, 67e12, 132),
    Device("B200", "sm_100", 8.0e12, 2250e12, 1125e12, 80e12, 148),
)
DTYPES = ("bf16", "tf32", "fp32")


@dataclass(frozen=True)
class Prediction:
    """Prediction for one layer on one device; times in seconds."""

    method: str
    layer: str
    device: str
    dtype: str
    batch: int
    path: str
    bound: str
    operations: float
    eager_bytes: float
    compiled_bytes: float
    ours_bytes: float
    floor: float
    eager: float
    compiled: float
    ours: float
    library: float
    fused: float

    @property
    def times(self) -> tuple[float, ...]:
        """Floor and ways, as the table has them."""
        return self.floor, self.eager, self.compiled, self.ours, self.library, self.fused

    @property
    def gain(self) -> tuple[float, float]:
        """Predicted speed-up over eager and over compiled code."""
        return self.eager / self.ours, self.compiled / self.ours


def _of_library(layer: Layer, operations: float, device: Device, dtype: str) -> tuple[float, float]:
    """Operations with what fills its blocks, and bytes that its blocks read from the cache.

    As of the fused kernel, a block of pixels reads each of them once for each tap.
    """
    size = 2 if dtype == "bf16" else 4
    channels = -(-layer.channels * size // 16) * 16 // size
    rows, most = _TILES.get(device.arch, _TILE)
    filters = -(-layer.filters // _FILTERS) * _FILTERS
    columns = min(filters, most)
    products = operations / 2 / layer.filters * channels / layer.channels
    blocks = -(-filters // columns)
    return 2 * products * filters, products * size * blocks * (1 + columns / rows)


def _seconds(cost: Cost, device: Device, dtype: str, launch: float) -> float:
    rate = device.rate(dtype) * device.share(dtype) * cost.share
    memory = device.memory * _MEMORY_SHARE
    operations, cached = cost.operations, 0.0
    if cost.layer is not None:
        operations, cached = _of_library(cost.layer, operations, device, dtype)
    product = max(operations / rate, cost.product / memory, cached / device.chip(dtype).cache)
    return product + cost.passes / memory + cost.launches * launch


def problem_of(layer: Layer, dtype: str, batch: int) -> Problem:
    """What the kernels make of a layer, in a type of `DTYPES`."""
    from inpaint_ops.kernels.convolution import fused

    kernel: int = layer.kernel
    options: dict[str, Any] = {}
    if layer.upsample == 2 and kernel == 3:
        kernel, options = 2, {"phases": 2}
        options["padding_mode"] = "zeros" if layer.padding_mode == "zeros" else "replicate"
    elif layer.op == "transposed":
        kernel, options = -(-kernel // layer.stride), {"phases": layer.stride}
    else:
        options = {"doublings": layer.upsample - 1, "padding_mode": layer.padding_mode}
        options |= {"stride": (layer.stride,) * 2, "dilation": (layer.dilation,) * 2}
    with precision(dtype) as kind:
        x = torch.empty(0, dtype=kind, device="meta")
        return fused.problem(
            x,
            (batch, fused.pad_channels(x, layer.channels)),
            (layer.out, layer.out_size, layer.out_size),
            fused.Reading((kernel, kernel), **options),
            layer.op if layer.op in ("gated", "partial") else "plain",
            saves=layer.upsample == 2 or layer.op == "transposed",
        )


def predict(
    layer: Layer, device: Device, dtype: str, batch: int, *, reuse: bool = False
) -> Prediction:
    """Predictions for the ways to compute a layer, and the floor.

    `reuse`: the first-level cache keeps a pixel for the neighbouring taps of its row, as with
    Triton 3.9; before that, asynchronous copies pass it by.
    """
    from inpaint_ops.kernels.convolution import choose, fused

    size = 2 if dtype == "bf16" else 4
    e = costs.elements(layer, batch)
    operations = 2.0 * layer.multiplications * batch
    problem = problem_of(layer, dtype, batch)
    eager = costs.eager(layer, e, operations, size)
    compiled = costs.compiled(layer, e, operations, size)
    library = costs.library(layer, e, operations, size)
    least = costs.fused(layer, e, operations, size)
    reading = problem.reading
    reused = max(1.0, reading.kernel[1] / reading.stride[1]) if reuse else 1.0
    row = fused.pick_row(problem, device.arch)
    loop = loops.loop(problem, row, device.chip(dtype), reused=reused)
    memory = least.moved / device.memory / _MEMORY_SHARE
    ways = {
        "library": _seconds(library, device, dtype, _LAUNCH),
        # Doubled and transposed layers' weights are packed by a launch of its own.
        "fused": max(loop.seconds, memory) + _LAUNCH * (2 if reading.phases > 1 else 1),
    }
    path = "fused" if choose.predicted(problem, device.arch) else "library"
    ours = least if path == "fused" else library
    return Prediction(
        layer.method,
        layer.id,
        device.name,
        dtype,
        batch,
        path,
        "memory" if memory > loop.seconds else loop.bound,
        operations,
        eager.moved,
        compiled.moved,
        ours.moved,
        max(least.operations / device.rate(dtype), least.moved / device.memory),
        _seconds(eager, device, dtype, _EAGER_LAUNCH),
        _seconds(compiled, device, dtype, _LAUNCH),
        ways[path],
        ways["library"],
        ways["fused"],
    )


def predict_matching(m: Matching, device: Device, dtype: str, batch: int) -> Prediction:
    """Predictions as of `predict`; all products are taken to run at the library's speed."""
    size = 2 if dtype == "bf16" else 4
    pairs = float(batch * m.queries * m.keys)
    ends = 2.0 * batch * m.channels * (m.queries + m.keys) * size
    ways = [
        Cost(2 * m.channels * k * pairs, b * pairs + ends, 0.0, n)
        for k, b, n in zip(m.products, m.moved, m.launches)
    ]
    eager, compiled, ours = ways
    seconds = _seconds(ours, device, dtype, _LAUNCH)
    return Prediction(
        m.method,
        m.name,
        device.name,
        dtype,
        batch,
        "matching",
        "",
        ours.operations,
        eager.moved,
        compiled.moved,
        ours.moved,
        max(ours.operations / device.rate(dtype), ends / device.memory),
        _seconds(eager, device, dtype, _EAGER_LAUNCH),
        _seconds(compiled, device, dtype, _LAUNCH),
        seconds,
        seconds,
        seconds,
    )


def table(predictions: Sequence[Prediction]) -> str:
    """Table with one line a layer: bytes in MB, times in us, all predicted."""
    lines = [
        f"PREDICTED from data sheets, not measured: {predictions[0].device}, "
        f"{predictions[0].dtype}, batch {predictions[0].batch}",
        f"{'method':18} {'layer':44} {'path':8} {'GFLOP':>7} {'MB eager':>9} {'compiled':>9} "
        f"{'ours':>8} {'floor':>7} {'eager':>7} {'compil.':>7} {'ours':>7} {'library':>7} "
        f"{'fused':>7} {'bound':12} {'x eager':>8} {'x comp.':>8}",
    ]
    for p in predictions:
        times = " ".join(f"{1e6 * t:7.0f}" for t in p.times)
        lines.append(
            f"{p.method:18} {p.layer:44} {p.path:8} {p.operations / 1e9:7.1f} "
            f"{p.eager_bytes / 1e6:9.1f} {p.compiled_bytes / 1e6:9.1f} {p.ours_bytes / 1e6:8.1f} "
            f"{times} {p.bound:12} {p.gain[0]:8.2f} {p.gain[1]:8.2f}"
        )
    means = [exp(sum(log(p.gain[i]) for p in predictions) / len(predictions)) for i in range(2)]
    lines.append(f"predicted geometric mean: {means[0]:.2f} x eager, {means[1]:.2f} x compiled")
    return "\n".join(lines)


def _stage_one() -> list[Layer]:
    """The 17 layers of DeepFill v2's first stage at 512^2, in order."""
    inner = "gated-96-96-128x128-k3"
    names = (
        *("gated-5-24-512x512-k5-elu", "gated-24-48-512x512-k3-s2-elu"),
        *("gated-48-48-256x256-k3-elu", "gated-48-96-256x256-k3-s2-elu"),
        *(f"{inner}-elu", f"{inner}-elu", *(f"{inner}-d{d}-elu" for d in (2, 4, 8, 16))),
        *(f"{inner}-elu", f"{inner}-elu"),
        *("gated-96-48-128x128-k3-up2-elu", "gated-48-48-256x256-k3-elu"),
        *("gated-48-24-256x256-k3-up2-elu", "gated-24-12-512x512-k3-elu"),
        "fused-12-3-512x512-k3-tanh",
    )
    found = {one.id: one for one in all_layers()}
    return [found[name] for name in names]


def sums(device: Device, dtype: str, batch: int) -> str:
    """Table of the first stage of DeepFill v2 and of the distinct layers of each method, in us.

    "L1" is the fused kernel where the first-level cache keeps pixels for the neighbouring taps;
    "best" the faster way of each layer, with it.
    """
    names = ("floor", "eager", "compiled", "library", "fused", "ours", "L1", "best")
    lines = [f"{'predicted sums, us':32}" + " ".join(f"{name:>9}" for name in names)]
    groups = {"deepfill_v2, stage 1, 17 layers": _stage_one()}
    for one in all_layers():
        groups.setdefault(one.method, []).append(one)
    for group, layers in groups.items():
        rows = []
        for layer in layers:
            p = predict(layer, device, dtype, batch)
            kept = predict(layer, device, dtype, batch, reuse=True).fused
            times = (p.floor, p.eager, p.compiled, p.library, p.fused, p.ours, kept)
            rows.append((*times, min(p.library, kept)))
        total = " ".join(f"{1e6 * sum(column):9.0f}" for column in zip(*rows))
        lines.append(f"{group:32}{total}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables and write gpu_roofline.json; needs triton, but no GPU."""
    names = [device.name for device in DEVICES]
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", choices=names, action="append", help="default: all")
    parser.add_argument("--dtype", choices=DTYPES, default="bf16")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--out", type=Path, default=Path("reports"))
    options = parser.parse_args(arguments)
    if options.batch < 1:
        parser.error(f"--batch must be at least 1, got {options.batch}")
    found = []
    for device in DEVICES:
        if options.device and device.name not in options.device:
            continue
        rows = [predict(x, device, options.dtype, options.batch) for x in all_layers()]
        rows += [predict_matching(m, device, options.dtype, options.batch) for m in MATCHINGS]
        print(table(rows), sums(device, options.dtype, options.batch), sep="\n", end="\n\n")
        found += rows
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "gpu_roofline.json"
    content = {"predicted": True, "devices": [asdict(d) for d in DEVICES]}
    content["layers"] = [asdict(p) for p in found]
    with write_atomically(path) as stream:
        stream.write(json.dumps(content, indent=1).encode())
    print(path)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
