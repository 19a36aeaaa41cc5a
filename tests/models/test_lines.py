"""Lines of a user's: DeepFill v2's sketch in the hole, EdgeConnect's edges around it."""

import sys

import pytest
import torch
from model_cases import FORMS, batch, box, picture, recipe_of, small

from inpaint_ops.models import Session, list_models
from inpaint_ops.models.blocks.canny import canny, grey
from inpaint_ops.models.blocks.conv_block import initialise

SIZE = (37, 50)


def lively(name, **options):
    """A small method whose gates let lines through two stages."""
    model = small(name, **options)
    initialise(model, 0.3)
    return model


# Method, its options and the argument that takes lines.
TAKING = [("deepfill_v2", {"sketch": True}, "sketch"), ("edge_connect", {}, "edges")]


def lines(n, h, w, seed=0):
    """Numbers in [0, 1], most of them 0."""
    values = picture(n, 1, h, w, seed=seed)
    return torch.where(picture(n, 1, h, w, seed=seed + 1) > 0.7, values, 0.0)


def drawn(hole, inside):
    """Lines in the hole alone, or around it alone."""
    every = lines(len(hole), *hole.shape[2:])
    return torch.where((hole > 0) == inside, every, 0.0)


@pytest.mark.parametrize("compute", ["needed", "all"])
@pytest.mark.parametrize(("name", "options", "argument"), TAKING)
def test_lines_change_the_filling_and_nothing_else(name, options, argument, compute):
    model = lively(name, **options)
    image, hole = picture(2, 3, *SIZE), box(2, *SIZE)
    inside = argument == "sketch"
    for given in (drawn(hole, inside), drawn(hole, inside)[:1], drawn(hole, inside) > 0.6):
        plain = model.complete(image, hole, compute=compute)
        result = model.complete(image, hole, compute=compute, **{argument: given})
        known = ~hole.expand_as(image)
        assert torch.equal(result[known], image[known])
        assert bool(((result >= 0) & (result <= 1)).all())
        assert not torch.equal(result, plain)
        again = model.complete(image, hole, compute="all", **{argument: given})
        assert torch.equal(result, again)


@pytest.mark.parametrize(("name", "options", "argument"), TAKING)
def test_lines_elsewhere_are_not_looked_at(name, options, argument):
    model = lively(name, **options)
    image, hole = picture(1, 3, *SIZE), box(1, *SIZE)
    ours, others = (drawn(hole, inside) for inside in (argument == "sketch", argument == "edges"))
    one = model.complete(image, hole, **{argument: ours})
    assert torch.equal(one, model.complete(image, hole, **{argument: ours + others}))


def test_a_sketch_is_what_is_above_the_threshold_of_the_source():
    model = lively("deepfill_v2", sketch=True)
    image, hole = picture(1, 3, *SIZE), box(1, *SIZE)
    soft = torch.full((1, 1, *SIZE), 0.6)
    assert torch.equal(model.complete(image, hole, sketch=soft), model.complete(image, hole))
    hard = model.complete(image, hole, sketch=torch.ones(1, 1, *SIZE))
    assert torch.equal(hard, model.complete(image, hole, sketch=soft + 0.01))
    assert not torch.equal(hard, model.complete(image, hole))


def test_edges_of_ones_own_are_those_of_canny_where_they_are():
    model = small("edge_connect")
    image, hole = picture(1, 3, 40, 48), box(1, 40, 48)
    found = canny("test", grey(image.masked_fill(hole, 0.0)), hole, model.sigma)
    given = model.complete(image, hole, edges=found)
    assert torch.equal(given, model.complete(image, hole))


@pytest.mark.parametrize(("name", "options", "argument"), TAKING)
def test_lines_in_windows(name, options, argument):
    """Equal windows of one picture, as cut by hand; and a hole that no window takes whole."""
    model = lively(name, **options)
    image, hole = picture(1, 3, 150, 200), torch.zeros(1, 1, 150, 200)
    hole[..., 60:80, 100:120] = 1
    given = lines(1, 150, 200)
    result = model.complete(image, hole, window=64, **{argument: given})
    part = (..., slice(38, 102), slice(78, 142))
    alone = model.complete(image[part], hole[part], **{argument: given[part]})
    torch.testing.assert_close(result[part], alone, rtol=0, atol=1e-6)
    hole[..., 20:120, 30:150] = 1
    result = model.complete(image, hole, window=64, **{argument: given})
    known = (hole == 0).expand_as(image)
    assert torch.equal(result[known], image[known])
    assert not torch.equal(result, model.complete(image, hole, window=64))


