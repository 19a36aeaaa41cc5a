"""Poisson blending against a dense solve of its definition."""

import builtins

import numpy as np
import pytest
import torch

from inpaint_ops import blending
from inpaint_ops.blending import poisson_blend

pytest.importorskip("scipy")


def pictures(n=2, c=3, h=9, w=11, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    # Far from 0 and 1, so that the clamp does not hide anything.
    return [
        (0.4 + 0.2 * torch.rand(n, c, h, w, generator=generator, dtype=torch.float64)).to(dtype)
        for _ in range(2)
    ]


def dense(prediction, image, hole):
    """The definition, one equation a pixel, by a dense solve; (C, H, W) and (H, W)."""
    c, h, w = image.shape
    where = [(y, x) for y in range(h) for x in range(w) if hole[y, x]]
    number = {p: i for i, p in enumerate(where)}
    a = np.zeros((len(where), len(where)))
    b = np.zeros((len(where), c))
    for (y, x), i in number.items():
        for q in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
            if not (0 <= q[0] < h and 0 <= q[1] < w):
                continue
            a[i, i] += 1
            b[i] += prediction[:, y, x] - prediction[:, q[0], q[1]]
            if q in number:
                a[i, number[q]] -= 1
            else:
                b[i] += image[:, q[0], q[1]]
    result = image.copy()
    for (y, x), value in zip(where, np.linalg.solve(a, b)):
        result[:, y, x] = value
    return result


def holes():
    block = torch.zeros(9, 11)
    block[2:6, 3:8] = 1
    edges = torch.zeros(9, 11)
    edges[:4, :3] = edges[7:, 5:] = edges[4, 10] = 1
    ring = torch.ones(9, 11)
    ring[4, 5] = 0
    speckle = (torch.rand(9, 11, generator=torch.Generator().manual_seed(3)) < 0.5).float()
    return {"block": block, "edges": edges, "ring": ring, "speckle": speckle}


@pytest.mark.parametrize("name", ["block", "edges", "ring", "speckle"])
@pytest.mark.parametrize("iterative", [False, True])
def test_matches_dense_solve(name, iterative, monkeypatch):
    if iterative:
        monkeypatch.setattr(blending, "_DIRECT", 0)
        monkeypatch.setattr(blending, "_BLOCK", 3)
    prediction, image = pictures()
    hole = holes()[name]
    result = poisson_blend(prediction, image, hole[None, None])
    for i in range(2):
        expected = dense(prediction[i].numpy(), image[i].numpy(), hole.numpy() > 0)
        # Conjugate gradients stop at a relative residual of 1e-7.
        tolerance = 1e-6 if iterative else 1e-10
        np.testing.assert_allclose(result[i].numpy(), expected, rtol=0, atol=tolerance)


def test_both_solvers_agree_on_a_large_hole(monkeypatch):
    prediction, image = pictures(1, 1, 180, 190)
    hole = torch.zeros(1, 1, 180, 190)
    hole[:, :, 10:170, 20:] = 1
    iterative = poisson_blend(prediction, image, hole)
    monkeypatch.setattr(blending, "_DIRECT", 10**6)
    torch.testing.assert_close(iterative, poisson_blend(prediction, image, hole), rtol=0, atol=1e-5)


def test_same_gradients_leave_no_seam():
    _, image = pictures()
    hole = holes()["block"][None, None]
    torch.testing.assert_close(poisson_blend(image - 0.2, image, hole), image)


def test_each_sample_has_its_hole_and_known_pixels_stay():
    prediction, image = pictures(dtype=torch.float32)
    hole = torch.stack([holes()["block"], holes()["edges"]])[:, None]
    result = poisson_blend(prediction, torch.where(hole > 0, torch.nan, image), hole)
    known = (hole == 0).expand_as(image)
    assert torch.equal(result[known], image[known])
    assert torch.isfinite(result).all()
    for i in range(2):
        alone = poisson_blend(prediction[i : i + 1], image[i : i + 1], hole[i : i + 1])
        assert torch.equal(alone[0], result[i])


def test_full_and_empty_holes():
    prediction, image = pictures()
    full = torch.ones(1, 1, 9, 11)
    assert torch.equal(poisson_blend(prediction, image, full), prediction)
    assert torch.equal(poisson_blend(prediction, image, torch.zeros(1, 1, 9, 11)), image)


def test_result_is_clamped():
    prediction, image = pictures()
    hole = holes()["block"][None, None]
    prediction = prediction + 3 * hole
    assert poisson_blend(prediction, image, hole).max() == 1


def test_missing_scipy_is_named(monkeypatch):
    original = builtins.__import__

    def blocked(name, *args, **kwargs):
        if name.startswith("scipy"):
            raise ImportError(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", blocked)
    prediction, image = pictures()
    with pytest.raises(ImportError, match=r"inpaint-ops\[blend\]"):
        poisson_blend(prediction, image, holes()["block"][None, None])


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"prediction": torch.zeros(1, 3, 4, 4).double()}, ValueError, "image must have shape"),
        ({"prediction": None}, TypeError, "prediction"),
        ({"image": torch.zeros(2, 3, 9, 11)}, TypeError, "dtype"),
        ({"hole": torch.zeros(1, 1, 4, 4)}, ValueError, "hole"),
    ],
)
def test_bad_input(change, error, text):
    prediction, image = pictures()
    hole = holes()["block"][None, None]
    with pytest.raises(error, match=text):
        poisson_blend(**{"prediction": prediction, "image": image, "hole": hole, **change})
