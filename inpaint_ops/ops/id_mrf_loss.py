"""id_mrf_loss: every target feature should have its own best match among the generated ones."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from inpaint_ops import checks
from inpaint_ops.ops import derivatives, dispatch, tensors, triton
from inpaint_ops.ops.overrides import call, has_override, inside, tracing
from inpaint_ops.reference.id_mrf_loss import IdMrfOptions, drawn, similarity, unit_vectors
from inpaint_ops.reference.id_mrf_loss import (
    id_mrf_loss_backward as id_mrf_loss_backward_reference,
)

_OP = "id_mrf_loss"


def id_mrf_loss(
    generated: Tensor,
    target: Tensor,
    *,
    bandwidth: float = 0.5,
    eps: float = 1e-5,
    center: str = "channel",
    reduction: str = "sum",
    exclude_self: bool = False,
    max_patches: int | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Implicit diversified Markov random field loss: -log of mean over p of max over q of s[p, q].

    With the cosine c of centred features at target position p and generated position q,
    d = (1 - c) / 2, and s[., q] the softmax over p of -d[p, q] / (min over p of d[p, q] + eps) /
    bandwidth. A target position costs much if no generated vector is closer to it than to the other
    positions, however good the matches are on average.
    Memory grows with the number of positions, not with its square.

    Args:
        generated: (N, C, H, W), float16, bfloat16, float32 or float64, any layout.
        target: (N, C, H, W), dtype and device of `generated`.
        bandwidth: of the similarities, more than 0: the smaller, the more a best match counts.
        eps: added to the least distance, more than 0.
        center: what is subtracted from both maps: "channel": the target's mean over channels at
            each position (the PyTorch code); "spatial": the target's mean over samples and
            positions in each channel (contextual loss; the TensorFlow code's axes).
        reduction: over samples: "sum" (the PyTorch code), "mean" or "none".
        exclude_self: take the minimum in the denominator over the other targets alone, as the paper
            does: the nearest target is measured by the second nearest. The public code leaves this
            out, for speed. The softmax still runs over all targets, so that the loss stays finite
            and at least 0 where a generated vector meets its target. Without effect on a map of one
            position.
        max_patches: of maps with more positions so many are drawn at random, the same in both maps
            and all samples, before anything else (the TensorFlow code: 4225); None for all.
        generator: draws them, on the CPU; None for the default one.

    Returns:
        The loss, a scalar, or (N,) with reduction "none"; float32 (float64 for float64), in which
        it is formed, also under autocast. Differentiable in both maps: through each maximum and
        minimum to the first position that has it. A vector that is zero once centred has cosine 0
        with all others, and gradient 0.

    Raises:
        TypeError: wrong type or dtype.
        ValueError: wrong shape, device or option.

    Source: Wang et al., NeurIPS 2018 (arXiv 1810.08771), section 3.2, as computed by
    shepnerd/inpainting_gmcnn: pytorch/model/loss.py. Deviation: zero vectors, for
    which the public code gives NaN.
    """
    if (has_override(generated, target) or tracing()) and not inside():
        return call(id_mrf_loss, locals())
    checks.check_image(_OP, "generated", generated)
    checks.check_image(_OP, "target", target)
    checks.check_kinds(_OP, generated=generated, target=target)
    generated, target = tensors.autocast_to_float32(generated.device, generated, target)
    checks.check_same(_OP, "generated and target", generated, target)
    if generated.shape != target.shape:
        raise ValueError(
            f"{_OP}: generated and target must have one shape, got {tuple(generated.shape)} and "
            f"{tuple(target.shape)}"
        )
    if generated.shape[2] == 0 or generated.shape[3] == 0:
        raise ValueError(
            f"{_OP}: generated must have at least one pixel, got {tuple(generated.shape)}"
        )
    for name, value in (("bandwidth", bandwidth), ("eps", eps)):
        checks.check_finite(_OP, name, value)
        if value <= 0:
            raise ValueError(f"{_OP}: {name} must be more than 0, got {value}")
    checks.check_choice(_OP, "center", center, ("channel", "spatial"))
    checks.check_choice(_OP, "reduction", reduction, ("sum", "mean", "none"))
    if not isinstance(exclude_self, bool):
        raise TypeError(f"{_OP}: exclude_self must be a bool, got {type(exclude_self).__name__}")
    if max_patches is not None:
        checks.check_int(_OP, "max_patches", max_patches)
    generated, target = drawn(generated, target, max_patches, generator)
    # Means and norms in one layout: torch's sums over channels follow that of the tensor.
    generated, target = (tensors.compute_dtype(t).contiguous() for t in (generated, target))
    generated, target = unit_vectors(generated, target, center)
    loss: Tensor = _operator(generated, target, float(bandwidth), float(eps), exclude_self)[0]
    if reduction == "none":
        return loss
    return loss.sum() if reduction == "sum" else loss.mean()


