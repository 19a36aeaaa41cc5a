"""partial_conv2d: convolution over the valid pixels of each window, renormalised."""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from inpaint_ops import _triton
from inpaint_ops._backend import backend, current_backend
from inpaint_ops.ops import _common, _conv, _conv_cpu, _conv_gradients
from inpaint_ops.ops._conv import Geometry

_OP = "partial_conv2d"
_RULES = ("window", "sum")


def partial_conv2d(
    x: Tensor,
    valid: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] | str = 0,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
    normalise: str = "window",
    parts: Sequence[int] | None = None,
) -> tuple[Tensor, Tensor]:
    """Partial convolution: y = (weight * (x valid)) r + bias where a window sees anything valid.

    With S the sum of `valid` under the window (zero padding counts as invalid) and N the number of
    its values: r = N / S, and y = 0 without the bias where S = 0. Soft masks follow the public
    formula: u = clamp(S, 0, 1), r = N / (S + 1e-8), y = (sum r u + bias) u; without a bias y =
    sum r u. What lies in a hole is never read, NaN included. On the CPU, output tiles that see
    nothing valid are not computed. Cores and rounding as in `fused_conv2d`. On GPUs bool masks cost
    least: uint8 ones are checked, which waits for the device, and floating ones may be soft, which
    takes one more pass over x.

    Masks have no gradient. The backward pass keeps x and two planes of the size of `valid_out`.
    Second derivatives raise.

    Args:
        x: (N, C, H, W), float16, bfloat16, float32 or float64, any layout.
        valid: (N or 1, 1 or C, H, W), 1 = known; bool, uint8 of 0 and 1, or float (soft). With one
            channel N is kh kw, with C it is C kh kw, groups or not.
        weight: (filters, C / groups, kh, kw), dtype and device of x.
        bias: (filters,).
        stride: pixels, vertically and horizontally, as for dilation and padding.
        padding: zeros on both sides, or "same" as in `fused_conv2d`.
        dilation: distance between taps.
        groups: channels and filters fall into so many independent groups.
        normalise: "window" as above, or "sum": r = 1 / S over all C channels and u = 1 where S is
            not 0, as in naoto0804's network.
        parts: channels of each tensor that was concatenated to x; `valid` then has one channel for
            each, which says the same as C channels and costs less: (512, 256) for a decoder.

    Returns:
        y: (N, filters, Ho, Wo), dtype of x; channels_last if x or the weight is. Half precision is
            summed in float32. Under autocast everything runs in float32 and y has the dtype of x.
        valid_out: (N or 1, 1, Ho, Wo), batch and dtype of `valid`: u.

    Raises:
        TypeError: wrong type or dtype.
        ValueError: wrong shape, range or device, or a uint8 mask with other values than 0 and 1.

    Source: Liu et al., ECCV 2018 (arXiv 1804.07723), section 3.1; NVIDIA/partialconv:
    models/partialconv2d.py. Deviations: NaN in holes (spread there), float16 (NaN there).
    """
    dtype = x.dtype if isinstance(x, Tensor) else None
    x, weight, bias = _conv.check_tensors(_OP, x, weight, bias)
    g = _conv.check_geometry(
        _OP, x, weight, stride=stride, padding=padding, dilation=dilation, groups=groups
    )
    _common.check_choice(_OP, "normalise", normalise, _RULES)
    _conv.check_bias(_OP, bias, weight.shape[0])
    widths = _check_valid(x, valid, parts)
    where = (list(g.stride), list(g.padding), list(g.dilation), groups)
    y, share, _ = _operator(x, valid.detach(), weight, bias, *where, normalise, widths)
    return y.to(dtype), share if share.dtype == valid.dtype else share.to(valid.dtype)


