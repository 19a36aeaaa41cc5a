"""Speed-ups predicted from data sheets for the GPU kernels: never a measurement.

Operations and bytes are counted for every layer of the ten methods in three ways: the public
formula run eagerly, the same under a compiler that fuses the elementwise passes after the library's
convolution, and our way as `choose` takes it. The data sheet's rates give the least time (floor)
and predicted times, and hence speed-ups. ``make gpu-roofline`` prints the table and writes it as
JSON.

Assumptions, all from published figures: memory reaches 85 % of its rate; the library's
convolutions reach 60 % of the matrix rate (70 % on A100); a fused product kernel reaches 70 % of
the library's speed; a launch costs 3 us from Python and 2.5 us from compiled code or from us;
channels_last throughout. Without matrix units (float32 proper) both reach 70 % of the vector rate.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import exp, log
from pathlib import Path

import torch

from inpaint_ops.atomic import write_atomically
from inpaint_ops.benchmarks.cases.conv_layers import Layer, all_layers
from inpaint_ops.benchmarks.gpu.steps.task import precision

_MEMORY_SHARE = 0.85
_FUSED_SHARE = 0.7
_VECTOR_SHARE = 0.7
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
    library_share: float = 0.6

    def rate(self, dtype: str) -> float:
        """Operations a second of a type."""
        return {"bf16": self.half, "tf32": self.tf32, "fp32": self.fp32}[dtype]

    def share(self, dtype: str) -> float:
        """Part of that rate that the library's convolutions reach."""
        return _VECTOR_SHARE if dtype == "fp32" else self.library_share


DEVICES = (
    Device("A100 80 GB", "sm_80", 2.04e12, 312e12, 156e12, 19.5e12, 0.7),
    Device("H100 SXM", "sm_90", 3.35e12, 990e12, 495e12, 67e12),
    Device("H200", "sm_90", 4.8e12, 990e12, 495e12, 67e12),
    Device("B200", "sm_100", 8.0e12, 2250e12, 1125e12, 80e12),
)
DTYPES = ("bf16", "tf32", "fp32")


@dataclass(frozen=True)
class Cost:
    """Cost of one way to compute a layer: operations, bytes moved, kernels launched."""

    operations: float
    moved: float
    launches: int


@dataclass(frozen=True)
class Prediction:
    """Prediction for one layer on one device; times in seconds."""

    method: str
    layer: str
    device: str
    dtype: str
    batch: int
    path: str
    operations: float
    eager_bytes: float
    compiled_bytes: float
    ours_bytes: float
    floor: float
    eager: float
    compiled: float
    ours: float

    @property
    def gain(self) -> tuple[float, float]:
        """Predicted speed-up over eager and over compiled code."""
        return self.eager / self.ours, self.compiled / self.ours


def _elements(layer: Layer, batch: int) -> dict[str, float]:
    out = layer.out_size**2 * batch
    x = float(batch * layer.channels * layer.size**2)
    return {
        "x": x,
        "read": x * layer.upsample**2,
        "w": float(layer.channels * layer.filters * layer.kernel**2),
        "pre_activation": float(layer.filters * out),
        "y": float(layer.out * out),
        "mask": float(batch * layer.size**2),
    }


def _prologue(layer: Layer, e: dict[str, float]) -> tuple[float, int]:
    """Elements moved and kernels launched by the public formula before the convolution."""
    moved, launches = 0.0, 0
    if layer.upsample > 1:
        moved, launches = moved + e["x"] + e["read"], launches + 1
    if layer.padding_mode != "zeros":
        moved, launches = moved + 2 * e["read"], launches + 1
    if layer.op == "partial":
        # Masking x, the mask's own convolution, mask ratio and updated mask.
        moved, launches = moved + 2 * e["x"] + e["mask"] * 4, launches + 5
    return moved, launches


