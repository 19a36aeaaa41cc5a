"""The GPU shift against the reference, in Triton's interpreter."""

import math

import pytest
import torch
from support import check_close

import inpaint_ops
from inpaint_ops import reference, shift_connection
from inpaint_ops.ops.shift_connection import concatenated_shift

SHAPES = [(1, 1, 1, 1), (2, 5, 7, 9), (1, 24, 8, 4), (1, 67, 5, 6), (0, 3, 4, 4)]
HOLES = {
    "some": lambda n, h, w: (
        torch.rand(n, 1, h, w, generator=torch.Generator().manual_seed(1)) < 0.3
    ),
    "all": lambda n, h, w: torch.ones(1, 1, h, w),
    "none": lambda n, h, w: torch.zeros(n, 1, h, w, dtype=torch.uint8),
}


def inputs(shape, dtype, layout, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(shape, generator=generator).relu().to(dtype).contiguous(memory_format=layout)
        for _ in range(2)
    ]


def cosines(decoder, encoder, index):
    n, c, h, w = decoder.shape
    picked = encoder.flatten(2).gather(2, index.clamp_min(0).view(n, 1, h * w).expand(n, c, h * w))
    return torch.cosine_similarity(decoder.flatten(2).double(), picked.double())


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("kind", HOLES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_matches_reference(shape, kind, layout):
    dtype = (torch.float32, torch.float16, torch.bfloat16)[shape[1] % 3]
    decoder, encoder = inputs(shape, dtype, layout)
    n, c, h, w = shape
    hole = HOLES[kind](n, h, w)
    poisoned = torch.where(hole.bool(), math.nan, encoder).contiguous(memory_format=layout)
    with inpaint_ops.backend("triton"):
        shifted, index = shift_connection(decoder, poisoned, hole)
        joined, again = concatenated_shift(decoder, encoder, hole, 1.0)
    exact = reference.shift_connection(decoder.double(), poisoned.double(), hole)[1]
    assert shifted.dtype == dtype
    assert shifted.stride() == encoder.stride()
    assert torch.equal(index >= 0, exact >= 0)
    check_close(cosines(decoder, encoder, index), cosines(decoder, encoder, exact), dtype=dtype)
    at = index.clamp_min(0).view(n, 1, h * w).expand(n, c, h * w)
    moved = torch.where((index >= 0)[:, None], encoder.flatten(2).gather(2, at).view(shape), 0.0)
    assert torch.equal(shifted, moved)
    assert torch.equal(again, index)
    assert torch.equal(joined, torch.cat([decoder, encoder, moved], 1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gradients_match_reference(shape, dtype):
    decoder, encoder = inputs(shape, dtype, torch.channels_last)
    n, _, h, w = shape
    hole = HOLES["some"](n, h, w)
    # Few sources, asked for by many.
    encoder[:, :, 1:] = 0
    grad = torch.randn(shape, generator=torch.Generator().manual_seed(2)).to(dtype)
    results = []
    for name in ("triton", "reference"):
        d, e = (x.detach().clone().requires_grad_() for x in (decoder, encoder))
        with inpaint_ops.backend(name):
            shifted, index = shift_connection(d, e, hole, gradient_scale=0.5)
            shifted.backward(grad)
        results.append((index, e.grad))
        assert d.grad is None or not d.grad.any()
    expected = torch.zeros(shape[0], shape[1], h * w, dtype=torch.float64)
    index = results[0][0].flatten(1)
    moved_grad = torch.where((index >= 0)[:, None], 0.5 * grad.double().flatten(2), 0.0)
    expected.scatter_add_(2, index.clamp_min(0)[:, None].expand_as(moved_grad), moved_grad)
    check_close(results[0][1], expected.view(shape))


def test_lowest_of_equals_and_zero_vectors():
    encoder = torch.eye(4)[torch.tensor([[3, 0, 1, 0], [1, 2, 0, 1], [3, 3, 2, 2]])]
    encoder = 2 * encoder.permute(2, 0, 1)[None]
    decoder = torch.zeros(1, 4, 3, 4)
    decoder[0, 0, 1, 0], decoder[0, 2, 1, 1] = 3, 1
    hole = torch.zeros(1, 1, 3, 4)
    hole[:, :, 1] = 1
    with inpaint_ops.backend("triton"):
        _, index = shift_connection(decoder, encoder, hole)
    assert index[0, 1].tolist() == [1, 10, 0, 0]