def _check_valid(x: Tensor, valid: Tensor, parts: Sequence[int] | None) -> list[int]:
    """The channels of x that each channel of `valid` speaks for."""
    if not isinstance(valid, Tensor):
        raise TypeError(f"{_OP}: valid must be a Tensor, got {type(valid).__name__}")
    if valid.dtype not in _common.MASK_DTYPES:
        raise TypeError(f"{_OP}: valid must be bool, uint8 or floating, got {valid.dtype}")
    n, c, h, w = x.shape
    if parts is None:
        counts = [1, c]
    else:
        if not isinstance(parts, (tuple, list)):
            raise TypeError(f"{_OP}: parts must be a tuple or None, got {type(parts).__name__}")
        for part in parts:
            _common.check_int(_OP, "parts", part)
        if sum(parts) != c:
            raise ValueError(f"{_OP}: parts must add up to {c} channels, got {tuple(parts)}")
        counts = [len(parts)]
    shapes = {(b, k, h, w) for b in (n, 1) for k in counts}
    if tuple(valid.shape) not in shapes:
        wanted = " or ".join(str(s) for s in sorted(shapes, reverse=True))
        raise ValueError(f"{_OP}: valid must have shape {wanted}, got {tuple(valid.shape)}")
    if valid.device != x.device:
        raise ValueError(f"{_OP}: valid must be on {x.device}, got {valid.device}")
    if parts is not None:
        return list(parts)
    return [c] if valid.shape[1] == 1 else [1] * c


def _geometry(stride: Any, padding: Any, dilation: Any, groups: int) -> Geometry:
    return _conv.geometry(stride, padding, dilation, groups, "zeros", 1)


def _planes_like(x: Tensor, valid: Tensor, weight: Tensor, g: Geometry) -> Tensor:
    size = g.out_size(x, weight)
    return _common.compute_dtype(x).new_empty((valid.shape[0], 1, *size))


