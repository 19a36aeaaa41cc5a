"""Methods in half and double precision, under autocast, and with another default dtype."""

import copy
import re
from pathlib import Path

import pytest
import torch
from model_cases import CASES, box, picture, small
from precision import HALVES, autocast, gap, word

from inpaint_ops.features import FeatureNetwork
from inpaint_ops.models import create_model, load_weights, save_weights
from inpaint_ops.models.blocks.conv_block import ConvBlock, initialise
from inpaint_ops.models.blocks.spectral_norm import SpectralNorm
from inpaint_ops.models.gmcnn.recipe import GMCNNRecipe
from inpaint_ops.models.msnps.texture_energies import PAPER_LAYERS

OPTIONS = {
    **{name: (name, {}) for name in CASES},
    "context_encoder alexnet": ("context_encoder", {"variant": "alexnet"}),
    "context_encoder random": ("context_encoder", {"variant": "random_64"}),
    "context_encoder convolutional": ("context_encoder", {"variant": "convolutional"}),
    "deepfill_v2 zhaoyuzhi": ("deepfill_v2", {"variant": "zhaoyuzhi"}),
    "glcic activation first": ("glcic", {"norm_first": False}),
    "glcic poisson": ("glcic", {"blend": "poisson"}),
    "shift_net mirrored": ("shift_net", {"mirror": "exact"}),
}
# Deviation of the weights where those of `small` leave too little signal to lose digits of.
SPREAD = {
    "deepfill_v2": 0.2,
    "glcic": 0.15,
    "glcic activation first": 0.15,
    "glcic poisson": 0.15,
}
# Mean difference from float32 over missing pixels, of [0, 1], which docs/reference/precision.md
# quotes.
COMPLETED = {torch.float16: 1e-3, torch.bfloat16: 1e-2, torch.float64: 1e-5}
# The norm of the difference of a network's gradient by its norm.
LEARNT = {torch.float16: 0.25, torch.bfloat16: 0.5}
EVERY = [*HALVES, torch.float64]


def made(label):
    name, options = OPTIONS[label]
    model = small(name, **options)
    if label in SPREAD:
        initialise(model, SPREAD[label])
    return model


def drawn(label):
    size = CASES[OPTIONS[label][0]].sizes[-1]
    return picture(2, 3, *size), box(2, *size)


WIDE = {}


def wide(label):
    """The completion in float32."""
    if label not in WIDE:
        WIDE[label] = made(label).complete(*drawn(label))
    return WIDE[label]


def check(got, image, label, dtype, tolerance):
    hole = drawn(label)[1].expand_as(got)
    assert got.dtype == image.dtype
    assert torch.equal(got[~hole], image[~hole])
    inside = got[hole].double()
    assert bool(((inside >= 0) & (inside <= 1)).all())
    assert inside.std() > 1e-3
    assert (inside - wide(label)[hole].double()).abs().mean() <= tolerance


@pytest.mark.parametrize("dtype", EVERY, ids=word)
@pytest.mark.parametrize("label", OPTIONS)
def test_complete_in_a_dtype(label, dtype):
    image, hole = drawn(label)
    model = made(label).to(dtype)
    assert model.dtype == dtype
    for given in (image.to(dtype), image):
        check(model.complete(given, hole), given, label, dtype, COMPLETED[dtype])
    assert {p.dtype for p in model.parameters()} == {dtype}


@pytest.mark.parametrize("dtype", HALVES, ids=word)
@pytest.mark.parametrize("label", OPTIONS)
def test_complete_under_autocast(label, dtype):
    image, hole = drawn(label)
    with autocast(dtype):
        check(made(label).complete(image, hole), image, label, dtype, COMPLETED[dtype])


@pytest.mark.parametrize("dtype", EVERY, ids=word)
@pytest.mark.parametrize("name", CASES)
def test_pictures_of_any_dtype(name, dtype):
    image, hole = drawn(name)
    image = image.to(dtype)
    check(made(name).complete(image, hole), image, name, dtype, COMPLETED[dtype])


@pytest.fixture(scope="module")
def textures():
    return FeatureNetwork.untrained("vgg19", layers=PAPER_LAYERS)


@pytest.mark.parametrize(
    "dtype", [None, *HALVES], ids=lambda d: "float32" if d is None else word(d)
)
def test_texture_is_synthesised_in_float32(textures, dtype):
    options = {"energy": "paper", "size": 64, "levels": 2, "iterations": 2}
    image, hole = picture(1, 3, 64, 64), box(1, 64, 64)
    model = small("msnps", **options)
    model.load_features(textures)
    expected = model.synthesise(image, hole.float())
    with autocast(dtype):
        assert torch.equal(model.synthesise(image, hole.float()), expected)
    model.to(dtype)
    got = model.complete(image, hole)
    assert got.dtype == torch.float32
    assert bool(got.isfinite().all())


def phases():
    return [(name, phase) for name in CASES for phase in small(name).recipe_class.phases]