def _eager(layer: Layer, e: dict[str, float], operations: float, size: int) -> Cost:
    moved, launches = _prologue(layer, e)
    moved += e["read"] + e["w"] + e["pre_activation"]
    launches += 1
    moved, launches = moved + 2 * e["pre_activation"], launches + 1  # bias
    if layer.op == "gated":
        # Activation, sigmoid, product.
        moved, launches = moved + 2 * e["y"] + 2 * e["y"] + 3 * e["y"], launches + 3
    elif layer.op == "partial":
        moved, launches = moved + 4 * e["y"], launches + 2
    elif layer.activation != "identity":
        moved, launches = moved + 2 * e["y"], launches + 1
    return Cost(operations, moved * size, launches)


def _compiled(layer: Layer, e: dict[str, float], operations: float, size: int) -> Cost:
    """Cost where each chain of elementwise passes is one and the convolution's result is stored."""
    moved, launches = e["read"] + e["w"] + e["pre_activation"], 1
    if layer.upsample > 1 or layer.padding_mode != "zeros" or layer.op == "partial":
        moved, launches = moved + e["x"] + e["read"], launches + 1
    if layer.op == "partial":
        moved, launches = moved + 4 * e["mask"], launches + 2
    return Cost(operations, (moved + e["pre_activation"] + e["y"]) * size, launches + 1)


def _ours(layer: Layer, e: dict[str, float], operations: float, size: int, fused: bool) -> Cost:
    # Doubling and convolving equals four 2x2 convolutions of the small picture.
    if layer.upsample == 2 and layer.kernel == 3:
        operations *= 4 / 9
    masks = 2 * e["mask"] if layer.op == "partial" else 0.0
    if fused:
        return Cost(operations, (e["x"] + e["w"] + e["y"] + masks) * size, 1)
    moved, launches = e["read"] + e["w"] + e["pre_activation"], 1
    if layer.op == "partial" or layer.padding_mode != "zeros":
        moved, launches = moved + 2 * e["x"] + masks, launches + 1
    return Cost(operations, (moved + e["pre_activation"] + e["y"]) * size, launches + 1)


def _seconds(cost: Cost, device: Device, dtype: str, share: float, launch: float) -> float:
    arithmetic = cost.operations / (device.rate(dtype) * device.share(dtype) * share)
    traffic = cost.moved / (device.memory * _MEMORY_SHARE)
    return max(arithmetic, traffic) + cost.launches * launch