def _fake(
    x: Tensor, valid: Tensor, weight: Tensor, bias: Tensor | None, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    g = _geometry(*rest[:4])
    y = _conv.result_like(x, weight, weight.shape[0], g.out_size(x, weight))
    return y, _planes_like(x, valid, weight, g), _planes_like(x, valid, weight, g)


def _sums(valid: Tensor, weights: Sequence[int], weight: Tensor, g: Geometry) -> Tensor:
    """Window sums of the weighted mask, (N, 1, Ho, Wo), in float64."""
    factors = torch.tensor(weights, device=valid.device).view(1, -1, 1, 1)
    top, bottom, left, right = g.padding
    plane = (valid.double() * factors).sum(1, keepdim=True)
    ones = plane.new_ones((1, 1, weight.shape[2], weight.shape[3]))
    return F.conv2d(F.pad(plane, (left, right, top, bottom)), ones, None, g.stride, 0, g.dilation)


def _is_binary(valid: Tensor) -> bool:
    if valid.dtype == torch.bool:
        return True
    return torch.equal((valid != 0).to(valid.dtype), valid)


def _part_weights(valid: Tensor, rule: str, widths: Sequence[int]) -> list[int]:
    """What a valid pixel of each channel of `valid` counts."""
    # One channel stands for itself in the public layer, for all channels in naoto0804's.
    return [1] if valid.shape[1] == 1 and rule == "window" else list(widths)


def _planes(
    x: Tensor, valid: Tensor, weight: Tensor, biased: bool, g: Geometry, *rule_and_widths: Any
) -> tuple[Tensor, Tensor]:
    """Factors of the sum and of the bias, (N or 1, 1, Ho, Wo), in the dtype that sums are in."""
    rule, widths = rule_and_widths
    if valid.dtype == torch.uint8:
        _common.binary(_OP, "valid", valid)
    weights = _part_weights(valid, rule, widths)
    sums = _sums(valid, weights, weight, g).to(_common.compute_dtype(x).dtype)
    if rule == "sum":
        share = (sums != 0).to(sums.dtype)
        return share / torch.where(sums == 0, 1, sums), share
    total = sum(weights) * weight.shape[2] * weight.shape[3]
    share = sums.clamp(0, 1)
    # 1e-8 keeps the result finite where nothing is valid; elsewhere it is below the rounding.
    ratio = total / (sums + 1e-8) * share
    return ratio * share if biased else ratio, share


def _select(x: Tensor, valid: Tensor, widths: Sequence[int]) -> Tensor:
    """Image times the mask, zero where the mask is."""
    if valid.shape[1] != 1 and len(widths) != x.shape[1]:
        repeats = torch.tensor(widths, device=valid.device)
        valid = valid.repeat_interleave(repeats, 1)
    zero = x.new_zeros(())
    if valid.is_floating_point() and not _is_binary(valid):
        return torch.where(valid != 0, x * valid.to(x.dtype), zero)
    return torch.where(valid != 0, x, zero)


def _planes_cpu(
    valid: Tensor, weight: Tensor, biased: bool, g: Geometry, rule: str, widths: Sequence[int]
) -> tuple[Tensor, Tensor, Tensor | None]:
    """`_planes` in float32, and the mask as bytes where it is binary."""
    native = _common.native()
    known: Tensor | None
    if valid.dtype in (torch.bool, torch.uint8):
        known = valid.contiguous().view(torch.uint8)
        if valid.dtype == torch.uint8 and not native.known_bytes(known.numpy(), None):
            _common.binary(_OP, "valid", valid)
        mask = known
    else:
        mask = valid.float().contiguous()
        known = torch.empty(valid.shape, dtype=torch.uint8)
        if native.known_bytes(mask.numpy(), known.numpy()):
            mask = known
        else:
            known = None
    weights = _part_weights(valid, rule, widths)
    shape = (valid.shape[0], 1, *g.out_size(valid, weight))
    scale, share = torch.empty(shape), torch.empty(shape)
    native.mask_planes(
        mask.numpy(),
        weights,
        (weight.shape[2], weight.shape[3]),
        g.stride,
        (g.padding[0], g.padding[2]),
        g.dilation,
        sum(weights) * weight.shape[2] * weight.shape[3],
        rule == "sum",
        biased,
        scale[:, 0].numpy(),
        share[:, 0].numpy(),
        _common.threads(),
    )
    return scale, share, known


def _cpu(
    x: Tensor, valid: Tensor, weight: Tensor, bias: Tensor | None, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    if x.dtype == torch.float64:
        return _reference(x, valid, weight, bias, *rest)
    *where, rule, widths = rest
    g = _geometry(*where)
    scale, share, known = _planes_cpu(valid, weight, bias is not None, g, rule, widths)
    y = _conv.result_like(x, weight, weight.shape[0], g.out_size(x, weight))
    # A mask of a few channels only moves addresses; one of many, or a soft one, takes a pass.
    if known is not None and len(widths) <= 4:
        planes = _conv_cpu.Planes(scale[:, 0], share[:, 0], known, tuple(accumulate(widths)))
    else:
        planes = _conv_cpu.Planes(scale[:, 0], share[:, 0])
        x = _select(x, valid, widths)
    y = _conv_cpu.forward(
        x, weight, bias, g, gated=False, activation="identity", y=y, planes=planes
    )
    return y, share, scale


def _cuda(
    x: Tensor, valid: Tensor, weight: Tensor, bias: Tensor | None, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    kernels = _triton.kernels(_OP)
    result: tuple[Tensor, Tensor, Tensor] = kernels.forward(x, valid, weight, bias, *rest)
    return result


def _reference(
    x: Tensor, valid: Tensor, weight: Tensor, bias: Tensor | None, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    *where, rule, widths = rest
    g = _geometry(*where)
    scale, share = _planes(x, valid, weight, bias is not None, g, rule, widths)
    masked = _select(_common.compute_dtype(x), valid, widths)
    sums = _conv.convolve(masked, _common.compute_dtype(weight), None, g) * scale
    if bias is not None:
        sums = sums + _common.compute_dtype(bias).view(1, -1, 1, 1) * share
    y = torch.where(share != 0, sums, sums.new_zeros(()))
    return _conv.settled(y, x, _conv.memory_format(x, weight)), share, scale


def _backward_fake(
    grad: Tensor, x: Tensor, valid: Tensor, weight: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    return _conv.gradients_like(x, weight, rest[-1], weight.shape[0])


def _backward_cpu(
    grad: Tensor, x: Tensor, valid: Tensor, weight: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    if x.dtype == torch.float64:
        return _backward_reference(grad, x, valid, weight, *rest)
    share, scale, *where, widths, wanted = rest
    g = _geometry(*where)
    grad_sums, grad_bias = _conv_gradients.ratio_backward(
        _common.compute_dtype(grad.detach()), scale, share, wanted[2]
    )
    if len(widths) > 4 or not _is_binary(valid):
        masked = _select(_common.compute_dtype(x), valid, widths)
        grads = _conv_gradients.convolve_backward(grad_sums, masked, weight, g, wanted)
        grad_x = None if grads[0] is None else _select(grads[0], valid, widths)
        return _conv.settled_gradients(x, weight, (grad_x, grads[1], grad_bias))
    known = (valid != 0).contiguous()
    ends = torch.tensor(widths).cumsum(0).tolist()
    planes = _conv_cpu.Planes(scale[:, 0], share[:, 0], known.view(torch.uint8), tuple(ends))
    grads = _conv_gradients.convolve_backward(grad_sums, x, weight, g, wanted, planes)
    if grads[0] is not None:
        for part, (begin, end) in enumerate(zip((0, *ends), ends)):
            if not known[:, part].all():
                grads[0][:, begin:end].masked_fill_(~known[:, part : part + 1], 0)
    return _conv.settled_gradients(x, weight, (*grads, grad_bias))


def _backward_reference(
    grad: Tensor, x: Tensor, valid: Tensor, weight: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    share, scale, *where, widths, wanted = rest
    seen = share != 0
    grad = _common.compute_dtype(grad)
    zero = grad.new_zeros(())
    # Select: what flows back from where nothing is valid may be anything.
    grad_sums = torch.where(seen, grad * scale, zero)
    grad_bias = torch.where(seen, grad * share, zero).double().sum((0, 2, 3)) if wanted[2] else None
    masked = _select(_common.compute_dtype(x), valid, widths)
    wide = _common.compute_dtype(weight)
    grads = _conv.convolve_backward(grad_sums, masked, wide, _geometry(*where), wanted)
    grad_x = None if grads[0] is None else _select(grads[0], valid, widths)
    return _conv.settled_gradients(x, weight, (grad_x, grads[1], grad_bias))


def _backward_cuda(grad: Tensor, x: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    result: tuple[Tensor, Tensor, Tensor] = _triton.kernels(_OP).backward(grad, x, *rest)
    return result


def _setup_context(
    ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]
) -> None:
    x, valid, weight, _, *where, _, widths = inputs
    _, share, scale = output
    ctx.mark_non_differentiable(share, scale)
    ctx.save_for_backward(x, valid, weight, share, scale)
    ctx.rest = (*where, widths)
    ctx.backend = current_backend()


def _autograd_backward(ctx: Any, grad: Tensor, *_: Tensor | None) -> tuple[Any, ...]:
    need_x, _, need_weight, need_bias = ctx.needs_input_grad[:4]
    needs = [need_x, need_weight, need_bias]
    with backend(ctx.backend):
        grads = _backward_operator(grad, *ctx.saved_tensors, *ctx.rest, needs)
    grad_x, grad_weight, grad_bias = _conv.wanted_gradients(needs, grads)
    return (grad_x, None, grad_weight, grad_bias, *(None for _ in ctx.rest), None)


_WHERE = "SymInt[] stride, SymInt[] padding, SymInt[] dilation, SymInt groups"
_operator = _common.register(
    _OP,
    f"(Tensor x, Tensor valid, Tensor weight, Tensor? bias, {_WHERE}, str normalise, "
    "SymInt[] widths) -> (Tensor, Tensor, Tensor)",
    cpu=_cpu,
    reference=_reference,
    fake=_fake,
    cuda=_cuda,
    cuda_means="triton and cuDNN",
)
_backward_operator = _common.register(
    f"{_OP}_backward",
    "(Tensor grad, Tensor x, Tensor valid, Tensor weight, Tensor share, Tensor scale, "
    f"{_WHERE}, SymInt[] widths, bool[] wanted) -> (Tensor, Tensor, Tensor)",
    cpu=_backward_cpu,
    reference=_backward_reference,
    fake=_backward_fake,
    cuda=_backward_cuda,
)
_common.register_autograd(_OP, _autograd_backward, _setup_context)
_common.forbid_second_derivative(_OP)
