"""Updated mask and mask ratio of a partial convolution from any mask, one window sum a pixel.

For the masks and layers that the fused kernel does not take: it forms both planes by itself.
"""

from collections.abc import Sequence

import torch
import triton.language as tl
from torch import Tensor

from inpaint_ops.kernels.launch import Kernel, Row, dense, jit
from inpaint_ops.kernels.program import cdiv, check_count
from inpaint_ops.ops.convolution.spec import Geometry

_TYPES = {
    "known_ptr": "*fp32",
    "update_mask_ptr": "*fp32",
    "mask_ratio_ptr": "*fp32",
    "batch": "i32",
    "height": "i32",
    "width": "i32",
    "out_height": "i32",
    "out_width": "i32",
    "kernel_height": "i32",
    "kernel_width": "i32",
    "stride_y": "i32",
    "stride_x": "i32",
    "pad_y": "i32",
    "pad_x": "i32",
    "dilation_y": "i32",
    "dilation_x": "i32",
    "total": "fp32",
}


@jit(_TYPES)
def _partial_conv2d_window_kernel(
    known_ptr,
    update_mask_ptr,
    mask_ratio_ptr,
    batch,
    height,
    width,
    out_height,
    out_width,
    kernel_height,
    kernel_width,
    stride_y,
    stride_x,
    pad_y,
    pad_x,
    dilation_y,
    dilation_x,
    total,
    SUM: tl.constexpr,
    BIASED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Updated mask u and mask ratio r of each window from the sum S of the weighted mask under it.

    u = clamp(S, 0, 1), r = total / (S + 1e-8) u, times u once more if BIASED.
    SUM: u = (S != 0), r = u / S.
    known: (batch, height, width), the mask times the channels that it stands for.
    One program: BLOCK outputs. Grid: (blocks of outputs).
    """
    offs = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    image = offs // (out_height * out_width)
    rest = offs % (out_height * out_width)
    base_y = rest // out_width * stride_y - pad_y
    base_x = rest % out_width * stride_x - pad_x
    in_bounds = image < batch
    base = known_ptr + image.to(tl.int64) * (height * width)
    known_sum = tl.zeros((BLOCK,), tl.float32)
    for ky in range(0, kernel_height):
        y = base_y + ky * dilation_y
        for kx in range(0, kernel_width):
            x = base_x + kx * dilation_x
            inside = in_bounds & (y >= 0) & (y < height) & (x >= 0) & (x < width)
            known_sum += tl.load(base + y * width + x, mask=inside, other=0.0)
    if SUM:
        update_mask = tl.where(known_sum != 0.0, 1.0, 0.0)
        mask_ratio = update_mask / tl.where(known_sum != 0.0, known_sum, 1.0)
    else:
        update_mask = tl.minimum(tl.maximum(known_sum, 0.0), 1.0)
        mask_ratio = total / (known_sum + 1e-8) * update_mask
        if BIASED:
            mask_ratio = mask_ratio * update_mask
    tl.store(update_mask_ptr + offs, update_mask, mask=in_bounds)
    tl.store(mask_ratio_ptr + offs, mask_ratio, mask=in_bounds)


_BLOCK = 256
WINDOW = Kernel(
    _partial_conv2d_window_kernel,
    _TYPES,
    [Row("fp32", "fp32", {"BLOCK": _BLOCK}, stages=2)],
    free={"SUM": (False, True), "BIASED": (True, False)},
)


def fill_planes(
    valid: Tensor,
    counted: Sequence[int],
    weight: Tensor,
    g: Geometry,
    rule: str,
    biased: bool,
    update_mask: Tensor,
    mask_ratio: Tensor,
) -> None:
    """Fill both planes, (N or 1, 1, Ho, Wo) float32, from any mask.

    Args:
        valid: (N or 1, parts, H, W).
        counted: channels that a valid pixel of each part counts.
        weight: of the convolution, for its height and width.
        g: geometry.
        rule: "window" or "sum".
        biased: whether the convolution has a bias.
        update_mask: written.
        mask_ratio: written.
    """
    if valid.dtype == torch.uint8:
        valid = valid != 0
    if len(set(counted)) == 1:
        known = valid.sum(1, dtype=torch.float32) * counted[0]
    else:
        known = torch.zeros_like(valid[:, 0], dtype=torch.float32)
        for part, channels in enumerate(counted):
            known += valid[:, part] * channels
    kernel = (weight.shape[2], weight.shape[3])
    check_count("partial_conv2d", "pixels of all masks", update_mask.numel())
    WINDOW(
        "fp32",
        (cdiv(update_mask.numel(), _BLOCK),),
        known_ptr=dense(known),
        update_mask_ptr=update_mask,
        mask_ratio_ptr=mask_ratio,
        batch=valid.shape[0],
        height=valid.shape[2],
        width=valid.shape[3],
        out_height=update_mask.shape[2],
        out_width=update_mask.shape[3],
        kernel_height=kernel[0],
        kernel_width=kernel[1],
        stride_y=g.stride[0],
        stride_x=g.stride[1],
        pad_y=g.padding[0],
        pad_x=g.padding[2],
        dilation_y=g.dilation[0],
        dilation_x=g.dilation[1],
        total=float(sum(counted) * kernel[0] * kernel[1]),
        SUM=rule == "sum",
        BIASED=biased,
    )
