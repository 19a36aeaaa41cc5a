"""Problems on which `tune` times the rows of a kernel: layers of the ten models."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from inpaint_ops.benchmarks.cases.conv_layers import Layer, all_layers
from inpaint_ops.kernels.convolution import fused
from inpaint_ops.kernels.convolution.fused import Counting, Reading, Window, pick_row, tuning_key
from inpaint_ops.kernels.convolution.fused_kernel import CONV
from inpaint_ops.kernels.launch import HALF, architecture, channels_last, dtype_class


class Unfit(Exception):
    """Raised by a problem's call: the row does not serve it."""


# Key of the tuned table, and a call that runs the problem in the row of a name.
Problem = tuple[str, Callable[[str], None]]


def convolutions(device: torch.device) -> Iterator[Problem]:
    """The layers that the fused kernel may serve, in half precision and in float32."""
    for layer in all_layers():
        for dtype in (torch.bfloat16, torch.float32):
            if layer.op != "transposed" and layer.multiplications < 2**33:
                yield _convolution(layer, dtype, device)


def _convolution(layer: Layer, dtype: torch.dtype, device: torch.device) -> Problem:
    kind = {"gated": "gated", "partial": "partial", "fused": "plain"}[layer.op]
    x = torch.randn(1, layer.channels, layer.size, layer.size, dtype=dtype, device=device)
    x = channels_last(x, fused.vector(x))
    cin, k = x.shape[1], layer.kernel
    weight = torch.randn(1, layer.filters, k, k, cin, dtype=dtype, device=device)
    pixels, depth = layer.out_size**2, k * k * cin
    y = torch.empty(1, layer.out_size, layer.out_size, layer.out, dtype=dtype, device=device)
    y = y.permute(0, 3, 1, 2)
    reading = Reading(
        (k, k),
        (layer.stride, layer.stride),
        (layer.pad, layer.pad),
        (layer.dilation, layer.dilation),
        layer.padding_mode,
        layer.upsample - 1,
    )
    window = counting = None
    if kind == "partial":
        valid = torch.ones(1, 1, layer.size, layer.size, dtype=torch.uint8, device=device)
        planes = torch.empty(2, layer.out_size, layer.out_size, device=device)
        window = Window(valid, planes[0], planes[1].clone())
        counting = Counting(split=cin, total=k * k)
    suffix = pick_row(kind, x, pixels, layer.out, depth).rpartition("-")[2]

    def call(name: str) -> None:
        row = CONV.row(name, architecture(device))
        precise = row.constexprs["PRECISION"] == suffix or dtype in HALF
        same = name.startswith(kind) and row.dtype == dtype_class(dtype) and precise
        if not same or layer.out % row.constexprs["UNIT"]:
            raise Unfit
        chosen = fused.call(
            x,
            (1, cin, layer.size, layer.size),
            (layer.out, layer.out_size, layer.out_size),
            reading,
            gated=kind == "gated",
            counting=counting,
            row=name,
        )
        fused.run(chosen, x, weight, None, y, window=window)

    precision = "half" if dtype in HALF else suffix
    return tuning_key(kind, precision, pixels, layer.out, depth), call


# By the kernel's name; the other kernels have one row for each type.
PROBLEMS = {CONV.name: convolutions}
