"""nearest_patch against its reference, its contract and the extension's own variants."""

import math
import threading

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from support import check_close

import inpaint_ops
from inpaint_ops import nearest_patch, reference
from inpaint_ops.ops import native
from inpaint_ops.reference.nearest_patch import _patches

# N, C, query size, key size, patch, stride, key stride: one and odd and prime, no multiple of any
# tile, keys wider than one block, few channels (diagonals), many (products), strides (lists).
SHAPES = [
    (1, 1, (1, 1), (1, 1), 1, 1, 1),
    (2, 3, (20, 21), (22, 41), 7, 1, 1),
    (1, 3, (13, 31), (31, 13), 3, 1, 1),
    (1, 5, (17, 19), (23, 17), 7, 1, 1),
    (1, 3, (16, 17), (19, 12), 5, 1, 1),
    (1, 2, (15, 14), (15, 15), 4, 1, 1),
    (3, 40, (17, 13), (19, 29), 3, 1, 1),
    (1, 67, (9, 9), (7, 600), 3, 1, 1),
    (1, 33, (70, 9), (9, 71), 3, 1, 1),
    (1, 64, (20, 20), (20, 21), 3, 2, 2),
    (1, 30, (14, 5), (7, 150), 3, 1, 2),
    (2, 8, (16, 16), (16, 16), 3, 3, 1),
    (1, 256, (12, 11), (11, 12), 1, 1, 1),
    (1, 3, (40, 37), (20, 20), 11, 2, 1),
    (1, 4, (3, 3), (9, 9), 3, 1, 1),
    (0, 3, (8, 8), (8, 8), 3, 1, 1),
]
IDS = [
    f"n{s[0]}-c{s[1]}-q{s[2][0]}x{s[2][1]}-k{s[3][0]}x{s[3][1]}-p{s[4]}-s{s[5]}{s[6]}"
    for s in SHAPES
]


def inputs(shape, dtype, seed=0):
    n, c, q, k, *_ = shape
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(n, c, *q, generator=generator, dtype=torch.float64)
    key = torch.randn(n, c, *k, generator=generator, dtype=torch.float64)
    return query.to(dtype), key.to(dtype)


