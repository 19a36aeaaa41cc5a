"""DeepFill v1: numbers of the public port, parameter counts, critics, layouts, window."""

import pytest
import torch
from model_cases import CASES, manifest, synthetic
from support import check_network, golden, network_state

from inpaint_ops.models import WeightsNote, create_model, load_weights, parameter_counts


def test_generator_equals_the_port():
    z = golden("deepfillv1_gen_s1")
    shapes = {
        key: tuple(n * z["cnum"] // 32 if n > 6 else n for n in shape[:2]) + shape[2:]
        for key, shape in manifest("deepfillv1.daa233").items()
    }
    state = network_state(shapes, z["seed"], z["gain"])
    assert sum(v.abs().double().sum().item() for v in state.values()) == pytest.approx(
        z["weight_abs_sum"]
    )
    model = create_model("deepfill_v1", weights=state)
    image, hole = z["image_u8"][None].float() / 127.5 - 1, z["mask"][None].float()
    with torch.no_grad():
        first, second = model.generator(image * (1 - hole), hole)
    check_network(first, z["x1"])
    check_network(second, z["x2"])


def test_parameter_counts():
    model = create_model("deepfill_v1")
    assert parameter_counts(model) == {
        "generator": 3_601_542,
        "global_critic": 2_733_441,
        "local_critic": 4_339_329,
    }
    assert sum(p.numel() for p in model.generator.coarse.parameters()) == 1_448_227
    port = create_model("deepfill_v1", local_channels=256, padding="symmetric")
    assert parameter_counts(port)["local_critic"] == 2_684_289


def small(**options):
    torch.manual_seed(0)
    return create_model("deepfill_v1", **{**CASES["deepfill_v1"].small, **options})


def test_converted_weights_get_the_official_arithmetic():
    state = synthetic(manifest("deepfillv1.daa233"))
    converted = {f"netG.{key}": value for key, value in state.items()}
    critic = {"localD.linear.bias": torch.ones(1)}
    with pytest.warns(WeightsNote, match="does not tell channel_order='bgr'"):
        model = create_model("deepfill_v1", weights={**converted, **critic}, layout="daa233_tf")
    assert (model.padding, model.pick, model.key_norm) == ("same", "align_corners", "max")
    assert model.channel_order == "bgr"
    port = create_model("deepfill_v1", weights=state)
    assert (port.padding, port.pick, port.key_norm) == ("symmetric", "floor", "sum")
    assert port.channel_order == "rgb"


def test_a_file_with_both_critics():
    names = {"globalD": "global", "localD": "local"}
    file = {
        key: synthetic(manifest(f"deepfillv1.daa233_{name}_disc")) for key, name in names.items()
    }
    model = create_model("deepfill_v1", weights=file, partial=True)
    assert model.size == 256
    assert model.local_channels == 256
    assert torch.equal(model.global_critic.linear.weight, file["globalD"]["linear.weight"])
    assert load_weights(model, file["localD"]) == ["local_critic"]


def test_critics_have_second_derivatives():
    model = small()
    x = torch.rand(2, 3, 64, 64, requires_grad=True)
    (slope,) = torch.autograd.grad(model.global_critic(x).sum(), x, create_graph=True)
    slope.square().sum().backward()
    assert bool(model.global_critic.conv1.weight.grad.any())


def test_step_counts_and_weights():
    model = small()
    recipe = model.recipe(critic_steps=2)
    image = torch.rand(2, 3, 64, 64)
    hole = torch.zeros(2, 1, 64, 64)
    hole[:, :, 20:40, 20:50] = 1
    losses = recipe.step(image, hole)
    total = 1.2 * losses["l1"] + 1.2 * losses["known"] + 0.001 * losses["adversarial"]
    assert losses["generator"] == pytest.approx(total, rel=1e-5)
    steps = {
        name: int(next(iter(one.state.values()))["step"]) for name, one in recipe.optimizers.items()
    }
    assert steps == {"generator": 1, "critics": 2}
    with pytest.raises(ValueError, match="image must be 64 x 64, got 32 x 64"):
        recipe.step(image[:, :, :32], hole[:, :, :32])


@pytest.mark.parametrize(
    "options", [{"base_channels": 7}, {"padding": "reflect"}, {"size": 100}, {"key_norm": "l2"}]
)
def test_wrong_options(options):
    with pytest.raises(ValueError, match="must be"):
        create_model("deepfill_v1", **options)
