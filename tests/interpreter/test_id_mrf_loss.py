"""The GPU kernels of the ID-MRF loss against the reference, in Triton's interpreter."""

import math

import pytest
import torch
from support import check_close

import inpaint_ops
from inpaint_ops import id_mrf_loss, reference
from inpaint_ops.kernels import products

SHAPES = [(1, 2, (1, 1)), (2, 9, (6, 5)), (1, 5, (7, 11)), (0, 4, (3, 3))]


def inputs(n, c, size, dtype=torch.float32, mix=0.3):
    generator = torch.Generator().manual_seed(n + c)
    target = torch.randn(n, c, *size, generator=generator)
    noise = torch.randn(n, c, *size, generator=generator)
    return (mix * target + (1 - mix) * noise).to(dtype), target.to(dtype)


def with_gradients(function, generated, target, **options):
    generated, target = (x.detach().requires_grad_() for x in (generated, target))
    loss = function(generated, target, reduction="none", **options)
    weights = torch.arange(1.0, len(loss) + 1, dtype=loss.dtype)
    return loss.detach(), *torch.autograd.grad(loss, (generated, target), weights)


@pytest.mark.parametrize("exclude_self", [False, True], ids=["all", "others"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_matches_reference(shape, exclude_self):
    generated, target = inputs(*shape)
    options = {"exclude_self": exclude_self, "bandwidth": 0.4, "eps": 1e-3}
    with inpaint_ops.backend("triton"):
        actual = with_gradients(id_mrf_loss, generated, target, **options)
    expected = with_gradients(reference.id_mrf_loss, generated.double(), target.double(), **options)
    for a, e in zip(actual, expected):
        check_close(a, e, terms=64 * 64)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["fp16", "bf16"])
def test_halves_are_widened(dtype):
    generated, target = inputs(1, 6, (4, 5), dtype)
    options = {"center": "spatial"}
    with inpaint_ops.backend("triton"):
        loss, *grads = with_gradients(id_mrf_loss, generated, target, **options)
    assert loss.dtype == torch.float32
    assert grads[0].dtype == dtype
    exact, *expected = with_gradients(
        reference.id_mrf_loss, generated.double(), target.double(), **options
    )
    check_close(loss, exact, terms=64 * 64)
    for a, e in zip(grads, expected):
        check_close(a, e)


def test_strips_give_the_same(monkeypatch):
    generated, target = inputs(1, 3, (9, 15))
    options = {"exclude_self": True, "eps": 1e-3}
    monkeypatch.setattr(products, "STRIP_BYTES", 1)
    with inpaint_ops.backend("triton"):
        actual = with_gradients(id_mrf_loss, generated, target, **options)
    expected = with_gradients(reference.id_mrf_loss, generated.double(), target.double(), **options)
    for a, e in zip(actual, expected):
        check_close(a, e, terms=64 * 64)


def test_equal_maps_equal_vectors_and_no_number():
    target = torch.zeros(3, 3, 2, 3)
    target[:, 0] = 1
    target[0, 1, 1] = 2
    target[2, 0, 0, 1] = math.nan
    for exclude_self in (False, True):
        with inpaint_ops.backend("triton"):
            loss = id_mrf_loss(target, target, reduction="none", exclude_self=exclude_self)
        expected = reference.id_mrf_loss(
            target.double(), target.double(), reduction="none", exclude_self=exclude_self
        )
        torch.testing.assert_close(loss[:2].double(), expected[:2], rtol=1e-3, atol=1e-3)
        assert loss[2].isnan()
