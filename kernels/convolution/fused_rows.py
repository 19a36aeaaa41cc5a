"""Block sizes of the fused convolution, for each kind, precision and shape class.

Names are kind ("gated", "plain", "partial") and class: "large" and "small" for many and few
programs of half precision, "odd" for counts of outputs that are no multiple of 8, "tf32" and "ieee"
for float32. `fused.pick_row` chooses.
"""

from dataclasses import replace

from inpaint_ops.kernels.launch import ARCHITECTURES, Row


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
    """Row for CUDA, and for ROCm, whose 64 KB of shared memory hold fewer stages."""
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
        vectors=("x_ptr", "w_ptr"),
    )
    narrower = {**constexprs, "BLOCK_N": rocm_n or n}
    return [row, replace(row, constexprs=narrower, stages=2, archs=ARCHITECTURES[-1:])]


ROWS = [
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
