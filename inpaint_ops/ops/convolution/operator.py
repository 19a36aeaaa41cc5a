"""The operators that are a convolution's sums, then bias, activation and perhaps a gate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from inpaint_ops.ops import dispatch, tensors, triton
from inpaint_ops.ops.convolution import algorithm as algorithms
from inpaint_ops.ops.convolution import cpu as conv_cpu
from inpaint_ops.ops.convolution import cpu_backward, formulas, spec
from inpaint_ops.ops.convolution.algorithm import honoured, ignored
from inpaint_ops.ops.convolution.spec import Pair

Gradients = tuple[Tensor | None, Tensor | None]


class Convolution:
    """The sums of an ordinary convolution; `where`, as in `schema`, is a flat `Geometry`.

    Another kind of convolution overrides all of it.
    """

    schema: ClassVar[str] = spec.GEOMETRY_SCHEMA

    def filters(self, weight: Tensor) -> int:
        """Filters of a weight."""
        return weight.shape[0]

    def out_size(self, x: Tensor, weight: Tensor, where: Sequence[Any]) -> Pair:
        """Height and width of the result."""
        return spec.geometry(*where).out_size(x, weight)

    def cpu(
        self,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        where: Sequence[Any],
        *,
        gated: bool,
        activation: str,
        y: Tensor,
        z: Tensor | None,
    ) -> Tensor:
        """The result, in y or in memory like it; z gets the sums with their bias."""
        g = spec.geometry(*where)
        return conv_cpu.forward(x, weight, bias, g, gated=gated, activation=activation, y=y, z=z)

    def reference(
        self, x: Tensor, weight: Tensor, bias: Tensor | None, where: Sequence[Any]
    ) -> Tensor:
        """The sums and their bias by aten, in the dtype given."""
        return formulas.convolve(x, weight, bias, spec.geometry(*where))

    def backward_cpu(
        self,
        grad: Tensor,
        x: Tensor,
        weight: Tensor,
        where: Sequence[Any],
        wanted: Sequence[bool],
    ) -> Gradients:
        """Gradients of x and weight from that of the sums, channels_last float32."""
        return cpu_backward.convolve_backward(grad, x, weight, spec.geometry(*where), wanted)

    def backward_reference(
        self,
        grad: Tensor,
        x: Tensor,
        weight: Tensor,
        where: Sequence[Any],
        wanted: Sequence[bool],
    ) -> Gradients:
        """The same by aten, in the dtype given."""
        return formulas.convolve_backward(grad, x, weight, spec.geometry(*where), wanted)


class _Implementation:
    """One operator of the family: what `register` binds to each device.

    The operator returns the result and, if `keep`, the sums with their bias, otherwise nothing in
    their place. A gate's backward pass starts from the sums, as SiLU's does; every other
    activation's from the result.
    """

    def __init__(self, op: str, sums: Convolution, gated: bool) -> None:
        self.op, self.sums, self.gated = op, sums, gated

    def fake(
        self, x: Tensor, weight: Tensor, bias: Tensor | None, *rest: Any
    ) -> tuple[Tensor, Tensor]:
        *where, _, keep = rest
        size = self.sums.out_size(x, weight, where)
        filters = self.sums.filters(weight)
        z = spec.filters_like(x, filters, size) if keep else spec.empty_gradient(x)
        return spec.result_like(x, weight, filters // 2 if self.gated else filters, size), z

    def cpu(
        self, x: Tensor, weight: Tensor, bias: Tensor | None, *rest: Any
    ) -> tuple[Tensor, Tensor]:
        if x.dtype == torch.float64:
            return self.reference(x, weight, bias, *rest)
        *where, activation, keep = rest
        y, z = self.fake(x, weight, bias, *rest)
        if y.numel():
            y = self.sums.cpu(
                x,
                weight,
                bias,
                where,
                gated=self.gated,
                activation=activation,
                y=y,
                z=z if keep else None,
            )
        return y, z

    def cuda(
        self, x: Tensor, weight: Tensor, bias: Tensor | None, *rest: Any
    ) -> tuple[Tensor, Tensor]:
        result: tuple[Tensor, Tensor] = triton.kernels(self.op).forward(x, weight, bias, *rest)
        return result

    def reference(
        self, x: Tensor, weight: Tensor, bias: Tensor | None, *rest: Any
    ) -> tuple[Tensor, Tensor]:
        *where, activation, keep = rest
        z = self.sums.reference(
            tensors.compute_dtype(x),
            tensors.compute_dtype(weight),
            None if bias is None else tensors.compute_dtype(bias),
            where,
        )
        y = formulas.finish(z, activation, self.gated)
        y = spec.settled(y, x, spec.memory_format(x, weight))
        kept = spec.kept_sums(z, x, keep)
        return (y.clone() if y is kept else y), kept

    def backward_fake(
        self, grad: Tensor, x: Tensor, weight: Tensor, kept: Tensor, *rest: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        return spec.gradients_like(x, weight, rest[-1], self.sums.filters(weight))

    def backward_cpu(
        self, grad: Tensor, x: Tensor, weight: Tensor, kept: Tensor, *rest: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        if x.dtype == torch.float64:
            return self.backward_reference(grad, x, weight, kept, *rest)
        *where, activation, wanted = rest
        grad_bias: Tensor | None
        if activation == "identity" and not self.gated:
            grad_z = tensors.packed_image(grad)
            grad_bias = cpu_backward.bias_gradient(grad_z) if wanted[2] else None
        else:
            grad_z, grad_bias = cpu_backward.finish_backward(
                grad,
                kept,
                activation,
                gated=self.gated,
                from_result=not self._from_sums(activation),
                bias=wanted[2],
            )
        grads = self.sums.backward_cpu(grad_z, x, weight, where, wanted)
        return spec.settled_gradients(x, weight, (*grads, grad_bias))

    def backward_cuda(
        self, grad: Tensor, x: Tensor, weight: Tensor, kept: Tensor, *rest: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        kernels = triton.kernels(self.op)
        result: tuple[Tensor, Tensor, Tensor] = kernels.backward(grad, x, weight, kept, *rest)
        return result

    def backward_reference(
        self, grad: Tensor, x: Tensor, weight: Tensor, kept: Tensor, *rest: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        *where, activation, wanted = rest
        grad_z, kept = tensors.compute_dtype(grad), tensors.compute_dtype(kept)
        if self.gated:
            grad_z = formulas.gate_backward(grad_z, kept, activation)
        elif activation == "silu":
            grad_z = grad_z * formulas.derivative(kept, activation)
        elif activation != "identity":
            grad_z = grad_z * formulas.derivative_of_result(kept, activation)
        wide = tensors.compute_dtype(x), tensors.compute_dtype(weight)
        grads = self.sums.backward_reference(grad_z, *wide, where, wanted)
        grad_bias = grad_z.sum((0, 2, 3)) if wanted[2] else None
        return spec.settled_gradients(x, weight, (*grads, grad_bias))

    def setup_context(self, ctx: Any, inputs: Sequence[Any], output: Sequence[Any]) -> None:
        x, weight, _, *where, activation, keep, algorithm = inputs
        y, z = output
        if self._from_sums(activation):
            if not keep:
                raise RuntimeError(
                    f"{self.op}: the operator was called without `keep`, so it has no gradient"
                )
            kept = z
        else:
            kept = x.new_empty((0,)) if activation == "identity" else y
        ctx.save_for_backward(x, weight, kept)
        ctx.rest = (*where, activation)
        ctx.algorithm = algorithm

    def _from_sums(self, activation: str) -> bool:
        return self.gated or activation == "silu"


def register(op: str, sums: Convolution, *, gated: bool = False) -> Callable[..., Tensor]:
    """Defines the operator with its backward pass.

    Returns:
        call(x, weight, bias, where, activation, algorithm): the result in the dtype of x.
    """
    own = _Implementation(op, sums, gated)
    forward = dispatch.register(
        op,
        f"(Tensor x, Tensor weight, Tensor? bias, {sums.schema}, str activation, bool keep, "
        f"{algorithms.SCHEMA}) -> (Tensor, Tensor)",
        cpu=honoured(own.cpu),
        reference=ignored(own.reference),
        fake=ignored(own.fake),
        cuda=ignored(own.cuda),
        cuda_means="triton and cuDNN",
    )
    backward_operator = dispatch.register(
        f"{op}_backward",
        f"(Tensor grad, Tensor x, Tensor weight, Tensor kept, {sums.schema}, "
        f"str activation, bool[] wanted, {algorithms.SCHEMA}) -> (Tensor, Tensor, Tensor)",
        cpu=honoured(own.backward_cpu),
        reference=ignored(own.backward_reference),
        fake=ignored(own.backward_fake),
        cuda=ignored(own.backward_cuda),
    )

    def backward(ctx: Any, needs: Sequence[bool], grad: Tensor) -> tuple[Any, ...]:
        wanted = list(needs[:3])
        grads = backward_operator(grad, *ctx.saved_tensors, *ctx.rest, wanted, ctx.algorithm)
        return (*spec.wanted_gradients(wanted, grads), *(None for _ in ctx.rest), None, None)

    forward.differentiate(backward, own.setup_context)
    backward_operator.forbid_derivative()

    def call(
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        where: Sequence[Any],
        activation: str,
        algorithm: str,
    ) -> Tensor:
        keep = own._from_sums(activation) and dispatch.may_be_recorded((x, weight, bias))
        result: Tensor = forward(x, weight, bias, *where, activation, keep, algorithm)[0]
        return result

    return call
