"""The GPU kernels of contextual attention against the reference, in Triton's interpreter."""

import math

import pytest
import torch
from support import check_close

import inpaint_ops
from inpaint_ops import contextual_attention, reference
from inpaint_ops.kernels import launch
from inpaint_ops.kernels.attention import samples, strips
from inpaint_ops.kernels.attention.scores import SCORE

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
@pytest.mark.parametrize("size", [(13, 2), (9, 34), (2, 34)], ids=["rows", "tiles", "low"])
def test_strips_that_wrap(monkeypatch, size, fuse):
    monkeypatch.setattr(strips, "PAIRS", 1)
    fg, bg, hole = inputs(1, 3, size, (2, 3), rate=1)
    check(fg, bg, hole, {"rate": 1, "fuse": fuse, "softmax_scale": 1.0})


SIZES = [(1, 1), (3, 2), (8, 33), (9, 34), (17, 34), (5, 70), (40, 40), (11, 200)]


@pytest.mark.parametrize("fuse", [True, False], ids=["fused", "plain"])
@pytest.mark.parametrize("most", [1, 100, 600, 2000])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_windows_hold_what_strips_need(size, most, fuse):
    """Strips cover the grid once, and the cells of a window are different ones."""
    h, w = size
    own = torch.zeros(h * w, dtype=torch.int64)
    made = list(strips.strips(h, w, most, fuse))
    for strip in made:
        assert all(a <= b for a, b in zip(strip.own[1::2], strip.scores[1::2], strict=True))
        assert all(a.lines <= b.lines for a, b in zip(strip, made[0], strict=True))
        assert strip.own.lines <= max(most, 8 * min(w, 33))
        whole = strip.own.rows >= 8 and strip.own.columns in (w, 28, 60)
        assert not whole or strip.scores.lines <= 1.5 * strip.own.lines
        windows = [set(window.cells(h, w, "cpu").tolist()) for window in strip]
        assert [len(cells) for cells in windows] == [window.lines for window in strip]
        assert windows[0] <= windows[1] <= windows[2]
        own[strip.own.cells(h, w, "cpu")] += 1
        y, x = torch.tensor(sorted(windows[1])) // w, torch.tensor(sorted(windows[1])) % w
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                inside = (y + dy >= 0) & (y + dy < h) & (x + dx >= 0) & (x + dx < w)
                near = (y + dy) * w + x + dx
                assert set(near[inside].tolist()) <= windows[2]
    assert (own == 1).all()


def test_many_samples_and_wide_rows():
    fg, bg, hole = inputs(2, 2, (2, 40), (2, 66), rate=1)
    check(fg, bg, hole, {"rate": 1, "softmax_scale": 1.0})


@pytest.mark.parametrize("arch", launch.ARCHITECTURES)
def test_every_chip_has_scores_of_every_kind(arch):
    for name in ("half", "fp32", "tf32"):
        for blocks in ("", "-narrow", "-small"):
            row = SCORE.row(f"{name}{blocks}", arch)
            assert row.needs_tensor_cores or (name == "fp32" and arch not in ("sm_80", "sm_90"))


def test_tf32_where_torch_allows_it(monkeypatch):
    monkeypatch.setattr(samples, "tf32_products", lambda: True)
    check(*inputs(1, 3, (4, 3), (2, 5), rate=1), {"rate": 1, "softmax_scale": 1.0})


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
