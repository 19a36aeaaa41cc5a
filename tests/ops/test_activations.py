"""The list of activations: every name has its formulas, and no other name passes for one."""

import pytest
import torch

from inpaint_ops.ops import instance_norm, native
from inpaint_ops.ops.convolution import formulas, spec
from inpaint_ops.reference.fused_conv2d import activate


@pytest.mark.parametrize("name", spec.ACTIVATIONS)
def test_formulas(name):
    x = torch.linspace(-4, 4, 41, dtype=torch.float64).requires_grad_()
    y = activate(x, name)
    (expected,) = torch.autograd.grad(y.sum(), x)
    x, y = x.detach(), y.detach()
    kinked = x == 0  # ReLU's derivative there is a matter of taste
    torch.testing.assert_close(formulas.activate(x, name), y)
    torch.testing.assert_close(formulas.derivative(x, name)[~kinked], expected[~kinked])
    if name in spec.NEED_PRE_ACTIVATION:
        with pytest.raises(ValueError, match=f"derivative of its result, got '{name}'"):
            formulas.derivative_of_result(y, name)
    else:
        got = formulas.derivative_of_result(y, name)
        torch.testing.assert_close(got[~kinked], expected[~kinked])


@pytest.mark.parametrize(
    "formula", [formulas.activate, formulas.derivative, formulas.derivative_of_result]
)
def test_unknown_names_raise(formula):
    with pytest.raises(ValueError, match="got 'mish'"):
        formula(torch.ones(3), "mish")


@pytest.mark.skipif(not native.status().available, reason="the kernels' list")
def test_kernels_refuse_unknown_names():
    operator = torch.ops.inpaint_ops.instance_norm
    with pytest.raises(ValueError, match="activation"):
        operator(torch.ones(1, 2, 3, 3), None, None, None, 1e-5, "mish")
    assert instance_norm(torch.ones(1, 2, 3, 3), activation="sigmoid").eq(0.5).all()
