"""refine_patch against its reference, and on cases with a known answer."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from inpaint_ops.ops import native, nearest_patch, refine_patch
from inpaint_ops.reference import refine_patch as reference


def make(seed, n, c, query, key, patch_size, dtype=torch.float32):
    g = torch.Generator().manual_seed(seed)
    q = torch.rand(n, c, *query, generator=g, dtype=torch.float64).to(dtype)
    k = torch.rand(n, c, *key, generator=g, dtype=torch.float64).to(dtype)
    grid = (query[0] - patch_size + 1, query[1] - patch_size + 1)
    places = (key[0] - patch_size + 1) * (key[1] - patch_size + 1)
    guess = torch.randint(-5, places + 5, (n, *grid), generator=g)
    valid = torch.rand(1, 1, *key, generator=g) > 0.02
    where = torch.rand(n, 1, *grid, generator=g) > 0.3
    return q, k, guess, valid, where


def assert_same(found, expected):
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1].isinf(), expected[1].isinf())
    torch.testing.assert_close(found[1], expected[1], rtol=1e-5, atol=1e-6, check_dtype=False)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("radius", "reach"), [(0, 1), (1, 1), (3, 2), (2, 40)])
def test_matches_reference(dtype, radius, reach):
    q, k, guess, valid, where = make(radius, 2, 3, (17, 23), (21, 13), 5, dtype)
    options = {"valid": valid, "where": where, "patch_size": 5, "radius": radius, "reach": reach}
    expected = reference(q.double(), k.double(), guess, **options)
    assert_same(refine_patch(q, k, guess, **options), expected)


def test_only_tiles_with_candidates_are_read():
    q, k, guess, valid, where = make(7, 1, 3, (12, 14), (131, 150), 5)
    guess %= 127 * 146
    near = torch.zeros(131, 150, dtype=torch.bool)
    y, x = guess[where[:, 0]] // 146, guess[where[:, 0]] % 146
    for row, column in zip(y.tolist(), x.tolist()):
        near[max(0, row - 2) : row + 7, max(0, column - 2) : column + 7] = True
    # Neighbours' guesses count too, so nothing is poisoned but what no window reaches.
    guess = torch.where(where[:, 0], guess, -1)
    options = {"valid": valid, "where": where, "patch_size": 5, "radius": 1, "reach": 1}
    expected = reference(q.double(), k.double(), guess, **options)
    poisoned = torch.where(near, k, float("nan"))
    assert bool(poisoned.isnan().any())
    assert_same(refine_patch(q, poisoned, guess, **options), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["fp32", "fp64"])
def test_every_instruction_set(dtype, instruction_set):
    assert native.status().instruction_set == instruction_set
    test_matches_reference(dtype, 1, 1)
    test_matches_reference(dtype, 2, 40)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 99),
    c=st.integers(1, 6),
    size=st.tuples(st.integers(7, 12), st.integers(7, 12)),
    key=st.tuples(st.integers(7, 12), st.integers(7, 12)),
    patch_size=st.integers(1, 7),
)
def test_any_size(seed, c, size, key, patch_size):
    q, k, guess, valid, where = make(seed, 1, c, size, key, patch_size)
    options = {"valid": valid, "where": where, "patch_size": patch_size, "radius": 1}
    expected = reference(q.double(), k.double(), guess, **options)
    assert_same(refine_patch(q, k, guess, **options), expected)


def test_a_window_over_everything_is_the_exhaustive_search():
    q, k, guess, valid, _ = make(1, 1, 3, (14, 14), (15, 16), 3)
    guess = torch.zeros_like(guess)
    index, distance = refine_patch(q, k, guess, valid=valid, patch_size=3, radius=20)
    exact, score = nearest_patch(q, k, valid=valid, patch_size=3, metric="l2")
    assert torch.equal(index, exact)
    square = torch.nn.functional.unfold(q, 3).square().sum(1).view_as(score)
    torch.testing.assert_close(distance, square - 2 * score, rtol=1e-4, atol=1e-4)


def test_guesses_travel_from_neighbours():
    image = torch.rand(1, 3, 20, 20, generator=torch.Generator().manual_seed(0))
    guess = torch.full((1, 14, 14), -1)
    guess[0, 5, 5] = 5 * 14 + 5
    index, distance = refine_patch(image, image, guess, patch_size=7, radius=0, reach=2)
    matched = {tuple(p) for p in (index[0] >= 0).nonzero().tolist()}
    assert matched == {(5, 5), (5, 3), (5, 7), (3, 5), (7, 5)}
    assert index[0, 5, 7] == 5 * 14 + 7
    assert float(distance[0, 3, 5]) == 0.0


def test_ties_nan_and_unusable_keys():
    query = torch.zeros(1, 1, 3, 3)
    key = torch.zeros(1, 1, 3, 8)
    guess = torch.full((1, 1, 1), 3)
    assert refine_patch(query, key, guess, patch_size=3, radius=9)[0].item() == 0
    valid = torch.ones(1, 1, 3, 8, dtype=torch.bool)
    valid[..., 0] = False
    key[..., 0] = float("nan")  # not valid: may hold anything
    index, distance = refine_patch(query, key, guess, valid=valid, patch_size=3, radius=9)
    assert (index.item(), distance.item()) == (1, 0.0)
    key[..., 2] = float("nan")  # valid: patches that hold it never win
    assert refine_patch(query, key, guess, valid=valid, patch_size=3, radius=9)[0].item() == 3
    nothing = refine_patch(query, key * float("nan"), guess, patch_size=3, radius=9)
    assert (nothing[0].item(), nothing[1].item()) == (-1, float("inf"))


def test_empty_and_too_small():
    empty = refine_patch(
        torch.zeros(0, 3, 9, 9), torch.zeros(0, 3, 9, 9), torch.zeros(0, 3, 3, dtype=torch.int64)
    )
    assert empty[0].shape == (0, 3, 3)
    small = refine_patch(
        torch.zeros(1, 3, 5, 9), torch.zeros(1, 3, 9, 9), torch.zeros(1, 0, 0, dtype=torch.int64)
    )
    assert small[0].shape == (1, 0, 0)
    no_key = refine_patch(
        torch.zeros(1, 3, 9, 9), torch.zeros(1, 3, 5, 9), torch.zeros(1, 3, 3, dtype=torch.int64)
    )
    assert int(no_key[0].max()) == -1


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"query": 3}, TypeError, "query must be a Tensor"),
        ({"query": torch.zeros(1, 3, 9, 9, dtype=torch.int32)}, TypeError, "query must have dtype"),
        ({"key": torch.zeros(3, 9, 9)}, ValueError, "key must have shape"),
        ({"key": torch.zeros(1, 2, 9, 9)}, ValueError, "agree in N and C"),
        ({"key": torch.zeros(1, 3, 9, 9, dtype=torch.float64)}, TypeError, "one dtype"),
        ({"guess": None}, TypeError, "guess must be a Tensor"),
        ({"guess": torch.zeros(1, 3, 3)}, TypeError, "guess must have dtype int64"),
        ({"guess": torch.zeros(1, 3, 4, dtype=torch.int64)}, ValueError, "guess must have shape"),
        ({"valid": torch.ones(1, 1, 9, 8)}, ValueError, "valid must have shape"),
        ({"valid": torch.full((1, 1, 9, 9), 0.5)}, ValueError, "valid must hold only 0 and 1"),
        ({"where": torch.ones(1, 1, 9, 9)}, ValueError, "where must have shape"),
        ({"patch_size": 0}, ValueError, "patch_size must be at least 1"),
        ({"radius": -1}, ValueError, "radius must be at least 0"),
        ({"reach": 1.5}, TypeError, "reach must be an int"),
    ],
)
def test_bad_input(change, error, text):
    arguments = {
        "query": torch.zeros(1, 3, 9, 9),
        "key": torch.zeros(1, 3, 9, 9),
        "guess": torch.zeros(1, 3, 3, dtype=torch.int64),
    } | change
    positional = [arguments.pop(name) for name in ("query", "key", "guess")]
    with pytest.raises(error, match=text):
        refine_patch(*positional, **arguments)
