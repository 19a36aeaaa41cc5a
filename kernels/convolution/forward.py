"""The convolution of this package on GPUs: one implicit matrix product over NHWC memory.

The rows of the product are output pixels, its columns filters, and its depth k runs over kernel
taps and channels together, k = tap * channels + channel: the order in which a channels_last weight
(filters, channels, kh, kw) lies in memory, so that weights are read as they are. Channels come in
units of 16 bytes; a count that is no multiple is padded once by the launcher.

Everything else happens in the load (padding of three kinds, nearest doubling, dilation, holes) and
in the store (bias, activation, gate, ratio and updated mask of a partial convolution).

Transposed convolutions, and 3x3 convolutions of a doubled image, are one small convolution for each
remainder of the output pixel modulo the stride: the third axis of the grid.
"""

from dataclasses import replace

import triton
import triton.language as tl

from inpaint_ops.kernels.convolution.arithmetic import ACTS, activate, sigmoid
from inpaint_ops.kernels.dot import dot
from inpaint_ops.kernels.launch import ARCHITECTURES, Kernel, Row, jit

_TYPES = {
    "x_ptr": "*T",
    "w_ptr": "*T",
    "bias_ptr": "*T",
    "valid_ptr": "*u8",
    "y_ptr": "*T",
    "z_ptr": "*T",
    "share_ptr": "*fp32",
    "scale_ptr": "*fp32",
    "batch": "i32",
    "high": "i32",
    "wide": "i32",
    "cin_units": "i32",
    "cout_units": "i32",
    "out_high": "i32",
    "out_wide": "i32",
    "taps": "i32",
    "kernel_wide": "i32",
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
    "first_width": "fp32",
    "second_width": "fp32",
    "total": "fp32",
}

# Values of PAD and RULE.
PADDING = {"zeros": 0, "reflect": 1, "replicate": 2}
RULES = {"window": 0, "sum": 1}
_REFLECT, _REPLICATE, _SUM = tl.constexpr(1), tl.constexpr(2), tl.constexpr(1)
# Bits of one pixel's taps in an int64, when two parts share it and when one has it.
TAPS_OF_TWO, TAPS_OF_ONE = 31, 63


@triton.jit
def _mirror(i, size, PAD: tl.constexpr):
    """The pixel that padding shows at i; may lie outside where the caller masks it."""
    if PAD == _REFLECT:
        # where, not abs: its constancy along 16-byte groups is seen by the compiler.
        i = tl.where(i < 0, -i, i)
        i = tl.where(i >= size, 2 * size - 2 - i, i)
    elif PAD == _REPLICATE:
        i = tl.where(i < 0, 0, i)
        i = tl.where(i >= size, size - 1, i)
    return i


@triton.jit
def _window(
    valid_ptr,
    image,
    base_y,
    base_x,
    in_m,
    high,
    wide,
    taps,
    kernel_wide,
    dilation_y,
    dilation_x,
    valid_parts,
    valid_batch,
    BLOCK_M: tl.constexpr,
):
    """What each pixel's window may read: a bit for each tap (second part: from bit 32), counts."""
    bits = tl.zeros((BLOCK_M,), tl.int64)
    first = tl.zeros((BLOCK_M,), tl.float32)
    second = tl.zeros((BLOCK_M,), tl.float32)
    plane = high * wide
    image_of_mask = tl.where(valid_batch == 1, 0, image).to(tl.int64)
    base = valid_ptr + image_of_mask * valid_parts * plane
    for tap in tl.range(0, taps, loop_unroll_factor=4):
        ky = tap // kernel_wide
        y = base_y + ky * dilation_y
        x = base_x + (tap - ky * kernel_wide) * dilation_x
        inside = in_m & (y >= 0) & (y < high) & (x >= 0) & (x < wide)
        at = base + y * wide + x
        one = tl.load(at, mask=inside, other=0) != 0
        two = tl.load(at + plane, mask=inside & (valid_parts == 2), other=0) != 0
        # A shift takes the wider type of both sides only if the amount is 64-bit too.
        place = tl.zeros((BLOCK_M,), tl.int64) + tap
        bits |= (one.to(tl.int64) << place) | (two.to(tl.int64) << (place + 32))
        first += one.to(tl.float32)
        second += two.to(tl.float32)
    return bits, first, second


