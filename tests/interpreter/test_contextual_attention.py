"""The GPU kernels of contextual attention against the reference, in Triton's interpreter."""

import math

import pytest
import torch
from support import check_close

import inpaint_ops
from inpaint_ops import contextual_attention, reference
from inpaint_ops.kernels import products

CASES = [
    ({}, (2, 5, (9, 10), (9, 10))),
    ({"fuse": False}, (2, 5, (9, 7), (5, 10))),
    ({"rate": 1, "softmax_scale": 1.0}, (1, 3, (4, 3), (2, 5))),
    ({"rate": 3, "key_norm": "sum", "overlap": "count"}, (1, 5, (11, 8), (7, 13))),
    ({"pick": "align_corners", "hole_mode": "exclude"}, (1, 4, (8, 6), (9, 11))),
    ({"fuse": False, "hole_mode": "exclude", "overlap": "count"}, (2, 3, (5, 6), (7, 6))),
    ({}, (1, 1, (1, 1), (1, 1))),
]


def inputs(n, c, size, bg_size, rate=2, dtype=torch.float32, scale=0.3):
    generator = torch.Generator().manual_seed(c)
    fg = (torch.randn(n, c, *size, generator=generator) * scale).to(dtype)
    bg = (torch.randn(n, c, *bg_size, generator=generator) * scale).to(dtype)
    hb, wb = (-(-s // rate) for s in bg_size)
    hole = torch.zeros(n, 1, hb, wb)
    for i in range(n):
        hole[i, :, hb // 3, wb // 3 : wb // 3 + 1 + i] = 1
    return fg, bg, hole


def run(function, fg, bg, hole, grad, options):
    fg, bg = (x.detach().requires_grad_() for x in (fg, bg))
    y, index = function(fg, bg, hole, return_index=True, **options)
    return index, y.detach(), *torch.autograd.grad(y, (fg, bg), grad.to(y.dtype))


def check(fg, bg, hole, options, dtype=torch.float32):
    grad = torch.randn(fg.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    with inpaint_ops.backend("triton"):
        index, *actual = run(contextual_attention, fg, bg, hole, grad, options)
    exact, *expected = run(
        reference.contextual_attention, fg.double(), bg.double(), hole, grad, options
    )
    assert torch.equal(index, exact)
    for a, e in zip(actual, expected):
        assert a.dtype == dtype
        # An error of a score, a sum of 9 c terms, up to 9 of them fused, is one of its exponential.
        check_close(a, e, terms=64 * 1024 if dtype == torch.float32 else 64)


@pytest.mark.parametrize(("options", "sizes"), CASES, ids=str)
def test_matches_reference(options, sizes):
    check(*inputs(*sizes, options.get("rate", 2)), options)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["fp16", "bf16"])
def test_halves(dtype):
    fg, bg, hole = inputs(1, 6, (6, 8), (6, 8), dtype=dtype)
    layout = torch.channels_last
    check(fg.contiguous(memory_format=layout), bg, hole, {"softmax_scale": 2.0}, dtype)


@pytest.mark.parametrize("fuse", [True, False], ids=["fused", "plain"])
def test_strips_that_wrap(monkeypatch, fuse):
    monkeypatch.setattr(products, "STRIP_BYTES", 1)
    fg, bg, hole = inputs(1, 3, (13, 2), (3, 4), rate=1)
    check(fg, bg, hole, {"rate": 1, "fuse": fuse, "softmax_scale": 1.0})


def test_empty_batch():
    fg, bg, hole = inputs(0, 4, (6, 6), (6, 8))
    with inpaint_ops.backend("triton"):
        x = fg.requires_grad_()
        y, index = contextual_attention(x, bg, hole, return_index=True)
        y.sum().backward()
    assert y.shape == x.grad.shape == fg.shape
    assert index.shape == (0, 3, 3)


@pytest.mark.parametrize("mode", ["zero", "exclude"])
def test_degenerate_holes(mode):
    fg, bg, _ = inputs(1, 3, (4, 5), (4, 5))
    every = torch.ones(1, 1, 2, 3)
    options = {"hole_mode": mode, "fuse": False}
    with inpaint_ops.backend("triton"):
        x = bg.clone().requires_grad_()
        y, index = contextual_attention(fg, x, every, return_index=True, **options)
        y.sum().backward()
        poisoned = torch.full_like(bg, math.nan)
        silent = contextual_attention(fg, poisoned, every, **options)
    assert not y.any()
    assert not index.any()
    assert not x.grad.any()
    assert not silent.any()
    # No hole at all, and keys that are all the same: the first of equals.
    check(fg, torch.zeros_like(bg), None, {"hole_mode": mode})