def _is_fused(layer: Layer, device: Device, dtype: str, batch: int) -> bool:
    from inpaint_ops.kernels.convolution import choose

    kernel = 2 if layer.upsample == 2 and layer.kernel == 3 else layer.kernel
    if layer.op == "transposed":
        kernel = -(-layer.kernel // layer.stride)
    with precision(dtype) as kind:
        return choose.fuses(
            torch.empty(0, dtype=kind, device="meta"),
            depth=layer.channels * kernel**2,
            outputs=layer.out,
            pixels=batch * layer.out_size**2,
            saves=layer.upsample == 2,
            arch=device.arch,
        )


def predict(layer: Layer, device: Device, dtype: str, batch: int) -> Prediction:
    """Predictions for the three ways to compute a layer, and the floor."""
    size = 2 if dtype == "bf16" else 4
    e = _elements(layer, batch)
    operations = 2.0 * layer.multiplications * batch
    fused = _is_fused(layer, device, dtype, batch)
    eager = _eager(layer, e, operations, size)
    compiled = _compiled(layer, e, operations, size)
    ours = _ours(layer, e, operations, size, fused)
    least = _ours(layer, e, operations, size, True)
    return Prediction(
        layer.method,
        layer.id,
        device.name,
        dtype,
        batch,
        "fused" if fused else "library",
        operations,
        eager.moved,
        compiled.moved,
        ours.moved,
        max(least.operations / device.rate(dtype), least.moved / device.memory),
        _seconds(eager, device, dtype, 1.0, _EAGER_LAUNCH),
        _seconds(compiled, device, dtype, 1.0, _LAUNCH),
        _seconds(ours, device, dtype, _FUSED_SHARE if fused else 1.0, _LAUNCH),
    )


@dataclass(frozen=True)
class Matching:
    """A comparison of `queries` positions with `keys` positions of `channels` numbers.

    Operations and bytes are those of a pair of positions; the lists are for eager, compiled and our
    kernels. Scores are float32 in all three.
    """

    method: str
    name: str
    queries: int
    keys: int
    channels: int
    products: tuple[float, float, float]
    moved: tuple[float, float, float]
    launches: tuple[int, int, int]


# Contextual attention: eager compares 3x3 patches and pastes 4x4 ones, with 17 passes over the
# matrix of scores (11 when compiled); ours multiplies rows of patches, 5 passes. The shift: eager
# stores the scores and a one-hot matrix. ID-MRF: forward and backward, 8 and 5 passes, ours keeps
# strips.
MATCHINGS = (
    *(
        Matching(
            method,
            f"contextual_attention-c{c}-{n}x{n}",
            n * n,
            n * n,
            c,
            (25, 25, 7),
            (68, 44, 20),
            (40, 20, 30),
        )
        for method, c, n in (("deepfill_v1", 128, 32), ("deepfill_v2", 96, 64))
    ),
    Matching(
        "shift_net",
        "shift_connection-c256-32x32",
        256,
        768,
        256,
        (2, 2, 1),
        (24, 16, 0),
        (25, 12, 5),
    ),
    *(
        Matching(
            "gmcnn",
            f"id_mrf_loss-c{c}-{n}x{n}-forward-backward",
            n * n,
            n * n,
            c,
            (3, 3, 4),
            (64, 40, 36),
            (40, 16, 14),
        )
        for c, n in ((256, 64), (512, 32))
    ),
)


def predict_matching(m: Matching, device: Device, dtype: str, batch: int) -> Prediction:
    """Predictions as of `predict`; all products are taken to run at the library's speed."""
    size = 2 if dtype == "bf16" else 4
    pairs = float(batch * m.queries * m.keys)
    ends = 2.0 * batch * m.channels * (m.queries + m.keys) * size
    costs = [
        Cost(2 * m.channels * k * pairs, b * pairs + ends, n)
        for k, b, n in zip(m.products, m.moved, m.launches)
    ]
    eager, compiled, ours = costs
    return Prediction(
        m.method,
        m.name,
        device.name,
        dtype,
        batch,
        "matching",
        ours.operations,
        eager.moved,
        compiled.moved,
        ours.moved,
        max(ours.operations / device.rate(dtype), ends / device.memory),
        _seconds(eager, device, dtype, 1.0, _EAGER_LAUNCH),
        _seconds(compiled, device, dtype, 1.0, _LAUNCH),
        _seconds(ours, device, dtype, 1.0, _LAUNCH),
    )


def table(predictions: Sequence[Prediction]) -> str:
    """Table with one line a layer: bytes in MB, times in us, all predicted."""
    lines = [
        f"PREDICTED from data sheets, not measured: {predictions[0].device}, "
        f"{predictions[0].dtype}, batch {predictions[0].batch}",
        f"{'method':18} {'layer':44} {'path':8} {'GFLOP':>7} {'MB eager':>9} {'compiled':>9} "
        f"{'ours':>8} {'floor':>7} {'eager':>7} {'compil.':>7} {'ours':>7} {'x eager':>8} "
        f"{'x comp.':>8}",
    ]
    for p in predictions:
        times = " ".join(f"{1e6 * t:7.0f}" for t in (p.floor, p.eager, p.compiled, p.ours))
        lines.append(
            f"{p.method:18} {p.layer:44} {p.path:8} {p.operations / 1e9:7.1f} "
            f"{p.eager_bytes / 1e6:9.1f} {p.compiled_bytes / 1e6:9.1f} {p.ours_bytes / 1e6:8.1f} "
            f"{times} {p.gain[0]:8.2f} {p.gain[1]:8.2f}"
        )
    means = [exp(sum(log(p.gain[i]) for p in predictions) / len(predictions)) for i in range(2)]
    lines.append(f"predicted geometric mean: {means[0]:.2f} x eager, {means[1]:.2f} x compiled")
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
        print(table(rows), end="\n\n")
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