@jit(_TYPES)
def _conv_fwd_kernel(
    x_ptr,
    w_ptr,
    bias_ptr,
    valid_ptr,
    y_ptr,
    z_ptr,
    share_ptr,
    scale_ptr,
    batch,
    high,
    wide,
    cin_units,
    cout_units,
    out_high,
    out_wide,
    taps,
    kernel_wide,
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
    first_width,
    second_width,
    total,
    GATED: tl.constexpr,
    MASKED: tl.constexpr,
    PAD: tl.constexpr,
    RULE: tl.constexpr,
    ACT: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    KEEP: tl.constexpr,
    PRECISION: tl.constexpr,
    UNIT: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Y = epilogue(sum_k x[window(m), k] w[n, k]).

    x (batch, high, wide, cin_units * 16 bytes), w (phases**2, filters, taps, cin), y and z (batch,
    out_high, out_wide, filters or half of them), all dense. `doublings` 1 reads x as if doubled.
    MASKED: `valid` (valid_batch, valid_parts, high, wide) bytes; channels from split_units on
    belong to the second part; what it hides is not read, and a block of pixels that sees nothing
    valid multiplies nothing. One program: BLOCK_M pixels of one phase by BLOCK_N outputs. Grid:
    (blocks of pixels times blocks of outputs, phases**2).
    """
    VECTOR: tl.constexpr = 128 // x_ptr.dtype.element_ty.primitive_bitwidth
    COLUMNS: tl.constexpr = 2 * BLOCK_N if GATED else BLOCK_N
    cin = cin_units * VECTOR
    cout = cout_units * UNIT
    depth = taps * cin
    phase = tl.program_id(1)
    phase_y = phase // phases
    phase_x = phase % phases
    rows_high = (out_high + phases - 1) // phases
    rows_wide = (out_wide + phases - 1) // phases
    # Blocks of outputs change fastest: their programs share the pixels in the cache.
    blocks_n = tl.cdiv(cout, BLOCK_N)
    pid_m = tl.program_id(0) // blocks_n
    first_n = (tl.program_id(0) % blocks_n) * BLOCK_N

    offs_m = pid_m * BLOCK_M + tl.arange(0, BLOCK_M)
    image = offs_m // (rows_high * rows_wide)
    rest = offs_m % (rows_high * rows_wide)
    q_y = rest // rows_wide
    q_x = rest % rows_wide
    out_y = q_y * phases + phase_y
    out_x = q_x * phases + phase_x
    in_m = (image < batch) & (out_y < out_high) & (out_x < out_wide)
    base_y = q_y * stride_y - pad_y + (phase_y + phase_pad) // phases
    base_x = q_x * stride_x - pad_x + (phase_x + phase_pad) // phases
    x_rows = x_ptr + image.to(tl.int64) * (high * wide) * cin

    offs_j = tl.arange(0, COLUMNS)
    if GATED:
        # Features and gates alternate, so that both of an output meet in one thread.
        offs_n = first_n + offs_j // 2
        filters = 2 * cout
        filter_of = (offs_j % 2) * cout + offs_n
    else:
        offs_n = first_n + offs_j
        filters = cout
        filter_of = offs_n
    in_j = offs_n < cout
    w_rows = w_ptr + (phase * filters + filter_of).to(tl.int64) * depth

    steps = depth
    if MASKED:
        bits, first, second = _window(
            valid_ptr,
            image,
            base_y,
            base_x,
            in_m,
            high,
            wide,
            taps,
            kernel_wide,
            dilation_y,
            dilation_x,
            valid_parts,
            valid_batch,
            BLOCK_M,
        )
        steps = tl.where(tl.max(bits, 0) == 0, 0, depth)

    high_read = high << doublings
    wide_read = wide << doublings
    acc = tl.zeros((BLOCK_M, COLUMNS), tl.float32)
    for k0 in range(0, steps, BLOCK_K):
        offs_k = k0 + tl.arange(0, BLOCK_K)
        in_k = offs_k < depth
        tap = offs_k // cin
        channel = offs_k - tap * cin
        ky = tap // kernel_wide
        kx = tap - ky * kernel_wide
        y = base_y[:, None] + (ky * dilation_y)[None, :]
        x = base_x[:, None] + (kx * dilation_x)[None, :]
        if MASKED:
            place = (tap + tl.where(channel >= split_units * VECTOR, 32, 0)).to(tl.int64)
            seen = ((bits[:, None] >> place[None, :]) & 1) != 0
        else:
            y = _mirror(y, high_read, PAD)
            x = _mirror(x, wide_read, PAD)
            seen = in_m[:, None] & (y >= 0) & (y < high_read) & (x >= 0) & (x < wide_read)
        at = ((y >> doublings) * wide + (x >> doublings)).to(tl.int64) * cin + channel[None, :]
        a = tl.load(x_rows[:, None] + at, mask=seen & in_k[None, :], other=0.0)
        b = tl.load(
            w_rows[None, :] + offs_k[:, None], mask=in_j[None, :] & in_k[:, None], other=0.0
        )
        acc = dot(a, b, acc, PRECISION)

    out = ((image.to(tl.int64) * out_high + out_y) * out_wide + out_x)[:, None]
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
            kept = z_ptr + out * filters + offs_n[None, :]
            tl.store(kept, v.to(z_ptr.dtype.element_ty), mask=in_bounds)
            tl.store(kept + cout, gate.to(z_ptr.dtype.element_ty), mask=in_bounds)
        v = activate(v, ACT) * sigmoid(gate)
    elif MASKED:
        sums = first * first_width + second * second_width
        share = tl.where(sums > 0.0, 1.0, 0.0)
        if RULE == _SUM:
            scale = share / tl.where(sums > 0.0, sums, 1.0)
        else:
            # 1e-8 as in the public formula: far below the rounding of any other sum than 0.
            scale = total / (sums + 1e-8) * share
        v = acc * scale[:, None]
        if HAS_BIAS:
            v += bias
        v = tl.where(share[:, None] != 0.0, v, 0.0)
        one_writes = in_m & (first_n == 0) & ((valid_batch > 1) | (image == 0))
        plane = (image.to(tl.int64) * out_high + out_y) * out_wide + out_x
        tl.store(share_ptr + plane, share, mask=one_writes)
        tl.store(scale_ptr + plane, scale, mask=one_writes)
    else:
        v = acc
        if HAS_BIAS:
            v += bias
        if KEEP:
            kept = z_ptr + out * cout + offs_n[None, :]
            tl.store(kept, v.to(z_ptr.dtype.element_ty), mask=in_bounds)
        v = activate(v, ACT)
    tl.store(y_ptr + out * cout + offs_n[None, :], v.to(y_ptr.dtype.element_ty), mask=in_bounds)


def _rows(
    name: str,
    precision: str,
    m: int,
    n: int,
    k: int,
    *,
    stages: int,
    unit: int = 1,
    warps: int = 4,
    rocm_n: int = 0,
) -> list[Row]:
    """The row for CUDA, and for ROCm, whose 64 KB of shared memory hold fewer stages."""
    kind = name.partition("-")[0]
    constexprs = {
        "GATED": kind == "gated",
        "MASKED": kind == "partial",
        "PRECISION": "ieee" if precision == "half" else precision,
        "UNIT": unit,
        "BLOCK_M": m,
        "BLOCK_N": n,
        "BLOCK_K": k,
    }
    row = Row(
        name,
        "half" if precision == "half" else "fp32",
        constexprs,
        warps=warps,
        stages=stages,
        archs=ARCHITECTURES[:-1],
        dot=True,
        tensor_cores=precision != "ieee",
        wide=("x_ptr", "w_ptr"),
    )
    narrower = {**constexprs, "BLOCK_N": rocm_n or n}
    return [row, replace(row, constexprs=narrower, stages=2, archs=ARCHITECTURES[-1:])]


_ROWS = [
    *_rows("gated-large", "half", 128, 32, 64, unit=8, stages=3),
    *_rows("gated-small", "half", 64, 32, 64, unit=8, stages=4),
    *_rows("gated-odd", "half", 128, 16, 64, stages=3),
    *_rows("plain-large", "half", 128, 64, 64, unit=8, stages=3, warps=8),
    *_rows("plain-small", "half", 64, 64, 64, unit=8, stages=4),
    *_rows("plain-odd", "half", 128, 16, 64, stages=3),
    *_rows("partial-small", "half", 64, 64, 64, unit=8, stages=3),
    *_rows("partial-odd", "half", 64, 16, 64, stages=3),
    *_rows("gated-tf32", "tf32", 64, 32, 32, stages=3),
    *_rows("plain-tf32", "tf32", 64, 64, 32, stages=3, rocm_n=32),
    *_rows("partial-tf32", "tf32", 64, 64, 32, stages=3),
    *_rows("gated-ieee", "ieee", 64, 16, 16, stages=2),
    *_rows("plain-ieee", "ieee", 64, 32, 16, stages=2),
    *_rows("partial-ieee", "ieee", 64, 32, 16, stages=2),
]
CONV = Kernel(
    _conv_fwd_kernel,
    _TYPES,
    _ROWS,
    free={
        "PAD": (1, 2, 0),
        "RULE": (0, 1),
        "ACT": ACTS,
        "HAS_BIAS": (True, False),
        "KEEP": (True, False),
    },
)
