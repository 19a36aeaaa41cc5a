"""Choice between the fused kernel and cuDNN followed by one elementwise pass, layer by layer.

The fused kernel moves the fewest bytes; cuDNN multiplies faster. Let kappa = kh kw C be the
products of one sum. For n outputs a pixel the unfused way writes and reads the pre-activation once
more, 4 n elements a pixel, against 4 n kappa operations: pixels and n cancel. Fusing wins where
kappa (1 / r - 1) / e < 2 ridge / 0.85, with r the speed of the fused product relative to cuDNN's,
e the part of the peak that cuDNN reaches, and ridge the operations in the time of one byte of
memory traffic. The same bound holds for partial convolutions and for TF32.

With r = 0.6 to 0.7 the bound on kappa is 625 to 970 on an H100 and 380 to 590 on an A100. These are
predictions from data sheets and published ratios, not measurements; the environment variable
INPAINT_OPS_CONV=fused or =library overrides them.
"""

import os

import torch
from torch import Tensor

from inpaint_ops.kernels.launch import HALF, architecture
from inpaint_ops.kernels.plans import tf32_convolutions

# Greatest kappa that is fused: 432 are all 3 x 3 layers of up to 48 channels, and the 5 x 5 and
# 7 x 7 stems. On an A100 that is a tie; on the consumer chips, with memory still slower against
# their matrix units, too.
_SHALLOW = {"sm_80": 256, "sm_86": 256, "sm_89": 256, "sm_120": 256}
_SHALLOW_ELSEWHERE = 432
# Above this kappa the products dominate whatever else is saved.
_DEEP = 1728
# Below this many results a launch costs more than the products.
_FEW_RESULTS = 2_000_000
# Without matrix units (float32 without TF32) a byte is worth a tenth of the operations.
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
    """Return True where the fused kernel takes a layer.

    Args:
        x: input, of which dtype and device count.
        depth: kappa, kh kw C; of one phase where the doubled image is never formed.
        outputs: channels of the result.
        pixels: of the result, of all images.
        saves: true if the fused load spares the library a pass over x (doubling).
        arch: member of `launch.ARCHITECTURES`; None: that of x.

    Raises:
        ValueError: INPAINT_OPS_CONV is not "auto", "fused" or "library".
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
    if dtype not in HALF and not tf32_convolutions():
        return depth <= _SHALLOW_FLOAT32
    if depth > _DEEP:
        return False
    return saves or results < _FEW_RESULTS or depth <= _SHALLOW.get(arch, _SHALLOW_ELSEWHERE)
