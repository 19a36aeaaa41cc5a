"""shift_connection: known encoder features moved to where the decoder in the hole asks for them."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from inpaint_ops import checks
from inpaint_ops.ops import dispatch, tensors, triton
from inpaint_ops.ops.overrides import call, has_override, inside, tracing
from inpaint_ops.reference.shift_connection import (
    shift_connection as shift_connection_reference,
)

_OP = "shift_connection"


def shift_connection(
    decoder: Tensor, encoder: Tensor, hole: Tensor, *, gradient_scale: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Fills the hole with the known encoder features most similar to the decoder's.

    For p in the hole, q*(p) = argmax over known q of <D_p, E_q> / (|D_p| |E_q|) and the result is
    E_{q*(p)}; zero elsewhere. Exact, one-pixel patches. Where |E_q| is below 1e-8 the cosine counts
    as 0, so an all-zero D_p takes the first known position; of equals the first in row-major order
    wins. With no hole, or nothing known, the result is zero. A D_p that holds NaN has no match.

    The match is constant for autograd: the gradient of the result at p flows to E at q*(p), times
    `gradient_scale`; none flows to `decoder`. The scatter is deterministic.

    Args:
        decoder: (N, C, h, w) queries D, float16, bfloat16, float32 or float64, any layout.
        encoder: (N, C, h, w) keys and values E, dtype and device of `decoder`. What it holds in the
            hole is never read.
        hole: (N or 1, 1, h, w), 1 = missing; bool, or 0 and 1 in uint8 or float. Samples may have
            holes of different size.
        gradient_scale: factor on the backward pass only (`triple_weight` in the public code).

    Returns:
        shifted: (N, C, h, w), dtype and memory format of `encoder`.
        index: (N, h, w) int64, flat position y * w + x of the source, -1 where nothing was shifted.

        The match runs in float32 (float64 for float64). Under autocast `decoder` and `encoder` may
        differ in dtype, and `shifted` has the wider one, as in torch.cat. On a GPU the products of
        float32 input follow torch's TF32 switch (off by default), and mask values are not checked,
        for which the host would have to wait: what is not 0 is hole.

    Raises:
        TypeError: wrong type or dtype.
        ValueError: wrong shape, device, mask value, or a `gradient_scale` that is not finite.

    Source: Yan et al., ECCV 2018 (arXiv 1801.09392), section 3.1; Zhaoyi-Yan/Shift-Net_pytorch:
    models/shift_net/InnerShiftTriple.py. Deviations: zero vectors, for which the public code
    gives NaN; no hole, or holes of different size in one batch, for which it raises.
    """
    if (has_override(decoder, encoder, hole) or tracing()) and not inside():
        return call(shift_connection, locals())
    return _shift(decoder, encoder, hole, gradient_scale, concatenate=False)


def concatenated_shift(
    decoder: Tensor, encoder: Tensor, hole: Tensor, gradient_scale: float
) -> tuple[Tensor, Tensor]:
    """(N, 3 C, h, w), [decoder | encoder | shifted] in one pass, and the index; for the layer."""
    if (has_override(decoder, encoder, hole) or tracing()) and not inside():
        return call(concatenated_shift, locals())
    return _shift(decoder, encoder, hole, gradient_scale, concatenate=True)


def _shift(
    decoder: Tensor, encoder: Tensor, hole: Tensor, gradient_scale: float, concatenate: bool
) -> tuple[Tensor, Tensor]:
    checks.check_image(_OP, "decoder", decoder)
    checks.check_image(_OP, "encoder", encoder)
    if tensors.autocast_is_on(encoder.device) and decoder.dtype != encoder.dtype:
        widest = torch.promote_types(decoder.dtype, encoder.dtype)
        decoder, encoder = decoder.to(widest), encoder.to(widest)
    checks.check_same(_OP, "decoder and encoder", decoder, encoder)
    if decoder.shape != encoder.shape:
        raise ValueError(
            f"{_OP}: decoder and encoder must have one shape, got {tuple(decoder.shape)} and "
            f"{tuple(encoder.shape)}"
        )
    size = (encoder.shape[2], encoder.shape[3])
    checks.check_mask(_OP, "hole", hole, encoder.shape[0], size, encoder.device)
    checks.check_finite(_OP, "gradient_scale", gradient_scale)
    shifted, index = _operator(decoder, encoder, hole, float(gradient_scale), concatenate)
    return shifted, index


def _storage(x: Tensor) -> Tensor:
    """An (N, C, H, W) tensor, packed in either layout, with three axes in the order of memory."""
    if x.dtype in (torch.float16, torch.bfloat16):
        x = x.view(torch.uint16)
    if tensors.memory_format(x) == torch.channels_last:
        return x.permute(0, 2, 3, 1).flatten(1, 2)
    return x.flatten(2)


def _fake(
    decoder: Tensor, encoder: Tensor, hole: Tensor, gradient_scale: float, concatenate: bool
) -> tuple[Tensor, Tensor]:
    n, c, h, w = encoder.shape
    layout = tensors.memory_format(encoder)
    if concatenate:
        shifted = torch.empty_like(encoder[:, :1].expand(n, 3 * c, h, w), memory_format=layout)
    else:
        shifted = torch.empty_like(encoder, memory_format=layout)
    return shifted, encoder.new_empty((n, h, w), dtype=torch.int64)


