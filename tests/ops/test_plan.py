"""Plans of convolutions: made once for a spec and its shapes, and what counts as another."""

import pytest
import torch

import inpaint_ops
from inpaint_ops import fused_conv2d, gated_conv2d, reference
from inpaint_ops.ops import dispatch, native
from inpaint_ops.ops.convolution import calls, plan, spec

needs_extension = pytest.mark.skipif(
    not native.status().available, reason="plans are the extension's"
)


def made(call):
    """Plans that a call makes."""
    before = plan._plan.cache_info().misses
    call()
    return plan._plan.cache_info().misses - before


@needs_extension
def test_a_plan_is_made_once():
    plan._plan.cache_clear()
    calls.forget()
    x, weight = torch.randn(1, 5, 9, 11), torch.randn(6, 5, 3, 3)

    def call(**options):
        return lambda: fused_conv2d(x, weight, **{"padding": 1, **options})

    assert [made(call()) for _ in range(3)] == [1, 0, 0]
    assert made(call(padding=(1, 1))) == 0
    assert made(call(stride=2)) == 1
    assert made(call(activation="elu")) == 1
    assert made(lambda: gated_conv2d(x, weight, padding=1, activation="identity")) == 1
    assert made(call(algorithm="direct")) == 1
    with inpaint_ops.backend("direct"):
        assert made(call()) == 0
    assert made(lambda: fused_conv2d(x.expand(2, -1, -1, -1), weight, padding=1)) == 1


@needs_extension
def test_each_instruction_set_has_plans_of_its_own(instruction_set):
    plan._plan.cache_clear()
    calls.forget()
    x, weight = torch.randn(1, 5, 9, 11), torch.randn(6, 5, 3, 3)
    extension = native.extension()
    assert made(lambda: fused_conv2d(x, weight)) == 1
    for name in extension.instruction_sets():
        extension.set_instruction_set(name)
        assert made(lambda: fused_conv2d(x, weight)) == (name != instruction_set)
    extension.set_instruction_set(instruction_set)


def test_what_passed_once_does_not_let_its_like_pass():
    x, weight = torch.randn(1, 4, 6, 6), torch.randn(4, 4, 3, 3)
    for _ in range(2):
        fused_conv2d(x, weight, stride=(1, 1), padding=1, groups=1)
        for options in ({"stride": (True, 1)}, {"stride": (1.0, 1)}, {"groups": True}):
            with pytest.raises(TypeError, match="must be an int"):
                fused_conv2d(x, weight, padding=1, **options)
    assert torch.equal(fused_conv2d(x, weight, stride=[1, 1]), fused_conv2d(x, weight))


def test_a_group_of_arguments_is_taken_apart_and_put_together():
    g = spec.Geometry((1, 2), (0, 1, 2, 3), (1, 1), 4, "reflect", 2)
    group = dispatch.Group(1, spec.geometry, 6)
    flat = group.flat(("x", g, "elu"))
    assert flat == ("x", *g, "elu")
    lists = [list(one) if isinstance(one, tuple) else one for one in flat]
    assert group.nested(lists) == ("x", g, "elu")


def test_one_filter_of_many_weights():
    """The gradient of x by few pixels and many weights, which lie packed even when exchanged.

    With filters and channels exchanged they are still no weight to be read where it lies.
    """
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 8192, 2, 4, generator=generator).requires_grad_()
    weight = torch.randn(1, 8192, 3, 3, generator=generator) / 300
    options = {"padding": 1, "padding_mode": "reflect"}
    (grad,) = torch.autograd.grad(fused_conv2d(x, weight, **options).sum(), x)
    exact = reference.fused_conv2d(x.double(), weight.double(), **options)
    (expected,) = torch.autograd.grad(exact.sum(), x)
    torch.testing.assert_close(grad, expected)
