"""What the convolution operators share: geometry, checks, and their formulas in plain PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from inpaint_ops import checks
from inpaint_ops.backends import current_backend
from inpaint_ops.ops import tensors

# Order and slope are those of csrc/convolution/conv.h.
ACTIVATIONS = ("identity", "relu", "leaky_relu", "elu", "silu", "tanh", "sigmoid")
PADDING_MODES = ("zeros", "reflect", "replicate")
LEAKY_SLOPE = 0.2

Pair = tuple[int, int]


@dataclass(frozen=True)
class Geometry:
    """Where a convolution reads; all pairs are (vertical, horizontal).

    `padding` is (top, bottom, left, right), around x after its upsampling.
    """

    stride: Pair
    padding: tuple[int, int, int, int]
    dilation: Pair
    groups: int = 1
    padding_mode: str = "zeros"
    upsample: int = 1

    def out_size(self, x: Tensor, weight: Tensor) -> Pair:
        """Height and width of the result."""
        top, bottom, left, right = self.padding
        _, _, high, wide = x.shape
        _, _, kh, kw = weight.shape
        free_y = high * self.upsample + top + bottom - self.dilation[0] * (kh - 1) - 1
        free_x = wide * self.upsample + left + right - self.dilation[1] * (kw - 1) - 1
        return free_y // self.stride[0] + 1, free_x // self.stride[1] + 1

    @property
    def plain(self) -> bool:
        """Whether aten's convolution takes x as it is."""
        top, bottom, left, right = self.padding
        symmetric = top == bottom and left == right
        return self.upsample == 1 and self.padding_mode == "zeros" and symmetric

    def flat(self) -> tuple[Any, ...]:
        """The arguments of a registered operator."""
        return (
            list(self.stride),
            list(self.padding),
            list(self.dilation),
            self.groups,
            self.padding_mode,
            self.upsample,
        )


GEOMETRY_SCHEMA = (
    "SymInt[] stride, SymInt[] padding, SymInt[] dilation, SymInt groups, str padding_mode, "
    "int upsample"
)


def geometry(
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    padding_mode: str,
    upsample: int,
) -> Geometry:
    """The inverse of `Geometry.flat`."""
    key = (*stride, *padding, *dilation, groups, padding_mode, upsample)
    try:
        return _geometries[key]
    except (KeyError, TypeError):  # sizes that are traced have no hash
        pass
    top, bottom, left, right = padding
    g = Geometry(
        (stride[0], stride[1]),
        (top, bottom, left, right),
        (dilation[0], dilation[1]),
        groups,
        padding_mode,
        upsample,
    )
    if all(type(number) is int for number in (*stride, *padding, *dilation, groups)):
        _remember(_geometries, key, g)
    return g


_geometries: dict[Any, Geometry] = {}
_checked: dict[Any, Geometry] = {}


def _remember(known: dict[Any, Geometry], key: Any, g: Geometry) -> None:
    if len(known) >= 4096:
        known.clear()
    known[key] = g


def _is_plain(value: Any) -> bool:
    """Whether a value is what it seems: True is not 1."""
    if type(value) is tuple:
        return all(type(one) is int for one in value)
    return type(value) is int or type(value) is str


def check_pair(op: str, name: str, value: Any, minimum: int) -> Pair:
    """An int, meaning both, or a pair of ints, of at least `minimum`."""
    pair = value if isinstance(value, (tuple, list)) else (value, value)
    if len(pair) != 2:
        raise ValueError(f"{op}: {name} must be an int or a pair, got {value}")
    for one in pair:
        checks.check_int(op, name, one, minimum)
    return pair[0], pair[1]