def _cpu(
    decoder: Tensor, encoder: Tensor, hole: Tensor, gradient_scale: float, concatenate: bool
) -> tuple[Tensor, Tensor]:
    shifted, index = _fake(decoder, encoder, hole, gradient_scale, concatenate)
    channels = encoder.shape[1]
    if concatenate:
        shifted[:, :channels] = decoder
        shifted[:, channels : 2 * channels] = encoder
    layout = tensors.memory_format(encoder)
    tensors.native().shift_connection(
        tensors.compute_dtype(decoder),
        tensors.compute_dtype(encoder),
        tensors.bytes_of(_OP, "hole", hole),
        _storage(encoder.contiguous(memory_format=layout)),
        index,
        _storage(shifted),
        2 * channels if concatenate else 0,
        layout == torch.channels_last,
        tensors.threads(),
    )
    return shifted, index


def _reference(
    decoder: Tensor, encoder: Tensor, hole: Tensor, gradient_scale: float, concatenate: bool
) -> tuple[Tensor, Tensor]:
    missing = checks.binary(_OP, "hole", hole)
    with torch.no_grad():
        shifted, index = shift_connection_reference(decoder, encoder, missing)
    if concatenate:
        shifted = torch.cat([decoder, encoder, shifted], 1)
    return shifted.contiguous(memory_format=tensors.memory_format(encoder)), index


def _cuda(*arguments: Any) -> Any:
    return triton.kernels(_OP).forward(*arguments)


def _backward_fake(grad: Tensor, index: Tensor, gradient_scale: float) -> Tensor:
    return torch.empty_like(grad, memory_format=tensors.memory_format(grad))


def _backward_cpu(grad: Tensor, index: Tensor, gradient_scale: float) -> Tensor:
    layout = tensors.memory_format(grad)
    wide = tensors.compute_dtype(grad).contiguous(memory_format=layout)
    out = torch.empty_like(wide, memory_format=layout)
    tensors.native().scatter_positions(
        _storage(wide),
        index.flatten(1).contiguous(),
        _storage(out),
        layout == torch.channels_last,
        gradient_scale,
        tensors.threads(),
    )
    return out.to(grad.dtype)


def _backward_cuda(*arguments: Any) -> Any:
    return triton.kernels(_OP).backward(*arguments)


def _backward_reference(grad: Tensor, index: Tensor, gradient_scale: float) -> Tensor:
    n, c, h, w = grad.shape
    wide = tensors.compute_dtype(grad).flatten(2) * gradient_scale
    wide = torch.where((index.flatten(1) >= 0)[:, None], wide, wide.new_zeros(()))
    target = index.flatten(1).clamp_min(0)[:, None].expand(n, c, h * w)
    out = torch.zeros_like(wide).scatter_add_(2, target, wide).view(n, c, h, w)
    return out.to(grad.dtype).contiguous(memory_format=tensors.memory_format(grad))


def _setup_context(ctx: Any, inputs: Sequence[Any], output: Sequence[Any]) -> None:
    ctx.save_for_backward(output[1])
    ctx.gradient_scale, ctx.concatenate = inputs[3], inputs[4]


def _backward(ctx: Any, needs: Sequence[bool], grad: Tensor) -> tuple[Any, ...]:
    (index,) = ctx.saved_tensors
    if not ctx.concatenate:
        return None, _backward_operator(grad, index, ctx.gradient_scale), None, None, None
    grad_decoder, grad_encoder, grad_shifted = grad.chunk(3, 1)
    moved = _backward_operator(grad_shifted, index, ctx.gradient_scale)
    return grad_decoder, grad_encoder + moved, None, None, None


def _gathered(x: Tensor, index: Tensor) -> Tensor:
    """Features (N, C, h, w) at the positions (N, h, w), zero where there is none."""
    index = index.flatten(1)[:, None]
    picked = x.flatten(2).gather(2, index.clamp_min(0).expand(-1, x.shape[1], -1))
    return torch.where(index >= 0, picked, picked.new_zeros(())).view(x.shape)


def _formula(
    decoder: Tensor, encoder: Tensor, hole: Tensor, gradient_scale: float, concatenate: bool
) -> tuple[Tensor, Tensor]:
    _, index = shift_connection_reference(decoder, encoder, checks.binary(_OP, "hole", hole))
    values = encoder
    if gradient_scale != 1:
        values = encoder.detach() + (encoder - encoder.detach()) * gradient_scale
    shifted = _gathered(values, index)
    return torch.cat([decoder, encoder, shifted], 1) if concatenate else shifted, index


def _second(
    ctx: Any, grad: Tensor, reached: Sequence[Any]
) -> tuple[Tensor | None, list[Tensor | None]]:
    # The backward pass is linear in grad, and nothing else.
    (index,) = ctx.saved_tensors
    of_decoder, of_encoder = reached[:2]
    moved = None if of_encoder is None else _gathered(of_encoder, index) * ctx.gradient_scale
    if not ctx.concatenate:
        return moved, [None]
    some = of_decoder if of_encoder is None else of_encoder
    parts = (torch.zeros_like(some) if p is None else p for p in (of_decoder, of_encoder, moved))
    return torch.cat([*parts], 1), [None]


_operator = dispatch.register(
    _OP,
    "(Tensor decoder, Tensor encoder, Tensor hole, float gradient_scale, bool concatenate) "
    "-> (Tensor, Tensor)",
    cpu=_cpu,
    reference=_reference,
    fake=_fake,
    cuda=_cuda,
)
_backward_operator = dispatch.register(
    f"{_OP}_backward",
    "(Tensor grad, Tensor index, float gradient_scale) -> Tensor",
    cpu=_backward_cpu,
    reference=_backward_reference,
    fake=_backward_fake,
    cuda=_backward_cuda,
)
_operator.differentiate(_backward, _setup_context, formula=_formula, second=_second)
_backward_operator.forbid_derivative()
