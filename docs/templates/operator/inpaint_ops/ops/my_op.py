"""my_op: one line on what it does. Here: every channel times a factor of its own."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from inpaint_ops import checks
from inpaint_ops.ops import derivatives, dispatch, tensors, triton
from inpaint_ops.ops.overrides import call, has_override, inside, tracing
from inpaint_ops.reference.my_op import my_op as my_op_reference

_OP = "my_op"


# 1. The public function: checks every argument, then calls the operator with all of them.
def my_op(x: Tensor, weight: Tensor, *, factor: float = 1.0) -> Tensor:
    """Return x * weight * factor, a weight for each channel.

    Args:
        x: (N, C, H, W), float16, bfloat16, float32 or float64, any layout.
        weight: (C,), dtype and device of x.
        factor: on the result.

    Returns:
        (N, C, H, W), dtype and memory format of x; float32 under autocast. Gradients of `weight`
        are summed in float64.

    Raises:
        TypeError: wrong type or dtype.
        ValueError: wrong shape, device, or a `factor` that is not finite.

    Source: the paper, its section, and the public code; then every deviation from them.
    """
    # Whoever records functions, as torch.fx does, sees this call as one.
    if (has_override(x, weight) or tracing()) and not inside():
        return call(my_op, locals())
    # Texts read "<op>: <argument> must <rule>, got <value>"; `checks` has them for the usual rules.
    checks.check_image(_OP, "x", x)
    if not isinstance(weight, Tensor):
        raise TypeError(f"{_OP}: weight must be a Tensor, got {type(weight).__name__}")
    # Autocast's rule of torch's peer: float32, or for products `autocast_to_lower`.
    x, weight = tensors.autocast_to_float32(x.device, x, weight)
    checks.check_same(_OP, "x and weight", x, weight)
    if tuple(weight.shape) != (x.shape[1],):
        raise ValueError(
            f"{_OP}: weight must have shape ({x.shape[1]},), got {tuple(weight.shape)}"
        )
    checks.check_finite(_OP, "factor", factor)
    result: Tensor = _operator(x, weight, float(factor))
    return result


# 2. Shapes, dtypes and strides of the results, without values: for torch.compile and torch.export.
def _fake(x: Tensor, weight: Tensor, factor: float) -> Tensor:
    return torch.empty_like(x, memory_format=tensors.memory_format(x))


# 3. The CPU kernel. What it does not take, here float64, goes to the reference.
def _cpu(x: Tensor, weight: Tensor, factor: float) -> Tensor:
    if x.dtype == torch.float64:
        return _reference(x, weight, factor)
    planes = tensors.compute_dtype(x).contiguous()
    y = torch.empty_like(planes)
    tensors.native().my_op(
        planes, tensors.compute_dtype(weight).contiguous(), factor, y, tensors.threads()
    )
    # A kernel that reads channels_last in place saves this copy: see instance_norm.
    return y.to(x.dtype).contiguous(memory_format=tensors.memory_format(x))


# 4. Plain PyTorch: where the extension is missing, and under backend("reference").
def _reference(x: Tensor, weight: Tensor, factor: float) -> Tensor:
    with torch.no_grad():
        y = my_op_reference(x, weight, factor=factor)
    return y.contiguous(memory_format=tensors.memory_format(x))


# 5. The GPU kernel, imported inside the call. Without one: leave `cuda=` out of `register`.
def _cuda(*arguments: Any) -> Any:
    return triton.kernels(_OP).my_op(*arguments)


# 6. The backward pass is an operator as well, with the same five parts.
def _backward_fake(grad: Tensor, x: Tensor, weight: Tensor, factor: float) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x, memory_format=tensors.memory_format(x)), torch.empty_like(weight)


def _backward_reference(
    grad: Tensor, x: Tensor, weight: Tensor, factor: float
) -> tuple[Tensor, Tensor]:
    wide = tensors.compute_dtype(grad) * factor
    # Contiguous first: the order of the sum must not depend on the layout of x.
    products = (wide * tensors.compute_dtype(x)).contiguous()
    grad_weight = products.sum((0, 2, 3), dtype=torch.float64)
    grad_x = (wide * tensors.compute_dtype(weight)[:, None, None]).to(x.dtype)
    return (
        grad_x.contiguous(memory_format=tensors.memory_format(x)),
        grad_weight.to(weight.dtype),
    )


def _setup_context(ctx: Any, inputs: Sequence[Any], output: Sequence[Any]) -> None:
    x, weight, factor = inputs
    # Keep the arguments, and what would be dear to form again.
    ctx.save_for_backward(x, weight)
    ctx.factor = factor


def _backward(ctx: Any, needs: Sequence[bool], grad: Tensor) -> tuple[Any, ...]:
    grads = _backward_operator(grad, *ctx.saved_tensors, ctx.factor)
    return (*(g if need else None for need, g in zip(needs, grads)), None)


# 7. Derivatives of gradients, here through the formula: it must consist of torch's own operators.
def _second(
    ctx: Any, grad: Tensor, reached: Sequence[Any]
) -> tuple[Tensor | None, Sequence[Tensor | None]]:
    def formula(x: Tensor, weight: Tensor) -> Tensor:
        return my_op_reference(x, weight, factor=ctx.factor)

    to_grad, *to_saved = derivatives.second_by_formula(
        formula, ctx.saved_tensors, grad, reached[:2]
    )
    return to_grad, to_saved


def _formula(x: Tensor, weight: Tensor, factor: float) -> Tensor:
    return my_op_reference(x, weight, factor=factor)


# 8. Registration: the schema repeats the arguments of the functions above.
_operator = dispatch.register(
    _OP,
    "(Tensor x, Tensor weight, float factor) -> Tensor",
    cpu=_cpu,
    reference=_reference,
    fake=_fake,
    cuda=_cuda,
)
_backward_operator = dispatch.register(
    f"{_OP}_backward",
    "(Tensor grad, Tensor x, Tensor weight, float factor) -> (Tensor, Tensor)",
    cpu=_backward_reference,  # a kernel of its own where there is one
    reference=_backward_reference,
    fake=_backward_fake,
)
_operator.differentiate(
    _backward,
    _setup_context,
    formula=_formula,
    second=_second,
    # The weight has no axis of samples: a batch of weights is a call each under vmap.
    shared=derivatives.Shared((1,), (1,)),
)
_backward_operator.forbid_derivative()
