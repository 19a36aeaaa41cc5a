"""Products of 3 x 3 patches, formed in the kernel tile by tile: no matrix of products of pixels.

A row of a patch is one stretch of NHWC memory, 3 C numbers, and a patch is three of them, one under
the other. So a program walks down a diagonal, query row and key row together: of each pair of rows
it forms the products X once, 3 C multiply-adds a pair, and adds three of them to a score, which
never need to be stored. Formed patch by patch they would take 9 C.

Both grids have two rows of zeros below and a column of zeros before each row, which is the end of
the row before it too. A walk passes a row of zeros wherever a grid ends, and needs no mask.

Floor of a pair with C channels: 6 C FLOPs, 4 bytes written.
"""

import triton.language as tl

from inpaint_ops.kernels.attention.grid import cell_of
from inpaint_ops.kernels.dot import dot
from inpaint_ops.kernels.launch import ARCHITECTURES, Kernel, Row, jit

_TYPES = {
    "query_ptr": "*T",
    "key_ptr": "*T",
    "factor_ptr": "*fp32",
    "out_ptr": "*fp32",
    "h": "i32",
    "w": "i32",
    "hb": "i32",
    "wb": "i32",
    "groups": "i32",
    "first_y": "i32",
    "rows": "i32",
    "first_x": "i32",
    "columns": "i32",
    "lines": "i32",
    "units": "i32",
}


@jit(_TYPES)
def _contextual_attention_score_kernel(
    query_ptr,
    key_ptr,
    factor_ptr,
    out_ptr,
    h,
    w,
    hb,
    wb,
    groups,
    first_y,
    rows,
    first_x,
    columns,
    lines,
    units,
    UNIT: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Scores of a window of query cells: products of patches times the factor of the key.

    A program has BLOCK_M cells and BLOCK_N keys of a row, and goes a row on with both at each step,
    from the row of zeros to the first. Steps are shared by segments.
    Grid: (blocks of columns times blocks of keys, segments, N).
    """
    n = tl.program_id(2).to(tl.int64)
    # The compiler sees that offsets are multiples of 16 bytes because this product is.
    C = units * UNIT
    ld = groups * 16
    pitch = tl.cdiv(wb, 4) * 4
    across = tl.cdiv(columns, BLOCK_M)
    k = (tl.program_id(0) % across) * BLOCK_M + tl.arange(0, BLOCK_M)
    in_window = k < columns
    k = tl.minimum(k, columns - 1)
    y, x = cell_of(k, h, w, first_y, first_x, columns)
    # One step more than rows: cells that come to the end of the grid pass the row of zeros.
    steps = tl.cdiv(rows + 1, tl.num_programs(1))
    begin = tl.program_id(1) * steps
    end = tl.minimum(begin + steps, rows + 1)
    key_block = tl.program_id(0) // across
    v = key_block // tl.cdiv(wb, BLOCK_N)
    u = (key_block % tl.cdiv(wb, BLOCK_N)) * BLOCK_N + tl.arange(0, BLOCK_N)
    key = key_ptr + n * (hb + 2) * (wb + 1) * C + (tl.minimum(u, wb - 1) * C)[:, None]
    v = tl.where(v == 0, hb, v - 1)
    query_ptr += n * (h + 2) * (w + 1) * C
    out_ptr += n * lines * ld
    factor_ptr += n * ld

    offs_k = tl.arange(0, BLOCK_K)
    length = 3 * C
    # Of the row before, and with it the one before that.
    last = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    both = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for step in range(begin - 1, end + 1):
        at = y + step
        row = tl.where(at < 0, h, tl.where(at > h, at - h - 1, at))
        query = query_ptr + ((row * (w + 1) + x).to(tl.int64) * C)[:, None]
        key_row = key + (v * (wb + 1)).to(tl.int64) * C
        product = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
        for start in range(0, length, BLOCK_K):
            column = start + offs_k
            inside = (column < length)[None, :]
            a = tl.load(query + column[None, :], mask=inside, other=0.0, cache_modifier=".ca")
            b = tl.load(key_row + column[None, :], mask=inside, other=0.0, cache_modifier=".ca")
            product = dot(a, tl.trans(b), product, PRECISION)
        # The middle one of the three rows is that of the step before.
        middle = at - 1
        slot = step - 1 - (middle > h).to(tl.int32)
        stored = in_window & (step > begin) & (middle != h) & (slot < rows)
        to = (v - 1) * pitch + u
        in_pitch = (u < pitch) & (v > 0)
        factor = tl.load(factor_ptr + to, mask=in_pitch, other=0.0)
        out = out_ptr + (1 + slot * columns + k).to(tl.int64) * ld
        tl.store(
            out[:, None] + to[None, :],
            tl.where((u < wb)[None, :], (both + product) * factor[None, :], 0.0),
            mask=stored[:, None] & in_pitch[None, :],
        )
        both = last + product
        last = product
        v = tl.where(v == hb, 0, v + 1)


# Channels in 16 bytes.
UNIT = {"half": 8, "fp32": 4}
# Where three products of TF32 take less time than one of float32.
_SPLIT = ("sm_80", "sm_90", "sm_100")
# Cells and keys of a program: of grids whose rows have so many, of narrow queries, of narrow both.
_BLOCKS = {"": (64, 64), "-narrow": (32, 64), "-small": (32, 32)}


def _row(
    name: str,
    blocks: str,
    precision: str,
    archs: tuple[str, ...],
    cells: int = 0,
    block_k: int = 32,
    warps: int = 4,
) -> Row:
    dtype = "half" if name == "half" else "fp32"
    most, keys = _BLOCKS[blocks]
    return Row(
        name + blocks,
        dtype,
        {
            "UNIT": UNIT[dtype],
            "BLOCK_M": cells or most,
            "BLOCK_N": keys,
            "BLOCK_K": block_k,
            "PRECISION": precision,
        },
        warps=warps,
        stages=2 if archs == _ROCM else 3,
        archs=archs,
        dot=True,
        tensor_cores=precision != "ieee" or dtype == "half",
        vectors=("query_ptr", "key_ptr"),
        # Small blocks, and the parts of float32 factors, take longer to prepare than to multiply.
        paced=blocks == "" and precision != "tf32x3",
    )


_ROCM = ("gfx942",)
_CUDA = tuple(arch for arch in ARCHITECTURES if arch not in _ROCM)
_WHOLE = tuple(arch for arch in _CUDA if arch not in _SPLIT)
SCORE = Kernel(
    _contextual_attention_score_kernel,
    _TYPES,
    [
        *(
            _row(name, blocks, precision, archs, block_k=block_k)
            for archs in (_CUDA, _ROCM)
            for name, precision, block_k in (("half", "ieee", 64), ("tf32", "tf32", 32))
            for blocks in _BLOCKS
        ),
        _row("fp32", "", "tf32x3", ("sm_80",), cells=32),
        _row("fp32", "", "tf32x3", ("sm_90",), block_k=16),
        _row("fp32", "", "tf32x3", ("sm_100",), warps=8),
        _row("fp32", "", "ieee", _WHOLE, warps=8),
        _row("fp32", "", "ieee", _ROCM, warps=8),
        *(
            _row("fp32", blocks, precision, archs, warps=warps)
            for precision, archs, small_warps in (
                ("tf32x3", _SPLIT, 2),
                ("ieee", _WHOLE, 4),
                ("ieee", _ROCM, 4),
            )
            for blocks, warps in (("-narrow", 4), ("-small", small_warps))
        ),
    ],
)
