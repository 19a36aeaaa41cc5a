"""Launch of the fused convolution: the choice of a row, and the arguments of the kernel."""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from inpaint_ops.kernels.convolution import pack
from inpaint_ops.kernels.convolution.fused_kernel import CONV, RULES
from inpaint_ops.kernels.convolution.load import PADDING, TAPS_OF_AXIS
from inpaint_ops.kernels.launch import (
    HALF,
    architecture,
    channels_last,
    dense,
    size_class,
)
from inpaint_ops.kernels.plans import tf32_convolutions
from inpaint_ops.kernels.program import Call, cdiv, check_count
from inpaint_ops.ops.convolution import spec

# Programs that fill the multiprocessors of the larger chips twice; with fewer, smaller blocks.
_MANY_PROGRAMS = 264


def vector(x: Tensor) -> int:
    """Channels in 16 bytes."""
    return 16 // x.element_size()


class Reading(NamedTuple):
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

    @property
    def linear(self) -> bool:
        """Whether a pixel's place is an offset that no border changes: the loop is shorter."""
        plain = not self.doublings and self.padding_mode == "zeros"
        return plain and max(self.kernel) <= TAPS_OF_AXIS


class Problem(NamedTuple):
    """What the speed of a layer depends on, whoever multiplies.

    Args:
        kind: "gated", "plain" or "partial".
        precision: "half", "tf32" or "ieee".
        pixels: of the result, of all images, of one phase.
        outputs: channels of the result.
        depth: products of one sum, of one phase, with the channels that fill the last 16 bytes.
        reading: where it reads.
        saves: true if the fused load spares the library a pass over x, or a slow product.
    """

    kind: str
    precision: str
    pixels: int
    outputs: int
    depth: int
    reading: Reading
    saves: bool = False

    @property
    def results(self) -> int:
        """Numbers of the result, of all phases."""
        return self.pixels * self.outputs * self.reading.phases**2

    @property
    def form(self) -> str:
        """Options that are not the usual ones, for the key."""
        stride, phases = max(self.reading.stride), self.reading.phases
        options = {
            f" s{stride}": stride > 1,
            " dilated": max(self.reading.dilation) > 1,
            f" p{phases}": phases > 1,
            " doubled": self.reading.doublings > 0,
            " edges": self.reading.padding_mode != "zeros",
        }
        return "".join(name for name, present in options.items() if present)

    @property
    def keys(self) -> list[str]:
        """Of tables: this problem's own, that of its class of sizes, and of the classes beside.

        Sizes of a class have one logarithm to base 4. Few pixels or many: beyond a class that was
        measured, that of four times as many, then of a quarter, stands for it.
        """
        head, m = f"{self.kind} {self.precision}", size_class(self.pixels)
        rest = f"n~{size_class(self.outputs)} k~{size_class(self.depth)}{self.form}"
        own = f"{head} m{self.pixels} n{self.outputs} k{self.depth}{self.form}"
        return [own, *(f"{head} m~{one} {rest}" for one in (m, m + 1, m - 1))]


def problem(
    x: Tensor,
    shape: Sequence[int],
    out: tuple[int, int, int],
    reading: Reading,
    kind: str,
    *,
    saves: bool = False,
) -> Problem:
    """The problem of a layer; arguments as of `call`."""
    phases = reading.phases
    pixels = shape[0] * cdiv(out[1], phases) * cdiv(out[2], phases)
    return Problem(
        kind,
        precision_of(x.dtype),
        pixels,
        out[0],
        reading.kernel[0] * reading.kernel[1] * shape[1],
        reading,
        saves,
    )


def precision_of(dtype: torch.dtype) -> str:
    """Name of the rows for a dtype: "half", or as torch's switch says "tf32" or "ieee"."""
    if dtype in HALF:
        return "half"
    return "tf32" if tf32_convolutions() else "ieee"


def pick_row(problem: Problem, arch: str) -> str:
    """Name of the row for a problem that was not measured: the class that `fused_rows` describes.

    Args:
        problem: what counts of the layer.
        arch: member of `launch.ARCHITECTURES`.
    """
    if problem.precision != "half":
        return f"{problem.kind}-{problem.precision}"
    if problem.outputs % 8:
        return f"{problem.kind}-odd"
    return _half_row(problem.kind, arch, problem.pixels, problem.outputs, _MANY_PROGRAMS)


@lru_cache(maxsize=256)
def rivals(kind: str, precision: str, arch: str) -> dict[str, int]:
    """Rows that compute the same, for an architecture, and what must divide their outputs."""
    own = CONV.row(f"{kind}-odd" if precision == "half" else f"{kind}-{precision}", arch)
    same = ("GATED", "MASKED", "PRECISION")
    return {
        one.name: one.constexprs["UNIT"]
        for one in CONV.rows
        if arch in one.archs
        and one.dtype == own.dtype
        and all(one.constexprs[name] == own.constexprs[name] for name in same)
    }


def rows_of(problem: Problem, arch: str) -> list[str]:
    """Rows that a problem can be computed in."""
    fitting = rivals(problem.kind, problem.precision, arch).items()
    return [row for row, unit in fitting if problem.outputs % unit == 0]


