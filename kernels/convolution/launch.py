"""Launching the kernel of `conv_forward`: its arguments, the choice of a row, tuning problems."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import triton
from torch import Tensor

from inpaint_ops.benchmarks.cases.conv_layers import Layer, all_layers
from inpaint_ops.kernels.convolution.forward import CONV, PADDING, RULES
from inpaint_ops.kernels.launch import (
    HALF,
    Unfit,
    architecture,
    channels_last,
    dense,
    dtype_class,
    size_class,
    tf32_allowed,
    tuned,
)
from inpaint_ops.ops.convolution import spec

# Programs that fill the multiprocessors of the larger chips twice: below that, smaller blocks.
_MANY_PROGRAMS = 264


def vector(x: Tensor) -> int:
    """Channels in 16 bytes."""
    return 16 // x.element_size()


def pick_row(kind: str, x: Tensor, pixels: int, cout: int, depth: int) -> str:
    """The row for a problem: odd counts of outputs, then many or few programs; see `tuned`."""
    if x.dtype not in HALF:
        precision = "tf32" if tf32_allowed() else "ieee"
        heuristic = f"{kind}-{precision}"
    else:
        precision = "half"
        columns = 32 if kind == "gated" else 64
        programs = triton.cdiv(pixels, 128) * triton.cdiv(cout, columns)
        many = programs >= _MANY_PROGRAMS and kind != "partial"
        heuristic = f"{kind}-odd" if cout % 8 else f"{kind}-large" if many else f"{kind}-small"
    sizes = f"m{size_class(pixels)} n{size_class(cout)} k{size_class(depth)}"
    row = tuned(CONV, f"{kind} {precision} {sizes}", x.device, heuristic)
    return row if cout % _unit(row, x) == 0 else heuristic


def _unit(row: str, x: Tensor) -> int:
    unit: int = CONV.row(row, architecture(x.device)).constexprs["UNIT"]
    return unit


@dataclass(frozen=True)
class Window:
    """Masks of a partial convolution: bytes to read, planes to write, and the rule between them.

    `valid` (1 or batch, 1 or 2, high, wide); channels from `split` on belong to the second part;
    a valid pixel of a part counts `widths`; a full window counts `total`.
    """

    valid: Tensor
    share: Tensor
    scale: Tensor
    split: int
    widths: tuple[int, int] = (1, 1)
    total: int = 1
    rule: str = "window"


@dataclass(frozen=True)
class Reading:
    """Where each output reads: as `_conv.Geometry`, one padding for each axis, and the phases."""

    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    padding_mode: str = "zeros"
    doublings: int = 0
    phases: int = 1
    phase_pad: int = 0


def convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    y: Tensor,
    reading: Reading,
    *,
    gated: bool = False,
    activation: str = "identity",
    z: Tensor | None = None,
    window: Window | None = None,
    row: str | None = None,
) -> None:
    """Writes y, and z (the sums with their bias) or the planes of `window` if given.

    Args:
        x: (N, C, H, W), a view of dense NHWC memory, C a multiple of `vector`.
        weight: dense (phases**2, filters, kh, kw, C).
        bias: (filters,).
        y: (N, filters or half of them, Ho, Wo), a view of dense NHWC memory.
        reading: where to read.
        gated: whether the second half of the filters are gates.
        activation: of y.
        z: (N, filters, Ho, Wo), a view of dense NHWC memory.
        window: for a partial convolution.
        row: of the table; None: `pick_row`.
    """
    n, cin, high, wide = x.shape
    _, cout, out_high, out_wide = y.shape
    phases = reading.phases
    pixels = n * triton.cdiv(out_high, phases) * triton.cdiv(out_wide, phases)
    taps = reading.kernel[0] * reading.kernel[1]
    kind = "gated" if gated else "plain" if window is None else "partial"
    name = row or pick_row(kind, x, pixels, cout, taps * cin)
    blocks = CONV.row(name, architecture(x.device)).constexprs
    programs = triton.cdiv(pixels, blocks["BLOCK_M"]) * triton.cdiv(cout, blocks["BLOCK_N"])
    if window is None:
        # Never read: pointers need something to point at.
        nothing = torch.empty(4, dtype=torch.float32, device=x.device)
        window = Window(nothing.view(torch.uint8).view(1, 1, 4, 4), nothing, nothing, cin)
    CONV(
        name,
        (programs, phases * phases),
        x_ptr=x,
        w_ptr=dense(weight),
        bias_ptr=x if bias is None else dense(bias),
        valid_ptr=dense(window.valid),
        y_ptr=y,
        z_ptr=y if z is None else z,
        share_ptr=window.share,
        scale_ptr=window.scale,
        batch=n,
        high=high,
        wide=wide,
        cin_units=cin // vector(x),
        cout_units=cout // blocks["UNIT"],
        out_high=out_high,
        out_wide=out_wide,
        taps=taps,
        kernel_wide=reading.kernel[1],
        stride_y=reading.stride[0],
        stride_x=reading.stride[1],
        pad_y=reading.padding[0],
        pad_x=reading.padding[1],
        dilation_y=reading.dilation[0],
        dilation_x=reading.dilation[1],
        doublings=reading.doublings,
        phases=phases,
        phase_pad=reading.phase_pad,
        split_units=window.split // vector(x),
        valid_parts=window.valid.shape[1],
        valid_batch=window.valid.shape[0],
        first_width=float(window.widths[0]),
        second_width=float(window.widths[1]),
        total=float(window.total),
        PAD=PADDING[reading.padding_mode],
        RULE=RULES[window.rule],
        ACT=spec.ACTIVATIONS.index(activation),
        HAS_BIAS=bias is not None,
        KEEP=z is not None,
    )


def _problems(device: torch.device) -> Iterator[tuple[str, Callable[[str], None]]]:
    """What `tune` measures: the layers of the ten models that the fused kernel may serve."""
    for layer in all_layers():
        for dtype in (torch.bfloat16, torch.float32):
            if layer.op != "transposed" and layer.multiplications < 2**33:
                yield _problem(layer, dtype, device)


def _problem(
    layer: Layer, dtype: torch.dtype, device: torch.device
) -> tuple[str, Callable[[str], None]]:
    kind = {"gated": "gated", "partial": "partial", "fused": "plain"}[layer.op]
    x = torch.randn(1, layer.channels, layer.size, layer.size, dtype=dtype, device=device)
    x = channels_last(x, vector(x))
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
    window = None
    if kind == "partial":
        valid = torch.ones(1, 1, layer.size, layer.size, dtype=torch.uint8, device=device)
        planes = torch.empty(2, layer.out_size, layer.out_size, device=device)
        window = Window(valid, planes[0], planes[1].clone(), cin, total=k * k)
    wanted = pick_row(kind, x, pixels, layer.out, depth)
    suffix = wanted.rpartition("-")[2]

    def call(name: str) -> None:
        row = CONV.row(name, architecture(device))
        precise = row.constexprs["PRECISION"] == suffix or dtype in HALF
        same = name.startswith(kind) and row.dtype == dtype_class(dtype) and precise
        if not same or layer.out % row.constexprs["UNIT"]:
            raise Unfit
        convolve(x, weight, None, y, reading, gated=kind == "gated", window=window, row=name)

    precision = "half" if dtype in HALF else suffix
    sizes = f"m{size_class(pixels)} n{size_class(layer.out)} k{size_class(depth)}"
    return f"{kind} {precision} {sizes}", call


CONV.tunes = _problems
