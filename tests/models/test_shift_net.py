"""Shift-Net: numbers of the public port, parameter counts, sizes, training terms."""

import pytest
import torch
from model_cases import CASES, ToyFeatures, manifest, synthetic
from support import check_network, golden, network_state

from inpaint_ops.features import FeatureNetwork
from inpaint_ops.models import create_model, load_weights, parameter_counts
from inpaint_ops.models.shift_net.recipe import ShiftNetRecipe


def test_generator_equals_the_port():
    z = golden("shiftnet_gen_s1")
    shapes = {
        key: tuple(n * z["ngf"] // 64 if n > 6 else n for n in shape[:2]) + shape[2:]
        for key, shape in manifest("shiftnet.zhaoyiyan").items()
    }
    state = network_state(shapes, z["seed"], z["gain"])
    assert sum(v.abs().double().sum().item() for v in state.values()) == pytest.approx(
        z["weight_abs_sum"]
    )
    model = create_model("shift_net", weights=state)
    image, hole = z["image_u8"][None].float() / 127.5 - 1, z["mask"][None].float()
    with torch.no_grad():
        y = model.generator(model.prepared(image * (1 - hole), hole), hole)
    check_network(y[0, :, ::2, ::2], z["out_even"])
    assert y.double().sum().item() == pytest.approx(z["out_sum"], abs=1e-4 * z["out_abs_sum"])
    assert y.double().abs().sum().item() == pytest.approx(z["out_abs_sum"], rel=1e-4)


@pytest.mark.parametrize(
    ("options", "count"),
    [({}, 54_944_771), ({"in_channels": 3}, 54_943_747), ({"face": True}, 55_600_131)],
)
def test_parameter_counts(options, count):
    model = create_model("shift_net", **options)
    assert parameter_counts(model) == {"generator": count, "discriminator": 2_766_529}


def small(**options):
    torch.manual_seed(0)
    return create_model("shift_net", **{**CASES["shift_net"].small, **options})


def centre(h=256, w=256):
    hole = torch.zeros(1, 1, h, w)
    hole[:, :, 68:188, 68:188] = 1
    return hole


def test_features_are_those_before_the_shift():
    model = small()
    x = torch.rand(1, 3, 264, 312) * 2 - 1
    hole = centre(264, 312)
    damaged, whole = (model.prepared(picture, hole) for picture in (x * (1 - hole), x))
    picture, features, wanted = model.generator(damaged, hole, whole)
    assert torch.equal(picture, model.generator(damaged, hole))
    assert torch.equal(wanted, model.generator(whole, hole, whole)[1])
    assert features.requires_grad
    assert not wanted.requires_grad
    for one in (features, wanted):
        assert one.shape == (1, 8 * CASES["shift_net"].small["base_channels"], 33, 39)
        assert bool((one >= 0).all())


def test_statistics_of_old_files_are_dropped():
    state = synthetic(manifest("shiftnet.zhaoyiyan_disc"))
    extra = {f"model.3.running_{name}": torch.ones(128) for name in ("mean", "var")}
    model = create_model("shift_net", base_channels=4)
    assert load_weights(model, {**state, **extra}) == ["discriminator"]
    assert torch.equal(model.discriminator.norm2.weight, state["model.3.weight"])


def test_public_terms_of_a_shared_rectangle():
    model = small()
    vgg = ToyFeatures(ShiftNetRecipe.feature_network["layers"])
    recipe = model.recipe("public", features=vgg)
    image = torch.rand(1, 3, 256, 256)
    losses = recipe.step(image, centre())
    total = {"l1": 100, "discounted_l1": 400, "guidance": 1, "adversarial": 0.2}
    total.update(style=10, content=1)
    assert losses["generator"] == pytest.approx(
        sum(weight * losses[name] for name, weight in total.items()), rel=1e-5
    )
    ragged = centre()
    ragged[:, :, 68, 68] = 0
    assert "discounted_l1" not in recipe.step(image, ragged)
    with pytest.raises(ValueError, match="features must be given in phase public"):
        model.recipe("public")


def test_features_of_the_recipe_exist():
    network = FeatureNetwork.untrained(**ShiftNetRecipe.feature_network)
    assert list(network(torch.rand(1, 3, 32, 32))) == ["pool1", "pool2", "pool3"]


def test_guidance_pulls_the_decoder_towards_the_truth():
    model = small()
    recipe = model.recipe(l1=0.0, adversarial=0.0, guidance=100.0, learning_rate=1e-3)
    image = torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(1))
    values = [recipe.step(image, centre())["guidance"] for _ in range(6)]
    assert values[-1] < values[0]


def test_wrong_options():
    with pytest.raises(ValueError, match="shift_net: in_channels must be 3 or 4, got 5"):
        create_model("shift_net", in_channels=5)
    with pytest.raises(ValueError, match="shift_net: mirror must be one of port, exact, got 'on'"):
        create_model("shift_net", mirror="on")
    with pytest.raises(ValueError, match="shift_net: norm must be one of instance, batch"):
        create_model("shift_net", norm="switchable")