def features_of(name, dtype=torch.float32):
    if name == "gmcnn":  # ID-MRF tells features of many channels apart, not those of a toy
        return FeatureNetwork.untrained(**GMCNNRecipe.feature_network).to(dtype)
    made = CASES[name].features
    return None if made is None else made().to(dtype)


def stepped(name, phase, *, dtype=torch.float32, lower=None, scaler=None, steps=1):
    """The model and the losses after steps on four pictures, in a dtype or under autocast."""
    numbers = {"critic_steps": 1} if "critic_steps" in phase.numbers else {}
    model = small(name).to(dtype)
    recipe = model.recipe(phase.name, features=features_of(name, dtype), scaler=scaler, **numbers)
    n, side = 2 if CASES[name].training > 64 else 4, CASES[name].training
    for _ in range(steps):
        with autocast(lower):
            losses = recipe.step(picture(n, 3, side, side), box(n, side, side))
    return model, losses


def gradients(model):
    """The gradient of each network that has learnt."""
    found = {}
    for name in model.networks:
        parts = [p.grad for p in model.get_submodule(name).parameters() if p.grad is not None]
        if parts:
            found[name] = torch.cat([part.flatten() for part in parts])
    return found


@pytest.mark.parametrize(
    ("name", "phase"), phases(), ids=lambda p: p if isinstance(p, str) else p.name
)
def test_training_step_in_every_precision(name, phase):
    plain, expected = stepped(name, phase)
    exact, losses = stepped(name, phase, dtype=torch.float64)
    for key, value in losses.items():
        assert value == pytest.approx(expected[key], rel=1e-3, abs=1e-5), key
    for key, one in gradients(exact).items():
        assert one.dtype == torch.float64
        # Float32 itself flips a ReLU now and then.
        assert gap(gradients(plain)[key], one) <= 0.05, key
    for lower in HALVES:
        scaler = torch.amp.GradScaler("cpu", init_scale=256.0) if lower == HALVES[0] else None
        model, losses = stepped(name, phase, lower=lower, scaler=scaler)
        for key, value in losses.items():
            assert value == pytest.approx(expected[key], rel=0.1, abs=2e-2), key
        found = gradients(model)
        assert list(found) == list(gradients(plain))
        for key, one in found.items():
            assert one.dtype == torch.float32
            assert bool(one.isfinite().all())
            assert bool(one.any())
            assert gap(one, gradients(plain)[key]) <= LEARNT[lower], key
        moved = [
            not torch.equal(p, q) for p, q in zip(model.parameters(), small(name).parameters())
        ]
        assert any(moved)


@pytest.mark.parametrize("label", sorted(set(OPTIONS) - set(CASES) - {"glcic poisson"}))
def test_training_steps_of_variants(label):
    name, options = OPTIONS[label]
    side = CASES[name].training
    image, hole = picture(2, 3, side, side), box(2, side, side)
    expected = small(name, **options).recipe(features=features_of(name)).step(image, hole)
    for lower in HALVES:
        scaler = torch.amp.GradScaler("cpu", init_scale=256.0) if lower == HALVES[0] else None
        model = small(name, **options)
        recipe = model.recipe(features=features_of(name), scaler=scaler)
        with autocast(lower):
            losses = recipe.step(image, hole)
        for key, value in losses.items():
            assert value == pytest.approx(expected[key], rel=0.1, abs=2e-2), key
        assert all(bool(p.isfinite().all()) for p in model.parameters())


@pytest.mark.parametrize("name", CASES)
def test_training_in_bfloat16_weights(name):
    phase = small(name).recipe_class.phases[0]
    model, losses = stepped(name, phase, dtype=torch.bfloat16)
    expected = stepped(name, phase)[1]
    for key, value in losses.items():
        assert value == pytest.approx(expected[key], rel=0.1, abs=2e-2), key
    assert all(bool(p.isfinite().all()) for p in model.parameters())


@pytest.mark.parametrize("name", CASES)
def test_the_default_dtype_float64(name):
    image, hole = drawn(name)
    model = made(name)
    expected = model.complete(image, hole)
    phase = model.recipe_class.phases[-1]
    trained = stepped(name, phase)[1]
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(model.complete(image, hole), expected)
        again = made(name)
        assert again.dtype == torch.float64
        again.load_state_dict(model.state_dict())
        got = again.complete(image.double(), hole)
        assert (got - expected).abs().mean() <= COMPLETED[torch.float64]
        losses = stepped(name, phase, dtype=torch.float64)[1]
        assert set(losses) == set(trained)
        assert all(abs(value) < float("inf") for value in losses.values())
        # The weights of before, under the new default.
        plain = model.recipe(phase.name, features=features_of(name, torch.float32))
        side = CASES[name].training
        plain.step(picture(2, 3, side, side).float(), box(2, side, side))
    finally:
        torch.set_default_dtype(torch.float32)