@pytest.mark.parametrize(("name", "options", "argument"), TAKING)
def test_lines_that_change_in_a_session(name, options, argument):
    model = lively(name, **options)
    image, hole = picture(1, 3, 64, 80), box(1, 64, 80)
    session = Session(model, image)
    session.fill(hole)
    for seed in (0, 3):
        given = {argument: lines(1, 64, 80, seed)}
        expected = model.complete(image, hole, **given)
        torch.testing.assert_close(session.fill(hole, **given), expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(session.fill(hole), model.complete(image, hole), rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", list_models())
def test_methods_that_take_no_lines_refuse_them(name):
    model = small(name)
    image, hole = picture(1, 3, 16, 16), box(1, 16, 16)
    for argument in {"sketch", "edges"} - set(model.hint_names):
        given = {argument: torch.zeros(1, 1, 16, 16)}
        for call in (model.complete, Session(model, image).fill):
            arguments = (image, hole) if call == model.complete else (hole,)
            with pytest.raises(ValueError, match=f"{name}.complete: {argument} must be left out"):
                call(*arguments, **given)
        phase = model.recipe_class.phases[0].name
        with pytest.raises(ValueError, match=f"{name}.recipe: {argument} must be left out"):
            recipe_of(model, phase).step(image, hole, **given)


@pytest.mark.parametrize(("name", "options", "argument"), TAKING)
def test_wrong_lines(name, options, argument):
    model = small(name, **options)
    image, hole = picture(2, 3, *SIZE), box(2, *SIZE)
    good = lines(2, *SIZE)
    for bad, kind, text in (
        (good * 255, ValueError, r"must be in \[0, 1\]"),
        (good + float("nan"), ValueError, r"must be in \[0, 1\]"),
        (good[..., 1:], ValueError, "must have shape"),
        (good[:, 0], ValueError, "must have shape"),
        (good.to(torch.int64), TypeError, "must be bool"),
        ([[1]], TypeError, "must be a Tensor"),
    ):
        with pytest.raises(kind, match=f"{name}.complete: {argument} {text}"):
            model.complete(image, hole, **{argument: bad})


def test_a_sketch_is_seen_in_training_by_generator_and_critic():
    model = small("deepfill_v2", sketch=True)
    image, hole = batch("deepfill_v2")
    seen = {}
    for name in ("generator", "discriminator"):

        def note(_, inputs, name=name):
            seen.setdefault(name, inputs[0].detach())

        model.get_submodule(name).register_forward_pre_hook(note)
    found = canny("test", grey(image), None, 2.0)
    assert 0 < found[hole].mean() < 0.9
    wanted = found * hole
    model.recipe().step(image, hole)
    assert torch.equal(seen["generator"][:, 3:4], wanted)
    # True pictures, then filled ones.
    assert torch.equal(seen["discriminator"][:, 4:], torch.cat([wanted, wanted]))
    # The map of another detector, and a network that learns from it.
    seen.clear()
    own = lines(2, *image.shape[2:])
    model.recipe().step(image, hole, sketch=own)
    assert torch.equal(seen["generator"][:, 3:4], (own > 0.6) * hole.float())
    stem = model.generator.coarse.conv1.weight
    assert stem.grad is not None
    assert bool(stem.grad[:, 3].abs().sum() > 0)


def test_edges_of_ones_own_in_training():
    image, hole = batch("edge_connect")
    own = (lines(2, *image.shape[2:]) > 0).float()
    losses = []
    for given in ({}, {"edges": own}, {"edges": canny("test", grey(image), None, 2.0)}):
        losses.append(small("edge_connect").recipe("edge").step(image, hole, **given))
    assert losses[0] == losses[2]
    assert losses[0] != losses[1]


@pytest.mark.parametrize(("name", "options", "argument"), TAKING)
def test_without_scikit_image_lines_must_be_given(name, options, argument, monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage.feature", None)
    image, hole = batch(name)
    form = next(form for form in FORMS if form[:2] == (name, options))
    recipe = recipe_of(small(name, **options), form[2])
    with pytest.raises(ImportError, match=rf"{name}: scikit-image .* 'inpaint-ops\[edges\]'"):
        recipe.step(image, hole)
    recipe.step(image, hole, **{argument: lines(2, *image.shape[2:])})
