"""CPU side of partial convolution: every tensor and mask is read where it lies."""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor

from inpaint_ops import checks
from inpaint_ops.ops import partly, tensors
from inpaint_ops.ops.convolution import cpu, cpu_backward, partial_formulas, spec
from inpaint_ops.ops.convolution.plan import Convolution, Plan, in_place, plan
from inpaint_ops.ops.convolution.spec import Geometry, Pair

_OP = "partial_conv2d"
# Planes of a tensor's mask up to which they only move addresses.
_FEW_PLANES = 4


class _Mask(NamedTuple):
    """A tensor's mask as packed planes, each for as many channels as `widths` says.

    Bytes if the mask is `binary`, else float32.
    """

    planes: Tensor
    widths: tuple[int, ...]
    binary: bool

    @property
    def known(self) -> Tensor | None:
        """The planes if a kernel may read past them."""
        return self.planes if self.binary and len(self.widths) <= _FEW_PLANES else None


def _packed(x: Tensor, valid: Tensor) -> _Mask:
    """Return the mask of a tensor; equal neighbouring planes, as layers repeat them, are one."""
    native = tensors.native()
    channels = x.shape[1]
    if valid.shape[1] > 1 and valid.stride(1) == 0:
        valid = valid[:, :1]
    binary = True
    if valid.dtype in (torch.bool, torch.uint8):
        planes = valid.contiguous().view(torch.uint8)
        if valid.dtype == torch.uint8 and not native.known_bytes(planes):
            checks.binary(_OP, "valid", valid)
    else:
        numbers = valid.float().contiguous()
        planes = torch.empty(valid.shape, dtype=torch.uint8)
        if not native.known_bytes(numbers, planes):
            planes, binary = numbers, False
    if valid.shape[1] == 1:
        return _Mask(planes, (channels,), binary)
    if channels <= _FEW_PLANES or not binary:
        return _Mask(planes, (1,) * channels, binary)
    runs = native.equal_planes(planes)
    if len(runs) < channels:
        planes = planes[:, [0, *accumulate(runs[:-1])]].contiguous()
    return _Mask(planes, tuple(runs), binary)


def _parts(
    x: Sequence[Tensor], masks: Sequence[_Mask], factors: Sequence[int]
) -> list[cpu.InputPart]:
    """Return the tensors as the kernels read them, in float32."""
    parts = []
    for one, mask, factor in zip(x, masks, factors):
        image = tensors.compute_dtype(one)
        known = mask.known
        if known is None:
            image = partial_formulas.select(image, mask.planes, mask.widths)
        widths = (one.shape[1],) if known is None else mask.widths
        parts.append(cpu.InputPart(image, factor, widths, known))
    return parts


def _window_planes(
    masks: Sequence[_Mask],
    weights: Sequence[Sequence[int]],
    weight: Tensor,
    biased: bool,
    g: Geometry,
    rule: str,
    factors: Sequence[int],
    size: tuple[int, int],
) -> tuple[Tensor, Tensor]:
    """Return mask_ratio and update_mask, (N or 1, 1, Ho, Wo)."""
    shape = (partial_formulas.batch_of([mask.planes for mask in masks]), 1, *size)
    mask_ratio, update_mask = (torch.empty(shape, dtype=torch.float32) for _ in range(2))
    kernel = (weight.shape[2], weight.shape[3])
    tensors.native().mask_planes(
        [mask.planes for mask in masks],
        list(zip(factors, weights)),
        kernel,
        g.stride,
        (g.padding[0], g.padding[2]),
        g.dilation,
        sum(map(sum, weights)) * kernel[0] * kernel[1],
        rule == "sum",
        biased,
        mask_ratio[:, 0],
        update_mask[:, 0],
        tensors.threads(),
    )
    return mask_ratio, update_mask


def _upsampling(g: Geometry, factor: int) -> Geometry:
    return g if factor == g.upsample else g._replace(upsample=factor)