def test_scaler_skips_steps_and_is_stored():
    phase = small("deepfill_v2").recipe_class.phases[0]
    model = small("deepfill_v2")
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    recipe = model.recipe(phase.name, scaler=scaler)
    before = {key: value.clone() for key, value in model.named_parameters()}
    image, hole = picture(2, 3, 64, 64), box(2, 64, 64)
    with autocast(torch.float16):
        recipe.step(image, hole)
    moved = {
        k.partition(".")[0] for k, p in model.named_parameters() if not torch.equal(p, before[k])
    }
    assert "generator" not in moved
    assert scaler.get_scale() < 2.0**40
    while "generator" not in moved and scaler.get_scale() > 1:
        with autocast(torch.float16):
            recipe.step(image, hole)
        moved = {
            k.partition(".")[0]
            for k, p in model.named_parameters()
            if not torch.equal(p, before[k])
        }
    assert moved == {"generator", "discriminator"}
    assert all(bool(p.isfinite().all()) for p in model.parameters())
    taken = small("deepfill_v2").recipe(phase.name, scaler=torch.amp.GradScaler("cpu"))
    taken.load_state_dict(recipe.state_dict())
    assert taken.scaler.get_scale() == scaler.get_scale()
    without = small("deepfill_v2").recipe(phase.name)
    without.load_state_dict(recipe.state_dict())


def test_steps_in_one_region_of_autocast_see_new_weights():
    """Autocast keeps rounded weights until it ends; plain nn.Linear layers are among them."""
    side = CASES["deepfill_v1"].training
    image, hole = picture(2, 3, side, side), box(2, side, side)
    results = []
    for together in (True, False):
        recipe = small("deepfill_v1").recipe(critic_steps=2, learning_rate=0.05)
        with autocast(torch.bfloat16 if together else None):
            losses = []
            for _ in range(2):
                with autocast(torch.bfloat16):
                    losses.append(recipe.step(image, hole))
        results.append(losses)
    assert results[0] == results[1]


@pytest.mark.parametrize("dtype", EVERY, ids=word)
def test_spectral_norm_divides_in_float32(dtype):
    torch.manual_seed(0)
    weight = torch.randn(6, 4, 3, 3)
    norm = SpectralNorm(weight)
    lower, half = copy.deepcopy(norm), copy.deepcopy(norm).to(dtype)
    expected = norm(weight)
    with autocast(torch.bfloat16):
        assert torch.equal(lower(weight), expected)
        with torch.no_grad():
            assert torch.equal(lower.eval()(weight), norm.eval()(weight))
    got = half(weight.to(dtype).requires_grad_())
    assert got.dtype == dtype
    tolerance = {torch.float16: 2e-3, torch.bfloat16: 1e-2, torch.float64: 1e-5}[dtype]
    assert gap(got.detach(), expected) <= tolerance
    with torch.no_grad():
        assert gap(half.eval()(weight.to(dtype)), norm.eval()(weight)) <= tolerance


@pytest.mark.parametrize("dtype", EVERY, ids=word)
@pytest.mark.parametrize("transposed", [False, True])
def test_folded_normalisations(dtype, transposed):
    torch.manual_seed(0)
    block = ConvBlock(4, 6, 4, transposed=transposed, stride=2, padding=1).eval()
    block.norm.running_mean.normal_()
    block.norm.running_var.uniform_(1e-5, 2)
    x = torch.randn(2, 4, 16, 16)
    with torch.no_grad():
        expected = block(x)
    block.to(dtype)
    tolerance = {torch.float16: 2e-3, torch.bfloat16: 1.6e-2, torch.float64: 1e-5}[dtype]
    with torch.no_grad():
        got = block(x.to(dtype))
        assert got.dtype == dtype
        assert gap(got, expected) <= tolerance
        block.norm.float()  # as people keep it beside layers in half precision
        assert block(x.to(dtype)).dtype == dtype


@pytest.mark.parametrize("dtype", EVERY, ids=word)
@pytest.mark.parametrize("name", CASES)
def test_weights_keep_the_models_dtype(name, dtype, tmp_path):
    model = small(name).to(dtype)
    file = tmp_path / "weights.safetensors"
    save_weights(model, file)
    wide = create_model(name, weights=file)
    assert {p.dtype for p in wide.parameters()} == {torch.float32}
    for key, value in wide.state_dict().items():
        assert torch.equal(model.state_dict()[key].to(value.dtype), value), key
    for kept in (dtype, torch.bfloat16):
        other = small(name).to(kept)
        load_weights(other, file)
        assert {p.dtype for p in other.parameters()} == {kept}
        for key, value in other.state_dict().items():
            assert torch.equal(model.state_dict()[key].to(value.dtype), value), key


def test_the_document_quotes_these_tolerances():
    text = (Path(__file__).parents[2] / "docs" / "reference" / "precision.md").read_text()
    for label, row in (("after", COMPLETED), ("under", COMPLETED), ("gradients", LEARNT)):
        line = next(one for one in text.splitlines() if re.match(rf"\| .*{label}", one))
        cells = [cell.strip() for cell in line.strip("|").split("|")][1:]
        for cell, dtype in zip(cells, EVERY, strict=True):
            if cell != "–":
                assert float(cell) == row[dtype], line
