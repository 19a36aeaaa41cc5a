"""Every method under torch.inference_mode: the bits of no_grad, and usable afterwards."""

import pytest
import torch
from model_cases import CASES, box, picture, small

from inpaint_ops.features import FeatureNetwork
from inpaint_ops.models import create_model, list_models, save_weights
from inpaint_ops.models.msnps.texture_energies import PAPER_LAYERS, RELEASED_LAYERS

NAMES = list_models()
SIZE = (37, 50)


@pytest.mark.parametrize("name", NAMES)
def test_a_script_wholly_in_inference_mode(name, tmp_path):
    image, hole = picture(1, 3, *SIZE), box(1, *SIZE)
    expected = small(name).complete(image, hole)
    with torch.inference_mode():
        model = small(name)
        first = model.complete(picture(1, 3, *SIZE), box(1, *SIZE))
        second = model.complete(image, hole)
        save_weights(model, tmp_path / "weights.safetensors")
        loaded = create_model(name, weights=tmp_path / "weights.safetensors")
        third = loaded.complete(image, hole)
    # Outside again, with weights that autograd does not take.
    fourth = model.complete(image, hole)
    for result in (first, second, third, fourth):
        assert torch.equal(result, expected)


@pytest.mark.parametrize("name", NAMES)
def test_a_model_from_outside_completes_inside_and_trains_afterwards(name):
    image, hole = picture(1, 3, *SIZE), box(1, *SIZE)
    model = small(name)
    with torch.inference_mode():
        inside = model.complete(image, hole)
    assert inside.is_inference()
    assert torch.equal(inside, model.complete(image, hole))
    assert not any(t.is_inference() for t in (*model.parameters(), *model.buffers()))
    case = CASES[name]
    features = case.features() if case.features is not None else None
    recipe = model.recipe(features=features)
    side = case.training
    recipe.step(picture(2, 3, side, side), box(2, side, side))
    outside = model.complete(image, hole)
    with torch.inference_mode():
        assert torch.equal(model.complete(image, hole), outside)
    assert not torch.equal(inside, outside)


@pytest.mark.parametrize(
    ("energy", "layers"), [("paper", PAPER_LAYERS), ("released", RELEASED_LAYERS)]
)
@pytest.mark.parametrize("inside", [False, True], ids=["features_outside", "features_inside"])
def test_texture_synthesis_takes_its_derivatives(energy, layers, inside):
    options = {"base_channels": 8, "bottleneck": 16, "size": 64, "levels": 1, "iterations": 2}
    image, hole = picture(1, 3, 64, 64), box(1, 64, 64)
    model = create_model("msnps", energy=energy, **options)

    def synthesised():
        with torch.inference_mode(inside and torch.is_inference_mode_enabled()):
            torch.manual_seed(0)
            features = FeatureNetwork.untrained("vgg19", layers=layers)
        model.load_features(features)
        return model.complete(image, hole)

    expected = synthesised()
    with torch.inference_mode():
        assert torch.equal(synthesised(), expected)
    model.energy = "none"
    assert not torch.equal(model.complete(image, hole), expected)
