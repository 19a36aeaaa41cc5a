"""Partial convolution in PyTorch, and steps that the CPU, GPU and reference versions share."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from inpaint_ops import checks
from inpaint_ops.ops import tensors
from inpaint_ops.ops.convolution import formulas, spec
from inpaint_ops.ops.convolution.spec import Geometry, Pair

_OP = "partial_conv2d"


def out_size(x: Sequence[Tensor], weight: Tensor, g: Geometry, factors: Sequence[int]) -> Pair:
    """Height and width of the result; `g` does not upsample, each tensor has its own factor."""
    size = (x[0].shape[2] * factors[0], x[0].shape[3] * factors[0])
    return g.result_size(size, (weight.shape[2], weight.shape[3]))


def lead(x: Sequence[Tensor]) -> Tensor:
    """The tensor whose layout the result takes."""
    for one in x:
        if tensors.memory_format(one) == torch.channels_last:
            return one
    return x[0]


def batch_of(valid: Sequence[Tensor]) -> int:
    """Return the batch of all masks together."""
    batches = [mask.shape[0] for mask in valid]
    return next((n for n in batches if not checks.known(n == 1)), 1)


# Formulas over one image and one mask. `widths`: the channels that each plane of the mask speaks
# for.


def widths_of(x: Tensor, valid: Tensor) -> list[int]:
    """Return the channels that each plane of a tensor's mask speaks for."""
    return [x.shape[1]] if valid.shape[1] == 1 else [1] * x.shape[1]


def joined(
    x: Sequence[Tensor], valid: Sequence[Tensor], factors: Sequence[int]
) -> tuple[Tensor, Tensor, list[int]]:
    """Return everything upsampled and concatenated, and the widths."""
    images = [formulas.upsampled(one, factor) for one, factor in zip(x, factors)]
    masks = [formulas.upsampled(one, factor) for one, factor in zip(valid, factors)]
    widths = [width for one, mask in zip(x, valid) for width in widths_of(one, mask)]
    if len(x) == 1:
        return images[0], masks[0], widths
    batch = batch_of(valid)
    masks = [mask.expand(batch, -1, -1, -1) for mask in masks]
    return torch.cat(images, 1), torch.cat(masks, 1), widths


def parted(
    grad: Tensor | None, x: Sequence[Tensor], factors: Sequence[int], wanted: Sequence[bool]
) -> list[Tensor | None]:
    """The gradients of the tensors of `joined` from that of its image."""
    if grad is None:
        return [None] * len(x)
    # A split of one would be a view, which no operator may return.
    cuts = [grad] if len(x) == 1 else grad.split([one.shape[1] for one in x], 1)
    return [
        formulas.upsampled_backward(cut, factor) if want else None
        for cut, factor, want in zip(cuts, factors, wanted)
    ]


def settled(
    x: Sequence[Tensor],
    weight: Tensor,
    grads: Sequence[Tensor | None],
    grad_weight: Tensor | None,
    grad_bias: Tensor | None,
) -> tuple[list[Tensor], Tensor, Tensor]:
    """Gradients of x, weight and bias as the operator promises them."""
    images = [
        spec.settled_gradient(grad, one, spec.memory_format(one, weight))
        for one, grad in zip(x, grads)
    ]
    of_weight = spec.settled_gradient(grad_weight, weight, spec.weight_format(weight))
    return images, of_weight, spec.settled_gradient(grad_bias, weight, torch.contiguous_format)


