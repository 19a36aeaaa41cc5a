"""Sessions: what is kept from one hole to the next, against the same computed anew."""

import pytest
import torch
import torch.nn.functional as F
from model_cases import picture, small
from torch import nn
from user_networks import UNKNOWN, Own

from inpaint_ops import needed
from inpaint_ops.models import Session, list_models
from inpaint_ops.needed import lazy_tensor as noting
from inpaint_ops.needed import refill
from inpaint_ops.ops.partly import PARTLY

NAN = float("nan")


@pytest.fixture(autouse=True)
def _any_size(monkeypatch):
    """Small pictures count."""
    monkeypatch.setattr(noting, "_LEAST_PIXELS", 0)


@pytest.fixture(autouse=True)
def work(monkeypatch):
    """Pixels that convolutions compute, summed up; what is not right in their results is NaN."""
    done = {"pixels": 0}
    plain = refill._refill

    def poisoned(step, kept, plan, needs, value):
        if step.func in PARTLY and plan.need is not None:
            shape = step.likes[0].shape
            every = isinstance(plan.need, torch.Tensor)
            done["pixels"] += int(plan.need.sum()) if every else shape[0] * shape[2:].numel()
        poison(step, kept)
        plain(step, kept, plan, needs, value)
        poison(step, kept)

    def poison(step, kept):
        if step.func not in PARTLY or kept.results is None or kept.have[0] is noting.ALL:
            return
        have = kept.have[0]
        y = kept.results[0]
        y.masked_fill_(have[:, None] == 0 if have is not None else torch.tensor(True), NAN)

    monkeypatch.setattr(refill, "_refill", poisoned)
    return done


