"""CPU side of the convolution operators: choice of core, packed weights, calls of the kernels."""

from __future__ import annotations

import threading
import weakref
from dataclasses import dataclass, field
from typing import Any, TypeGuard

import torch
from torch import Tensor

from inpaint_ops._backend import current_backend
from inpaint_ops.ops import _common, _conv
from inpaint_ops.ops._conv import Geometry


@dataclass(frozen=True)
class Planes:
    """Masks of a partial convolution, for load and store.

    `scale` and `share` are float32 (N or 1, Ho, Wo): the result is sum * scale + bias * share, and
    zero where share is. `valid` (N or 1, P, H, W) bytes say which pixels channels up to
    `part_end[p]` may be read from; None if x is zero where it must not be.
    """

    scale: Tensor
    share: Tensor
    valid: Tensor | None = None
    part_end: tuple[int, ...] = ()


# Which core sums. Measured on one Zen 4 core (AVX-512, peak 118), one thread, GFLOP/s of direct-sum
# work, everything behind the sums included:
#
#   layer                               winograd   direct   oneDNN, channels_last
#   3x3, 96 -> 192 gated, 128^2              280      104      95
#   3x3, 24 -> 24 gated, 512^2               120       65      36
#   3x3, 1024 -> 512, 16^2                   174       80      43
#   3x3 stride 2, 24 -> 96 gated, 512^2        -       81      36
#   5x5, 5 -> 48 gated, 512^2                  -       77      20
#   5x5, 4 -> 64, 256^2                        -       73      87
#   4x4 stride 2, 4 -> 64, 256^2               -       50      82
#   4x4 stride 2, 64 -> 64, 64^2               -       79      95
#   4x4 stride 2, 512 -> 512, 16^2             -       53      37
#   7x7, 64 -> 3, 256^2                        -       58      20
#   grouped                                    -        -      only one
#
# Winograd needs enough tiles to pay for reading 4 times as many weights.
_WINOGRAD_MIN_TILES = 8
# Order of csrc/conv.h.
_CORES = ("direct", "winograd", "winograd_doubled")