def check_geometry(
    op: str,
    x: Tensor,
    weight: Tensor,
    *,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int = 1,
    padding_mode: str = "zeros",
    upsample: int = 1,
    channels: int | None = None,
) -> Geometry:
    """Checks everything that says where a convolution reads.

    `channels`: those of x and of all that is concatenated to it; None: nothing is. What passed
    once passes again without a look: on small layers the checks cost as much as the sums.
    """
    if torch.compiler.is_compiling() or not all(map(_is_plain, (stride, padding, dilation))):
        key = None
    else:
        where = (stride, padding, dilation, groups, padding_mode, upsample)
        key = (x.shape, channels, weight.shape, type(groups), type(upsample), *where)
        try:
            return _checked[key]
        except KeyError:
            pass
        except TypeError:  # sizes that are traced have no hash
            key = None
    _check_filters(op, x.shape[1] if channels is None else channels, weight, groups)
    g = _check_geometry(op, x, weight, stride, padding, dilation, groups, padding_mode, upsample)
    if key is not None:
        _remember(_checked, key, g)
    return g


def _check_geometry(
    op: str,
    x: Tensor,
    weight: Tensor,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
    padding_mode: str,
    upsample: int,
) -> Geometry:
    strides = check_pair(op, "stride", stride, 1)
    dilations = check_pair(op, "dilation", dilation, 1)
    checks.check_choice(op, "padding_mode", padding_mode, PADDING_MODES)
    checks.check_int(op, "upsample", upsample)
    if upsample not in (1, 2):
        raise ValueError(f"{op}: upsample must be 1 or 2, got {upsample}")
    sizes = (x.shape[2] * upsample, x.shape[3] * upsample)
    reaches = tuple(d * (k - 1) + 1 for d, k in zip(dilations, weight.shape[2:]))
    if isinstance(padding, str):
        checks.check_choice(op, "padding", padding, ("same",))
        pads: list[int] = []
        for size, step, reach in zip(sizes, strides, reaches):
            total = max(((size + step - 1) // step - 1) * step + reach - size, 0)
            pads += [total // 2, total - total // 2]
    else:
        vertical, horizontal = check_pair(op, "padding", padding, 0)
        pads = [vertical, vertical, horizontal, horizontal]
    for axis, (size, reach) in enumerate(zip(sizes, reaches)):
        before, after = pads[2 * axis : 2 * axis + 2]
        if padding_mode == "reflect" and max(before, after) >= size:
            raise ValueError(
                f"{op}: padding must be smaller than the image to reflect, got {max(before, after)}"
                f" for {size} pixels"
            )
        if size + before + after < reach or size < 1:
            raise ValueError(
                f"{op}: weight must not reach beyond the padded image, got {reach} pixels for "
                f"{size} + {before} + {after}"
            )
    g = Geometry(
        strides, (pads[0], pads[1], pads[2], pads[3]), dilations, groups, padding_mode, upsample
    )
    padded = (x.shape[0], max(x.shape[1], weight.shape[0]), sizes[0] + pads[0], sizes[1] + pads[2])
    checks.check_result(op, "padding", padded, padding)
    return g


def _check_filters(op: str, channels: int, weight: Tensor, groups: int) -> None:
    checks.check_int(op, "groups", groups)
    if weight.shape[0] % groups or channels % groups:
        raise ValueError(
            f"{op}: groups must divide {channels} channels and {weight.shape[0]} filters, "
            f"got {groups}"
        )
    if weight.shape[1] * groups != channels:
        raise ValueError(
            f"{op}: weight must have {channels // groups} input channels, got {tuple(weight.shape)}"
        )


def check_tensors(
    op: str, x: Tensor, weight: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """x, weight and bias in one dtype on one device; under autocast all in float32."""
    checks.check_image(op, "x", x)
    _check_weight(op, weight)
    if bias is not None and not isinstance(bias, Tensor):
        raise TypeError(f"{op}: bias must be a Tensor or None, got {type(bias).__name__}")
    if tensors.autocast_is_on(x.device):
        x, weight = tensors.autocast_to_float32(x.device, x, weight)
        if bias is not None:
            (bias,) = tensors.autocast_to_float32(x.device, bias)
    checks.check_same(op, "x and weight", x, weight)
    if bias is not None:
        checks.check_same(op, "x and bias", x, bias)
    return x, weight, bias


def check_bias(op: str, bias: Tensor | None, filters: int) -> None:
    """One number for each filter."""
    if bias is not None and tuple(bias.shape) != (filters,):
        raise ValueError(f"{op}: bias must have shape ({filters},), got {tuple(bias.shape)}")


def _check_weight(op: str, weight: Tensor) -> None:
    if not isinstance(weight, Tensor):
        raise TypeError(f"{op}: weight must be a Tensor, got {type(weight).__name__}")
    if weight.dtype not in checks.FLOAT_DTYPES:
        raise TypeError(f"{op}: weight must be floating, got {weight.dtype}")
    if weight.dim() != 4 or 0 in weight.shape:
        raise ValueError(
            f"{op}: weight must have four dimensions, none empty, got {tuple(weight.shape)}"
        )


def memory_format(x: Tensor, weight: Tensor) -> torch.memory_format:
    """Layout of a result: channels_last if x or the weight has it, the rule of torch's own."""
    if tensors.memory_format(x) == torch.channels_last:
        return torch.channels_last
    chosen = not weight.is_contiguous() and weight.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if chosen else torch.contiguous_format


def result_like(x: Tensor, weight: Tensor, channels: int, size: Pair) -> Tensor:
    """Memory of a result."""
    shape = (x.shape[0], channels, *size)
    layout = memory_format(x, weight)
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=layout)


def filters_like(x: Tensor, filters: int, size: Pair) -> Tensor:
    """Memory of the sums that a backward pass wants: channels_last, in `sums_dtype`."""
    shape = (x.shape[0], filters, *size)
    dtype = sums_dtype(x)
    return torch.empty(shape, dtype=dtype, device=x.device, memory_format=torch.channels_last)


def sums_dtype(x: Tensor) -> torch.dtype:
    """At least float32; on GPUs that of x, as eager PyTorch keeps them: memory is what counts."""
    on_gpu = x.device.type == "cuda" or current_backend() == "triton"
    if on_gpu or x.dtype == torch.float64:
        return x.dtype
    return torch.float32


def kept_sums(z: Tensor, x: Tensor, keep: bool) -> Tensor:
    """Sums as `filters_like` promises them, or the stand-in for those nobody keeps."""
    if not keep:
        return empty_gradient(x)
    return z.to(sums_dtype(x)).contiguous(memory_format=torch.channels_last)


def settled(value: Tensor, like: Tensor, layout: torch.memory_format) -> Tensor:
    """A result in the dtype of `like` and a layout."""
    return value.to(like.dtype).contiguous(memory_format=layout)


def empty_gradient(like: Tensor) -> Tensor:
    """Stands for a gradient nobody wants: operators return tensors only."""
    return like.new_empty((0,))


def gradients_like(
    x: Tensor, weight: Tensor, wanted: Sequence[bool], filters: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Memory of the gradients of x, weight and bias."""
    layout = memory_format(x, weight)
    grad_x = torch.empty(x.shape, dtype=x.dtype, device=x.device, memory_format=layout)
    return (
        grad_x if wanted[0] else empty_gradient(x),
        weight.new_empty(weight.shape) if wanted[1] else empty_gradient(x),
        weight.new_empty((filters,)) if wanted[2] else empty_gradient(x),
    )


def settled_gradients(
    x: Tensor, weight: Tensor, grads: Sequence[Tensor | None]
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias as `gradients_like` promises them."""
    layouts = (memory_format(x, weight), torch.contiguous_format, torch.contiguous_format)
    likes = (x, weight, weight)
    settle = (
        empty_gradient(x) if grad is None else settled(grad, like, layout)
        for grad, like, layout in zip(grads, likes, layouts)
    )
    grad_x, grad_weight, grad_bias = settle
    return grad_x, grad_weight, grad_bias


def wanted_gradients(
    needs: Sequence[bool], grads: Sequence[Tensor]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients as autograd takes them: None for what nobody wants."""
    x, weight, bias = (grad if need else None for need, grad in zip(needs, grads))
    return x, weight, bias


# Formulas in PyTorch: what other devices, float64 and the reference backend use.
