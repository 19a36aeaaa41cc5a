"""The GPU search for nearest patches against the reference, in Triton's interpreter."""

import math

import pytest
import torch
from support import check_close

import inpaint_ops
from inpaint_ops import nearest_patch, reference
from inpaint_ops.kernels.matching import search
from inpaint_ops.reference.nearest_patch import _patches

# N, C, query size, key size, patch, stride, key stride.
SHAPES = [
    (1, 1, (1, 1), (1, 1), 1, 1, 1),
    (2, 3, (7, 11), (13, 6), 3, 1, 1),
    (1, 5, (11, 8), (9, 10), 7, 2, 1),
    (1, 19, (5, 13), (13, 11), 2, 3, 2),
    (0, 3, (8, 8), (8, 8), 3, 1, 1),
    (1, 2, (4, 4), (2, 9), 3, 1, 1),
]
IDS = [f"n{s[0]}-c{s[1]}-q{s[2]}-k{s[3]}-p{s[4]}-s{s[5]}{s[6]}" for s in SHAPES]


def inputs(shape, dtype, seed=0):
    n, c, q, k, *_ = shape
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(n, c, *q, generator=generator).to(dtype)
    return query, torch.randn(n, c, *k, generator=generator).to(dtype)


def score_at(query, key, index, patch_size, stride, key_stride, metric):
    q = _patches(query, patch_size, stride)
    keys = _patches(key, patch_size, key_stride).flatten(2)
    n, d, h, w = q.shape
    picked = keys.gather(2, index.clamp_min(0).flatten(1)[:, None].expand(n, d, h * w))
    picked = picked.view(n, d, h, w)
    dot, norm = (q * picked).sum(1), picked.square().sum(1)
    if metric == "l2":
        return dot - norm / 2
    return dot / norm.sqrt().clamp_min(1e-8) / q.square().sum(1).sqrt().clamp_min(1e-8)


@pytest.mark.parametrize("metric", ["cosine", "l2"])
@pytest.mark.parametrize("masked", [False, True], ids=["all", "masked"])
@pytest.mark.parametrize("shape", SHAPES, ids=IDS)
def test_matches_reference(shape, masked, metric):
    dtype = (torch.float16, torch.bfloat16, torch.float32)[sum(shape[2]) % 3]
    query, key = inputs(shape, dtype)
    n, c, (hq, wq), (hk, wk), patch, stride, key_stride = shape
    options = {"patch_size": patch, "stride": stride, "key_stride": key_stride, "metric": metric}
    valid = where = None
    if masked:
        valid = torch.ones(n, 1, hk, wk, dtype=torch.bool)
        valid[:, :, hk // 3, wk // 3] = False
        grid = [len(reference.patch_origins(size, patch, stride)) for size in (hq, wq)]
        where = torch.rand(n, 1, *grid, generator=torch.Generator().manual_seed(1)) < 0.4
        key = torch.where(valid, key, math.nan)
    masks = {"valid": valid, "where": where}
    exact_index, exact = reference.nearest_patch(query.double(), key.double(), **masks, **options)
    with inpaint_ops.backend("triton"):
        index, score = nearest_patch(query, key, **masks, **options)
    matched = exact_index >= 0
    assert index.dtype == torch.int64
    assert score.dtype == torch.float32
    assert torch.equal(index >= 0, matched)
    assert (score[~matched] == -math.inf).all()
    terms = c * patch**2
    check_close(score[matched], exact[matched], terms=terms)
    if exact.numel() and key.shape[2] >= patch:
        at = score_at(query.double(), key.double(), index, **options)
        check_close(at[matched].float(), exact[matched], terms=terms)


def test_lowest_of_equals_wins_over_tiles_and_segments(monkeypatch):
    key = torch.zeros(1, 2, 10, 30)
    key[:, :, 7:] = 1
    for segments, wanted, dtype in (
        (1, 264, torch.float32),
        (3, 264, torch.float32),
        (8, 264, torch.float16),
        (2, 0, torch.float16),
    ):
        monkeypatch.setattr(search, "segments", lambda *_, s=segments: s)
        monkeypatch.setattr(search, "WANTED", wanted)
        one, none = torch.ones(1, 2, 3, 4, dtype=dtype), torch.zeros(1, 2, 3, 4, dtype=dtype)
        with inpaint_ops.backend("triton"):
            index, score = nearest_patch(one, key.to(dtype), patch_size=1)
            none, zero = nearest_patch(none, key.to(dtype), patch_size=1)
        assert (index == 7 * 30).all()
        check_close(score, torch.ones(1, 3, 4))
        assert (none == 0).all()
        assert (zero == 0).all()


def test_nothing_usable_and_no_number():
    query = torch.randn(2, 3, 4, 5)
    query[1, :, 2, 2] = math.nan
    key = torch.randn(2, 3, 6, 6)
    valid = torch.ones(2, 1, 6, 6)
    valid[0] = 0
    with inpaint_ops.backend("triton"):
        index, score = nearest_patch(query, key, valid=valid, patch_size=1)
    expected = reference.nearest_patch(query, key, valid=valid, patch_size=1)
    assert torch.equal(index, expected[0])
    assert (index[0] == -1).all()
    assert index[1, 2, 2] == -1
    assert score[1, 2, 2] == -math.inf
