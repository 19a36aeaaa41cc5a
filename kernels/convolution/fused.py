"""Launch of the fused convolution: the choice of a row, and the arguments of the kernel."""

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
import triton
from torch import Tensor

from inpaint_ops.kernels.convolution.fused_kernel import CONV, RULES
from inpaint_ops.kernels.convolution.load import PADDING, TAPS_OF_AXIS
from inpaint_ops.kernels.launch import (
    HALF,
    architecture,
    dense,
    size_class,
    tf32_allowed,
    tuned,
)
from inpaint_ops.ops.convolution import spec

# Programs that fill the multiprocessors of the larger chips twice; with fewer, smaller blocks.
_MANY_PROGRAMS = 264


def vector(x: Tensor) -> int:
    """Channels in 16 bytes."""
    return 16 // x.element_size()


def pick_row(kind: str, x: Tensor, pixels: int, cout: int, depth: int) -> str:
    """Name of the row for a problem.

    `tuned` decides where it was measured, else the class that `fused_rows` describes.

    Args:
        kind: "gated", "plain" or "partial".
        x: input, of which dtype and device count.
        pixels: of the result, of all images.
        cout: outputs a pixel.
        depth: products of one sum.
    """
    if x.dtype not in HALF:
        precision = "tf32" if tf32_allowed() else "ieee"
        heuristic = f"{kind}-{precision}"
    else:
        precision = "half"
        heuristic = f"{kind}-odd"
        if cout % 8 == 0:
            heuristic = _half_row(kind, architecture(x.device), pixels, cout, _MANY_PROGRAMS)
    row = tuned(CONV, tuning_key(kind, precision, pixels, cout, depth), x.device, heuristic)
    return row if cout % _unit(row, x) == 0 else heuristic


@lru_cache(maxsize=4096)
def _half_row(kind: str, arch: str, pixels: int, cout: int, many: int) -> str:
    """Small blocks for fewer than `many` programs, else those that read least.

    The caches are slower than the matrix units, and each block of outputs reads its pixels again.
    """
    best, least = f"{kind}-small", math.inf
    for name in (f"{kind}-large", f"{kind}-wide"):
        row = CONV.row(name, arch).constexprs
        m, n = row["BLOCK_M"], row["BLOCK_N"]
        blocks = triton.cdiv(cout, n)
        read = blocks * (m + (2 * n if kind == "gated" else n))
        if triton.cdiv(pixels, m) * blocks >= many and read < least:
            best, least = name, read
    return best


def tuning_key(kind: str, precision: str, pixels: int, cout: int, depth: int) -> str:
    """Key of the tuned table under which problems of like size share a row."""
    return f"{kind} {precision} m{size_class(pixels)} n{size_class(cout)} k{size_class(depth)}"


def _unit(row: str, x: Tensor) -> int:
    unit: int = CONV.row(row, architecture(x.device)).constexprs["UNIT"]
    return unit


@dataclass(frozen=True)
class Window:
    """Masks of a partial convolution: bytes to read, planes to write, and the rule between them.

    Args:
        valid: (1 or N, 1 or 2, H, W) bytes; one part of the mask or two.
        update_mask: (1 or N, 1, Ho, Wo) float32, written.
        mask_ratio: likewise.
        split: first channel of x that belongs to the second part.
        channels: that a valid pixel of each part counts.
        total: count of a window that is all valid.
        rule: "window" or "sum".
    """

    valid: Tensor
    update_mask: Tensor
    mask_ratio: Tensor
    split: int
    channels: tuple[int, int] = (1, 1)
    total: int = 1
    rule: str = "window"


@dataclass(frozen=True)
class Reading:
    """Where each output reads: as `spec.Geometry`, with one padding for each axis, and the phases.

    Args:
        kernel: taps along each axis.
        stride, padding, dilation, padding_mode: as in `spec.Geometry`.
        doublings: 1 reads x as if each pixel were doubled along both axes.
        phases: along each axis, see `phases`.
        phase_pad: padding of the transposed convolution that the phases make up.
    """

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
    pre_activation: Tensor | None = None,
    window: Window | None = None,
    row: str | None = None,
) -> None:
    """Write y, and the pre-activation or the planes of `window` if given.

    Args:
        x: (N, C, H, W), a view of dense NHWC memory, C a multiple of `vector`.
        weight: dense (phases**2, filters, kh, kw, C).
        bias: (filters,).
        y: (N, filters or half of them, Ho, Wo), a view of dense NHWC memory.
        reading: where to read.
        gated: whether the second half of the filters are gates.
        activation: of y.
        pre_activation: (N, filters, Ho, Wo), a view of dense NHWC memory.
        window: for a partial convolution.
        row: of the table; None: `pick_row`.
    """
    n, cin, height, width = x.shape
    _, cout, out_height, out_width = y.shape
    phases = reading.phases
    pixels = n * triton.cdiv(out_height, phases) * triton.cdiv(out_width, phases)
    taps = reading.kernel[0] * reading.kernel[1]
    kind = "gated" if gated else "plain" if window is None else "partial"
    name = row or pick_row(kind, x, pixels, cout, taps * cin)
    blocks = CONV.row(name, architecture(x.device)).constexprs
    linear = not reading.doublings and reading.padding_mode == "zeros"
    linear = linear and max(reading.kernel) <= TAPS_OF_AXIS
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
        pre_activation_ptr=y if pre_activation is None else pre_activation,
        update_mask_ptr=window.update_mask,
        mask_ratio_ptr=window.mask_ratio,
        batch=n,
        height=height,
        width=width,
        cin_units=cin // vector(x),
        cout_units=cout // blocks["UNIT"],
        out_height=out_height,
        out_width=out_width,
        taps=taps,
        kernel_width=reading.kernel[1],
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
        first_channels=float(window.channels[0]),
        second_channels=float(window.channels[1]),
        total=float(window.total),
        PAD=PADDING[reading.padding_mode],
        LINEAR=linear,
        RULE=RULES[window.rule],
        ACT=spec.ACTIVATIONS.index(activation),
        HAS_BIAS=bias is not None,
        KEEP=pre_activation is not None,
    )
