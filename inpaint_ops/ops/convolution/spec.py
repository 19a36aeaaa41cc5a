"""The convolution operators' geometry and checks, and the memory of their results."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from inpaint_ops import checks
from inpaint_ops.backends import ALGORITHMS, current_backend
from inpaint_ops.ops import tensors

# Order and slope are those of csrc/base/activation_codes.h.
ACTIVATIONS = ("identity", "relu", "leaky_relu", "elu", "silu", "tanh", "sigmoid")
# Those whose derivative does not follow from the result: SiLU takes a value twice.
NEED_PRE_ACTIVATION = ("silu",)
PADDING_MODES = ("zeros", "reflect", "replicate")
LEAKY_SLOPE = 0.2

Pair = tuple[int, int]
# Of x, weight and bias.
Gradients = tuple[Tensor, Tensor, Tensor]


class Geometry(NamedTuple):
    """Where a convolution reads; all pairs are (vertical, horizontal).

    `padding` is (top, bottom, left, right), around x after its upsampling. The fields are arguments
    of the registered operators, see `GEOMETRY_SCHEMA`.
    """

    stride: Pair
    padding: tuple[int, int, int, int]
    dilation: Pair
    groups: int = 1
    padding_mode: str = "zeros"
    upsample: int = 1

    def out_size(self, x: Tensor, weight: Tensor) -> Pair:
        """Height and width of the result."""
        return self.result_size((x.shape[2], x.shape[3]), (weight.shape[2], weight.shape[3]))

    def result_size(self, size: Pair, kernel: Pair) -> Pair:
        """Height and width of the result for those of x and of the weight."""
        top, bottom, left, right = self.padding
        free_y = size[0] * self.upsample + top + bottom - self.dilation[0] * (kernel[0] - 1) - 1
        free_x = size[1] * self.upsample + left + right - self.dilation[1] * (kernel[1] - 1) - 1
        return free_y // self.stride[0] + 1, free_x // self.stride[1] + 1


GEOMETRY_SCHEMA = (
    "SymInt[] stride, SymInt[] padding, SymInt[] dilation, SymInt groups, str padding_mode, "
    "int upsample"
)


def geometry(
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int = 1,
    padding_mode: str = "zeros",
    upsample: int = 1,
) -> Geometry:
    """The geometry from the arguments of a registered operator, whose pairs are lists."""
    top, bottom, left, right = padding
    return Geometry(
        (stride[0], stride[1]),
        (top, bottom, left, right),
        (dilation[0], dilation[1]),
        groups,
        padding_mode,
        upsample,
    )


def check_algorithm(op: str, algorithm: Any) -> None:
    """Check the argument that says which algorithms may sum a convolution on the CPU."""
    checks.check_choice(op, "algorithm", algorithm, ALGORITHMS)


def allowed(algorithm: str) -> str:
    """Return the stricter of what this call asks for and of what is in force for all of them."""
    context = current_backend()
    if algorithm == "direct" or context not in ALGORITHMS or context == "auto":
        return algorithm
    return context


def check_pair(op: str, name: str, value: Any, minimum: int) -> Pair:
    """Check an int, meaning both, or a pair of ints, of at least `minimum`."""
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
    """Check everything that says where a convolution reads.

    `channels`: those of x and of all that is concatenated to it; None: nothing is. Arguments that
    passed once pass again by one lookup: on small layers the checks cost as much as the sums.
    """
    args = (op, x.shape, weight.shape, channels, stride, padding, dilation, groups, padding_mode)
    if not torch.compiler.is_dynamo_compiling() and checks.tracing() is None:
        try:
            return _checked_once(f"{stride}{padding}{dilation}{groups}{upsample}", *args, upsample)
        except TypeError:  # lists and traced sizes have no hash; wrong types fail again below
            pass
    return _checked(*args, upsample)


@lru_cache(maxsize=4096)
def _checked_once(spelling: str, *args: Any) -> Geometry:
    """Check what was not checked before; the spelling tells True from 1, which are equal."""
    return _checked(*args)


def _checked(
    op: str,
    x_shape: torch.Size,
    weight_shape: torch.Size,
    channels: int | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
    padding_mode: str,
    upsample: int,
) -> Geometry:
    _check_filters(op, x_shape[1] if channels is None else channels, weight_shape, groups)
    strides = check_pair(op, "stride", stride, 1)
    dilations = check_pair(op, "dilation", dilation, 1)
    checks.check_choice(op, "padding_mode", padding_mode, PADDING_MODES)
    checks.check_int(op, "upsample", upsample)
    if upsample not in (1, 2):
        raise ValueError(f"{op}: upsample must be 1 or 2, got {upsample}")
    sizes = (x_shape[2] * upsample, x_shape[3] * upsample)
    reaches = (
        dilations[0] * (weight_shape[2] - 1) + 1,
        dilations[1] * (weight_shape[3] - 1) + 1,
    )
    pads = _paddings(op, padding, sizes, strides, reaches)
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
    padded = (x_shape[0], max(x_shape[1], weight_shape[0]), sizes[0] + pads[0], sizes[1] + pads[2])
    checks.check_result(op, "padding", padded, padding)
    return Geometry(strides, pads, dilations, groups, padding_mode, upsample)


def _paddings(
    op: str, padding: Any, sizes: Pair, strides: Pair, reaches: Pair
) -> tuple[int, int, int, int]:
    """Pixels before and after each axis; TensorFlow's rule for "same"."""
    if not isinstance(padding, str):
        vertical, horizontal = check_pair(op, "padding", padding, 0)
        return vertical, vertical, horizontal, horizontal
    checks.check_choice(op, "padding", padding, ("same",))
    pads: list[int] = []
    for size, step, reach in zip(sizes, strides, reaches):
        # At stride 1 it is the same for all sizes; a trace shall not depend on them.
        total = reach - 1
        if step > 1:
            _warn_of_trace(op, step)
            total = max(((size + step - 1) // step - 1) * step + reach - size, 0)
        pads += [total // 2, total - total // 2]
    return pads[0], pads[1], pads[2], pads[3]


def _warn_of_trace(op: str, step: int) -> None:
    if checks.tracing() is not None:
        warnings.warn(
            f'{op}: at stride {step} the padding "same" depends on the size: the trace holds for '
            "sizes with the same remainder",
            torch.jit.TracerWarning,  # type: ignore[attr-defined]
            stacklevel=2,
        )


def _check_filters(op: str, channels: int, shape: torch.Size, groups: int) -> None:
    checks.check_int(op, "groups", groups)
    if shape[0] % groups or channels % groups:
        raise ValueError(
            f"{op}: groups must divide {channels} channels and {shape[0]} filters, got {groups}"
        )
    if shape[1] * groups != channels:
        raise ValueError(
            f"{op}: weight must have {channels // groups} input channels, got {tuple(shape)}"
        )


def check_tensors(
    op: str, x: Tensor, weight: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """x, weight and bias in one dtype on one device; under autocast all in its dtype."""
    checks.check_image(op, "x", x)
    _check_weight(op, weight)
    if bias is not None and not isinstance(bias, Tensor):
        raise TypeError(f"{op}: bias must be a Tensor or None, got {type(bias).__name__}")
    x, weight, bias = tensors.autocast_to_lower(x, weight, bias)
    checks.check_same(op, "x and weight", x, weight)
    if bias is not None:
        checks.check_same(op, "x and bias", x, bias)
    return x, weight, bias


def check_bias(op: str, bias: Tensor | None, filters: int) -> None:
    """Check that the bias has one number for each filter."""
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
    return weight_format(weight)


def weight_format(weight: Tensor) -> torch.memory_format:
    """Layout of a weight, and so of its gradient: autograd would copy another into it."""
    if weight.is_contiguous() or not weight.is_contiguous(memory_format=torch.channels_last):
        return torch.contiguous_format
    return torch.channels_last


def result_like(x: Tensor, weight: Tensor, channels: int, size: Pair) -> Tensor:
    """Memory of a result."""
    shape = (x.shape[0], channels, *size)
    layout = memory_format(x, weight)
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=layout)


def results_like(
    x: Tensor, weight: Tensor, size: Pair, *, gated: bool, keep: bool
) -> tuple[Tensor, Tensor]:
    """Memory of a result and of its pre-activation, see `pre_activation_like`."""
    filters = weight.shape[0]
    y = result_like(x, weight, filters // 2 if gated else filters, size)
    return y, pre_activation_like(x, filters, size, keep)


def pre_activation_like(x: Tensor, filters: int, size: Pair, keep: bool) -> Tensor:
    """Memory of the sums before activation and gate that a backward pass wants, channels_last.

    The stand-in for a result nobody wants if they are not to be kept.
    """
    if not keep:
        return empty_gradient(x)
    return torch.empty(
        (x.shape[0], filters, *size),
        dtype=pre_activation_dtype(x),
        device=x.device,
        memory_format=torch.channels_last,
    )


def pre_activation_dtype(x: Tensor) -> torch.dtype:
    """Return at least float32; on GPUs the dtype of x, as eager PyTorch does: memory counts."""
    on_gpu = x.device.type == "cuda" or current_backend() == "triton"
    if on_gpu or x.dtype == torch.float64:
        return x.dtype
    return torch.float32


def kept_pre_activation(pre_activation: Tensor, x: Tensor, keep: bool) -> Tensor:
    """Sums as `pre_activation_like` promises them."""
    if not keep:
        return empty_gradient(x)
    settled = pre_activation.to(pre_activation_dtype(x))
    return settled.contiguous(memory_format=torch.channels_last)


def needs_pre_activation(activation: str, gated: bool = False) -> bool:
    """Return whether a backward pass starts from the pre-activation, else from the result."""
    return gated or activation in NEED_PRE_ACTIVATION


def saved_result(
    op: str, output: Sequence[Tensor], activation: str, *, gated: bool, keep: bool
) -> Tensor | None:
    """Return what the backward pass needs of an operator's output: as little as it can.

    Raises:
        RuntimeError: it needs the pre-activation and the operator was called without `keep`.
    """
    y, pre_activation = output
    if not needs_pre_activation(activation, gated):
        return None if activation == "identity" else y
    if not keep:
        raise RuntimeError(f"{op}: the operator was called without `keep`, so it has no gradient")
    return pre_activation


def saved_tensors(ctx: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Return x, weight and the saved result as the backward operators take them."""
    x, weight, saved = ctx.saved_tensors[:3]
    return x, weight, empty_gradient(x) if saved is None else saved


def settled(value: Tensor, like: Tensor, layout: torch.memory_format) -> Tensor:
    """A result in the dtype of `like` and a layout."""
    value = value if value.dtype == like.dtype else value.to(like.dtype)
    return value.contiguous(memory_format=layout)


def empty_gradient(like: Tensor) -> Tensor:
    """Return the stand-in for a tensor nobody wants: operators return tensors only."""
    return like.new_empty((0,))


def gradients_like(
    x: Tensor, weight: Tensor, wanted: Sequence[bool], filters: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Memory of the gradients of x, weight and bias."""
    layout = memory_format(x, weight)
    grad_x = torch.empty(x.shape, dtype=x.dtype, device=x.device, memory_format=layout)
    grad_weight = torch.empty_like(weight, memory_format=weight_format(weight))
    return (
        grad_x if wanted[0] else empty_gradient(x),
        grad_weight if wanted[1] else empty_gradient(x),
        weight.new_empty((filters,)) if wanted[2] else empty_gradient(x),
    )


def settled_gradients(
    x: Tensor, weight: Tensor, grads: Sequence[Tensor | None]
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias as `gradients_like` promises them."""
    grad_x, grad_weight, grad_bias = grads
    return (
        settled_gradient(grad_x, x, memory_format(x, weight)),
        settled_gradient(grad_weight, weight, weight_format(weight)),
        settled_gradient(grad_bias, weight, torch.contiguous_format),
    )


def settled_gradient(grad: Tensor | None, like: Tensor, layout: torch.memory_format) -> Tensor:
    """One of them; a stand-in for None."""
    return empty_gradient(like) if grad is None else settled(grad, like, layout)


def wanted_gradients(
    needs: Sequence[bool], grads: Sequence[Tensor]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients as autograd takes them: None for what nobody wants."""
    x, weight, bias = (grad if need else None for need, grad in zip(needs, grads))
    return x, weight, bias