def masks(shape, seed=0):
    n, _, q, k, patch, stride, _ = shape
    generator = torch.Generator().manual_seed(seed)
    valid = torch.ones(n, 1, *k, dtype=torch.bool)
    valid[:, :, k[0] // 3 : k[0] // 3 + 2, k[1] // 3 : k[1] // 3 + 3] = False
    grid = [len(reference.patch_origins(size, patch, stride)) for size in q]
    where = torch.rand(n, 1, *grid, generator=generator) < 0.3
    return valid, where


def options(shape):
    return {"patch_size": shape[4], "stride": shape[5], "key_stride": shape[6]}


def check_match(query, key, result, *, dtype=None, **kwargs):
    """The scores are right, and the index reaches the best score to within rounding."""
    index, score = result
    exact_index, exact = reference.nearest_patch(query.double(), key.double(), **kwargs)
    terms = query.shape[1] * kwargs["patch_size"] ** 2
    matched = exact_index >= 0
    assert torch.equal(index >= 0, matched)
    assert (score[~matched] == -math.inf).all()
    check_close(score[matched], exact[matched], terms=terms, dtype=dtype)
    if query.dtype == torch.float64:
        assert torch.equal(index, exact_index)
        return
    achieved = score_at(query.double(), key.double(), index, kwargs)
    check_close(achieved[matched].to(score.dtype), exact[matched], terms=terms, dtype=dtype)


def score_at(query, key, index, kwargs):
    """The exact score of given pairs."""
    k = kwargs["patch_size"]
    q = _patches(query, k, kwargs["stride"])
    keys = _patches(key, k, kwargs["key_stride"]).flatten(2)
    n, d, h, w = q.shape
    target = index.clamp_min(0).flatten(1)[:, None].expand(n, d, h * w)
    picked = keys.gather(2, target).view(n, d, h, w)
    dot, norm = (q * picked).sum(1), picked.square().sum(1)
    if kwargs["metric"] == "l2":
        return dot - norm / 2
    return dot / norm.sqrt().clamp_min(1e-8) / q.square().sum(1).sqrt().clamp_min(1e-8)


@pytest.mark.parametrize("metric", ["cosine", "l2"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["fp32", "fp64"])
@pytest.mark.parametrize("shape", SHAPES, ids=IDS)
def test_matches_reference(shape, dtype, metric):
    query, key = inputs(shape, dtype)
    kwargs = {**options(shape), "metric": metric}
    check_match(query, key, nearest_patch(query, key, **kwargs), **kwargs)


@pytest.mark.parametrize("metric", ["cosine", "l2"])
@pytest.mark.parametrize("shape", SHAPES, ids=IDS)
def test_matches_reference_masked(shape, metric):
    query, key = inputs(shape, torch.float32)
    valid, where = masks(shape)
    kwargs = {**options(shape), "metric": metric, "valid": valid, "where": where}
    # What may not be used may hold anything.
    poisoned = torch.where(valid, key, math.nan)
    check_match(query, key, nearest_patch(query, poisoned, **kwargs), **kwargs)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["fp16", "bf16"])
def test_half_inputs_score_in_float32(dtype):
    shape = SHAPES[6]
    query, key = inputs(shape, dtype)
    kwargs = {**options(shape), "metric": "cosine"}
    result = nearest_patch(query, key, **kwargs)
    assert result[1].dtype == torch.float32
    check_match(query, key, result, **kwargs)


@pytest.mark.parametrize("shape", SHAPES, ids=IDS)
@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_every_instruction_set(shape, metric, instruction_set):
    assert native.status().instruction_set == instruction_set
    query, key = inputs(shape, torch.float32)
    valid, where = masks(shape)
    kwargs = {**options(shape), "metric": metric, "valid": valid, "where": where}
    check_match(query, key, nearest_patch(query, key, **kwargs), **kwargs)
    query, key = query.double(), key.double()
    check_match(query, key, nearest_patch(query, key, **kwargs), **kwargs)


@pytest.mark.parametrize("shape", SHAPES, ids=IDS)
def test_threads_give_equal_bits(shape):
    query, key = inputs(shape, torch.float32)
    valid, where = masks(shape)
    results = []
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        results.append(nearest_patch(query, key, valid=valid, where=where, **options(shape)))
    for index, score in results[1:]:
        assert torch.equal(index, results[0][0])
        assert torch.equal(score, results[0][1])


@pytest.mark.parametrize("shape", SHAPES[1:], ids=IDS[1:])
def test_ties_take_the_lowest_index(shape):
    n, c, q, k, *_ = shape
    generator = torch.Generator().manual_seed(3)
    # Small integers: float32 sums are exact, equal scores are many.
    query = torch.randint(0, 2, (n, c, *q), generator=generator).float()
    key = torch.randint(0, 2, (n, c, *k), generator=generator).float()
    kwargs = {**options(shape), "metric": "l2"}
    index, score = nearest_patch(query, key, **kwargs)
    expected_index, expected = reference.nearest_patch(query.double(), key.double(), **kwargs)
    assert torch.equal(index, expected_index)
    assert torch.equal(score.double(), expected)


def test_degenerate_inputs():
    query = torch.randn(1, 3, 6, 6)
    # No key at all, no key usable, key smaller than a patch, query smaller than a patch.
    for kwargs in ({"valid": torch.zeros(1, 1, 6, 6)}, {"patch_size": 9}):
        index, score = nearest_patch(query, torch.randn(1, 3, 6, 6), **kwargs)
        assert (index == -1).all()
        assert (score == -math.inf).all()
    index, score = nearest_patch(query, torch.randn(1, 3, 2, 9))
    assert index.shape == (1, 4, 4)
    assert (index == -1).all()
    assert (score == -math.inf).all()
    assert nearest_patch(torch.randn(1, 3, 2, 2), query)[0].shape == (1, 0, 0)
    # A zero query is as similar to one key as to the next; a zero key is similar to nothing.
    key = torch.randn(1, 3, 5, 5)
    index, score = nearest_patch(torch.zeros(1, 3, 4, 4), key)
    assert (index == 0).all()
    assert (score == 0).all()
    key[..., :3, :3] = 0
    assert (nearest_patch(key[..., 2:, 2:].clone(), key)[0] != 0).all()


@pytest.mark.parametrize("channels", [3, 64])
def test_nan_never_wins(channels):
    query, key = torch.randn(1, channels, 9, 9), torch.randn(1, channels, 9, 40)
    poisoned = key.clone()
    poisoned[0, 0, 4, 20] = math.nan
    valid = torch.ones(1, 1, 9, 40)
    valid[0, 0, 4, 20] = 0
    for metric in ("cosine", "l2"):
        # A NaN key patch loses to every other, as one that may not be used does.
        index, score = nearest_patch(query, poisoned, metric=metric)
        expected = nearest_patch(query, key, valid=valid, metric=metric)
        assert torch.equal(index, expected[0])
        assert torch.equal(score, expected[1])
    query[0, 0, 4, 4] = math.nan
    index, score = nearest_patch(query, key)
    covered = torch.zeros(7, 7, dtype=torch.bool)
    covered[2:5, 2:5] = True
    assert torch.equal(index[0] == -1, covered)
    assert torch.isfinite(score[0][~covered]).all()


@given(
    channels=st.sampled_from([1, 3, 20]),
    size=st.integers(5, 14),
    patch=st.integers(1, 4),
    dy=st.integers(0, 4),
    dx=st.integers(0, 4),
)
def test_finds_itself(channels, size, patch, dy, dx):
    """Patches cut out of the keys are found where they came from, with cosine 1."""
    generator = torch.Generator().manual_seed(size * 100 + patch)
    key = torch.randn(1, channels, size + 4, size + 4, generator=generator)
    if channels == 1 and patch == 1:
        return  # one number: every cosine is 1 or -1
    query = key[:, :, dy : dy + size, dx : dx + size]
    index, score = nearest_patch(query, key, patch_size=patch)
    width = size + 4 - patch + 1
    rows, columns = torch.meshgrid(
        torch.arange(size - patch + 1), torch.arange(size - patch + 1), indexing="ij"
    )
    assert torch.equal(index[0], (rows + dy) * width + columns + dx)
    torch.testing.assert_close(score, torch.ones_like(score), rtol=0, atol=1e-5)


@given(seed=st.integers(0, 1000), factor=st.floats(0.25, 8.0))
def test_cosine_ignores_query_scale(seed, factor):
    query, key = inputs((1, 6, (8, 9), (10, 7), 3, 1, 1), torch.float64, seed)
    index, score = nearest_patch(query, key)
    scaled_index, scaled = nearest_patch(query * factor, key)
    assert torch.equal(index, scaled_index)
    torch.testing.assert_close(score, scaled)


@given(seed=st.integers(0, 1000))
def test_l2_score_is_the_distance(seed):
    query, key = inputs((1, 4, (7, 6), (9, 8), 3, 1, 1), torch.float64, seed)
    index, score = nearest_patch(query, key, metric="l2")
    q = torch.nn.functional.unfold(query, 3)[0].T
    k = torch.nn.functional.unfold(key, 3)[0].T
    distance = torch.cdist(q, k).square()
    assert torch.equal(index.flatten(), distance.argmin(1))
    torch.testing.assert_close(
        q.square().sum(1) - 2 * score.flatten(), distance.amin(1), rtol=1e-9, atol=1e-9
    )


def test_compiles_and_exports():
    query, key = torch.randn(1, 3, 12, 12), torch.randn(1, 3, 10, 14)
    where = torch.rand(1, 1, 10, 10) < 0.5

    def matched(q, k, w):
        return nearest_patch(q, k, where=w, metric="l2")

    expected = matched(query, key, where)
    compiled = torch.compile(matched, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(query, key, where)[0], expected[0])

    class Module(torch.nn.Module):
        def forward(self, q, k, w):
            return matched(q, k, w)

    program = torch.export.export(Module(), (query, key, where))
    assert torch.equal(program.module()(query, key, where)[1], expected[1])


def test_autocast_matches_in_float32():
    query, key = inputs(SHAPES[6], torch.float32)
    expected = nearest_patch(query.bfloat16().float(), key)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        index, score = nearest_patch(query.bfloat16(), key)
    assert torch.equal(index, expected[0])
    assert torch.equal(score, expected[1])


def test_backend_reference_agrees():
    query, key = inputs(SHAPES[1], torch.float64)
    expected = nearest_patch(query, key, patch_size=7)
    with inpaint_ops.backend("reference"):
        index, score = nearest_patch(query, key, patch_size=7)
    assert torch.equal(index, expected[0])
    torch.testing.assert_close(score, expected[1])
    with (
        pytest.raises(
            ValueError, match="one of auto, precise, direct, triton, reference, got 'cpu'"
        ),
        inpaint_ops.backend("cpu"),
    ):
        pass


def test_concurrent_calls():
    query, key = inputs((1, 20, (20, 20), (20, 40), 3, 1, 1), torch.float32)
    expected = nearest_patch(query, key)
    wrong = []

    def work():
        for _ in range(5):
            index, score = nearest_patch(query, key)
            if not (torch.equal(index, expected[0]) and torch.equal(score, expected[1])):
                wrong.append(1)

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


X = torch.zeros(2, 3, 8, 8)
BAD_INPUT = [
    ({"query": X[0]}, ValueError, r"query must have shape \(N, C, H, W\)"),
    ({"query": X[:, :0]}, ValueError, "query must have at least one channel"),
    ({"key": X[:1]}, ValueError, "query and key must agree in N and C"),
    ({"key": X[:, :2]}, ValueError, "query and key must agree in N and C"),
    ({"valid": torch.ones(2, 1, 8, 7)}, ValueError, r"valid must have shape \(2, 1, 8, 8\)"),
    ({"valid": torch.ones(2, 1, 8, 8) * 0.5}, ValueError, "valid must hold only 0 and 1, got 0.5"),
    ({"valid": torch.full((2, 1, 8, 8), math.nan)}, ValueError, "valid must hold only 0 and 1"),
    ({"where": torch.ones(2, 1, 8, 8)}, ValueError, r"where must have shape \(2, 1, 6, 6\)"),
    ({"where": torch.ones(1, 1, 6, 6).byte() * 2}, ValueError, "where must hold only 0 and 1"),
    ({"where": [1]}, TypeError, "where must be a Tensor, got list"),
    ({"patch_size": 0}, ValueError, "patch_size must be at least 1, got 0"),
    ({"patch_size": 3.0}, TypeError, "patch_size must be an int, got float"),
    ({"stride": -1}, ValueError, "stride must be at least 1"),
    ({"stride": True}, TypeError, "stride must be an int, got bool"),
    ({"key_stride": 0}, ValueError, "key_stride must be at least 1"),
    ({"metric": "l1"}, ValueError, "metric must be one of cosine, l2, got 'l1'"),
]


@pytest.mark.parametrize(("change", "error", "text"), BAD_INPUT, ids=[b[2][:40] for b in BAD_INPUT])
def test_bad_input(change, error, text):
    arguments = {"query": X, "key": X, **change}
    with pytest.raises(error, match=f"nearest_patch: {text}"):
        nearest_patch(arguments.pop("query"), arguments.pop("key"), **arguments)


def waves(channels, height, width, seed, dtype=torch.float32):
    """A picture whose patches resemble each other, as those of photos do: smooth, little noise."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.linspace(0, 3, height, dtype=torch.float64)[:, None]
    x = torch.linspace(0, 4, width, dtype=torch.float64)
    phase = 6 * torch.rand(channels, 3, generator=generator, dtype=torch.float64)
    planes = [
        torch.sin(2 * y + a) + torch.cos(3 * x + b) + torch.sin(x * y + c) for a, b, c in phase
    ]
    noise = torch.randn(channels, height, width, generator=generator, dtype=torch.float64)
    return (torch.stack(planes) + 0.02 * noise)[None].to(dtype)


# Large enough for a tree of keys: C, query size, key size, patch, stride, key stride.
TREES = [
    (5, (30, 33), (71, 75), 7, 1, 1),
    (3, (29, 40), (60, 61), 5, 1, 1),
    (2, (40, 41), (99, 101), 9, 2, 2),
    (7, (24, 26), (57, 63), 4, 1, 1),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["fp32", "fp64"])
@pytest.mark.parametrize("shape", TREES)
@pytest.mark.usefixtures("instruction_set")
def test_tree_of_keys(shape, dtype):
    channels, q, k, patch, stride, key_stride = shape
    query, key = waves(channels, *q, 0, dtype), waves(channels, *k, 0, dtype)
    valid = torch.ones(1, 1, *k, dtype=torch.bool)
    valid[..., 20:31, 25:40] = False
    kwargs = {"patch_size": patch, "stride": stride, "key_stride": key_stride, "metric": "l2"}
    poisoned = torch.where(valid, key, math.nan)
    result = nearest_patch(query, poisoned, valid=valid, **kwargs)
    check_match(query, key, result, valid=valid, **kwargs)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        again = nearest_patch(query, poisoned, valid=valid, **kwargs)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(again[0], result[0])
    assert torch.equal(again[1], result[1])


@pytest.mark.usefixtures("instruction_set")
def test_tree_takes_the_lowest_of_equal_keys():
    # Small integers leave no rounding errors. The picture repeats itself, and half of it is flat.
    generator = torch.Generator().manual_seed(3)
    tile = torch.randint(-3, 4, (1, 5, 16, 12), generator=generator).float()
    key = tile.repeat(1, 1, 5, 6)
    key[..., 36:] = 2
    query = key[..., 10:44, 20:56].contiguous()
    index, score = nearest_patch(query, key, patch_size=5, metric="l2")
    exact, best = reference.nearest_patch(query.double(), key.double(), patch_size=5, metric="l2")
    assert torch.equal(index, exact)
    assert torch.equal(score.double(), best)


def test_tree_leaves_what_is_not_finite_to_the_other_ways():
    query, key = waves(5, 30, 33, 0), waves(5, 71, 75, 0)
    key[..., 40, 40] = math.nan
    key[..., 10, 12] = math.inf
    query[..., 3, 3] = math.nan
    kwargs = {"patch_size": 7, "metric": "l2"}
    index, score = nearest_patch(query, key, **kwargs)
    exact, _ = reference.nearest_patch(query.double(), key.double(), **kwargs)
    assert torch.equal(index < 0, exact < 0)
    assert torch.equal(score == -math.inf, exact < 0)


def test_tree_of_keys_beside_one_huge_number():
    # Rounded relative to it, the points of all patches are equal, though the patches are not.
    query, key = waves(3, 20, 20, 0), waves(3, 250, 250, 0)
    key[..., 125, 125] = 1e14
    kwargs = {"patch_size": 5, "metric": "l2"}
    index, _ = nearest_patch(query, key, **kwargs)
    some = query[..., :6, :6].double()
    exact, _ = reference.nearest_patch(some, key.double(), **kwargs)
    assert torch.equal(index[:, :2, :2], exact)


def test_lists_of_many_keys_are_gathered_piece_by_piece():
    generator = torch.Generator().manual_seed(5)
    # 170 x 170 keys of 64 x 3 x 3 numbers are 66 MB; a piece is 64 MB.
    key = torch.randn(1, 64, 172, 172, generator=generator)
    query = key[..., 166:, 150:].contiguous()
    where = torch.zeros(1, 1, 4, 20, dtype=torch.bool)
    where[..., 0, 3] = where[..., 3, 17] = where[..., 2, 19] = True
    index, _ = nearest_patch(query, key, where=where, patch_size=3, metric="l2")
    rows, columns = where[0, 0].nonzero().T
    assert torch.equal(index[where[:, 0]], (166 + rows) * 170 + 150 + columns)