def strokes(n, h, w):
    """Holes one after the other, by what changes."""
    first = torch.zeros(n, 1, h, w)
    first[:, :, h // 2 : h // 2 + 9, w // 3 : w // 3 + 7] = 1
    far, near, other = first.clone(), first.clone(), torch.zeros(n, 1, h, w)
    far[-1, :, 2:5, -9:-1] = 1
    near[:, :, h // 2 + 7 : h // 2 + 12, w // 3 + 5 : w // 3 + 12] = 1
    other[0, :, :6, :5] = 1
    return {
        "first": first,
        "far away": far,
        "again": far,
        "overlapping": torch.maximum(far, near),
        "removed": near,
        "shared": near[:1],
        "larger": F.max_pool2d(near, 5, 1, 2),
        "elsewhere": other,
        "nothing": torch.zeros(n, 1, h, w),
        "most of it": torch.ones(n, 1, h, w) - other,
        "back": first,
    }


def anew(session, hole):
    """The same fill with everything computed whole."""
    with needed.remembering(session._memory, anew=True):
        return session.model.complete(session.image, hole)


@pytest.mark.filterwarnings("ignore::inpaint_ops.models.HoleNote")
@pytest.mark.parametrize("name", list_models())
def test_every_method_fills_what_it_fills_anew(name):
    model = small(name)
    for n, size in ((1, (72, 96)), (2, (61, 50))):
        image = picture(n, 3, *size)
        session = Session(model, image)
        for key, hole in strokes(n, *size).items():
            filled = session.fill(hole)
            assert torch.equal(filled, anew(session, hole)), key
            torch.testing.assert_close(filled, model.complete(image, hole), atol=2e-4, rtol=0)


@pytest.mark.parametrize("unknown", list(UNKNOWN))
def test_networks_of_users(unknown):
    network, memory = Own(UNKNOWN[unknown]).eval(), needed.Memory()
    image = torch.randn(2, 3, 64, 88)

    def fill(hole, *, anew=False):
        hole = hole.expand(2, 1, 64, 88)
        x = torch.where(hole > 0, 0.0, image)
        with needed.remembering(memory, anew=anew), torch.no_grad():
            y = needed.computed(network(needed.lazy(x), hole), hole)
        with torch.no_grad():
            plain = network(x, hole)
        return torch.where(hole > 0, y, 0.0), torch.where(hole > 0, plain, 0.0)

    for key, hole in strokes(2, 64, 88).items():
        if key != "nothing":
            some, plain = fill(hole)
            assert torch.equal(some, fill(hole, anew=True)[0]), key
            torch.testing.assert_close(some, plain, atol=1e-4, rtol=1e-4)


def test_a_picture_edited_in_place_is_noticed():
    network, memory = Own().eval(), needed.Memory()
    x, hole = torch.randn(1, 3, 32, 40), strokes(1, 32, 40)["first"]

    def fill(*, anew):
        with needed.remembering(memory, anew=anew), torch.no_grad():
            y = needed.computed(network(needed.lazy(x), hole), hole)
        return torch.where(hole > 0, y, 0.0)

    before = fill(anew=False)
    x[..., 18:20, 15] += 1
    after = fill(anew=False)
    assert not torch.equal(before, after)
    assert torch.equal(after, fill(anew=True))


def by_data(weight):
    weight.data[0] += 0.5


def in_place(weight):
    with torch.no_grad():
        weight.mul_(1.5)


@pytest.mark.parametrize("edit", [by_data, in_place, None], ids=["data", "in place", "loaded"])
@pytest.mark.parametrize("name", ["deepfill_v2", "partial_conv_unet", "glcic"])
def test_changed_weights_are_noticed(name, edit):
    model = small(name)
    image, holes = picture(1, 3, 64, 80), strokes(1, 64, 80)
    session = Session(model, image)
    before = session.fill(holes["first"])
    weights = [p for p in model.generator.parameters() if p.dim() == 4]
    if edit is None:
        model.load_state_dict({k: v * 0.8 for k, v in model.state_dict().items()})
    else:
        edit(weights[len(weights) // 2])
    after = session.fill(holes["first"])
    assert not torch.equal(after, before)
    assert torch.equal(after, anew(session, holes["first"]))
    torch.testing.assert_close(after, model.complete(image, holes["first"]), atol=2e-4, rtol=0)


@pytest.mark.parametrize("name", ["gmcnn", "partial_conv_unet", "glcic", "patch_gan"])
def test_a_small_stroke_far_away_costs_little(name, work):
    session = Session(small(name), picture(1, 3, 256, 512))
    hole = torch.zeros(1, 1, 256, 512)
    hole[..., 90:170, 60:140] = 1
    session.fill(hole)
    first, work["pixels"] = work["pixels"], 0
    session.fill(hole)
    assert work["pixels"] == 0
    hole[..., 50:54, 480:490] = 1
    session.fill(hole)
    assert 0 < work["pixels"] < first / 2


def test_what_is_kept_can_be_freed(work):
    session = Session(small("glcic"), picture(1, 3, 64, 64))
    hole = strokes(1, 64, 64)["first"]
    filled, first = session.fill(hole), work["pixels"]
    session.forget()
    assert torch.equal(session.fill(hole), filled)
    assert work["pixels"] == 2 * first


def test_a_fill_that_fails_leaves_nothing_behind(monkeypatch):
    session = Session(small("glcic"), picture(1, 3, 64, 64))
    holes = strokes(1, 64, 64)
    session.fill(holes["first"])
    plain, calls = refill.results_of, []

    def failing(*args):
        calls.append(args)
        if len(calls) == 5:
            raise MemoryError
        return plain(*args)

    monkeypatch.setattr(refill, "results_of", failing)
    with pytest.raises(MemoryError):
        session.fill(holes["overlapping"])
    assert torch.equal(session.fill(holes["removed"]), anew(session, holes["removed"]))


def test_other_dtypes_and_autocast():
    model = small("glcic")
    image, holes = picture(1, 3, 64, 64), strokes(1, 64, 64)
    session = Session(model, image)
    session.fill(holes["first"])
    with torch.autocast("cpu", torch.bfloat16):
        session.fill(holes["first"])
        filled = session.fill(holes["overlapping"])
        assert torch.equal(filled, anew(session, holes["overlapping"]))
    for dtype in (torch.bfloat16, torch.float64):
        model.to(dtype)
        for key in ("first", "overlapping"):
            assert torch.equal(session.fill(holes[key]), anew(session, holes[key])), key


def test_the_picture_is_the_sessions_own():
    image, hole = picture(1, 3, 64, 64), strokes(1, 64, 64)["first"]
    given = image.clone()
    session = Session(small("glcic"), given)
    given.zero_()
    filled = session.fill(hole)
    assert torch.equal(torch.where(hole > 0, 0.0, filled), torch.where(hole > 0, 0.0, image))
    filled.zero_()
    assert torch.equal(session.fill(hole), anew(session, hole))


def test_arguments_are_checked():
    with pytest.raises(TypeError, match="model must be an InpaintingModel, got Linear"):
        Session(nn.Linear(2, 2), picture(1, 3, 16, 16))
    with pytest.raises(TypeError, match="image"):
        Session(small("glcic"), None)
    session = Session(small("glcic"), picture(1, 3, 16, 16))
    with pytest.raises(ValueError, match="hole"):
        session.fill(torch.ones(1, 1, 8, 8))
