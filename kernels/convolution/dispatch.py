"""Which layers the fused kernel multiplies, and which cuDNN, with one elementwise pass behind it.

The fused kernel moves the fewest bytes; cuDNN's products are faster. Unfused, a gate costs writing
and reading the sums once more, 4 n elements a pixel for n outputs, against 4 n kappa operations,
kappa = kh kw C: pixels and n cancel. With the fused kernel at a share r of cuDNN's speed, fusing
wins where kappa (1 / r - 1) / e < 2 ridge / 0.85 (e: share of the peak that cuDNN reaches; ridge:
operations a byte of memory is worth). The same bound holds for partial convolutions and for TF32.
With r = 0.6 to 0.7 that is kappa below 625 to 970 on an H100 and 380 to 590 on an A100. These are
predictions from data sheets and published ratios, not measurements; INPAINT_OPS_CONV=fused or
=library overrides them.
"""

import os

import torch
from torch import Tensor

from inpaint_ops.kernels.launch import HALF, architecture, tf32_allowed

# All 3 x 3 layers of up to 48 channels, and the 5 x 5 and 7 x 7 stems. 432 is a tie on an A100 and
# on the consumer chips, whose memory is slower still against their matrix units.
_SHALLOW = {"sm_80": 256, "sm_86": 256, "sm_89": 256, "sm_120": 256}
_SHALLOW_ELSEWHERE = 432
# Beyond, products dominate whatever else is saved.
_DEEP = 1728
# Fewer results than this: launches cost more than products.
_FEW_RESULTS = 2_000_000
# Without matrix units (float32 proper) a byte is worth a tenth of the operations.
_SHALLOW_FLOAT32 = 48
_FEW_FILTERS = 4


def fuses(
    x: Tensor,
    *,
    depth: int,
    outputs: int,
    pixels: int,
    saves: bool = False,
    arch: str | None = None,
) -> bool:
    """Whether the fused kernel takes a layer.

    Args:
        x: the input; its dtype and device decide.
        depth: kappa, kh kw C; of one phase where the doubled image is never formed.
        outputs: channels of the result.
        pixels: of the result, of all images.
        saves: whether the load saves the library a pass over x (doubling).
        arch: of `launch.ARCHITECTURES`; None: that of x.

    Raises:
        ValueError: INPAINT_OPS_CONV is something else than "auto", "fused" or "library".
    """
    forced = os.environ.get("INPAINT_OPS_CONV", "auto")
    if forced not in ("auto", "fused", "library"):
        raise ValueError(f"INPAINT_OPS_CONV: must be auto, fused or library, got {forced!r}")
    if forced != "auto":
        return forced == "fused"
    if outputs <= _FEW_FILTERS and depth <= _DEEP:
        return True  # the library pads few filters to a whole block too, and writes them twice
    arch = arch or architecture(x.device)
    return _shallow_enough(x.dtype, arch, depth, outputs * pixels, saves)


def _shallow_enough(dtype: torch.dtype, arch: str, depth: int, results: int, saves: bool) -> bool:
    if dtype not in HALF and not tf32_allowed():
        return depth <= _SHALLOW_FLOAT32
    if depth > _DEEP:
        return False
    return saves or results < _FEW_RESULTS or depth <= _SHALLOW.get(arch, _SHALLOW_ELSEWHERE)