def _fake(
    generated: Tensor, target: Tensor, bandwidth: float, eps: float, exclude_self: bool
) -> tuple[Tensor, Tensor]:
    n, _, h, w = generated.shape
    return generated.new_empty((n,)), generated.new_empty((n, h * w), dtype=torch.int64)


def _cpu(
    generated: Tensor, target: Tensor, bandwidth: float, eps: float, exclude_self: bool
) -> tuple[Tensor, Tensor]:
    loss, choice = _fake(generated, target, bandwidth, eps, exclude_self)
    tensors.native().id_mrf_loss(
        generated,
        target,
        bandwidth,
        eps,
        exclude_self,
        loss,
        choice,
        tensors.threads(),
    )
    return loss, choice


def _reference(
    generated: Tensor, target: Tensor, bandwidth: float, eps: float, exclude_self: bool
) -> tuple[Tensor, Tensor]:
    options = IdMrfOptions(bandwidth, eps, exclude_self)
    similar = similarity(generated.flatten(2), target.flatten(2), options)
    best, choice = similar.max(2)
    return -best.mean(1).log(), choice


def _cuda(generated: Tensor, *arguments: Any) -> Any:
    return triton.kernels(_OP).forward(generated, *arguments)


def _backward_fake(
    grad: Tensor,
    generated: Tensor,
    target: Tensor,
    loss: Tensor,
    choice: Tensor,
    bandwidth: float,
    eps: float,
    exclude_self: bool,
) -> tuple[Tensor, Tensor]:
    return (
        torch.empty_like(generated, memory_format=torch.contiguous_format),
        torch.empty_like(target, memory_format=torch.contiguous_format),
    )


def _backward_cpu(
    grad: Tensor,
    generated: Tensor,
    target: Tensor,
    loss: Tensor,
    choice: Tensor,
    bandwidth: float,
    eps: float,
    exclude_self: bool,
) -> tuple[Tensor, Tensor]:
    grads = _backward_fake(grad, generated, target, loss, choice, bandwidth, eps, exclude_self)
    tensors.native().id_mrf_loss_backward(
        grad.contiguous(),
        generated,
        target,
        loss.contiguous(),
        choice.contiguous(),
        bandwidth,
        eps,
        exclude_self,
        *grads,
        tensors.threads(),
    )
    return grads


def _backward_cuda(grad: Tensor, *arguments: Any) -> Any:
    return triton.kernels(_OP).backward(grad, *arguments)


def _backward_reference(
    grad: Tensor,
    generated: Tensor,
    target: Tensor,
    loss: Tensor,
    choice: Tensor,
    bandwidth: float,
    eps: float,
    exclude_self: bool,
) -> tuple[Tensor, Tensor]:
    options = IdMrfOptions(bandwidth, eps, exclude_self)
    grad_generated, grad_target = id_mrf_loss_backward_reference(
        grad, generated.flatten(2), target.flatten(2), choice, options
    )
    return (
        grad_generated.reshape(generated.shape).contiguous(),
        grad_target.reshape(target.shape).contiguous(),
    )


def _setup_context(ctx: Any, inputs: Sequence[Any], output: Sequence[Any]) -> None:
    generated, target, *options = inputs
    loss, choice = output
    ctx.save_for_backward(generated, target, loss, choice)
    ctx.options = options


def _backward(ctx: Any, needs: Sequence[bool], grad: Tensor) -> tuple[Any, ...]:
    grads = _backward_operator(grad, *ctx.saved_tensors, *ctx.options)
    return *grads, None, None, None


def _second(
    ctx: Any, grad: Tensor, reached: Sequence[Any]
) -> tuple[Tensor | None, list[Tensor | None]]:
    def formula(generated: Tensor, target: Tensor) -> Tensor:
        return _reference(generated, target, *ctx.options)[0]

    images = ctx.saved_tensors[:2]
    to_grad, *to_images = derivatives.second_by_formula(formula, images, grad, reached[:2])
    return to_grad, [*to_images, None, None]


_operator = dispatch.register(
    _OP,
    "(Tensor generated, Tensor target, float bandwidth, float eps, bool exclude_self)"
    " -> (Tensor, Tensor)",
    cpu=_cpu,
    reference=_reference,
    fake=_fake,
    cuda=_cuda,
    cuda_means="triton and cuBLAS",
)
_backward_operator = dispatch.register(
    f"{_OP}_backward",
    "(Tensor grad, Tensor generated, Tensor target, Tensor loss, Tensor choice, float bandwidth, "
    "float eps, bool exclude_self) -> (Tensor, Tensor)",
    cpu=_backward_cpu,
    reference=_backward_reference,
    fake=_backward_fake,
    cuda=_backward_cuda,
    cuda_means="triton and cuBLAS",
)
_operator.differentiate(_backward, _setup_context, formula=_reference, second=_second)
_backward_operator.forbid_derivative()
