"""Pixel losses with the weights and divisors that the methods use."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from inpaint_ops import checks
from inpaint_ops.losses import _checks

_PADDINGS = ("reflect", "zeros")


def l1_loss(
    prediction: Tensor, target: Tensor, weight: Tensor | None = None, *, per: Tensor | None = None
) -> Tensor:
    """L1 loss mean(weight |prediction - target|) / mean(per), means over all elements of the batch.

    With h the hole and v = 1 - h: ``weight=h`` is the hole loss of PConv, ``weight=h, per=h`` the
    mean over the hole alone (mmagic), ``weight=v, per=v`` the auto-encoding loss of DeepFill v1 and
    GMCNN, ``per=h`` alone the loss of EdgeConnect.

    Args:
        prediction: any shape, floating.
        target: shape of prediction.
        weight: a mask or factors that expand to that shape; None for 1. Elements of weight 0 are
            not read.
        per: a mask that expands to that shape; None for no division. An empty mask does not divide
            either, so that the loss stays of the size of an error.

    Returns:
        A scalar, float32 or float64.

    Raises:
        TypeError, ValueError: wrong type, dtype or shape.

    Source: erratum of Liu et al. (ECCV 2018) on the mean over all elements; knazeri/edge-connect:
    src/models.py; shepnerd/inpainting_gmcnn: pytorch/model/net.py.
    """
    return _mean_error("l1_loss", prediction, target, weight, per, square=False)


def l2_loss(
    prediction: Tensor, target: Tensor, weight: Tensor | None = None, *, per: Tensor | None = None
) -> Tensor:
    """L2 loss mean(weight (prediction - target)^2) / mean(per); arguments and errors of `l1_loss`.

    ``weight=h`` is the loss of GLCIC (Iizuka et al., 2017; as in its public code a mean over all
    pixels), ``weight=frame_weight(...)`` that of Context Encoder's centre network.
    """
    return _mean_error("l2_loss", prediction, target, weight, per, square=True)


def _mean_error(
    loss: str,
    prediction: Tensor,
    target: Tensor,
    weight: Tensor | None,
    per: Tensor | None,
    square: bool,
) -> Tensor:
    prediction, target = _checks.pair(loss, prediction, target)
    error = prediction - target
    if weight is not None:
        factors = _checks.spread(loss, "weight", weight, error)
        error = _checks.selected(error, factors)
    error = error.square() if square else error.abs()
    result = (error if weight is None else error * factors).mean()
    if per is None:
        return result
    divisor = _checks.spread(loss, "per", per, error).mean()
    return result / torch.where(divisor > 0, divisor, torch.ones_like(divisor))


def frame_weight(
    height: int, width: int, *, border: int = 4, value: float = 10.0, device: str | None = None
) -> Tensor:
    """Weight of Context Encoder's pixel loss: `value` on a frame of `border` pixels, 1 inside.

    Returns:
        (1, 1, height, width) float32.

    Raises:
        TypeError, ValueError: a size below 1, a negative border, a value that is not finite.

    Source: pathak22/context-encoder: train.lua (overlapPred).
    """
    for name, size, least in (("height", height, 1), ("width", width, 1), ("border", border, 0)):
        checks.check_int("frame_weight", name, size, least)
    checks.check_finite("frame_weight", "value", value)
    result = torch.full((1, 1, height, width), float(value), dtype=torch.float32, device=device)
    result[..., border : height - border, border : width - border] = 1
    return result


def discount_mask(
    height: int, width: int, *, gamma: float = 0.9, device: torch.device | str | None = None
) -> Tensor:
    """Weight gamma^min(i, height - i, j, width - j) at row i, column j of a hole's box.

    It is 1 at the first row and column and gamma at the last, as in the public code, which is not
    symmetric.

    Args:
        height: of the box in pixels.
        width: of the box in pixels.
        gamma: in (0, 1]; the paper says 0.99, the code and its author's advice for 256 pixels 0.9.
        device: of the result.

    Returns:
        (1, 1, height, width) float32.

    Raises:
        TypeError, ValueError: wrong type or range.

    Source: Yu et al., CVPR 2018 (arXiv 1801.07892); JiahuiYu/generative_inpainting
    (v1.0.0): inpaint_ops.py spatial_discounting_mask; Shift-Net's public code has the same mask.
    """
    for name, size in (("height", height), ("width", width)):
        checks.check_int("discount_mask", name, size)
    checks.check_finite("discount_mask", "gamma", gamma)
    if not 0 < gamma <= 1:
        raise ValueError(f"discount_mask: gamma must be above 0 and at most 1, got {gamma}")
    rows = torch.arange(height, device=device)
    columns = torch.arange(width, device=device)
    down = torch.minimum(rows, height - rows)
    across = torch.minimum(columns, width - columns)
    distance = torch.minimum(down[:, None], across[None])
    return torch.pow(gamma, distance.float())[None, None]


def discounted_l1(
    prediction: Tensor, target: Tensor, box: tuple[int, int, int, int], *, gamma: float = 0.9
) -> Tensor:
    """Mean over a box of D |prediction - target|, D its `discount_mask`.

    Args:
        prediction: (N, C, H, W), floating.
        target: shape of prediction.
        box: (top, left, height, width) in pixels, inside the image, the same for all samples.
        gamma: of `discount_mask`.

    Returns:
        A scalar.

    Raises:
        TypeError, ValueError: wrong type or shape, or a box that leaves the image.

    Source: as `discount_mask`; the mean is over batch, channels and pixels of the box.
    """
    _checks.image("discounted_l1", "prediction", prediction)
    top, left, height, width = box
    rows, columns = prediction.shape[2:]
    if (
        min(top, left) < 0
        or min(height, width) < 1
        or top + height > rows
        or left + width > columns
    ):
        raise ValueError(f"discounted_l1: box must lie in {rows} x {columns} pixels, got {box}")
    weight = discount_mask(height, width, gamma=gamma, device=prediction.device)
    where = (..., slice(top, top + height), slice(left, left + width))
    return l1_loss(prediction[where], target[where], weight)


def confidence_mask(
    hole: Tensor,
    *,
    iterations: int = 7,
    size: int = 65,
    sigma: float = 1 / 40,
    deviation: float | None = None,
    padding: str = "reflect",
) -> Tensor:
    """Weights of GMCNN's pixel loss: the known region, spread into the hole by repeated blurring.

    With h the hole, v = 1 - h and blur a low-pass filter, c starts from 0 and becomes h blur(v + c)
    `iterations` times.

    Args:
        hole: (N, 1, H, W), 1 = missing; bool, uint8 or float.
        iterations: at least 1. For images of 512 pixels the authors advise 16, with size 128 and
            sigma 1/60.
        size: of the filter in pixels.
        sigma: of the public filter: roots of the normal density's integrals over `size` bins of
            [-sigma - b/2, sigma + b/2], b = (2 sigma + 1) / size; with sigma = 1/40 nearly flat.
        deviation: in pixels; a Gaussian of this standard deviation instead, as the paper writes
            (64 pixels, deviation 40).
        padding: "reflect" (PyTorch version) or "zeros" (TensorFlow version, size 64).

    Returns:
        (N, 1, H, W) float32 without gradient, 0 outside the hole and at most about 1. Where nothing
        is known it is 0 everywhere.

    Raises:
        TypeError, ValueError: wrong type or range; with "reflect", an image not larger than half
            the filter.

    Source: Wang et al., NeurIPS 2018 (arXiv 1810.08771), section 3.3; shepnerd/inpainting_gmcnn:
    pytorch/model/layer.py ConfidenceDrivenMaskLayer.
    """
    name = "confidence_mask"
    for label, value in (("iterations", iterations), ("size", size)):
        checks.check_int(name, label, value)
    checks.check_choice(name, "padding", padding, _PADDINGS)
    if not isinstance(hole, Tensor) or hole.dim() != 4 or hole.shape[1] != 1:
        raise ValueError(f"{name}: hole must be a Tensor of shape (N, 1, H, W)")
    before = (size - 1) // 2
    pads = (before, size - 1 - before)
    if padding == "reflect" and min(hole.shape[2:]) <= pads[1]:
        raise ValueError(
            f"{name}: hole must be larger than {pads[1]} pixels, got {tuple(hole.shape[2:])}"
        )
    missing = hole.detach().float()
    known = 1 - missing
    kernel = _filter(size, sigma, deviation).to(missing)
    result = missing.new_zeros(missing.shape)
    with torch.autocast(hole.device.type, enabled=False):
        for _ in range(iterations):
            result = missing * _blur(known + result, kernel, pads, padding)
    return result


def _filter(size: int, sigma: float, deviation: float | None) -> Tensor:
    """Return the filter along one axis; the filter in two dimensions is its outer product."""
    for name, value in (("sigma", sigma), ("deviation", 1.0 if deviation is None else deviation)):
        checks.check_finite("confidence_mask", name, value)
        if value <= 0:
            raise ValueError(f"confidence_mask: {name} must be above 0, got {value}")
    if deviation is None:
        edge = sigma + (2 * sigma + 1) / size / 2
        steps = torch.linspace(-edge, edge, size + 1, dtype=torch.float64)
        row = torch.diff(0.5 * (1 + torch.erf(steps / math.sqrt(2)))).sqrt()
    else:
        offsets = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
        row = torch.exp(-0.5 * (offsets / deviation).square())
    return row / row.sum()


def _blur(x: Tensor, kernel: Tensor, pads: tuple[int, int], padding: str) -> Tensor:
    mode = "reflect" if padding == "reflect" else "constant"
    x = F.pad(x, (*pads, *pads), mode)
    return F.conv2d(F.conv2d(x, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))


def confidence_l1(prediction: Tensor, target: Tensor, hole: Tensor, confidence: Tensor) -> Tensor:
    """GMCNN's confidence-driven loss: mean(c |prediction - target|) / mean(hole).

    Args:
        prediction: (N, 3, H, W), floating.
        target: shape of prediction.
        hole: expands to it, 1 = missing.
        confidence: `confidence_mask` of the hole.

    Returns:
        A scalar.

    Raises:
        TypeError, ValueError: wrong type, dtype or shape.

    Source: shepnerd/inpainting_gmcnn: pytorch/model/net.py. Its TensorFlow version does not divide.
    """
    return l1_loss(prediction, target, confidence, per=hole)
