"""partial_conv2d: convolution over the valid pixels of each window, renormalised."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from inpaint_ops import checks
from inpaint_ops.ops import derivatives, dispatch, triton
from inpaint_ops.ops import tensors as tensor_rules
from inpaint_ops.ops.convolution import partial_cpu, partial_formulas, spec
from inpaint_ops.ops.overrides import call, has_override, inside, tracing

_OP = "partial_conv2d"
_RULES = ("window", "sum")


def partial_conv2d(  # noqa: PLR0913 - the options of a convolution
    x: Tensor | Sequence[Tensor],
    valid: Tensor | Sequence[Tensor],
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] | str = 0,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
    normalise: str = "window",
    upsample: int | tuple[int, ...] = 1,
    algorithm: str = "auto",
) -> tuple[Tensor, Tensor]:
    """Partial convolution: y = (weight * (x valid)) r + bias where a window sees anything valid.

    With S the sum of `valid` under the window (zero padding counts as invalid) and N the number of
    its values: r = N / S, and y = 0 without the bias where S = 0. Soft masks follow the public
    formula. Let u = clamp(S, 0, 1), r = N / (S + 1e-8) and z the convolution's sum. Then y is (z r
    u + bias) u with a bias and z r u without one. What lies in a hole is never read, NaN included.
    On the CPU, output tiles that see nothing valid are not computed. Algorithms and rounding as in
    `fused_conv2d`. On GPUs values of masks are not checked, for which the host would have to wait:
    in a uint8 mask all but 0 counts as 1, and a floating one may be soft, which takes one more pass
    over x.

    x may be several tensors, concatenated along the channels with their masks, each after a
    nearest upsampling: the decoder of a U-Net. On the CPU the convolution, its gradients and the
    window sums read each tensor where it lies: neither an upsampled nor a concatenated image or
    mask is made (groups apart). GPUs make both before the convolution. Soft masks, and masks of
    more than four different planes, take a copy of their tensor on the CPU.

    Masks have no derivative. The backward pass keeps x and two planes of the size of `valid_out`.

    Args:
        x: (N, C, H, W), float16, bfloat16, float32 or float64, any layout; or a tuple of such
            tensors (N, C_i, H_i, W_i), whose sizes after their upsampling are equal.
        valid: (N or 1, 1 or C, H, W), 1 = known; bool, uint8 of 0 and 1, or float (soft). With one
            channel N is kh kw, with C it is C kh kw, groups or not. Of several tensors a tuple of
            as many masks (N or 1, 1 or C_i, H_i, W_i), one dtype; one channel then stands for C_i.
        weight: (filters, C / groups, kh, kw), dtype and device of x.
        bias: (filters,).
        stride: pixels, vertically and horizontally, as for dilation and padding.
        padding: zeros on both sides, or "same" as in `fused_conv2d`.
        dilation: distance between taps.
        groups: channels and filters fall into so many independent groups.
        normalise: "window" as above, or "sum": r = 1 / S over all C channels and u = 1 where S is
            not 0, as in naoto0804's network.
        upsample: 1, or 2: images and masks are doubled before the padding, by nearest neighbours;
            for several tensors also a tuple with a factor for each.
        algorithm: "auto"; "precise": never Winograd's large tiles; or "direct": never Winograd's at
            all; in this call and in its backward pass.

    Returns:
        y: (N, filters, Ho, Wo), dtype of x; channels_last if a tensor of x or the weight is. Half
            precision is summed in float32. Under autocast x, weight and bias are rounded to its
            dtype, which is also that of y, as in torch.nn.functional.conv2d.
        valid_out: (N or 1, 1, Ho, Wo), dtype of `valid` and batch of the largest: u.

    Raises:
        TypeError: wrong type or dtype.
        ValueError: wrong shape, range or device, or on the CPU a uint8 mask with other values than
            0 and 1.

    Source: Liu et al., ECCV 2018 (arXiv 1804.07723), section 3.1; NVIDIA/partialconv:
    models/partialconv2d.py. Deviations: NaN in holes, which the public code spreads, and
    float16, for which it gives NaN.
    """
    images, masks = _listed(x, valid)
    if (has_override(*images, *masks, weight, bias) or tracing()) and not inside():
        return call(partial_conv2d, locals())
    images[0], weight, bias = spec.check_tensors(_OP, images[0], weight, bias)
    for i, image in enumerate(images[1:], 1):
        images[i], _, _ = spec.check_tensors(_OP, image, weight, None)
    factors = _check_upsample(upsample, len(images))
    _check_sizes(images, factors)
    g = spec.check_geometry(
        _OP,
        images[0],
        weight,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        upsample=factors[0],
        channels=sum(image.shape[1] for image in images),
    )
    checks.check_choice(_OP, "normalise", normalise, _RULES)
    spec.check_algorithm(_OP, algorithm)
    spec.check_bias(_OP, bias, weight.shape[0])
    for image, mask in zip(images, masks):
        _check_valid(image, mask, masks[0])
    masks = [mask.detach() if mask.requires_grad else mask for mask in masks]
    # Each tensor has an upsampling of its own.
    g = g if g.upsample == 1 else g._replace(upsample=1)
    options = (g, normalise, factors, algorithm)
    y, update_mask, _ = _operator(images, masks, weight, bias, *options)
    kind = masks[0].dtype
    return y, update_mask if update_mask.dtype == kind else update_mask.to(kind)


def _listed(x: Any, valid: Any) -> tuple[list[Tensor], list[Tensor]]:
    """Tensors and their masks, as many of one as of the other."""
    if not isinstance(x, (tuple, list)):
        return [x], [valid]
    if not x:
        raise ValueError(f"{_OP}: x must have at least one tensor, got {x}")
    if not isinstance(valid, (tuple, list)):
        raise TypeError(f"{_OP}: valid must be a tuple like x, got {type(valid).__name__}")
    if len(valid) != len(x):
        raise ValueError(
            f"{_OP}: valid must have a mask for each of {len(x)} tensors, got {len(valid)}"
        )
    return list(x), list(valid)


def _check_upsample(upsample: Any, count: int) -> list[int]:
    factors = list(upsample) if isinstance(upsample, (tuple, list)) else [upsample] * count
    if len(factors) != count:
        raise ValueError(
            f"{_OP}: upsample must be an int or a factor for each of {count} tensors, "
            f"got {upsample}"
        )
    for factor in factors:
        checks.check_int(_OP, "upsample", factor)
        if factor not in (1, 2):
            raise ValueError(f"{_OP}: upsample must be 1 or 2, got {factor}")
    return factors


def _check_sizes(images: Sequence[Tensor], factors: Sequence[int]) -> None:
    n, _, h, w = images[0].shape
    first = (n, h * factors[0], w * factors[0])
    for image, factor in zip(images[1:], factors[1:]):
        n, _, h, w = image.shape
        if (n, h * factor, w * factor) != first:
            raise ValueError(
                f"{_OP}: x must have one batch and, upsampled, one size {first}, "
                f"got {(n, h * factor, w * factor)}"
            )


def _check_valid(x: Tensor, valid: Tensor, first: Tensor) -> None:
    if not isinstance(valid, Tensor):
        raise TypeError(f"{_OP}: valid must be a Tensor, got {type(valid).__name__}")
    if valid.dtype not in checks.MASK_DTYPES:
        raise TypeError(f"{_OP}: valid must be bool, uint8 or floating, got {valid.dtype}")
    if valid.dtype != first.dtype:
        raise TypeError(f"{_OP}: valid must have one dtype, got {first.dtype} and {valid.dtype}")
    n, c, h, w = x.shape
    shapes = [(batch, channels, h, w) for batch in (n, 1) for channels in (c, 1)]
    checks.check_mask_shape(_OP, "valid", valid, shapes)
    if valid.device != x.device:
        raise ValueError(f"{_OP}: valid must be on {x.device}, got {valid.device}")


def _fake(
    x: list[Tensor], valid: list[Tensor], weight: Tensor, bias: Tensor | None, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    g, _, factors, _ = rest
    size = partial_formulas.out_size(x, weight, g, factors)
    y = spec.result_like(partial_formulas.lead(x), weight, weight.shape[0], size)
    planes = (partial_formulas.batch_of(valid), 1, *size)
    wide = tensor_rules.compute_dtype(x[0])
    return y, wide.new_empty(planes), wide.new_empty(planes)


def _backward_fake(
    grad: Tensor, x: list[Tensor], valid: list[Tensor], weight: Tensor, *rest: Any
) -> tuple[list[Tensor], Tensor, Tensor]:
    *wanted, need_weight, need_bias = rest[-2]
    filters = weight.shape[0]
    grads = [
        spec.gradients_like(one, weight, (want, False, False), filters)[0]
        for one, want in zip(x, wanted)
    ]
    others = spec.gradients_like(x[0], weight, (False, need_weight, need_bias), filters)
    return grads, others[1], others[2]


def _cuda(
    x: list[Tensor], valid: list[Tensor], weight: Tensor, bias: Tensor | None, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    g, rule, factors, _ = rest
    image, mask, widths = partial_formulas.joined(x, valid, factors)
    kernels = triton.kernels(_OP)
    result: tuple[Tensor, Tensor, Tensor] = kernels.forward(
        image, mask, weight, bias, g, rule, widths
    )
    if len(x) == 1:
        return result
    # Joined tensors have the layout of none.
    layout = spec.memory_format(partial_formulas.lead(x), weight)
    return spec.settled(result[0], image, layout), *result[1:]


def _backward_cuda(
    grad: Tensor, x: list[Tensor], valid: list[Tensor], weight: Tensor, *rest: Any
) -> tuple[list[Tensor], Tensor, Tensor]:
    *planes, g, factors, needs, _ = rest
    *wanted, need_weight, need_bias = needs
    image, mask, widths = partial_formulas.joined(x, valid, factors)
    needed = [any(wanted), need_weight, need_bias]
    grad_image, *others = triton.kernels(_OP).backward(
        grad, image, mask, weight, *planes, g, widths, needed
    )
    grads = partial_formulas.parted(grad_image if needed[0] else None, x, factors, wanted)
    chosen = [one if need else None for one, need in zip(others, needed[1:])]
    return partial_formulas.settled(x, weight, grads, *chosen)


def _setup_context(ctx: Any, inputs: Sequence[Any], output: Sequence[Any]) -> None:
    x, valid, weight, bias, ctx.geometry, ctx.rule, ctx.factors, ctx.algorithm = inputs
    ctx.biased = bias is not None
    _, update_mask, mask_ratio = output
    ctx.save_for_backward(*x, *valid, weight, update_mask, mask_ratio)


def _backward(ctx: Any, wanted: Sequence[Any], grad: Tensor) -> tuple[Any, ...]:
    need_x, _, need_weight, need_bias = wanted[:4]
    *tensors, weight, update_mask, mask_ratio = ctx.saved_tensors
    count = len(need_x)
    x, valid = tensors[:count], tensors[count:]
    needs = [*need_x, need_weight, need_bias]
    options = (ctx.geometry, ctx.factors, needs, ctx.algorithm)
    grads_x, *others = _backward_operator(grad, x, valid, weight, update_mask, mask_ratio, *options)
    grads = [one if need else None for one, need in zip((*grads_x, *others), needs)]
    return (grads[:count], [None] * count, *grads[count:], None, None, None, None)


def _second(
    ctx: Any, grad: Tensor, reached: Sequence[Any]
) -> tuple[Tensor | None, list[Tensor | None]]:
    of_x, _, *of_weights = reached[:4]
    *tensors, weight, _, _ = ctx.saved_tensors
    count = len(of_x)
    x, valid = tensors[:count], tensors[count:]
    # The result is linear in the bias: its gradients are those at any value.
    bias = [weight.new_zeros((weight.shape[0],))] if ctx.biased else []

    def formula(*inputs: Tensor) -> Tensor:
        *images, weight = inputs[: count + 1]
        bias = inputs[-1] if ctx.biased else None
        options = (ctx.geometry, ctx.rule, ctx.factors, ctx.algorithm)
        return partial_formulas.formula(images, valid, weight, bias, *options)[0]

    inputs = [*x, weight, *bias]
    to_grad, *to_inputs = derivatives.second_by_formula(
        formula, inputs, grad, [*of_x, *of_weights][: len(inputs)]
    )
    return to_grad, [*to_inputs[:count], *(None for _ in valid), to_inputs[count], None, None]


# Of a geometry the operator takes the first four fields.
_FIELDS = 4
_WHERE = "SymInt[] stride, SymInt[] padding, SymInt[] dilation, SymInt groups"
_operator = dispatch.register(
    _OP,
    f"(Tensor[] x, Tensor[] valid, Tensor weight, Tensor? bias, {_WHERE}, str normalise, "
    "int[] upsample, str algorithm) -> (Tensor, Tensor, Tensor)",
    cpu=partial_cpu.forward,
    reference=partial_formulas.reference,
    fake=_fake,
    cuda=_cuda,
    cuda_means="triton and cuDNN",
    group=dispatch.Group(4, spec.geometry, _FIELDS),
)
_backward_operator = dispatch.register(
    f"{_OP}_backward",
    "(Tensor grad, Tensor[] x, Tensor[] valid, Tensor weight, Tensor update_mask, "
    f"Tensor mask_ratio, {_WHERE}, int[] upsample, bool[] wanted, str algorithm) "
    "-> (Tensor[], Tensor, Tensor)",
    cpu=partial_cpu.backward,
    reference=partial_formulas.backward_reference,
    fake=_backward_fake,
    cuda=_backward_cuda,
    group=dispatch.Group(6, spec.geometry, _FIELDS),
)
_operator.differentiate(
    _backward,
    _setup_context,
    formula=partial_formulas.formula,
    second=_second,
    # Weight and bias, counted from the end: there may be several images.
    shared=derivatives.Shared((-6, -5), (-3,)),
)
_backward_operator.forbid_derivative()
_operator.compute_partly(partial_cpu.reads, partial_cpu.compute, partial_cpu.touched)