def choose_core(
    x: Tensor, weight: Tensor, g: Geometry, size: tuple[int, int], masked: bool = False
) -> str:
    """The core of a float32 convolution: one of `_CORES`, or "aten".

    `masked`: only the direct cores read past holes without a copy of x.
    """
    if g.groups != 1:
        return "aten"
    filters, channels, kh, kw = weight.shape
    if filters <= 4 and g.stride[1] > 1 and g.dilation[1] > 1:
        return "aten"  # the few-filter kernel of the direct core reads dense rows only
    strided = g.stride != (1, 1)
    if (kh, kw) != (3, 3) or strided:
        few_in = channels <= 4
        middling = strided and channels <= 128 and channels % 64 == 0
        enough = size[0] * size[1] >= 1024
        one_dnn = filters % 64 == 0 and enough and (few_in or middling) and not masked
        return "aten" if one_dnn else "direct"
    rows = g.dilation[0] * -(-size[0] // (4 * g.dilation[0]))
    columns = g.dilation[1] * -(-size[1] // (4 * g.dilation[1]))
    if current_backend() == "direct" or x.shape[0] * rows * columns < _WINOGRAD_MIN_TILES:
        return "direct"
    doubled = g.upsample == 2 and g.dilation == (1, 1) and (g.padding[0], g.padding[2]) == (1, 1)
    return "winograd_doubled" if doubled else "winograd"


@dataclass
class _Entry:
    weight: weakref.ref[Tensor]
    state: tuple[Any, ...]
    sample: Tensor
    packed: dict[tuple[Any, ...], Any] = field(default_factory=dict)


class _PackedWeights:
    """Packed forms of weights that are still alive, dropped when the weight changes.

    A change is seen by the version counter, by the address, and by a sample of 1024 values spread
    over the weight: ``weight.data`` edits bypass the counter, and averaged copies of a model are
    often updated that way.
    """

    def __init__(self) -> None:
        self._entries: dict[int, _Entry] = {}
        self._lock = threading.Lock()

    def get(
        self,
        weight: Tensor,
        core: str,
        *,
        gated: bool = False,
        flipped: bool = False,
        taps: tuple[int, int, int] | None = None,
    ) -> Any:
        """The packed form for one core.

        `flipped`: for the gradient of the input. `taps` (y, x, step): of a transposed convolution's
        weight (channels, filters, kh, kw) every step-th tap from there, in reverse: one phase.
        """
        native = _common.native()
        variant = (core, gated, flipped, taps, native.instruction_set())
        key = id(weight)
        version = None if weight.is_inference() else weight._version
        state = (version, weight.data_ptr(), weight.dtype, weight.shape, weight.stride())
        sample = _sample(weight)
        with self._lock:
            entry = self._entries.get(key)
            if _current(entry, weight, state, sample) and variant in entry.packed:
                return entry.packed[variant]
        array = _common.compute_dtype(weight.detach()).numpy()
        if taps is not None:
            y, x, step = taps
            array = array.transpose(1, 0, 2, 3)[:, :, y::step, x::step][:, :, ::-1, ::-1]
        packed = native.pack_weight(
            array,
            _CORES.index(core),
            gated,
            flipped,
            _common.threads(),
        )
        with self._lock:
            entry = self._entries.get(key)
            if not _current(entry, weight, state, sample):
                reference = weakref.ref(weight, lambda gone: self._forget(key, gone))
                entry = self._entries[key] = _Entry(reference, state, sample)
            entry.packed[variant] = packed
        return packed

    def _forget(self, key: int, gone: weakref.ref[Tensor]) -> None:
        # No lock: this may run inside `get`, when a collection frees a weight.
        entry = self._entries.get(key)
        if entry is not None and entry.weight is gone:
            self._entries.pop(key, None)

    def __len__(self) -> int:
        return len(self._entries)


def _current(
    entry: _Entry | None, weight: Tensor, state: tuple[Any, ...], sample: Tensor
) -> TypeGuard[_Entry]:
    return (
        entry is not None
        and entry.weight() is weight
        and entry.state == state
        and torch.equal(entry.sample, sample)
    )


def _sample(weight: Tensor) -> Tensor:
    flat = weight.detach()
    if flat.is_contiguous(memory_format=torch.channels_last):
        flat = flat.permute(0, 2, 3, 1)
    flat = flat.reshape(-1)
    return flat[:: max(1, flat.numel() // 1024)].clone()


packed_weights = _PackedWeights()


def _images(x: Tensor) -> Any:
    """(N, C, H, W) float32 as an (N, H, W, C) array with adjacent channels."""
    if x.shape[1] > 1 and x.stride(1) != 1:
        x = x.contiguous(memory_format=torch.channels_last)
    return x.permute(0, 2, 3, 1).numpy()


def _packed_images(x: Tensor) -> Any:
    return x.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1).numpy()


def _array(x: Tensor | None) -> Any:
    return None if x is None else x.contiguous().numpy()


def _channels_last(x: Tensor, channels: int, size: tuple[int, int]) -> Tensor:
    shape = (x.shape[0], channels, *size)
    return torch.empty(shape, dtype=torch.float32, memory_format=torch.channels_last)


@dataclass(frozen=True)
class _Call:
    """One call of a core; of `phases` interleaved outputs along each axis it computes `phase`."""

    core: str
    geometry: Geometry
    kernel: tuple[int, int]
    filters: int
    gated: bool = False
    activation: str = "identity"
    planes: Planes | None = None
    region: tuple[int, int, int, int] | None = None
    phase: tuple[int, int] = (0, 0)
    phases: int = 1

    def run(self, x: Tensor, packed: Any, bias: Tensor | None, y: Tensor, z: Tensor | None) -> None:
        """Fills y and z, which are float32 and channels_last."""
        if x.numel() == 0:
            return
        g, planes = self.geometry, self.planes
        high, wide = (-(-(y.shape[2 + i] - self.phase[i]) // self.phases) for i in range(2))
        top, bottom, left, right = self.region or (0, high, 0, wide)
        how = {
            "core": _CORES.index(self.core),
            "upsample": g.upsample,
            "padding_mode": _conv.PADDING_MODES.index(g.padding_mode),
            "padding": (g.padding[0], g.padding[2]),
            "kernel": self.kernel,
            "stride": g.stride,
            "dilation": g.dilation,
            "filters": self.filters,
            "gated": self.gated,
            "activation": _conv.ACTIVATIONS.index(self.activation),
            "valid": None if planes is None else _array(planes.valid),
            "part_end": [] if planes is None else list(planes.part_end),
            "scale": None if planes is None else _array(planes.scale),
            "share": None if planes is None else _array(planes.share),
            "out_size": (high, wide),
            "store_step": (self.phases, self.phases),
            "store_offset": self.phase,
            "region": (top, bottom, left, right),
        }
        _common.native().conv(
            _images(x),
            packed,
            _array(bias),
            y.permute(0, 2, 3, 1).numpy(),
            None if z is None else z.permute(0, 2, 3, 1).numpy(),
            how,
            _common.threads(),
        )


def forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    g: Geometry,
    *,
    gated: bool,
    activation: str,
    y: Tensor,
    z: Tensor | None = None,
    planes: Planes | None = None,
    region: tuple[int, int, int, int] | None = None,
) -> Tensor:
    """Convolution of float32 (or narrower, widened) values with everything fused behind it.

    Args:
        x: (N, C, H, W).
        weight: (filters, C / groups, kh, kw), any floating dtype but float64.
        bias: (filters,) or None.
        g: geometry.
        gated: whether the filters are features and gates.
        activation: of the features.
        y: memory for the result, from `_conv.result_like`.
        z: where the sums before activation and gate go, from `_conv.filters_like`.
        planes: masks of a partial convolution.
        region: (top, bottom, left, right), half open: the outputs wanted; the rest of y keeps what
            it holds.

    Returns:
        The result: y, or other memory like it.
    """
    size = (y.shape[2], y.shape[3])
    wide = _common.compute_dtype(x.detach())
    bias = None if bias is None else _common.compute_dtype(bias.detach())
    call = _Call(
        choose_core(x, weight, g, size, masked=planes is not None),
        g,
        (weight.shape[2], weight.shape[3]),
        weight.shape[0],
        gated,
        activation,
        planes,
        region,
    )
    if call.core == "aten":
        whole = _forward_aten(call, wide, weight, bias, z)
        if region is not None:
            top, bottom, left, right = region
            y[:, :, top:bottom, left:right] = whole[:, :, top:bottom, left:right]
            return y
        return whole.to(y.dtype) if whole.stride() == y.stride() else y.copy_(whole)
    into = y
    if y.dtype != torch.float32 or not y.is_contiguous(memory_format=torch.channels_last):
        into = _channels_last(y, y.shape[1], size)
        if region is not None:
            into.copy_(y)
    call.run(wide, packed_weights.get(weight, call.core, gated=gated), bias, into, z)
    return y if into is y else y.copy_(into)


def masked(x: Tensor, planes: Planes) -> Tensor:
    """Pixels of x that may be read, zero elsewhere."""
    if planes.valid is None:
        return x
    ends = planes.part_end
    widths = torch.tensor([b - a for a, b in zip((0, *ends), ends)])
    known = planes.valid.repeat_interleave(widths, 1) != 0
    return torch.where(known, x, x.new_zeros(()))


def _forward_aten(
    call: _Call, x: Tensor, weight: Tensor, bias: Tensor | None, z: Tensor | None
) -> Tensor:
    planes, g = call.planes, call.geometry
    if planes is not None:
        x = masked(x, planes)
    if x.shape[1] > 1:
        x = x.contiguous(memory_format=torch.channels_last)
    wide = _common.compute_dtype(weight.detach())
    if call.activation == "identity" and not call.gated and planes is None:
        return _conv.convolve(x, wide, bias, g)
    sums = _conv.convolve(x, wide, None, g).contiguous(memory_format=torch.channels_last)
    y = sums
    if call.gated:
        y = _channels_last(sums, call.filters // 2, (sums.shape[2], sums.shape[3]))
    if sums.numel():
        _common.native().conv_epilogue(
            _packed_images(sums),
            _array(bias),
            None if planes is None else _array(planes.scale),
            None if planes is None else _array(planes.share),
            y.permute(0, 2, 3, 1).numpy(),
            None if z is None else z.permute(0, 2, 3, 1).numpy(),
            call.gated,
            _conv.ACTIVATIONS.index(call.activation),
            _common.threads(),
        )
    return y


def finish(z: Tensor, bias: Tensor | None, activation: str) -> Tensor:
    """Bias and activation of sums that are ours to overwrite."""
    z = z.contiguous(memory_format=torch.channels_last)
    image = z.permute(0, 2, 3, 1).numpy()
    code = _conv.ACTIVATIONS.index(activation)
    bias_array = _array(None if bias is None else _common.compute_dtype(bias.detach()))
    _common.native().conv_epilogue(
        image, bias_array, None, None, image, None, False, code, _common.threads()
    )
    return z


def transposed_forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    stride: int,
    padding: int,
    activation: str,
    y: Tensor,
) -> None:
    """Transposed convolution: each remainder of the output modulo the stride is a convolution.

    Output s q + r takes taps k = (r + padding) mod s + s t from input q + (r + padding) div s - t.
    """
    wide = _common.compute_dtype(x.detach())
    bias = None if bias is None else _common.compute_dtype(bias.detach())
    into = y
    if y.dtype != torch.float32 or not y.is_contiguous(memory_format=torch.channels_last):
        into = _channels_last(y, y.shape[1], (y.shape[2], y.shape[3]))
    for row in range(min(stride, y.shape[2])):
        for column in range(min(stride, y.shape[3])):
            first = [(r + padding) % stride for r in (row, column)]
            kernel = tuple(-(-(weight.shape[2 + i] - first[i]) // stride) for i in range(2))
            before = [kernel[i] - 1 - (r + padding) // stride for i, r in enumerate((row, column))]
            _Call(
                "direct",
                Geometry((1, 1), (before[0], 0, before[1], 0), (1, 1)),
                (kernel[0], kernel[1]),
                weight.shape[1],
                activation=activation,
                phase=(row, column),
                phases=stride,
            ).run(
                wide,
                packed_weights.get(weight, "direct", taps=(first[0], first[1], stride)),
                bias,
                into,
                None,
            )
    if into is not y:
        y.copy_(into)