def forward(
    x: list[Tensor], valid: list[Tensor], weight: Tensor, bias: Tensor | None, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Return y, update_mask and mask_ratio."""
    if weight.dtype == torch.float64:
        return partial_formulas.reference(x, valid, weight, bias, *rest)
    return compute(partly.Wanted(), x, valid, weight, bias, *rest)


def compute(
    wanted: partly.Wanted,
    x: list[Tensor],
    valid: list[Tensor],
    weight: Tensor,
    bias: Tensor | None,
    *rest: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    """Do as `forward`, for the pixels of y in `wanted` only; see `partly.Partly`."""
    g, rule, factors, algorithm = rest
    size = partial_formulas.out_size(x, weight, g, factors)
    # Algorithms that want a doubled image want all of it doubled.
    g = _upsampling(g, min(factors))
    masks = [_packed(one, mask) for one, mask in zip(x, valid)]
    # One channel stands for itself in the public layer, for all channels in naoto0804's.
    single = len(x) == 1 and valid[0].shape[1] == 1 and rule == "window"
    weights = [(1,)] if single else [mask.widths for mask in masks]
    mask_ratio, update_mask = _window_planes(
        masks, weights, weight, bias is not None, g, rule, factors, size
    )
    like = spec.result_like(partial_formulas.lead(x), weight, weight.shape[0], size)
    y = cpu.convolve(
        _parts(x, masks, factors),
        weight,
        bias,
        Convolution(g),
        cpu.taken(wanted, like),
        algorithm=spec.allowed(algorithm),
        planes=cpu.MaskPlanes(mask_ratio[:, 0], update_mask[:, 0]),
        wanted=wanted,
    )
    return y, update_mask, mask_ratio


def reads(
    wanted: Tensor,
    x: list[Tensor],
    valid: list[Tensor],
    weight: Tensor,
    bias: Tensor | None,
    *rest: Any,
    anchor: Pair | None,
) -> partly.Reads | None:
    """Return what `compute` reads, whatever is valid; all of the masks."""
    if weight.dtype == torch.float64:
        return None
    chosen, size = _plan(x, weight, *rest)
    found = cpu.reads(chosen, x, size, wanted, anchor)
    if found is None:
        return None
    return found._replace(maps=[*found.maps, *(None for _ in valid), None, None])


def touched(
    changed: Sequence[Tensor | None],
    anchor: Pair,
    x: list[Tensor],
    valid: list[Tensor],
    weight: Tensor,
    bias: Tensor | None,
    *rest: Any,
) -> Tensor | None:
    """Return which pixels of y depend on changed ones of the tensors or of their masks."""
    count = len(x)
    if weight.dtype == torch.float64 or any(one is not None for one in changed[2 * count :]):
        return None
    chosen, size = _plan(x, weight, *rest)
    both = []
    for pixels, known in zip(changed[:count], changed[count:]):
        both.append(known if pixels is None else pixels if known is None else pixels | known)
    return cpu.touched(chosen, x, size, both, anchor)


def _plan(
    x: list[Tensor], weight: Tensor, g: Geometry, _: str, factors: list[int], algorithm: str
) -> tuple[Plan, Pair]:
    """The plan, and the size of the result."""
    size = partial_formulas.out_size(x, weight, g, factors)
    parts = [cpu.InputPart(one, factor, (one.shape[1],)) for one, factor in zip(x, factors)]
    shapes = cpu.shapes_of(parts, weight, size, in_place=in_place(weight))
    what = Convolution(_upsampling(g, min(factors)))
    return plan(what, shapes, spec.allowed(algorithm)), size


def backward(
    grad: Tensor, x: list[Tensor], valid: list[Tensor], weight: Tensor, *rest: Any
) -> tuple[list[Tensor], Tensor, Tensor]:
    """Return the gradients of the tensors, of the weight and of the bias."""
    if weight.dtype == torch.float64:
        return partial_formulas.backward_reference(grad, x, valid, weight, *rest)
    update_mask, mask_ratio, where, factors, needs, algorithm = rest
    algorithm = spec.allowed(algorithm)
    *wanted, need_weight, need_bias = needs
    grad_sums, grad_bias = cpu_backward.ratio_backward(
        tensors.compute_dtype(grad), mask_ratio, update_mask, need_bias
    )
    g = _upsampling(where, min(factors))
    masks = [_packed(one, mask) for one, mask in zip(x, valid)]
    parts = _parts(x, masks, factors)
    grads: list[Tensor | None]
    few = cpu_backward.scattered_plan(grad_sums, weight, g, algorithm) is not None
    if g.groups != 1 or (few and len(x) > 1):
        image, needed = cpu.joined(parts, g), (any(wanted), need_weight)
        both = cpu_backward.convolve_backward(grad_sums, image, weight, g, needed, algorithm)
        grad_weight = both[1]
        grads = partial_formulas.parted(
            both[0], x, [factor // g.upsample for factor in factors], wanted
        )
    else:
        grad_weight = None
        if need_weight:
            grad_weight = cpu_backward.weight_gradient(grad_sums, parts, weight, g, algorithm)
        # A convolution for each tensor, but where the weight is read as it lies: on one Zen 4 core
        # one for all of them, split afterwards, took 1.1 (512 + 512 channels, 16^2) to 2.6 times as
        # long (128 + 64, 256^2).
        grads = []
        begin = 0
        for part, want in zip(parts, wanted):
            end = begin + part.x.shape[1]
            grads.append(None)
            if want:
                grads[-1], _ = cpu_backward.convolve_backward(
                    grad_sums,
                    part.x,
                    weight.detach()[:, begin:end],
                    _upsampling(where, part.upsample),
                    (True, False),
                    algorithm,
                )
            begin = end
    grads = [one if one is None else _hidden(one, mask) for one, mask in zip(grads, masks)]
    grads = [cpu_backward.arranged(grad, one, weight) for grad, one in zip(grads, x)]
    return partial_formulas.settled(x, weight, grads, grad_weight, grad_bias)


def _hidden(grad: Tensor, mask: _Mask) -> Tensor:
    """A gradient that is ours to overwrite, times the mask."""
    if mask.known is None:
        return partial_formulas.select(grad, mask.planes, mask.widths)
    tensors.native().hide_missing(grad, mask.known, mask.widths, tensors.threads())
    return grad
