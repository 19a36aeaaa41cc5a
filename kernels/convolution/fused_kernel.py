"""Kernel of the fused convolution: one implicit matrix product over NHWC memory.

The rows of the product are output pixels, its columns filters, and its depth k runs over kernel
taps and channels together, k = tap * channels + channel. A channels_last weight
(filters, channels, kh, kw) lies in memory in just this order, so weights are read as they are.
Channels come in units of 16 bytes; the launcher pads a count that is no multiple.

Everything else happens in the load (padding of three kinds, nearest doubling, dilation, holes) and
in the store (bias, activation, gate, mask ratio and updated mask of a partial convolution).
Traffic: x, w and the mask once from memory, y and what the backward pass needs once to it.

Transposed convolutions, and 3x3 convolutions of a doubled image, are one small convolution for each
remainder of the output pixel modulo the stride (`phases`): the second axis of the grid.
"""

import triton.language as tl

from inpaint_ops.kernels.convolution.activation import ACTS, activate, sigmoid
from inpaint_ops.kernels.convolution.fused_rows import ROWS
from inpaint_ops.kernels.convolution.load import (
    digits,
    filters_of,
    lanes,
    mask_bit,
    moved,
    outside_bits,
    pixel_of,
    positions,
    ratio_of,
    window_bit,
    window_bits,
    writes_planes,
)
from inpaint_ops.kernels.dot import dot
from inpaint_ops.kernels.launch import Kernel, jit

# Values of RULE.
RULES = {"window": 0, "sum": 1}
_SUM = tl.constexpr(1)

_TYPES = {
    "x_ptr": "*T",
    "w_ptr": "*T",
    "bias_ptr": "*T",
    "valid_ptr": "*u8",
    "y_ptr": "*T",
    "pre_activation_ptr": "*T",
    "update_mask_ptr": "*fp32",
    "mask_ratio_ptr": "*fp32",
    "batch": "i32",
    "height": "i32",
    "width": "i32",
    "cin_units": "i32",
    "cout_units": "i32",
    "out_height": "i32",
    "out_width": "i32",
    "taps": "i32",
    "kernel_width": "i32",
    "stride_y": "i32",
    "stride_x": "i32",
    "pad_y": "i32",
    "pad_x": "i32",
    "dilation_y": "i32",
    "dilation_x": "i32",
    "doublings": "i32",
    "phases": "i32",
    "phase_pad": "i32",
    "split_units": "i32",
    "valid_parts": "i32",
    "valid_batch": "i32",
    "first_channels": "fp32",
    "second_channels": "fp32",
    "total": "fp32",
}