def _runs(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """Return each number and how often it comes in a row."""
    return [(number, len(list(run))) for number, run in groupby(numbers)]


def _window_sums(valid: Tensor, weights: Sequence[int], weight: Tensor, g: Geometry) -> Tensor:
    """Window sums of the weighted mask, (N, 1, Ho, Wo): counts in float32, others in float64."""
    # Where a mask has no values yet, it is for a program that may run where no float64 is.
    counts = not valid.is_floating_point() or not checks.has_values(valid)
    dtype = torch.float32 if counts else torch.float64
    kind: dict[str, Any] = {"dtype": dtype, "device": valid.device}
    factors = [torch.full((count, 1, 1), value, **kind) for value, count in _runs(weights)]
    top, bottom, left, right = g.padding
    plane = (valid.to(dtype) * torch.cat(factors)).sum(1, keepdim=True)
    ones = plane.new_ones((1, 1, weight.shape[2], weight.shape[3]))
    return F.conv2d(F.pad(plane, (left, right, top, bottom)), ones, None, g.stride, 0, g.dilation)


def _mask_planes(
    x: Tensor, valid: Tensor, weight: Tensor, biased: bool, g: Geometry, *rule_and_widths: Any
) -> tuple[Tensor, Tensor]:
    """Return mask_ratio and update_mask, (N or 1, 1, Ho, Wo), in the dtype that sums are in."""
    rule, widths = rule_and_widths
    if valid.dtype == torch.uint8:
        valid = checks.binary(_OP, "valid", valid)
    # One channel stands for itself in the public layer, for all channels in naoto0804's.
    weights = [1] if valid.shape[1] == 1 and rule == "window" else widths
    sums = _window_sums(valid, weights, weight, g).to(tensors.compute_dtype(x).dtype)
    if rule == "sum":
        update_mask = (sums != 0).to(sums.dtype)
        return update_mask / torch.where(sums == 0, 1, sums), update_mask
    total = sum(weights) * weight.shape[2] * weight.shape[3]
    update_mask = sums.clamp(0, 1)
    # 1e-8 keeps the result finite where nothing is valid; elsewhere it is below the rounding.
    ratio = total / (sums + 1e-8) * update_mask
    return ratio * update_mask if biased else ratio, update_mask


def select(x: Tensor, valid: Tensor, widths: Sequence[int]) -> Tensor:
    """Image times the mask, zero where the mask is."""
    if valid.shape[1] != 1 and len(widths) != x.shape[1]:
        runs = _runs(widths)
        parts = valid.split([count for _, count in runs], 1)
        spread = [part.repeat_interleave(width, 1) for part, (width, _) in zip(parts, runs)]
        valid = torch.cat(spread, 1)
    zero = x.new_zeros(())
    if valid.is_floating_point():
        return torch.where(valid != 0, x * valid.to(x.dtype), zero)
    return torch.where(valid != 0, x, zero)


def reference(
    x: list[Tensor], valid: list[Tensor], weight: Tensor, bias: Tensor | None, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the result, its update mask and its mask ratio."""
    y, update_mask, mask_ratio = formula(x, valid, weight, bias, *rest)
    return spec.settled(y, x[0], spec.memory_format(lead(x), weight)), update_mask, mask_ratio


def formula(
    x: list[Tensor], valid: list[Tensor], weight: Tensor, bias: Tensor | None, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the same in any layout, in torch's operators; masks have no derivative."""
    g, rule, factors, _ = rest
    valid = [one.detach() for one in valid]
    image, mask, widths = joined(x, valid, factors)
    mask_ratio, update_mask = _mask_planes(image, mask, weight, bias is not None, g, rule, widths)
    masked = select(tensors.compute_dtype(image), mask, widths)
    sums = formulas.convolve(masked, tensors.compute_dtype(weight), None, g) * mask_ratio
    if bias is not None:
        sums = sums + tensors.compute_dtype(bias).view(1, -1, 1, 1) * update_mask
    y = torch.where(update_mask != 0, sums, sums.new_zeros(()))
    return y.to(image.dtype), update_mask, mask_ratio


def backward_reference(
    grad: Tensor, x: list[Tensor], valid: list[Tensor], weight: Tensor, *rest: Any
) -> tuple[list[Tensor], Tensor, Tensor]:
    """Return the gradients of the images, the weight and the bias."""
    update_mask, mask_ratio, g, factors, needs, _ = rest
    *wanted, need_weight, need_bias = needs
    image, mask, widths = joined(x, valid, factors)
    seen = update_mask != 0
    grad = tensors.compute_dtype(grad)
    zero = grad.new_zeros(())
    # Select: what flows back from where nothing is valid may be anything.
    grad_sums = torch.where(seen, grad * mask_ratio, zero)
    grad_bias = (
        torch.where(seen, grad * update_mask, zero).double().sum((0, 2, 3)) if need_bias else None
    )
    masked = select(tensors.compute_dtype(image), mask, widths)
    wide = tensors.compute_dtype(weight)
    needed = (any(wanted), need_weight)
    grads = formulas.convolve_backward(grad_sums, masked, wide, g, needed)
    grad_image = None if grads[0] is None else select(grads[0], mask, widths)
    return settled(x, weight, parted(grad_image, x, factors, wanted), grads[1], grad_bias)
