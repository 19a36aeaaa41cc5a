"""What recipes ask for, and what they make of extreme holes."""

import math

import pytest
import torch
from model_cases import PHASES, batch, recipe_of, small

from inpaint_ops.features import FeatureNetwork, InputRule
from inpaint_ops.models import list_models, model_class
from inpaint_ops.models.training import adam

# All phases; other forms of a method have the same losses, but for one.
EXTREME = [
    *((name, {}, phase) for name, phase in PHASES),
    ("context_encoder", {"variant": "alexnet"}, "reconstruction"),
]
NEEDING = [
    (name, phase.name)
    for name in list_models()
    for recipe in (model_class(name).recipe_class,)
    for phase in recipe.phases
    if recipe.needs_features(phase.numbers)
]


def holes(n, h, w):
    """Masks by name: nothing is missing, all is, or each of both somewhere in the batch."""
    none, every = torch.zeros(n, 1, h, w), torch.ones(n, 1, h, w)
    return {
        "nothing": none,
        "everything": every,
        "one of all": torch.cat([every[:1], none[1:]]),
    }


@pytest.mark.parametrize(("name", "options", "phase"), EXTREME, ids=str)
def test_steps_with_extreme_holes(name, options, phase):
    model = small(name, **options)
    recipe = recipe_of(model, phase)
    image, hole = batch(name)
    usual = recipe.step(image, hole)
    for key, extreme in holes(len(image), *image.shape[2:]).items():
        losses = recipe.step(image, extreme)
        for loss, value in losses.items():
            assert math.isfinite(value), (key, loss)
            # No divisor of a mean over the hole blows it up.
            assert abs(value) < 30 * abs(usual.get(loss, 1.0)) + 10, (key, loss, value)
    for key, value in model.state_dict().items():
        assert bool(torch.isfinite(value.double()).all()), key


@pytest.mark.parametrize(("name", "phase"), NEEDING)
def test_a_missing_feature_network_is_named_as_the_source_has_it(name, phase):
    model = small(name)
    asked = model.recipe_class.feature_network
    with pytest.raises(ValueError, match=f"{name}.recipe: features must be given in") as caught:
        model.recipe(phase)
    text = str(caught.value)
    for word in (phase, asked["name"], repr(asked["rule"]), *asked["layers"]):
        assert word in text


@pytest.mark.parametrize(("name", "phase"), NEEDING)
def test_without_weight_losses_of_features_need_no_network(name, phase):
    model = small(name)
    with_features = recipe_of(model, phase).step(*batch(name))
    zeros = dict.fromkeys(model.recipe_class.feature_losses, 0.0)
    asked = {key: 0.0 for key in zeros if key in with_features}
    losses = model.recipe(phase, **asked).step(*batch(name))
    assert set(losses) == set(with_features) - set(zeros)


@pytest.mark.parametrize(("name", "phase"), NEEDING)
def test_a_recipe_makes_the_feature_network_of_its_source(name, phase):
    model = small(name)
    asked = model.recipe_class.feature_network
    state = torchvision_state(asked)
    made = model.recipe(phase, features=state).features
    assert (made.name, made.layers) == (asked["name"], tuple(asked["layers"]))
    given = FeatureNetwork(weights=state, **asked)
    assert model.recipe(phase, features=given).features is given
    x = torch.rand(1, 3, 32, 32)
    for key, value in given(x).items():
        assert torch.equal(made(x)[key], value)


def torchvision_state(asked):
    """Weights under torchvision's keys, as a network of those arguments has them."""
    network = FeatureNetwork.untrained(**asked)
    found = {}
    for step in network._steps:
        if step.position is not None:
            layer = network.convolutions[step.labels[0]]
            found[f"features.{step.position}.weight"] = layer.weight
            found[f"features.{step.position}.bias"] = layer.bias
    return found


@pytest.mark.parametrize(("name", "phase"), NEEDING)
def test_another_feature_network_is_refused(name, phase):
    model = small(name)
    asked = model.recipe_class.feature_network
    other = {
        "rule": "centred" if asked["rule"] != "centred" else "imagenet",
        "name": "vgg16" if asked["name"] == "vgg19" else "vgg19",
        "layers": asked["layers"][:1],
    }
    for option, value in other.items():
        if option == "name" and "relu3_4" in asked["layers"]:
            continue
        network = FeatureNetwork.untrained(**{**asked, option: value})
        with pytest.raises(ValueError, match=rf"features must be those .*{name_of(asked)}.*got"):
            model.recipe(phase, features=network)
    wider = {**asked, "layers": (*asked["layers"], "relu1_2")}
    model.recipe(phase, features=FeatureNetwork.untrained(**wider))


def name_of(asked):
    return asked["name"]


def test_the_default_rule_is_that_of_one_method_alone():
    rules = {name: model_class(name).recipe_class.feature_network["rule"] for name, _ in NEEDING}
    assert rules == {
        "edge_connect": "plain",
        "gmcnn": "centred",
        "partial_conv_unet": "imagenet",
        "shift_net": "plain",
    }
    assert FeatureNetwork.untrained("vgg16", layers=["pool1"]).has("rule", "imagenet")
    assert not FeatureNetwork.untrained("vgg16", layers=["pool1"]).has("rule", InputRule())


@pytest.mark.parametrize("name", list_models())
def test_phases_are_those_that_recipes_take(name):
    for variant in ("", *model_class(name).variant_recipes):
        model = small(name, **({"variant": variant} if variant else {}))
        assert model.phases
        for phase in model.phases:
            assert recipe_of(model, phase.name).phase == phase
    if name == "context_encoder":
        assert [one.name for one in model.phases] == ["reconstruction"]
        assert [one.name for one in small(name).phases] == ["joint"]


def test_adam_in_one_pass_does_what_torch_does_by_default():
    torch.manual_seed(0)
    weights = [torch.nn.Parameter(torch.randn(37)) for _ in range(2)]
    idle = torch.nn.Parameter(torch.randn(3), requires_grad=False)
    ours = adam([weights[0], idle], 1e-2, (0.5, 0.9))
    plain = torch.optim.Adam([weights[1]], lr=1e-2, betas=(0.5, 0.9))
    weights[1].data.copy_(weights[0].data)
    assert ours.defaults["fused"]
    for step in range(5):
        for weight, optimizer in zip(weights, (ours, plain)):
            weight.grad = torch.cos(torch.arange(37.0) * (step + 1))
            optimizer.step()
    assert torch.allclose(*weights, rtol=1e-6, atol=1e-7)
    assert not adam([torch.nn.Parameter(torch.empty(2, device="meta"))], 1e-2).defaults["fused"]