@jit(_TYPES)
def _conv_fwd_kernel(
    x_ptr,
    w_ptr,
    bias_ptr,
    valid_ptr,
    y_ptr,
    pre_activation_ptr,
    update_mask_ptr,
    mask_ratio_ptr,
    batch,
    height,
    width,
    cin_units,
    cout_units,
    out_height,
    out_width,
    taps,
    kernel_width,
    stride_y,
    stride_x,
    pad_y,
    pad_x,
    dilation_y,
    dilation_x,
    doublings,
    phases,
    phase_pad,
    split_units,
    valid_parts,
    valid_batch,
    first_channels,
    second_channels,
    total,
    GATED: tl.constexpr,
    MASKED: tl.constexpr,
    PAD: tl.constexpr,
    LINEAR: tl.constexpr,
    RULE: tl.constexpr,
    ACT: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    KEEP: tl.constexpr,
    PRECISION: tl.constexpr,
    UNIT: tl.constexpr,
    PIECE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """y[m, n] = epilogue(sum_k x[window(m), k] w[n, k]).

    x: (batch, height, width, cin_units * 16 bytes); `doublings` 1 reads it as if doubled. Offsets
    within an image are counted in these units, so that 32 bits reach 32 GB.
    w: (phases**2, filters, taps, cin).
    y, pre_activation: (batch, out_height, out_width, channels), filters of them, of y half as many
    if GATED.
    MASKED: valid (valid_batch, valid_parts, height, width) bytes; channels from split_units on
    belong to the second part. Hidden pixels are not read, and a block of pixels that sees nothing
    valid multiplies nothing.

    One program: BLOCK_M pixels of one phase by BLOCK_N outputs.
    Grid: (blocks of pixels times blocks of outputs, phases**2).
    """
    VECTOR: tl.constexpr = 128 // x_ptr.dtype.element_ty.primitive_bitwidth
    COLUMNS: tl.constexpr = 2 * BLOCK_N if GATED else BLOCK_N
    cin = cin_units * VECTOR
    cout = cout_units * UNIT
    depth = taps * cin
    kernel_height = taps // kernel_width
    phase = tl.program_id(1)
    phase_y = phase // phases
    phase_x = phase % phases
    phase_height = (out_height + phases - 1) // phases
    phase_width = (out_width + phases - 1) // phases
    # Blocks of outputs change fastest: their programs share the pixels in the cache.
    blocks_n = tl.cdiv(cout, BLOCK_N)
    pid_m = tl.program_id(0) // blocks_n
    first_n = (tl.program_id(0) % blocks_n) * BLOCK_N

    image, q_y, q_x = positions(pid_m * BLOCK_M, phase_height, phase_width, phases, BLOCK_M)
    out_y = q_y * phases + phase_y
    out_x = q_x * phases + phase_x
    in_m = (image < batch) & (out_y < out_height) & (out_x < out_width)
    base_y = q_y * stride_y - pad_y + (phase_y + phase_pad) // phases
    base_x = q_x * stride_x - pad_x + (phase_x + phase_pad) // phases
    first_pixel = image.to(tl.int64) * (height * width)
    if MASKED or LINEAR:
        # First pixel of the window; it may lie outside, where nothing is read.
        first_pixel += base_y * width + base_x
    x_rows = x_ptr + first_pixel * cin

    filters = 2 * cout if GATED else cout
    filter_of = filters_of(first_n, cout, COLUMNS, GATED)
    w_rows = w_ptr + (phase * filters + filter_of).to(tl.int64) * depth

    steps = depth
    if MASKED:
        bits, first, second = window_bits(
            valid_ptr,
            image,
            base_y,
            base_x,
            in_m,
            height,
            width,
            taps,
            kernel_width,
            dilation_y,
            dilation_x,
            valid_parts,
            valid_batch,
            BLOCK_M,
        )
        steps = tl.where(tl.max(bits, 0) == 0, 0, depth)
    elif LINEAR:
        bits = outside_bits(
            base_y,
            base_x,
            in_m,
            height,
            width,
            kernel_height,
            kernel_width,
            dilation_y,
            dilation_x,
            BLOCK_M,
        )

    # Place in the window of each 16 bytes of a step: it moves on like the digits of a number.
    lane = lanes(VECTOR, PIECE, BLOCK_K)
    ky, kx, channel = digits(tl.arange(0, BLOCK_K) // VECTOR, cin_units, kernel_width)
    step_y, step_x, step_channel = digits(BLOCK_K // VECTOR, cin_units, kernel_width)

    w_ptrs = w_rows[None, :] + tl.arange(0, BLOCK_K)[:, None]
    acc = tl.zeros((BLOCK_M, COLUMNS), tl.float32)
    for k0 in range(0, steps, BLOCK_K):
        if MASKED:
            bit = mask_bit(ky, kx, channel, kernel_height, kernel_width, split_units)
            seen = (bits[:, None] & bit[None, :]) != 0
        elif LINEAR:
            seen = (bits[:, None] & window_bit(ky, kx, kernel_height)[None, :]) == 0
        if MASKED or LINEAR:
            units = ky * (dilation_y * width * cin_units) + kx * (dilation_x * cin_units) + channel
            x_ptrs = x_rows[:, None] + (units.to(tl.int64) * VECTOR + lane)[None, :]
        else:
            y = base_y[:, None] + (ky * dilation_y)[None, :]
            x = base_x[:, None] + (kx * dilation_x)[None, :]
            inside, pixel = pixel_of(y, x, height, width, doublings, PAD)
            seen = in_m[:, None] & (ky < kernel_height)[None, :] & inside
            units = pixel * cin_units + channel[None, :]
            x_ptrs = x_rows[:, None] + (units.to(tl.int64) * VECTOR + lane[None, :])
        a = tl.load(x_ptrs, mask=seen, other=0.0, cache_modifier=".ca")
        b = tl.load(w_ptrs + k0, mask=(k0 + tl.arange(0, BLOCK_K) < depth)[:, None], other=0.0)
        ky, kx, channel = moved(
            ky, kx, channel, step_y, step_x, step_channel, kernel_width, cin_units
        )
        acc = dot(a, b, acc, PRECISION)

    plane = (image.to(tl.int64) * out_height + out_y) * out_width + out_x
    out = plane[:, None]
    offs_n = first_n + tl.arange(0, BLOCK_N)
    in_n = offs_n < cout
    in_bounds = in_m[:, None] & in_n[None, :]
    if HAS_BIAS:
        bias = tl.load(bias_ptr + offs_n, mask=in_n, other=0.0).to(tl.float32)[None, :]
    if GATED:
        v, gate = tl.split(acc.reshape(BLOCK_M, BLOCK_N, 2))
        if HAS_BIAS:
            v += bias
            gate += tl.load(bias_ptr + cout + offs_n, mask=in_n, other=0.0).to(tl.float32)[None, :]
        if KEEP:
            store_ptrs = pre_activation_ptr + out * filters + offs_n[None, :]
            kept = pre_activation_ptr.dtype.element_ty
            tl.store(store_ptrs, v.to(kept), mask=in_bounds)
            tl.store(store_ptrs + cout, gate.to(kept), mask=in_bounds)
        v = activate(v, ACT) * sigmoid(gate)
    elif MASKED:
        known = first * first_channels + second * second_channels
        update_mask, mask_ratio = ratio_of(known, total, RULE == _SUM)
        v = acc * mask_ratio[:, None]
        if HAS_BIAS:
            v += bias
        v = tl.where(update_mask[:, None] != 0.0, v, 0.0)
        one_writes = writes_planes(in_m, image, first_n, valid_batch)
        tl.store(update_mask_ptr + plane, update_mask, mask=one_writes)
        tl.store(mask_ratio_ptr + plane, mask_ratio, mask=one_writes)
    else:
        v = acc
        if HAS_BIAS:
            v += bias
        if KEEP:
            store_ptrs = pre_activation_ptr + out * cout + offs_n[None, :]
            tl.store(store_ptrs, v.to(pre_activation_ptr.dtype.element_ty), mask=in_bounds)
        v = activate(v, ACT)
    tl.store(y_ptr + out * cout + offs_n[None, :], v.to(y_ptr.dtype.element_ty), mask=in_bounds)


CONV = Kernel(
    _conv_fwd_kernel,
    _TYPES,
    ROWS,
    free={
        "PAD": (1, 2, 0),
        "LINEAR": (False, True),
        "RULE": (0, 1),
        "ACT": ACTS,
        "HAS_BIAS": (True, False),
        "KEEP": (True, False),
    },
)
