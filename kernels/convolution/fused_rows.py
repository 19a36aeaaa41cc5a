"""Block sizes of the fused convolution, for each kind, precision and shape class.

Names are kind ("gated", "plain", "partial") and class. In half precision: "small" for few programs,
"large" and "wide" for many, "odd" for counts of outputs that are no multiple of 8; "near" is taken
where it was measured to be faster. In float32 "tf32" and "ieee". `fused.pick_row` chooses.

A block of m pixels by n columns reads m + n rows for m n products of each. What the caches deliver
of them bounds the large blocks, what instructions a step takes the small ones:
docs/how/gpu_budget.md.
"""

from dataclasses import replace

from inpaint_ops.kernels.launch import ARCHITECTURES, Row

# Matrix units twice as fast as sm_90's: there a step is as deep again, so that the instructions
# keep up that it takes whatever its depth. Two such stages cover what four of half the depth do.
_FAST = ("sm_100",)
_OTHERS = tuple(arch for arch in ARCHITECTURES if arch not in ("sm_100", "gfx942"))


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
    piece: int = 16,
) -> list[Row]:
    """Rows for CUDA, for sm_100, and for ROCm, whose 64 KB of shared memory hold fewer stages."""
    kind = name.partition("-")[0]
    constexprs = {
        "GATED": kind == "gated",
        "MASKED": kind == "partial",
        "PRECISION": "ieee" if precision == "half" else precision,
        "UNIT": unit,
        "PIECE": piece,
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
        archs=_OTHERS,
        dot=True,
        tensor_cores=precision != "ieee",
        vectors=("x_ptr", "w_ptr"),
        paced=not name.endswith("odd"),
    )
    fast = replace(row, archs=_FAST)
    if row.needs_tensor_cores and row.paced:
        deep = {**constexprs, "BLOCK_K": 2 * k}
        fast = replace(fast, constexprs=deep, stages=2 if precision == "half" else stages)
    narrower = {**constexprs, "BLOCK_N": rocm_n or n}
    return [row, fast, replace(row, constexprs=narrower, stages=2, archs=("gfx942",))]


def _near(name: str, warps: int) -> list[Row]:
    """A row whose pixels come by way of the first-level cache, for neighbouring taps to share.

    Triton 3.6 and 3.7 copy 16 bytes past it, whatever the load asks for, and 8 bytes through it. As
    many outputs as a step is deep: the compiler then lets each thread copy 16 bytes in two pieces.
    Not on sm_120, where 3.6 would spill two registers.
    """
    archs = tuple(arch for arch in _OTHERS if arch != "sm_120")
    rows = _rows(name, "half", 128, 64, 64, unit=8, stages=3, warps=warps, piece=8)
    return [replace(row, archs=archs, vectors=("w_ptr",)) for row in rows if row.archs == _OTHERS]


def _spread(rows: list[Row], arch: str) -> list[Row]:
    """Rows with twice the warps on one chip, whose compiler would spill two registers."""
    result = []
    for row in rows:
        archs = tuple(one for one in row.archs if one != arch)
        result.append(replace(row, archs=archs))
        if archs != row.archs:
            result.append(replace(row, archs=(arch,), warps=2 * row.warps))
    return result


def _deepened(rows: list[Row], arch: str) -> list[Row]:
    """Rows with one stage more on one chip, where Triton 3.6 would spill two registers."""
    result = []
    for row in rows:
        archs = tuple(one for one in row.archs if one != arch)
        result.append(replace(row, archs=archs))
        if archs != row.archs:
            result.append(replace(row, archs=(arch,), stages=row.stages + 1))
    return result


ROWS = [
    *_rows("gated-wide", "half", 128, 64, 64, unit=8, stages=3, warps=8),
    *_near("gated-near", warps=8),
    *_rows("gated-large", "half", 128, 32, 64, unit=8, stages=3),
    *_rows("gated-small", "half", 64, 32, 64, unit=8, stages=4),
    *_rows("gated-odd", "half", 128, 16, 64, stages=3),
    *_rows("plain-wide", "half", 128, 128, 64, unit=8, stages=3, warps=8),
    *_near("plain-near", warps=4),
    *_rows("plain-large", "half", 128, 64, 64, unit=8, stages=3),
    *_rows("plain-small", "half", 64, 64, 64, unit=8, stages=4),
    *_rows("plain-odd", "half", 128, 16, 64, stages=3),
    *_rows("partial-wide", "half", 128, 128, 64, unit=8, stages=3, warps=8),
    *_near("partial-near", warps=4),
    *_spread(_rows("partial-large", "half", 128, 64, 64, unit=8, stages=3), "sm_120"),
    *_rows("partial-small", "half", 64, 64, 64, unit=8, stages=3),
    *_rows("partial-odd", "half", 64, 16, 64, stages=3),
    *_rows("gated-tf32", "tf32", 64, 32, 32, stages=3),
    *_rows("plain-tf32", "tf32", 64, 64, 32, stages=3, rocm_n=32),
    *_rows("partial-tf32", "tf32", 64, 64, 32, stages=3),
    *_rows("gated-ieee", "ieee", 64, 16, 16, stages=2),
    *_rows("plain-ieee", "ieee", 64, 32, 16, stages=2),
    *_deepened(_rows("partial-ieee", "ieee", 64, 32, 16, stages=2), "sm_120"),
]