@lru_cache(maxsize=4096)
def _half_row(kind: str, arch: str, pixels: int, cout: int, many: int) -> str:
    """Small blocks for fewer than `many` programs, else those that read least.

    The caches are slower than the matrix units, and each block of outputs reads its pixels again.
    """
    best, least = f"{kind}-small", math.inf
    for name in (f"{kind}-large", f"{kind}-wide"):
        row = CONV.row(name, arch).constexprs
        m, n = row["BLOCK_M"], row["BLOCK_N"]
        blocks = cdiv(cout, n)
        read = blocks * (m + (2 * n if kind == "gated" else n))
        if cdiv(pixels, m) * blocks >= many and read < least:
            best, least = name, read
    return best


def pad_channels(x: Tensor, channels: int) -> int:
    """That many channels and those that fill the last 16 bytes, as the kernel reads them."""
    unit = vector(x)
    return cdiv(channels, unit) * unit


def taps_of(weight: Tensor, channels: int) -> Tensor:
    """Dense memory (filters, kh, kw, channels) of (filters, C, kh, kw); no copy if it is that."""
    if channels != weight.shape[1]:
        return pack.padded(weight, channels)
    return channels_last(weight)


class Window(NamedTuple):
    """Masks of a partial convolution: bytes to read, planes to write, and the rule between them.

    Args:
        valid: (1 or N, 1 or 2, H, W) bytes; one part of the mask or two.
        update_mask: (1 or N, 1, Ho, Wo) float32, written.
        mask_ratio: likewise.
    """

    valid: Tensor
    update_mask: Tensor
    mask_ratio: Tensor


class Counting(NamedTuple):
    """What the windows of a partial convolution count.

    Args:
        batch, parts: of the mask.
        split: first channel of x that belongs to the second part.
        channels: that a valid pixel of each part counts.
        total: count of a window that is all valid.
        rule: "window" or "sum".
    """

    batch: int = 1
    parts: int = 1
    split: int = 0
    channels: tuple[int, int] = (1, 1)
    total: int = 1
    rule: str = "window"


def call(
    x: Tensor,
    shape: tuple[int, int, int, int],
    out: tuple[int, int, int],
    reading: Reading,
    row: str,
    *,
    activation: str = "identity",
    bias: bool = False,
    keep: bool = False,
    counting: Counting | None = None,
) -> Call:
    """Decide how to launch.

    Args:
        x: any tensor of that dtype and device.
        shape: (N, C, H, W) of the input, C a multiple of `vector`.
        out: channels, height and width of the result.
        reading: where to read.
        row: of the table.
        activation: of y.
        bias: whether there is one.
        keep: whether the pre-activation is written.
        counting: for a partial convolution.
    """
    n, cin, height, width = shape
    cout, out_height, out_width = out
    phases = reading.phases
    pixels = n * cdiv(out_height, phases) * cdiv(out_width, phases)
    taps = reading.kernel[0] * reading.kernel[1]
    blocks = CONV.row(row, architecture(x.device)).constexprs
    programs = cdiv(pixels, blocks["BLOCK_M"]) * cdiv(cout, blocks["BLOCK_N"])
    counting = counting or Counting(split=cin)
    arguments = {
        "batch": n,
        "height": height,
        "width": width,
        "cin_units": cin // vector(x),
        "cout_units": cout // blocks["UNIT"],
        "out_height": out_height,
        "out_width": out_width,
        "taps": taps,
        "kernel_width": reading.kernel[1],
        "stride_y": reading.stride[0],
        "stride_x": reading.stride[1],
        "pad_y": reading.padding[0],
        "pad_x": reading.padding[1],
        "dilation_y": reading.dilation[0],
        "dilation_x": reading.dilation[1],
        "doublings": reading.doublings,
        "phases": phases,
        "phase_pad": reading.phase_pad,
        "split_units": counting.split // vector(x),
        "valid_parts": counting.parts,
        "valid_batch": counting.batch,
        "first_channels": float(counting.channels[0]),
        "second_channels": float(counting.channels[1]),
        "total": float(counting.total),
        "PAD": PADDING[reading.padding_mode],
        "LINEAR": reading.linear,
        "RULE": RULES[counting.rule],
        "ACT": spec.ACTIVATIONS.index(activation),
        "HAS_BIAS": bias,
        "KEEP": keep,
    }
    check_count("convolution", "pixels of all images", pixels)
    grid = (programs, phases * phases)
    return CONV.plan(row, grid, **arguments)


def run(
    call: Call,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    y: Tensor,
    pre_activation: Tensor | None = None,
    window: Window | None = None,
) -> None:
    """Write y, and the pre-activation or the planes of `window` if given.

    Args:
        call: from the shapes of the others.
        x: (N, C, H, W), a view of dense NHWC memory.
        weight: dense memory (phases**2, filters, kh, kw, C).
        bias: (filters,).
        y: (N, filters or half of them, Ho, Wo), dense NHWC memory.
        pre_activation: (N, filters, Ho, Wo), dense NHWC memory.
        window: for a partial convolution.
    """
    bias = None if bias is None else dense(bias)
    valid, *planes = (None, None, None) if window is None else window
    pointers = (x, weight, bias, valid, y, pre_activation, *planes)
    CONV.run(call, pointers)
