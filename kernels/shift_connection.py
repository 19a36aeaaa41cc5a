"""shift_connection on GPUs: the search, then one kernel that moves the features found.

The backward pass sorts positions by the source they took, so that one program adds up what comes
back to a source, in a fixed order and without atomics.
"""

import torch
import triton.language as tl
from torch import Tensor

from inpaint_ops.kernels.launch import Kernel, Row, aligned, channels_last, dtype_class, jit
from inpaint_ops.kernels.matching.search import search
from inpaint_ops.kernels.program import batches, cdiv
from inpaint_ops.ops.tensors import memory_format

_FORWARD_TYPES = {
    "decoder_ptr": "*T",
    "encoder_ptr": "*T",
    "out_ptr": "*T",
    "index_ptr": "*i64",
    "channels": "i32",
    "positions": "i32",
    "units": "i32",
}


@jit(_FORWARD_TYPES)
def _shift_connection_fwd_kernel(
    decoder_ptr,
    encoder_ptr,
    out_ptr,
    index_ptr,
    channels,
    positions,
    units,
    CHANNELS_LAST: tl.constexpr,
    CONCATENATE: tl.constexpr,
    UNIT: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """out[p] = encoder[index[p]], zero where it is -1; with CONCATENATE [decoder | encoder | that].

    units * UNIT is the number of channels or of positions, whichever lie together in memory.
    Grid: (blocks of positions, blocks of channels, N).
    """
    n = tl.program_id(2).to(tl.int64)
    p = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    index = tl.load(index_ptr + n * positions + p, mask=p < positions, other=-1)
    if CHANNELS_LAST:
        C = units * UNIT
        P = positions.to(tl.int64)
        stride_c = 1
        stride_p = units.to(tl.int64) * UNIT
    else:
        C = channels
        P = units.to(tl.int64) * UNIT
        stride_c = P
        stride_p = 1
    # Compared with C and P as products of UNIT: the compiler sees no change within 16 bytes.
    inside = (p < P)[:, None] & (c < C)[None, :]
    source = tl.maximum(index, 0)[:, None]
    c64 = c.to(tl.int64)[None, :]
    same = n * C * P + p[:, None] * stride_p + c64 * stride_c
    moved = tl.load(
        encoder_ptr + n * C * P + source * stride_p + c64 * stride_c,
        mask=inside & (index >= 0)[:, None],
        other=0.0,
    )
    if CONCATENATE:
        if CHANNELS_LAST:
            out = 3 * (n * C * P + p[:, None] * stride_p) + c64
            part = C
        else:
            out = same + 2 * n * C * P
            part = C * P
        tl.store(out_ptr + out, tl.load(decoder_ptr + same, mask=inside), mask=inside)
        tl.store(out_ptr + out + part, tl.load(encoder_ptr + same, mask=inside), mask=inside)
        tl.store(out_ptr + out + 2 * part, moved, mask=inside)
    else:
        tl.store(out_ptr + same, moved, mask=inside)


_BLOCK_P, _BLOCK_C = 32, 64
_TILE = {"BLOCK_P": _BLOCK_P, "BLOCK_C": _BLOCK_C}
MOVE = Kernel(
    _shift_connection_fwd_kernel,
    _FORWARD_TYPES,
    [
        Row("half", "half", {**_TILE, "UNIT": 8}, stages=1, vectors=("decoder_ptr", "encoder_ptr")),
        Row("half-odd", "half", {**_TILE, "UNIT": 1}, stages=1),
        Row("fp32", "fp32", {**_TILE, "UNIT": 4}, stages=1, vectors=("decoder_ptr", "encoder_ptr")),
        Row("fp32-odd", "fp32", {**_TILE, "UNIT": 1}, stages=1),
    ],
    free={"CHANNELS_LAST": (True, False), "CONCATENATE": (True, False)},
)

_BACKWARD_TYPES = {
    "grad_ptr": "*T",
    "order_ptr": "*i64",
    "begin_ptr": "*i64",
    "out_ptr": "*T",
    "positions": "i32",
    "units": "i32",
    "gradient_scale": "fp32",
}


@jit(_BACKWARD_TYPES)
def _shift_connection_bwd_kernel(
    grad_ptr,
    order_ptr,
    begin_ptr,
    out_ptr,
    positions,
    units,
    gradient_scale,
    UNIT: tl.constexpr,
    BLOCK_I: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """out[q] = scale * sum over the p that took q of grad[p], in their order: no atomics.

    Grid: (positions, blocks of channels, N).
    """
    n = tl.program_id(2).to(tl.int64)
    C = units * UNIT
    q = tl.program_id(0)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    in_c = c < C
    begin = tl.load(begin_ptr + n * (positions + 1) + q)
    end = tl.load(begin_ptr + n * (positions + 1) + q + 1)
    # Summed over rows once, after the loop: there threads have to wait for each other.
    total = tl.zeros((BLOCK_I, BLOCK_C), tl.float32)
    for start in range(begin, end, BLOCK_I):
        at = start + tl.arange(0, BLOCK_I)
        taken = at < end
        p = tl.load(order_ptr + n * positions + at, mask=taken, other=0)
        grad = tl.load(
            grad_ptr + (n * positions + p)[:, None] * C + c[None, :],
            mask=taken[:, None] & in_c[None, :],
            other=0.0,
        )
        total += grad.to(tl.float32) * gradient_scale
    tl.store(out_ptr + (n * positions + q) * C + c, tl.sum(total, 0), mask=in_c)


_BLOCK_I, _BLOCK_BACK = 16, 128
ADD_BACK = Kernel(
    _shift_connection_bwd_kernel,
    _BACKWARD_TYPES,
    [
        Row(
            name,
            name,
            {"UNIT": unit, "BLOCK_I": _BLOCK_I, "BLOCK_C": _BLOCK_BACK},
            stages=1,
            vectors=("grad_ptr",),
        )
        for name, unit in (("half", 8), ("fp32", 4))
    ],
)


def _in_layout(x: Tensor, layout: torch.memory_format) -> Tensor:
    return channels_last(x) if layout == torch.channels_last else aligned(x.contiguous())


def forward(
    decoder: Tensor, encoder: Tensor, hole: Tensor, gradient_scale: float, concatenate: bool
) -> tuple[Tensor, Tensor]:
    """Arguments and results of the registered operator.

    The hole is wherever `hole` is not 0; its values are not checked.
    """
    n, c, h, w = encoder.shape
    positions = h * w
    layout = memory_format(encoder)
    like = encoder[:, :1].expand(n, 3 * c if concatenate else c, h, w)
    out = torch.empty_like(like, memory_format=layout)
    if n * positions == 0:
        return out, encoder.new_empty((n, h, w), dtype=torch.int64)
    missing = (hole != 0).flatten(1)
    square = encoder.float().square().sum(1).flatten(1)
    pixels = torch.arange(positions, dtype=torch.int32, device=encoder.device)
    index, _ = search(
        decoder,
        encoder,
        pixels,
        pixels,
        missing,
        ~missing,
        None,  # |D_p| cannot change which cosine is the greatest
        square.sqrt().clamp_min(1e-8).reciprocal(),
        patch_size=1,
        cosine=True,
    )
    together = c if layout == torch.channels_last else positions
    name = dtype_class(encoder.dtype)
    unit = 8 if name == "half" else 4
    if together % unit:
        name, unit = f"{name}-odd", 1
    images = _in_layout(decoder, layout), _in_layout(encoder, layout), out
    for part in batches(n):
        decoders, encoders, outs = (x[part] for x in images)
        MOVE(
            name,
            (cdiv(positions, _BLOCK_P), cdiv(c, _BLOCK_C), len(outs)),
            decoder_ptr=decoders,
            encoder_ptr=encoders,
            out_ptr=outs,
            index_ptr=index[part],
            channels=c,
            positions=positions,
            units=together // unit,
            CHANNELS_LAST=layout == torch.channels_last,
            CONCATENATE=concatenate,
        )
    return out, index.view(n, h, w)


def backward(grad: Tensor, index: Tensor, gradient_scale: float) -> Tensor:
    """Arguments and result of the registered operator."""
    n, c, h, w = grad.shape
    positions = h * w
    out = torch.empty_like(grad, memory_format=memory_format(grad))
    if n * positions == 0:
        return out
    name = dtype_class(grad.dtype)
    unit = 8 if name == "half" else 4
    rows = channels_last(grad, unit)
    # Positions of no source, -1, come first and are in nobody's range.
    ordered, order = torch.sort(index.flatten(1), dim=1, stable=True)
    bounds = torch.arange(positions + 1, device=grad.device).expand(n, -1).contiguous()
    total = torch.empty_like(rows)
    begin = torch.searchsorted(ordered, bounds)
    for part in batches(n):
        ADD_BACK(
            name,
            (positions, cdiv(rows.shape[1], _BLOCK_BACK), len(rows[part])),
            grad_ptr=rows[part],
            order_ptr=order[part],
            begin_ptr=begin[part],
            out_ptr=total[part],
            positions=positions,
            units=rows.shape[1] // unit,
            gradient_scale=gradient_scale,
        )
    return out.copy_(total[:, :c])
